"""What is remembered from one evaluation to the next: the alarms that are open, and what growth is judged by."""

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from icestream.alarms.rules import Severity

Event = Literal["raised", "reminder", "ended", "refresh", "test"]
"""Why a message is sent."""


class Alarm(BaseModel):
    """Something is wrong: what, since when, in how many exposures, in which first, and what to look at."""

    model_config = ConfigDict(frozen=True)

    number: int
    rule: str
    kind: str
    subject: str
    """What of the rule it is about: a measure of a step, a step, a machine."""
    severity: Severity
    what: str
    detail: str
    look_at: str
    page: str
    """The page of the web application that shows it, below that of the session."""
    since: float
    opened_at: float
    newest_at: float
    exposures: int | None = None
    """How many are affected since it was raised, unset where it is not about exposures."""
    first: str | None = None
    newest: str | None = None
    first_unit: str | None = None
    newest_unit: str | None = None
    counted_to: int = 0
    """The last number of the change sequence that was counted."""
    ended_at: float | None = None
    ended_because: str | None = None

    @property
    def key(self) -> str:
        """What it is about; there is one open alarm of a key."""
        return f"{self.rule}/{self.subject}"


class Waiting(BaseModel):
    """How many exposures waited for a step at a moment."""

    model_config = ConfigDict(frozen=True)

    at: float
    count: int


class Memory(BaseModel):
    """What rules about growth need of earlier evaluations."""

    model_config = ConfigDict(frozen=True)

    waiting: dict[str, tuple[Waiting, ...]] = Field(default_factory=dict)
    lowest: dict[str, float] = Field(default_factory=dict)
    """Measure → the lowest median that was seen of a whole."""


class AlarmState(BaseModel):
    """The state of the evaluation of one session."""

    model_config = ConfigDict(frozen=True)

    next_number: int = 1
    open: dict[str, Alarm] = Field(default_factory=dict)
    memory: Memory = Field(default_factory=Memory)
    at: float | None = None


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation gives: ``opened`` and ``ended`` alarms are in the order of the rules."""

    state: AlarmState
    opened: tuple[Alarm, ...] = ()
    ended: tuple[Alarm, ...] = ()
