"""What happens to the scheduler (events) and what it wants done (instructions)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Keys = Mapping[str, str]
Member = tuple[str, Keys]


class Status(StrEnum):
    """What a step says about a unit. Every unit gets one from every step."""

    ITEM = "item"
    REJECTED = "rejected"
    FAILED = "failed"
    SKIPPED = "skipped"
    ABSENT = "absent"


class FailureKind(StrEnum):
    """How an attempt ended badly."""

    ITEM = "item"
    ERROR = "error"
    TRANSIENT = "transient"
    WORKER_DIED = "worker_died"
    ENVIRONMENT = "environment"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"


UNCOUNTED = frozenset({FailureKind.CANCELLED, FailureKind.PREEMPTED})
"""How an attempt ends that says nothing about its item: never counted, tried again at once."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a unit at a step: ``keys`` maps the step's outputs to result keys."""

    status: Status
    keys: Keys = field(default_factory=dict)
    weight: int = 1
    reason: str | None = None
    root: str | None = None
    missing: tuple[str, ...] = ()


Outcomes = Mapping[str, Outcome]


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
    """Time passed (monotonic seconds)."""

    now_s: float


Event = Arrived | Published | Decided | Failed | Absorbed | SourceClosed | Retried | Overridden | Tick


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
    """Store that a gate opened, for good."""

    step: str
    reason: str


@dataclass(frozen=True)
class CloseBatch:
    """Store a closed batch."""

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
    | CloseBatch
    | Consume
    | DropEntry
    | MarkStale
    | MarkStream
    | Release
    | PublishVersion
    | Notify
)
