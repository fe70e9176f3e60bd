"""What the views answer with: small frozen values, ready to be printed or drawn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from icestream.flow.storage import ActivePause
from icestream.observe.wording import span
from icestream.records import unpack_tables

_SILENT_S = 20.0

Trend = Literal["rising", "steady", "falling"]
ChangeKind = Literal["exposure", "outcome", "snapshot", "stream", "gate", "batch", "failure", "notice"]


@dataclass(frozen=True)
class Marks:
    """What people should know of a step beside its counts."""

    drained: str | None = None
    """Why it takes nothing new, if it was closed by hand or by a signal."""
    stale: int = 0
    """Exposures it has taken that are no longer items, or have another result."""
    by_hand: int = 0
    """Exposures that have an override here."""
    old_revisions: int = 0
    """Earlier revisions of it that have results."""
    own_params: int = 0
    """Exposures that have parameters of their own here."""

    @property
    def sentences(self) -> list[str]:
        """What people read, nothing where all is plain."""
        said = [f"takes nothing new: {self.drained}"] if self.drained is not None else []
        said += [f"{self.stale} of those taken are no longer items or have changed"] if self.stale else []
        said += [f"{self.by_hand} overridden"] if self.by_hand else []
        said += [f"{self.own_params} recomputed with parameters of their own"] if self.own_params else []
        return said + ([f"{self.old_revisions} old revision{'s' * (self.old_revisions > 1)}"] if self.old_revisions else [])


@dataclass(frozen=True)
class RunnerState:
    """Who processes the session; ``alive`` is what this machine can tell."""

    state: Literal["not started", "running", "finished", "stopped", "interrupted"]
    """Finished: no runner is alive and every stream has closed; stopped: one that was still open waits for the next run."""
    host: str | None = None
    pid: int | None = None
    alive: bool = False
    heartbeat_age_s: float | None = None
    fence: int = 0
    note: str | None = None
    suspended: bool = False
    """Its process was stopped by a signal and does nothing."""

    @property
    def silence(self) -> str | None:
        """What is to be said of a runner that lives and has given no sign of life for long."""
        if not self.alive or self.heartbeat_age_s is None or self.heartbeat_age_s < _SILENT_S:
            return None
        cause = f"it is suspended; `kill -CONT {self.pid}` resumes it" if self.suspended else "its disk or machine may be stuck"
        return f"has given no sign of life for {span(self.heartbeat_age_s)}: {cause}"


@dataclass(frozen=True)
class Overview:
    """A session at a glance. Times are seconds since 1970; counts are of the active revisions."""

    name: str
    runner: RunnerState
    last_seq: int
    started_at: float | None
    updated_at: float | None
    exposures: int
    items: int
    rejected: int
    failed: int
    pause: ActivePause | None = None


@dataclass(frozen=True)
class Arrivals:
    """The newest exposure, and the rate in the hour before it; unset where there are too few to have one."""

    name: str | None = None
    at: float | None = None
    per_hour: float | None = None


@dataclass(frozen=True)
class Counts:
    """How many units stand where at one step; ``running`` are leased, ``waiting`` have no outcome and no lease."""

    item: int = 0
    rejected: int = 0
    failed: int = 0
    skipped: int = 0
    absent: int = 0
    running: int = 0
    waiting: int = 0
    not_taken: int = 0
    """Of a source: how many of ``failed`` are files and folders that it cannot take, and no exposures."""

    @property
    def decided(self) -> int:
        """Units with an outcome."""
        return self.item + self.rejected + self.failed + self.skipped + self.absent - self.not_taken


@dataclass(frozen=True)
class Pace:
    """How fast a step decides (skipped and absent units are not its work), and what one result costs."""

    per_minute: float | None = None
    mean_per_minute: float | None = None
    trend: Trend | None = None
    median_wall_s: float | None = None
    median_cpu_s: float | None = None


@dataclass(frozen=True)
class StepSummary:
    """One step of the workflow; ``revision_id`` is unset until a runner has seen the step."""

    name: str
    label: str
    use: str
    kind: str | None
    revision: int | None
    revision_id: int | None
    type_version: int | None
    software: str | None
    params: dict[str, Any]
    counts: Counts
    weight: int
    stream: Literal["open", "closed"] | None
    stream_reason: str | None
    pace: Pace
    records: dict[str, str] = field(default_factory=dict)
    """Output → record type, of what the step itself has made (a filter passes on what others made)."""
    marks: Marks = Marks()
    note: str | None = None
    """What people wrote down about it."""


@dataclass(frozen=True)
class FailedItem:
    """A unit whose outcome at a step is failed; ``kind`` is unset where it arrived broken or in a batch of others."""

    step: str
    unit: str
    exposure: str
    reason: str
    kind: str | None
    error_type: str | None
    attempts: int
    at: float
    traceback: str | None
    notes: tuple[str, ...] = ()
    """What people should know of the files that the exposure came from."""


@dataclass(frozen=True)
class RejectedItem:
    """A unit that a filter set aside."""

    step: str
    unit: str
    exposure: str
    reason: str
    at: float


@dataclass(frozen=True)
class ReasonCount:
    """How often a step failed or rejected for one reason."""

    step: str
    reason: str
    count: int


@dataclass(frozen=True)
class StoredRecord:
    """A record as it is stored, with the exposure it belongs to; ``load_block`` reads its tables on demand."""

    unit: str
    name: str
    ordinal: int | None
    seq: int
    at: float
    key: str
    record_type: str
    record: dict[str, Any]
    load_block: Callable[[], bytes | None] = field(repr=False, compare=False)

    @property
    def block(self) -> bytes | None:
        """The per-particle table, read from the store now."""
        return self.tables.get("block")

    @property
    def tables(self) -> dict[str, bytes]:
        """All tables of the record by the fields that hold them, read from the store now."""
        return unpack_tables(self.load_block())


@dataclass(frozen=True)
class StoredSnapshot:
    """One version of a whole."""

    step: str
    version: int
    key: str
    at: float
    pruned: bool
    record_type: str | None
    record: dict[str, Any] | None


@dataclass(frozen=True)
class NoticeRow:
    """Something that people should see."""

    seq: int
    level: str
    step: str | None
    unit: str | None
    message: str
    at: float
    over: bool = False
    """What it warns of is over, or was told again later."""


@dataclass(frozen=True)
class Change:
    """One step along the session's change sequence."""

    seq: int
    what: ChangeKind
    step: str | None
    unit: str | None
    detail: str
