"""Telling browsers that a session has changed: one look at the store for all who watch it, and a word to each of them."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from icestream.errors import IcestreamError

LOOK_S = 0.25
QUIET_S = 15.0
"""So often a stream says that it lives, if nothing else is to be said."""
SLOWEST_S = 30.0
"""A browser that takes nothing for so long is let go."""
MOST_STREAMS = 1000
MOST_OF_ONE = 100
"""So many streams one person may have, or all who came in through one link; a reload opens one before the last has ended."""
LOOKING_AT_ONCE = 4
"""So many looks are taken at a time, in threads of their own: a store that answers slowly must not use up those of requests."""

Told = dict[str, int | str | None]
Look = Callable[[], Told]


_LIMITER: RunVar[CapacityLimiter] = RunVar("_LIMITER")


def _looking() -> CapacityLimiter:
    """Return the limiter of this event loop."""
    try:
        return _LIMITER.get()
    except LookupError:
        _LIMITER.set(CapacityLimiter(LOOKING_AT_ONCE))
        return _LIMITER.get()


@dataclass
class Watcher:
    """Looks at one thing while anybody watches it; a slow browser misses nothing, since only the newest state counts."""

    look: Look
    told: Told | None = None
    waiting: set[asyncio.Event] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    def join(self) -> asyncio.Event:
        """Begin to watch; the event is set whenever something is to be told, and at once if something is known."""
        bell = asyncio.Event()
        self.waiting.add(bell)
        if self.told is not None:
            bell.set()
        if self.task is None or self.task.done():
            self.told = None
            self.task = asyncio.create_task(self._watch())
        return bell

    def leave(self, bell: asyncio.Event) -> None:
        """Stop watching."""
        self.waiting.discard(bell)

    async def _watch(self) -> None:
        while self.waiting:
            told: Told
            try:
                told = await to_thread.run_sync(self.look, limiter=_looking())
            except (IcestreamError, OSError) as error:
                told = {"trouble": str(error)}
            if told != self.told:
                self.told = told
                for bell in self.waiting:
                    bell.set()
            await asyncio.sleep(LOOK_S)


@dataclass
class Watchers:
    """All that is watched."""

    streams: Counter[str] = field(default_factory=Counter)
    """Who listens → how many streams."""
    _known: dict[str, Watcher] = field(default_factory=dict)

    def watch(self, name: str, look: Look) -> Watcher:
        """Return the watcher of something; those that nobody needs any more are forgotten."""
        self._known = {one: watcher for one, watcher in self._known.items() if watcher.waiting}
        return self._known.setdefault(name, Watcher(look))

    @property
    def n_streams(self) -> int:
        """How many streams there are."""
        return self.streams.total()

    def full(self, who: str) -> bool:
        """Tell whether no further stream of somebody is taken."""
        return self.n_streams >= MOST_STREAMS or self.streams[who] >= MOST_OF_ONE


class EventStream(Response):
    """Server-sent events of a watcher, until the browser leaves or takes nothing any more."""

    media_type = "text/event-stream"

    def __init__(self, watchers: Watchers, watcher: Watcher, who: str, still_welcome: Callable[[], Awaitable[bool]]) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._watchers, self._watcher, self._who, self._still_welcome = watchers, watcher, who, still_welcome

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one browser."""
        bell = self._watcher.join()
        self._watchers.streams[self._who] += 1
        leaving = asyncio.create_task(_left(receive))
        speaking = asyncio.create_task(self._speak(send, bell))
        try:
            await asyncio.wait((leaving, speaking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._watcher.leave(bell)
            self._watchers.streams[self._who] -= 1
            self._watchers.streams += Counter()  # forget who has none
            for task in (leaving, speaking):
                task.cancel()
                with suppress(asyncio.CancelledError, TimeoutError, OSError):
                    await task

    async def _speak(self, send: Send, bell: asyncio.Event) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await _say(send, "retry: 2000\n\n")
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), QUIET_S)
            if not await self._still_welcome():  # whoever is not any more hears nothing of what has just happened
                return
            if bell.is_set():
                bell.clear()
                told = self._watcher.told or {}
                await _say(send, f"id: {told.get('seq', 0)}\nevent: change\ndata: {json.dumps(told)}\n\n")
            else:
                await _say(send, ": quiet\n\n")


async def _say(send: Callable[[dict[str, object]], Awaitable[None]], text: str) -> None:
    await asyncio.wait_for(send({"type": "http.response.body", "body": text.encode(), "more_body": True}), SLOWEST_S)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
