"""Connections that use up no more than their share: a client that asks too slowly, or takes nothing, is let go.

uvicorn waits for as long as a client likes: for the rest of a request, and for what it has sent to be taken. Each of these
connections counts towards the most that are served at once, so a few thousand that do nothing would keep everybody else out.
"""

import asyncio
import resource
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

REQUEST_S = 20.0
"""So long a request may take to arrive, with all that is sent with it; and so long a connection may wait for the next."""
TAKING_S = 30.0
"""So long a client may take nothing of what was sent to it."""
LOOK_S = 2.0
MOST_CONNECTIONS = 2000
"""Who asks while there are so many is refused with status 503."""
SPARE = 100
"""When so many fewer are there, the oldest connection over which nothing is being asked makes room for a new one."""
OTHER_FILES = 500
"""Files that the server needs beside its connections."""

_WAITING: "WeakKeyDictionary[ServerState, dict[Connection, None]]" = WeakKeyDictionary()
"""Of each server: the connections over which no whole request has come yet, the oldest first."""


def most_connections() -> int:
    """Return how many connections this process may serve; it may have as many open files as the system lets it."""
    wanted = MOST_CONNECTIONS + SPARE + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY not in (soft, hard) and soft < wanted:
        soft = min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else max(SPARE, min(MOST_CONNECTIONS, soft - SPARE - OTHER_FILES))


class Connection(H11Protocol):
    """A connection that is let go when it waits too long, and makes room for others when there are many."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._waiting = _WAITING.setdefault(self.server_state, {})
        self._asked_at = self.loop.time()
        """When the last request began to be worked on, or was answered."""
        self._full_at: float | None = None
        """Since when the client takes nothing."""
        self._closing_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; where there are many connections, the oldest that asks for nothing ends."""
        super().connection_made(transport)
        most = self.limit_concurrency or MOST_CONNECTIONS
        if len(self.connections) > most - min(SPARE, most // 2) and self._waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()
        self._waiting[self] = None
        self._timer = self.loop.call_later(LOOK_S, self._look)
        if len(self.connections) > most + SPARE:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what a client sends."""
        cycle = self.cycle
        super().data_received(data)
        if self.cycle is not cycle:
            self._asked_at = self.loop.time()
        self._note()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._asked_at = self.loop.time()
        super().on_response_complete()
        self._note()

    def pause_writing(self) -> None:
        """Note that the client takes nothing at this moment."""
        super().pause_writing()
        self._full_at = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client takes something again."""
        super().resume_writing()
        self._full_at = None

    def _asks(self) -> bool:
        """Tell whether a whole request has come that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _note(self) -> None:
        if self._asks():
            self._waiting.pop(self, None)
        elif self in self.connections:
            self._waiting.setdefault(self, None)

    def _look(self) -> None:
        now = self.loop.time()
        if self.transport.is_closing():
            self._closing_at = self._closing_at or now
        too_slow = not self._asks() and now - self._asked_at > REQUEST_S
        takes_nothing = any(since is not None and now - since > TAKING_S for since in (self._full_at, self._closing_at))
        if too_slow or takes_nothing:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(LOOK_S, self._look)
