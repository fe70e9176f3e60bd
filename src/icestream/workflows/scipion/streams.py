"""What Scipion's protocols that hold, divide and join streams are in icestream: the step, its parameters, its inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from icestream.flow.declaration import find_step, step_names
from icestream.workflows.scipion.convert import AbsentError, Reader, UntranslatableError, as_seconds
from icestream.workflows.scipion.parse import Pointer, Protocol

PORTS = {
    "trigger": "items",
    "batches": "items",
    "milestones": "items",
    "union": "items",
    "sample": "item",
    "split": "item",
    "subset": "item",
}
"""The input of each step type that carries what is passed on."""

COLLECTS = frozenset({"batches", "milestones"})
_DEFAULT_COUNT = 10_000
_MOST_MILESTONES = 10
_BY_PARTICLES = 2
_TEMPLATE_2D = "input2dProtocol"
_WAITING = ("waitingTime", "waitTime", "timeout", "seconds")


@dataclass(frozen=True)
class Flow:
    """One step that handles a stream, whatever is in it; ``also`` pairs further inputs with parameters of the protocol."""

    use: str
    params: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    also: dict[str, str] = field(default_factory=dict)
    classifies: str | None = None
    """Each set of particles is classified: the parameter that names the protocol whose parameters that has."""


@dataclass(frozen=True)
class FlowMapping:
    """What becomes of a protocol: which of its parameters names the stream, and how its step is made from the rest.

    ``fields`` pairs parameters that a template may ask for with those of the step; ``reads`` are others that decide about it.
    """

    inputs: tuple[str, ...]
    make: Callable[[Reader, str], Flow]
    fields: dict[str, str] = field(default_factory=dict)
    reads: tuple[str, ...] = ()


def installed(use: str) -> bool:
    """Tell whether a step type is there."""
    return use in step_names()


def why_refused(use: str, params: dict[str, Any]) -> str | None:
    """Return why a step cannot be made; None if it can."""
    if not installed(use):
        return f"the step type {use} is not installed"
    try:
        find_step(use).params.model_validate(params)
    except ValidationError as error:
        return f"{use} refuses: " + "; ".join(issue["msg"] for issue in error.errors())
    return None


def tell_unread(protocol: Protocol, mapping: FlowMapping) -> list[str]:
    """Return what a person should know about numbers and times that could not be read, so that a default holds."""
    notes = []
    for name, ours in mapping.fields.items():
        try:
            if isinstance(value := protocol.values.get(name), Pointer):
                raise UntranslatableError(f"{name} is taken from protocol {value}")
            as_seconds(Reader(protocol), (name,))
        except AbsentError:
            continue
        except UntranslatableError as error:
            notes.append(f"{error}; look at {ours}")
    return notes


def _number(reader: Reader, name: str, default: float | None = None) -> float | None:
    try:
        return reader.number(name)
    except (AbsentError, UntranslatableError):
        return default


def _count(reader: Reader, name: str, default: int = _DEFAULT_COUNT) -> int:
    return max(1, int(_number(reader, name, default) or default))


def _flag(reader: Reader, name: str, *, default: bool) -> bool:
    try:
        return reader.flag(name, default=default)
    except UntranslatableError:
        return default


def _hours(reader: Reader, *names: str) -> float | None:
    for name in names:
        try:
            seconds = as_seconds(reader, (name,))
        except (AbsentError, UntranslatableError):
            continue
        if seconds > 0:
            return round(seconds / 3600, 4)
    return None


def _trigger_data(reader: Reader, counted: str) -> Flow:
    size = {"count": _count(reader, "outputSize"), "counted": counted}
    if not _flag(reader, "allImages", default=True):
        return Flow("trigger", {"mode": "static", **size})
    if _flag(reader, "splitImages", default=False):
        return Flow("batches", size)
    return Flow("trigger", {"mode": "growing", **size})


def _data_counter(reader: Reader, counted: str) -> Flow:
    params = {"mode": "static", "count": _count(reader, "outputSize"), "counted": counted}
    hours = _hours(reader, "timeout") if _flag(reader, "boolTimer", default=True) else None
    return Flow("trigger", params | ({} if hours is None else {"after_h": hours}))


def _data_sampler(reader: Reader, _counted: str) -> Flow:
    fraction = _number(reader, "samplingProportion", 0.25)
    return Flow("sample", {"fraction": fraction}, ("exposures are drawn as they arrive, not particles by batches of batchSize",))


def _checkpoint(reader: Reader, _counted: str) -> Flow:
    hours = _hours(reader, "timeout") if _flag(reader, "boolTimer", default=True) else None
    return Flow("trigger", {"manual": True} | ({} if hours is None else {"release_after_h": hours}))


def _wait(reader: Reader, _counted: str) -> Flow:
    hours = _hours(reader, *_WAITING)
    return Flow(
        "trigger", {"after_h": hours if hours is not None else 1.0}, () if hours is not None else ("the time is not stated",)
    )


def _streamer_2d(reader: Reader, _counted: str) -> Flow:
    size = _count(reader, "batchSize", 25_000)
    most = _most_sets(reader, size)
    skipped = _number(reader, "startingNumber", 0) or 0
    notes = (f"startingNumber {skipped:g}: the first particles are not left out",) if skipped > 0 else ()
    if _flag(reader, "cumulativeBatch", default=False):
        shown = min(most or _MOST_MILESTONES, _MOST_MILESTONES)
        params: dict[str, Any] = {"at": [size * number for number in range(1, shown + 1)], "counted": "particles"}
        if most == shown:
            return Flow("milestones", {**params, "then": "stop"}, notes, classifies=_TEMPLATE_2D)
        return Flow("milestones", params, (f"the first {_MOST_MILESTONES} sets, then doublings", *notes), classifies=_TEMPLATE_2D)
    limit = {} if most is None else {"max_batches": most}
    return Flow("batches", {"count": size, "counted": "particles", **limit}, notes, classifies=_TEMPLATE_2D)


def _most_sets(reader: Reader, size: int) -> int | None:
    """Return after how many sets the launcher stops: by jobs or by particles; None if it does not."""
    option = _number(reader, "maximumOption", 0)
    if option == 1:
        return _count(reader, "classificationJobs", 10)
    return math.ceil(_count(reader, "numberParticles", 100_000) / size) if option == _BY_PARTICLES else None


def _subset(reader: Reader, _counted: str) -> Flow:
    if _flag(reader, "chooseAtRandom", default=False):
        first = _count(reader, "nElements", 2)
        return Flow("subset", {"first": first}, (f"the first {first} exposures, not {first} members at random",))
    port = "not_in" if _number(reader, "setOperation") == 1 else "also_in"
    return Flow("subset", notes=("whole exposures are compared, not members of sets",), also={port: "inputSubSet"})


def _subset_by(parameter: str) -> Callable[[Reader, str], Flow]:
    def make(_reader: Reader, _counted: str) -> Flow:
        return Flow("subset", notes=("whole exposures are kept or not",), also={"also_in": parameter})

    return make


def _split(reader: Reader, _counted: str) -> Flow:
    parts = max(2, _count(reader, "numberOfSets", 2))
    return Flow("split", {"parts": parts}, (f"part 1 of {parts}; write a step for each other part, with part: 2 and so on",))


def _union(_reader: Reader, _counted: str) -> Flow:
    return Flow("union", notes=("of several items of one exposure the first is taken",))


_ANY = ("inputImages", "inputSet", "inputParticles", "inputMicrographs", "inputCoordinates", "inputMovies", "inputCTF")

_TRIGGER_READS = ("allImages", "splitImages", "delay", "triggerWait", "triggerSignal", "triggerProt")
_LAUNCHER_READS = (
    *("cumulativeBatch", "maximumOption", "classificationJobs", "numberParticles", "startingNumber", "samplingInterval"),
    "input2dProtocol",
)

FLOWS: dict[str, FlowMapping] = {
    "XmippProtTriggerData": FlowMapping(_ANY, _trigger_data, {"outputSize": "count"}, _TRIGGER_READS),
    "ProtDataCounter": FlowMapping(_ANY, _data_counter, {"outputSize": "count", "timeout": "after_h"}, ("boolTimer",)),
    "ProtDataSampler": FlowMapping(_ANY, _data_sampler, {"samplingProportion": "fraction"}),
    "ProtManualCheckpoint": FlowMapping(_ANY, _checkpoint, {"timeout": "release_after_h"}, ("boolTimer",)),
    "ProtWait": FlowMapping(_ANY, _wait, dict.fromkeys(_WAITING, "after_h")),
    "ProtMonitor2dStreamer": FlowMapping(_ANY, _streamer_2d, {"batchSize": "count"}, _LAUNCHER_READS),
    "ProtSubSet": FlowMapping(("inputFullSet",), _subset, reads=("chooseAtRandom", "nElements", "setOperation")),
    "ProtSubSetByMic": FlowMapping(("inputParticles",), _subset_by("inputMicrographs")),
    "ProtSubSetByCoord": FlowMapping(("inputParticles",), _subset_by("inputCoordinates")),
    "ProtSplitSet": FlowMapping(("inputSet",), _split, {"numberOfSets": "parts"}),
    "ProtUnionSet": FlowMapping(("inputSets",), _union),
}
"""Triggers, checkpoints, samples, subsets, splits and unions, by class name."""
