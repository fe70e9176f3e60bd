"""What sessions hold, read for many at once: one who asks looks at files, for a moment; the others are given what is known."""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from icestream.errors import IcestreamError, SessionError
from icestream.flow.storage import Session
from icestream.observe.file_sizes import FileSizes
from icestream.observe.storage import Holding, read_holding

SLICE_S = 0.5
"""A page waits so long for files that were not looked at yet; the rest is looked at for the next who asks."""
KEPT_S = 5.0
SHARE = 20.0
"""What took one second to read stands for so many, as looking must not slow down the runner."""
MOST_SESSIONS = 2000


@dataclass
class _Known:
    """The index of one session, and what was read of it last."""

    session: Session
    sizes: FileSizes
    lock: threading.Lock = field(default_factory=threading.Lock)
    at: float = float("-inf")
    stands_s: float = KEPT_S
    generation: int = 0
    """Grows with everything that people ask for here."""
    read_of: int = 0
    value: Holding | None = None


@dataclass
class Holdings:
    """Reads what sessions hold for many at once: one looks at files, for a moment; the others are given what is known."""

    _known: "OrderedDict[str, _Known]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, session: Session) -> Holding:
        """Return what a session holds."""
        known = self._of(session)
        held = known.lock.acquire(blocking=known.value is None or known.read_of != known.generation)
        try:
            same, age_s = known.read_of == known.generation, time.monotonic() - known.at
            fresh = known.value is not None and known.value.complete and same and age_s < known.stands_s
            if held and not fresh:
                generation, began = known.generation, time.monotonic()
                known.value = read_holding(session, known.sizes, seconds=SLICE_S)
                known.at, known.read_of = time.monotonic(), generation
                known.stands_s = max(KEPT_S, SHARE * (known.at - began))
            found = known.value
        finally:
            if held:
                known.lock.release()
        if found is None:
            raise SessionError("its files have not been looked at yet; try again")
        return found

    def read_many(self, sessions: Mapping[str, Session], *, seconds: float) -> dict[str, Holding | str | None]:
        """Return what many sessions hold: those looked at longest ago are looked at for about so long, others are as known.

        A text is why one cannot be read; None: it has not been looked at yet.
        """
        until, found = time.monotonic() + seconds, dict[str, Holding | str | None]()
        for name in sorted(sessions, key=lambda one: self._of(sessions[one]).at):
            try:
                found[name] = self.read(sessions[name]) if time.monotonic() < until else self._of(sessions[name]).value
            except (IcestreamError, OSError) as error:
                found[name] = str(error)
        return found

    def forget(self, session: Session) -> None:
        """Read it again for the next who asks."""
        self._of(session).generation += 1

    def _of(self, session: Session) -> _Known:
        with self._lock:
            key = str(session.folder)
            known = self._known.pop(key, None)
            if known is None or known.session is not session:
                known = _Known(session, FileSizes(session))
            self._known[key] = known
            if len(self._known) > MOST_SESSIONS:
                self._known.popitem(last=False)
            return known
