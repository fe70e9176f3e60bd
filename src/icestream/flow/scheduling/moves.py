"""What happens to the scheduler (events) and what it wants done (instructions)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from icestream.flow.declaration.outcomes import UNCOUNTED, FailureKind, Keys, Member, Outcome, Outcomes, Status

__all__ = ["UNCOUNTED", "FailureKind", "Keys", "Member", "Outcome", "Outcomes", "Status"]


# Events ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrived:
    """A source found a unit; with ``error`` it arrived broken."""

    step: str
    unit: str
    key: str | None
    weight: int = 1
    error: str | None = None
    known: Outcomes = field(default_factory=dict)  # what steps said of it that do not depend on this source
    later: bool = False  # it is left to the backlog


@dataclass(frozen=True)
class Published:
    """A source published a version of a snapshot."""

    step: str
    version: int
    key: str


@dataclass(frozen=True)
class Decided:
    """A map or filter finished a unit."""

    step: str
    unit: str
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """An attempt ended badly; ``unit`` is the log position for an accumulator."""

    step: str
    unit: str
    kind: FailureKind
    message: str
    now_s: float


@dataclass(frozen=True)
class Absorbed:
    """An accumulator computed an entry of its log."""

    step: str
    position: int
    key: str
    assignments: Keys


@dataclass(frozen=True)
class SourceClosed:
    """A source ended."""

    step: str
    reason: str


@dataclass(frozen=True)
class Retried:
    """A failed unit is tried again because a person asked, or one that a closing left out because its stream is open again."""

    step: str
    unit: str


@dataclass(frozen=True)
class Overridden:
    """A person decided about a unit at a step by hand, or took such a decision back."""

    step: str
    unit: str


@dataclass(frozen=True)
class Tick:
    """Time passed: monotonic seconds, and the session's uptime (while a runner was up and not paused)."""

    now_s: float
    uptime_s: float = 0.0


@dataclass(frozen=True)
class Released:
    """A person lets a gate open, or a batch close, whatever its rule waits for."""

    step: str


@dataclass(frozen=True)
class Halted:
    """A person stops a step: it takes nothing new, and its stream closes."""

    step: str
    reason: str


@dataclass(frozen=True)
class Lifted:
    """A person lets a halted step go on."""

    step: str


@dataclass(frozen=True)
class Withdrawn:
    """A unit that was dispatched to a step had not begun there when the step was halted."""

    step: str
    unit: str


Asked = Retried | Overridden | Released | Halted | Lifted
Event = Arrived | Published | Decided | Failed | Absorbed | SourceClosed | Tick | Withdrawn | Asked


# Instructions ------------------------------------------------------------------------------------------------------------------


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
class Halt:
    """Store that a step was halted or goes on; tasks that have not begun are taken back, a source is stopped or started."""

    step: str
    state: str
    reason: str


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


@dataclass(frozen=True)
class Notify:
    """Store something that people should see."""

    level: str
    message: str
    step: str | None = None
    unit: str | None = None


Instruction = (
    Settle
    | Forget
    | Dispatch
    | Bind
    | OpenGate
    | StartClock
    | Halt
    | CloseBatch
    | Consume
    | DropEntry
    | MarkStale
    | MarkStream
    | Release
    | PublishVersion
    | Notify
)
