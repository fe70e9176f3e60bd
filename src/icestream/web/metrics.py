"""The metrics of all sessions that are served, and of the machine that serves them."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from icestream import __version__
from icestream.errors import IcestreamError
from icestream.observe.metrics import names
from icestream.observe.metrics.families import Samples
from icestream.observe.metrics.host import HostReader
from icestream.observe.metrics.session import STATES, SessionMetrics
from icestream.web.live import Live
from icestream.web.places import Places

QUIET_S = 86_400.0
"""A session that has not changed for so long is counted, not followed: otherwise each look would read years of sessions."""


@dataclass
class FacilityMetrics:
    """Reads the metrics of the sessions that are served, and remembers what it has counted."""

    live: Live
    places: Places
    host: HostReader = field(default_factory=HostReader)
    _known: dict[str, SessionMetrics] = field(default_factory=dict)

    def read(self) -> Samples:
        """Return the samples of this machine, and of all sessions that changed within a day."""
        samples, states, served = self._build(), Counter[str](), self.places.names()
        self._forget_others(served)
        for name in served:
            try:
                if is_quiet(self.places.open(name).store_at, time.time()):
                    states["quiet"] += 1
                    continue
                followed = self._follow(name)
                found = self.live.read(name, "metrics", followed.read)[0]
            except (IcestreamError, OSError):
                states["unreadable"] += 1
                continue
            states[followed.state] += 1
            samples.extend(found)
        for state in (*STATES, "quiet", "unreadable"):
            samples.add(names.SESSIONS, states[state], state)
        return samples

    def read_session(self, name: str) -> Samples:
        """Return the samples of one session.

        Raises
        ------
        SessionError
            It is not served here, or cannot be read.
        """
        return self.live.read(name, "metrics", self._follow(name).read)[0]

    def _follow(self, name: str) -> SessionMetrics:
        """Return what is known of a session; nothing is kept of a name that is none, nor of a session that is gone."""
        self.places.folder_of(name)
        if name not in self._known:
            self._forget_others(self.places.names())
        return self._known.setdefault(name, SessionMetrics(name))

    def _forget_others(self, served: list[str]) -> None:
        for name in set(self._known).difference(served):
            self._known.pop(name, None)

    def _build(self) -> Samples:
        samples = Samples()
        samples.add(names.BUILD, 1, __version__)
        samples.extend(self.host.read())
        return samples


def is_quiet(store: object, now: float) -> bool:
    """Tell whether a store is a file that nobody has written to for a day; a runner writes while it lives."""
    if not isinstance(store, Path):
        return False
    written = [path.stat().st_mtime for path in (store, store.with_name(f"{store.name}-wal")) if path.is_file()]
    return bool(written) and now - max(written) > QUIET_S
