"""Pausing by itself while the surroundings are not well; and the session's uptime, which does not grow meanwhile."""

import time
from dataclasses import dataclass, field

from icestream.flow.declaration import FailureKind
from icestream.flow.runner.health import Health
from icestream.flow.scheduling import NoticeCause, Notify
from icestream.flow.storage import ActivePause, Pauses, Store, Writing

_LOOK_S = 2.0
_TRY_AGAIN_S = (2.0, 60.0)
_LONGEST_STEP_S = 5.0
"""A runner that was stopped by the system (a suspended machine, SIGSTOP) did not watch: such a gap does not count."""


@dataclass
class SelfPausing:
    """Pauses the session for trouble that no item is to blame for, and lets it go on when that is over.

    ``_met_by`` are the steps that met trouble which looking around does not show, as a quota, and have not worked since; ``_met``
    counts how often in a row, and ``_again_at`` is when they are tried again.
    """

    pauses: Pauses
    health: Health
    _looked_at: float = 0.0
    _met: int = 0
    _met_by: set[str] = field(default_factory=set)
    _again_at: float = 0.0

    def pause_for(self, writing: Writing, trouble: str) -> None:
        """Pause until looking around finds no trouble."""
        if self.pauses.begin(ActivePause("surroundings", trouble)):
            _notify(writing, "alert", f"paused by itself: {trouble}")

    def pause_after(self, writing: Writing, step: str, trouble: str) -> None:
        """Pause for something that a step met; it is tried again after a pause that grows, and told once."""
        if "surroundings" in self.pauses:
            return
        if step in self._met_by:
            self.pauses.begin(ActivePause("surroundings", f"{step}: {trouble}"))
        else:
            self.pause_for(writing, f"{step}: {trouble}")
        shortest, longest = _TRY_AGAIN_S
        self._again_at = time.monotonic() + min(longest, shortest * 2 ** min(self._met, 10))
        self._met += 1
        self._met_by.add(step)

    def is_to_blame(self, writing: Writing, kind: FailureKind) -> bool:
        """Look around after a failure; if the surroundings are not well, pause the session, and no item is to blame.

        A worker that died, or had too little memory, is not asked about: what it did is counted whatever the disks are like.
        """
        if kind in (FailureKind.WORKER_DIED, FailureKind.OUT_OF_MEMORY):
            return False
        trouble = self.health.trouble()
        if trouble is not None:
            self.pause_for(writing, trouble)
        return trouble is not None

    def note_success(self, writing: Writing, step: str) -> None:
        """Tell that the trouble is over when the steps that met it have worked again."""
        if step in self._met_by and "surroundings" not in self.pauses:
            self._met_by.discard(step)
            if not self._met_by:
                self._met = 0
                _tell_over(writing)

    def look_around(self, writing: Writing) -> bool:
        """Pause the session while its disk or its raw data are away, and go on when they are well again.

        Returns
        -------
        bool
            It was looked, which is not done at every call, and all is well.
        """
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        trouble = self.health.trouble()
        if trouble is not None:
            self.pause_for(writing, trouble)
        elif now >= self._again_at and self.pauses.end("surroundings") is not None and not self._met:
            _tell_over(writing)
        return trouble is None


def _notify(writing: Writing, level: str, text: str) -> None:
    writing.notify(Notify(level, text, cause=NoticeCause.SURROUNDINGS))


def _tell_over(writing: Writing) -> None:
    _notify(writing, "info", "the problem is gone; the session continues")


@dataclass
class Clock:
    """Advances the uptime that each commit stores: how long a runner was up and not paused, by a monotonic clock alone."""

    store: Store
    _looked_at: float = field(default_factory=lambda: time.monotonic())  # noqa: PLW0108 - looked up when it is made

    @property
    def uptime_s(self) -> float:
        """The session's uptime in seconds, over all its runs."""
        return self.store.uptime_s or 0.0

    def advance(self, *, counting: bool) -> None:
        """Note that time has passed; it counts unless the session is paused."""
        now = time.monotonic()
        if counting:
            self.store.uptime_s = self.uptime_s + min(now - self._looked_at, _LONGEST_STEP_S)
        self._looked_at = now
