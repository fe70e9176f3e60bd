"""What has been read of sessions, kept while nothing changes, so that many browsers cost as much as one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from icestream.errors import IcestreamError, StoreUnavailable
from icestream.flow.storage import Session
from icestream.observe.queries import Pulse, SessionView
from icestream.web.places import Places

Found = TypeVar("Found")

KEPT_S = 5.0
"""Rates and ages change although nothing happens: so long an answer stands at most."""

SHARE = 4.0
"""An answer that took one CPU second to read stands for so many, however much changes: reading must not slow down the runner.

It stands as long as it took to read at least, so that a slow store is asked half of the time at most.
"""

MOST_S = 2.0
MOST_ANSWERS = 256
ANSWERS_OF_EACH = 4
"""So many answers are kept in all, and so many more for each session: lists and metrics ask all sessions, one after the other."""

MOST_SESSIONS = 2000
MOST_VIEWS = 200
PULSE_STANDS_S = 0.1
"""Whether a session has changed is looked at so often, however many ask; who watches it looks anyway, and all learn of it."""
PATIENCE_S = 20.0
"""Who waits so long for an answer that another is reading is told to ask again."""


@dataclass
class _Answer:
    """One answer, and what it was read from."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    session: object = None
    pulse: Pulse = field(default_factory=Pulse)
    at: float = float("-inf")
    stands_s: float = 0.0
    value: Any = None


@dataclass
class _Viewed:
    """The view of a session, kept with what was compiled for it, and what was seen at the last look at whether it has changed."""

    view: SessionView
    pulse: Pulse = field(default_factory=Pulse)
    at: float = float("-inf")


@dataclass
class Live:
    """Reads sessions for many at once."""

    places: Places
    clock: Callable[[], float] = time.monotonic
    cpu_clock: Callable[[], float] = time.thread_time
    _answers: dict[str, dict[str, _Answer]] = field(default_factory=dict)
    """Session → what → answer; in both, what was asked for last comes last."""
    _views: dict[str, _Viewed] = field(default_factory=dict)
    """Session → its view; what was looked at last comes last."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, name: str, what: str, read: Callable[[SessionView], Found]) -> tuple[Found, Pulse]:
        """Return an answer, and the pulse of the session when it was read.

        ``what`` is everything that the answer depends on beside the session.

        Raises
        ------
        UnknownSession
            No session is called so.
        SessionError
            It cannot be read.
        StoreUnavailable
            It takes too long.
        """
        session = self.places.open(name)
        answer = self._answer(name, what)
        known = answer.session is session
        held = answer.lock.acquire(blocking=False) if known else answer.lock.acquire(timeout=PATIENCE_S)
        if not held and known:
            stale: Found = answer.value  # somebody else is reading it again: nobody waits for that, a slow store least of all
            return stale, answer.pulse
        if not held:
            raise StoreUnavailable(f"{name}: reading this takes long; try again")
        try:
            viewed = self._viewed(name, session)
            pulse = self._look(name, viewed, stands_s=PULSE_STANDS_S)
            if not self._stands(answer, session, pulse):
                began, cpu_began_s = self.clock(), self.cpu_clock()
                answer.value = read(viewed.view)
                answer.session, answer.pulse, answer.at = session, pulse, self.clock()
                answer.stands_s = min(MOST_S, max(SHARE * (self.cpu_clock() - cpu_began_s), answer.at - began))
            found: Found = answer.value
            return found, answer.pulse
        finally:
            answer.lock.release()

    def pulse(self, name: str) -> Pulse:
        """Return by what a watcher sees that a session has changed."""
        return self._look(name, self._viewed(name, self.places.open(name)), stands_s=0.0)

    def forget(self, name: str) -> None:
        """Read a session again for the next who asks: whoever has just acted wants to see what came of it."""
        with self._lock:
            self._answers.pop(name, None)
            if (viewed := self._views.get(name)) is not None:
                viewed.at = float("-inf")

    def _look(self, name: str, viewed: _Viewed, *, stands_s: float) -> Pulse:
        """Return by what one sees that a session has changed; a look that was taken less long ago counts."""
        now = self.clock()
        if now - viewed.at >= stands_s:
            try:
                viewed.pulse, viewed.at = viewed.view.pulse(), now
            except (IcestreamError, OSError):
                with self._lock:
                    self._views.pop(name, None)  # the store may have gone, or its password changed: begin anew
                raise
        return viewed.pulse

    def _viewed(self, name: str, session: Session) -> _Viewed:
        with self._lock:
            viewed = self._views.pop(name, None)
            if viewed is None or viewed.view.session is not session:
                viewed = _Viewed(SessionView(session))
            self._views[name] = viewed
            if len(self._views) > MOST_VIEWS:
                del self._views[next(iter(self._views))]
            return viewed

    def _stands(self, answer: _Answer, session: object, pulse: Pulse) -> bool:
        age_s = self.clock() - answer.at
        same = answer.pulse == pulse and age_s < KEPT_S
        return answer.session is session and (same or age_s < answer.stands_s)

    def _answer(self, name: str, what: str) -> _Answer:
        with self._lock:
            of_session = self._answers.pop(name, {})
            self._answers[name] = of_session
            answer = of_session.pop(what, None) or _Answer()
            of_session[what] = answer
            if sum(map(len, self._answers.values())) > MOST_ANSWERS + ANSWERS_OF_EACH * len(self._answers):
                most = max(self._answers.values(), key=len)  # whoever asks one session for much leaves the others theirs
                del most[next(iter(most))]
            if len(self._answers) > MOST_SESSIONS:
                del self._answers[next(iter(self._answers))]
            return answer
