"""What a step function is given beside its inputs."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from icestream.documents import read_lists
from icestream.flow.declaration.program import FoundProgram, Program


class Params(BaseModel):
    """The parameters of a step; subclasses add fields with a description each. A list may also be given as text, ``0, 180``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_lists(cls, given: Any) -> Any:
        return read_lists(cls, given) if isinstance(given, Mapping) else given


@dataclass(frozen=True)
class Limit:
    """A parameter that limits a measure, as `limits` says it."""

    metric: str
    side: Literal["most", "least", "range"]
    factor: float = 1.0


def limits(metric: str, side: Literal["most", "least", "range"], *, factor: float = 1.0) -> JsonDict:
    """Say, as ``json_schema_extra`` of a parameter of a filter, which measure of a record it limits.

    The page of series draws it there as a line that can be moved. ``metric`` is what the measure is called in monitoring; its
    values are ``factor`` times those of the parameter.
    """
    return {"limits": {"metric": metric, "side": side, "factor": factor}}


def limit_of(info: FieldInfo) -> Limit | None:
    """Return which measure a parameter limits; None where it says nothing of that."""
    said = info.json_schema_extra.get("limits") if isinstance(info.json_schema_extra, dict) else None
    return Limit(**said) if isinstance(said, dict) else None  # type: ignore[arg-type]


@dataclass(frozen=True)
class Published:
    """A file being written: write to ``path``; when the ``with`` block ends well it is published as ``ref``."""

    path: Path
    ref: str


@dataclass(frozen=True)
class Exposure:
    """The identity of an exposure: its content id, and a name that is safe in a file name.

    ``ordinal`` counts the exposures of the session from 1 as they arrived (0 for a batch or version). It is no part of what makes
    a result: only steps that decide membership may use it.
    """

    id: str
    name: str
    ordinal: int = 0


@dataclass(frozen=True)
class InputNames:
    """Which steps the items of list inputs come from, by port; a step that asks for it has this in the keys of its results.

    ``given`` goes along with the items of the list, ``missing`` had none for this exposure.
    """

    given: Mapping[str, tuple[str, ...]]
    missing: Mapping[str, tuple[str, ...]]


class Context(Protocol):
    """The engine's side of one call of a step."""

    @property
    def exposure(self) -> Exposure:
        """The exposure (or batch, or version) this call works on."""

    @property
    def cores(self) -> int:
        """How many cores were granted; thread pools are set to it already."""

    @property
    def gpu(self) -> int | None:
        """The GPU that was granted, by its index on the machine, or None: compute on cores.

        The process sees only this one, so CUDA libraries, and programs that the step starts, know it as device 0.
        """

    @property
    def reduced(self) -> bool:
        """The first try ran out of memory: this is the last one, alone and on one core. Work in smaller pieces."""

    @property
    def seed(self) -> int:
        """A seed derived from the result's key: the same at every repetition."""

    @property
    def closing(self) -> bool:
        """Accumulators only: the stream has closed and this is the last call."""

    @property
    def version(self) -> int:
        """Accumulators only: the version that this call will publish, from 1."""

    @property
    def checkpoint_dir(self) -> Path:
        """A folder that survives attempts at the same item."""

    @property
    def work_folder(self) -> Path:
        """A private folder of this call, empty at first: removed when the call ends, and after a crash."""

    def program(self, program: Program) -> FoundProgram:
        """Return where a program that the step declares is and how the facility wants it run; the result will name it.

        Raises
        ------
        OSError
            It is not on the machine of this worker.
        """

    def keep_log(self, log: Path) -> str:
        """Keep the log of a program with the session, because the call fails; return where (``session:logs/…``)."""

    def path(self, ref: str) -> Path:
        """Return the absolute path of a file named by a record.

        Raises
        ------
        FileRemoved
            It was removed to free the disk. Let it pass: the file is computed again, and the step is called once more.
        """

    def publish(self, suffix: str) -> AbstractContextManager[Published]:
        """Write a result file named after the exposure with ``suffix`` (``"_dw.mrc"``), atomically."""

    def export_folder(self) -> Path:
        """Accumulators, and maps of snapshots: a folder of this step under ``exports/``, for files that are kept up to date."""

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far a long call has come."""

    def cancelled(self) -> bool:
        """Tell whether the call should end early; its result will not be used."""


@dataclass(frozen=True)
class Progress:
    """What a gate, a batch or an accumulator is asked to decide on. Counts are exposures and, by weight, particles.

    ``elapsed_s`` is the session's uptime since something first waited at this gate, or for this batch: it counts only while a
    runner is up and not paused, and goes on after a restart (of an accumulator it is 0). ``released`` says that a person lets it
    go now. ``batches`` is how many batches were closed before.
    """

    waiting: int
    waiting_weight: int
    passed: int
    passed_weight: int
    stream_closed: bool
    elapsed_s: float = 0.0
    released: bool = False
    batches: int = 0

    def wait_for(self, target: int, counted: str) -> "Verdict":
        """Hold on until so many exposures are waiting, or no more come; ``counted`` is what people call them, as in "movies"."""
        if self.stream_closed or self.waiting >= target:
            return keep()
        return wait(f"{self.waiting} of {target} {counted}")


@dataclass(frozen=True)
class Verdict:
    """Keep or reject an exposure; open or hold a gate; close or continue a batch; call or wait an accumulator.

    ``last`` (gates and batches): what waits passes, and then the step closes for good. ``until_s`` (gates and batches): ask again
    once `Progress.elapsed_s` has come to this, though nothing new comes; a gate that says so outlasts the closing of its stream.
    """

    accepted: bool
    reason: str | None = None
    last: bool = False
    until_s: float | None = None


def keep() -> Verdict:
    """Accept the item; open the gate; close the batch; call the accumulator."""
    return Verdict(accepted=True)


def reject(reason: str) -> Verdict:
    """Set the item aside, for a reason that people will read."""
    return Verdict(accepted=False, reason=reason)


def wait(reason: str, *, until_s: float | None = None) -> Verdict:
    """Hold on, for a reason that people will read; ask again once so much time has passed (``math.inf``: until released)."""
    return Verdict(accepted=False, reason=reason, until_s=until_s)
