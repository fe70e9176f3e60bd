"""What happens to the scheduler."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from icestream.flow.declaration import FailureKind, Keys, Outcome, Outcomes
from icestream.flow.scheduling.draining import DrainReason


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
class Revised:
    """What a source says of a unit that it found before has changed: there is another record of it."""

    step: str
    unit: str
    key: str
    weight: int = 1


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
    """An accumulator computed an entry of its log; without a key it has nothing to publish yet, for ``reason``."""

    step: str
    position: int
    key: str | None
    assignments: Keys
    reason: str | None = None


@dataclass(frozen=True)
class Troubled:
    """All that a source cannot take at present: files and folders by their references, each with the reason."""

    step: str
    reasons: Mapping[str, str]


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
    """A person decided about a unit at a step by hand, or took such a decision back; ``error`` says how it had arrived broken."""

    step: str
    unit: str
    error: str | None = None


@dataclass(frozen=True)
class Released:
    """A person lets a gate open, or a batch close, whatever its rule waits for."""

    step: str


@dataclass(frozen=True)
class Drained:
    """A step is to take nothing new, and its stream to close."""

    step: str
    why: DrainReason


@dataclass(frozen=True)
class Resumed:
    """A drained step is to go on."""

    step: str


@dataclass(frozen=True)
class Withdrawn:
    """A unit that was dispatched to a step had not begun there when the step was drained."""

    step: str
    unit: str


@dataclass(frozen=True)
class Tick:
    """Time passed: monotonic seconds, and the session's uptime (while a runner was up and not paused)."""

    now_s: float
    uptime_s: float = 0.0


Asked = Retried | Overridden | Released | Drained | Resumed
StepEvent = Arrived | Revised | Published | Decided | Failed | Absorbed | SourceClosed | Troubled | Withdrawn | Asked
"""What happens to one step."""
Event = StepEvent | Tick
