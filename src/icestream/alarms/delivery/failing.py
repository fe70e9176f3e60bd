"""Why a message was not taken, and when it is tried again."""

from icestream.errors import SessionError

FIRST_DELAY_S = 15.0
LONGEST_DELAY_S = 900.0
GIVES_UP_AFTER = 40
"""So many attempts: with the longest delay between them, more than nine hours."""


class DeliveryError(SessionError):
    """A message was not taken; ``lasting`` where trying again is of no use before somebody changes something."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


def next_delay_s(attempts: int) -> float | None:
    """Return how long to wait after so many attempts; None to give up."""
    if attempts >= GIVES_UP_AFTER:
        return None
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(attempts - 1, 20))
