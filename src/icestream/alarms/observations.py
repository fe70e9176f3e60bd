"""What is seen of a session and of its machine at one moment: all that rules are judged by."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from icestream.alarms.rules import SystemValue

LEAST_SPAN_S = 10.0
"""Of a shorter time there is no rate."""
ABANDONED_S = 24 * 3600.0
"""A session whose runner died so long ago is left alone: whoever wanted it to go on has been told."""


@dataclass(frozen=True)
class Value:
    """A measure of one exposure, or of one version of a whole; ``seq`` orders them as they were measured."""

    seq: int
    at: float
    exposure: str
    value: float
    unit: str | None = None
    """The id of the exposure, by which it is addressed."""


@dataclass(frozen=True)
class Measured:
    """The newest values of one measure, oldest first; ``id`` is the step, a colon and ``metric``."""

    id: str
    step: str
    label: str
    step_label: str
    unit: str
    metric: str
    better: Literal["low", "high"] | None
    whole: bool
    values: tuple[Value, ...]


@dataclass(frozen=True)
class RecentOutcome:
    """What a step decided about an exposure that it worked on."""

    seq: int
    at: float
    exposure: str
    status: str
    reason: str = ""
    unit: str | None = None


@dataclass(frozen=True)
class StepSeen:
    """One step: how many exposures wait for it, and its newest outcomes, newest first."""

    name: str
    label: str
    waiting: int
    recent: tuple[RecentOutcome, ...] = ()


@dataclass(frozen=True)
class LostWorker:
    """An attempt that ended because its worker died."""

    seq: int
    at: float
    step: str
    exposure: str
    unit: str | None = None


@dataclass(frozen=True)
class RunnerSeen:
    """Who processes the session."""

    state: Literal["not started", "running", "finished", "stopped", "interrupted"] = "running"
    host: str | None = None
    silence_s: float | None = None
    paused: bool = False
    started_at: float | None = None
    note: str | None = None

    @property
    def at_work(self) -> bool:
        """Tell whether the session is to be watched: its runner is alive, or died not too long ago."""
        died = self.state == "interrupted" and (self.silence_s or 0.0) < ABANDONED_S
        return self.state == "running" or died


@dataclass(frozen=True)
class TransferSeen:
    """A transfer that belongs to the session, as its ledger tells."""

    source: str
    target: str
    doing: Literal["running", "paused", "stopped", "interrupted"]
    note: str | None
    since: float
    """When it entered this state; of one that was interrupted, its last sign of life."""
    failed: int = 0
    """Files that fail, and are being retried."""

    @property
    def subject(self) -> str:
        """What alarms are said to be about."""
        return f"{self.source} to {self.target}"


@dataclass(frozen=True)
class ArrivalsSeen:
    """How exposures arrive; ``expected`` while a source is open."""

    expected: bool = False
    newest: str | None = None
    newest_at: float | None = None
    usual_s: float | None = None
    """The usual time between two of them."""
    recent: int = 0
    """How many of the newest the rate is about."""
    recent_from: float | None = None
    """When the first of these arrived."""

    def per_hour(self, now: float) -> float | None:
        """Return the rate until now: it falls once none arrives for longer than usual."""
        if self.recent < 2 or self.recent_from is None or self.newest_at is None:
            return None
        span_s = max(self.newest_at, now - (self.usual_s or 0.0)) - self.recent_from
        return (self.recent - 1) / span_s * 3600 if span_s >= LEAST_SPAN_S else None


@dataclass(frozen=True)
class Totals:
    """Exposures, and how many of them failed or were rejected somewhere."""

    exposures: int = 0
    failed: int = 0
    rejected: int = 0


class Gpu(BaseModel):
    """One GPU at a moment."""

    model_config = ConfigDict(frozen=True)

    index: int
    name: str
    use_percent: float | None = None
    memory_percent: float | None = None
    temperature_c: float | None = None


class Sample(BaseModel):
    """The machine at one moment; what cannot be known is unset. Rates are means since the sample before."""

    model_config = ConfigDict(frozen=True)

    at: float
    host: str
    cpu_percent: float | None = None
    memory_percent: float | None = None
    swap_percent: float | None = None
    disk_percent: Annotated[float | None, Field(description="Used, of the disk of the session")] = None
    disk_free_gb: float | None = None
    disk_read_mb_s: float | None = None
    disk_write_mb_s: float | None = None
    network_in_mb_s: float | None = None
    network_out_mb_s: float | None = None
    gpus: tuple[Gpu, ...] = ()

    def values(self, wanted: SystemValue) -> dict[str, float]:
        """Return the value by its subject: the machine, or each of its GPUs."""
        if wanted.startswith("gpu"):
            name = {"gpu": "use_percent", "gpu_memory": "memory_percent", "gpu_temperature": "temperature_c"}[wanted]
            found = {f"GPU {one.index}": getattr(one, name) for one in self.gpus}
        else:
            found = {self.host: getattr(self, _FIELDS[wanted])}
        return {subject: value for subject, value in found.items() if value is not None}


_FIELDS: dict[str, str] = {
    "cpu": "cpu_percent",
    "memory": "memory_percent",
    "swap": "swap_percent",
    "disk": "disk_percent",
    "disk_free": "disk_free_gb",
    "disk_read": "disk_read_mb_s",
    "disk_write": "disk_write_mb_s",
    "network_in": "network_in_mb_s",
    "network_out": "network_out_mb_s",
}


@dataclass(frozen=True)
class Observations:
    """Everything that is seen of a session at one moment."""

    runner: RunnerSeen = field(default_factory=RunnerSeen)
    arrivals: ArrivalsSeen = field(default_factory=ArrivalsSeen)
    totals: Totals = field(default_factory=Totals)
    steps: tuple[StepSeen, ...] = ()
    measured: tuple[Measured, ...] = ()
    lost_workers: tuple[LostWorker, ...] = ()
    samples: tuple[Sample, ...] = ()
    """Of the last hours, oldest first; the newest is of this moment."""
    transfers: tuple[TransferSeen, ...] = ()
