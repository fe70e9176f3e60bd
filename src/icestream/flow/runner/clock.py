"""The session's uptime: how long a runner was up and not paused. It grows by a monotonic clock alone."""

import time
from dataclasses import dataclass, field

from icestream.flow.storage.store import Store

_LONGEST_STEP_S = 5.0
"""A runner that was stopped by the system (a suspended machine, SIGSTOP) did not watch: such a gap does not count."""


@dataclass
class Clock:
    """Advances the uptime that each commit stores."""

    store: Store
    _looked_at: float = field(default_factory=time.monotonic)

    @property
    def uptime_s(self) -> float:
        """The session's uptime in seconds, over all its runs."""
        return self.store.uptime_s or 0.0

    def advance(self, *, counting: bool) -> None:
        """Note that time has passed; it counts unless the session is held."""
        now = time.monotonic()
        if counting:
            self.store.uptime_s = self.uptime_s + min(now - self._looked_at, _LONGEST_STEP_S)
        self._looked_at = now
