"""Keeping a transfer from taking the whole link: a bucket of tokens, one for each byte."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.001, 0.5
"""Waiting is cut into pieces, so that who is asked to stop does so."""


class Interrupted(Exception):
    """Somebody asked to stop in the middle of a file; what is there is kept."""


@dataclass
class Throttle:
    """Lets at most ``bytes_per_s`` through, however they are asked for; any number if unset.

    The bucket holds the tokens of ``burst_s``: a link that was idle is not used faster for longer than that.
    """

    bytes_per_s: float | None = None
    wait: Callable[[float], None] = time.sleep
    stopping: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    burst_s: float = 0.5
    passed_bytes: int = 0
    """How many bytes have gone through."""
    _tokens: float = field(default=0.0, init=False)
    _filled_at_s: float | None = field(default=None, init=False)

    def take(self, n_bytes: int) -> None:
        """Wait until so many more bytes may pass.

        Raises
        ------
        Interrupted
            Somebody asked to stop.
        """
        if self.stopping():
            raise Interrupted
        self.passed_bytes += n_bytes
        if self.bytes_per_s is None:
            return
        self._fill(self.bytes_per_s)
        self._tokens -= n_bytes
        while self._tokens < 0:
            self.wait(min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, -self._tokens / self.bytes_per_s)))
            if self.stopping():
                raise Interrupted
            self._fill(self.bytes_per_s)

    def _fill(self, rate: float) -> None:
        now_s = self.clock()
        gained = rate * (now_s - (now_s if self._filled_at_s is None else self._filled_at_s))
        self._tokens = min(rate * self.burst_s, self._tokens + gained)
        self._filled_at_s = now_s
