"""What the scheduler wants done."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from icestream.flow.declaration import InputNames, Member, Outcome, Status
from icestream.flow.scheduling.draining import DrainReason


@dataclass(frozen=True)
class Settle:
    """Store the outcome of a unit at a step."""

    step: str
    unit: str
    outcome: Outcome


@dataclass(frozen=True)
class Forget:
    """Remove the outcome of a unit at a step: it is decided again."""

    step: str
    unit: str
    status: Status


@dataclass(frozen=True)
class Dispatch:
    """Run a map or filter on a unit."""

    step: str
    unit: str
    inputs: Mapping[str, tuple[str, ...]]
    names: InputNames | None = None
    """Where the items come from, if the step asks."""


@dataclass(frozen=True)
class Bind:
    """Store which version of a snapshot a unit uses."""

    step: str
    unit: str
    port: str
    version: int
    key: str


@dataclass(frozen=True)
class OpenGate:
    """Store that a gate opened, for good; with ``last`` nothing follows (of a batch step: no batch follows)."""

    step: str
    reason: str
    last: bool = False


@dataclass(frozen=True)
class StartClock:
    """Store when a gate or batch began to wait, in the session's uptime."""

    step: str
    uptime_s: float


@dataclass(frozen=True)
class Drain:
    """Store that a step takes nothing new; tasks that have not begun are taken back, a source is stopped."""

    step: str
    why: DrainReason


@dataclass(frozen=True)
class Resume:
    """Store that a drained step goes on; a source is started."""

    step: str


@dataclass(frozen=True)
class CloseBatch:
    """Store a closed batch; of a cumulative step only the members that are new in it, and their weight."""

    step: str
    number: int
    members: tuple[Member, ...]
    weight: int
    remainder: bool


@dataclass(frozen=True)
class Consume:
    """Store an entry of an accumulator's log, then compute it."""

    step: str
    position: int
    members: tuple[Member, ...]
    weight: int
    closing: bool
    stored: bool = False


@dataclass(frozen=True)
class DropEntry:
    """Remove an entry that could not be computed from the end of an accumulator's log."""

    step: str
    position: int


@dataclass(frozen=True)
class MarkStale:
    """Store whether something that an accumulator or batch took is still an item; ``reason`` is None when it is one again."""

    step: str
    unit: str
    reason: str | None


@dataclass(frozen=True)
class MarkStream:
    """Store that a stream opened or closed."""

    step: str
    state: str
    reason: str


@dataclass(frozen=True)
class Release:
    """Every step has its outcome: the unit leaves the scheduler's memory."""

    unit: str


@dataclass(frozen=True)
class PublishVersion:
    """Store a new version of a step's snapshot."""

    step: str
    version: int
    key: str


class NoticeCause(StrEnum):
    """Why people are told something.

    Two notices are about the same if cause, step and subject are; their text is for people only.
    """

    ACQUISITION = "acquisition"
    """A file gives a different acquisition value from that of the session."""
    RAW_FILE = "raw_file"
    """A raw file has different content than before, or cannot be read."""
    FILE_BESIDE = "file_beside"
    """A sidecar cannot be read, or gives values that contradict each other or cannot be."""
    REVISED = "revised"
    """A sidecar came late or has changed, so an exposure is computed again."""
    GIVEN_FILE = "given_file"
    """A file that a parameter names has changed, or is missing."""
    PROGRAM = "program"
    """A program that a step runs is missing, or has a different version from the one its revision was begun with."""
    SOURCE = "source"
    """A source failed and is restarted."""
    STEP_FAILING = "step_failing"
    """A step fails for many items in a row, or could not finish."""
    NOTHING_FOUND = "nothing_found"
    """A step took all there was, and found nothing that it could publish."""
    SURROUNDINGS = "surroundings"
    """The session paused or resumed by itself."""
    PAUSE = "pause"
    """A person paused or resumed the session, or stopped its runner."""
    RELEASE = "release"
    """A person released a gate or a batch."""
    RECOMPUTED = "recomputed"
    """A step is recomputed, was reset, or is rebuilt."""
    CLEANED = "cleaned"
    """Files and results that nothing needs were deleted."""
    REMOVED = "removed"
    """Files were removed to free the disk, brought back, computed again, or deleted for good."""
    RESOURCES = "resources"
    """A step asks for more than is available."""
    OWN_PARAMETERS = "own_parameters"
    """Parameters that an exposure has of its own are incompatible with its step."""
    LEDGER = "ledger"
    """The ledger of the machine's resources."""
    WORKERS = "workers"
    """Workers, or the scheduler of a cluster."""


@dataclass(frozen=True)
class Notify:
    """Store something that people should see; ``subject`` is what it is about within its cause, ``by`` the person behind it."""

    level: str
    message: str
    step: str | None = None
    unit: str | None = None
    _: KW_ONLY
    cause: NoticeCause
    subject: str | None = None
    by: str | None = None


Instruction = (
    Settle
    | Forget
    | Dispatch
    | Bind
    | OpenGate
    | StartClock
    | Drain
    | Resume
    | CloseBatch
    | Consume
    | DropEntry
    | MarkStale
    | MarkStream
    | Release
    | PublishVersion
    | Notify
)
