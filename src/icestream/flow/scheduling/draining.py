"""Why a step is drained: it takes nothing new, and its stream ends once what it has taken is done.

What has not begun at a drained step is absent there, what runs finishes, what a batch or an accumulator has taken is still
brought to its end; then the stream closes, and with it the streams below. A drained source is told to stop. A *closed* stream
has ended, whatever the cause.
"""

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """What kind of thing drained a step."""

    PERSON = "person"
    """A person closed its stream."""
    RESET = "reset"
    """A person dropped its results; it starts again when the session is continued."""
    GATE = "gate"
    """A gate opened that closes it."""


@dataclass(frozen=True)
class DrainReason:
    """Why a step takes nothing new; ``by`` is the name of a person, or of a gate."""

    cause: Cause
    by: str
    reason: str = ""

    @property
    def by_hand(self) -> bool:
        """A person is behind it, and can let the step go on."""
        return self.cause is not Cause.GATE

    @property
    def sentence(self) -> str:
        """What people read."""
        match self.cause:
            case Cause.GATE:
                said = f"{self.by} opened"
            case Cause.RESET:
                said = f"reset by hand, by {self.by}"
            case Cause.PERSON:
                said = f"closed by hand, by {self.by}" if self.by else "closed by hand"
        return f"{said}: {self.reason}" if self.reason else said
