"""The connection to a dask scheduler: opened, noticed when it breaks, opened again with back-off."""

import queue
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dask
from distributed import CancelledError, Client, Future, Worker

from icestream.errors import SessionError
from icestream.flow.execution.dask_host import HostPlugin, describe_worker
from icestream.flow.execution.messages import FromCluster, WorkerJoined
from icestream.flow.execution.wire import unpack

CONNECT_S = 15.0
LOST_ERRORS = (OSError, TimeoutError, RuntimeError, ValueError, CancelledError)
"""What dask raises when a scheduler, or what a worker had, is gone."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0

Connect = Callable[[], Client]


@dataclass(frozen=True)
class Said:
    """What a dask worker of ours said."""

    message: FromCluster


@dataclass(frozen=True)
class CallBack:
    """What became of an attempt: its answer, or why there is none; ``raised`` if dask tells of an error."""

    attempt: str
    answer: bytes | None = None
    reason: str = ""
    raised: bool = False


@dataclass(frozen=True)
class WorkerRemoved:
    """The scheduler has a worker no more."""

    address: str
    expected: bool


@dataclass(frozen=True)
class SchedulerBack:
    """The scheduler was away and is there again."""

    text: str


Heard = Said | CallBack | WorkerRemoved | SchedulerBack


class News:
    """What threads of dask heard, for the runner's thread; ``ear`` is readable when there is something."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self.ear, self._mouth = socket.socketpair()
        for end in (self.ear, self._mouth):
            end.setblocking(False)

    def put(self, item: Heard) -> None:
        """Add something that was heard."""
        self._queue.put(item)
        try:
            self._mouth.send(b"!")
        except OSError:
            return  # the ear has plenty to hear, or nobody hears any more

    def close(self) -> None:
        """Hear nothing any more."""
        self.ear.close()
        self._mouth.close()

    def take(self) -> Iterator[Heard]:
        """Yield what was heard since the last call."""
        try:
            self.ear.recv(1 << 16)
        except BlockingIOError:
            return
        while not self._queue.empty():
            yield self._queue.get()


def connect_to(address: str) -> Connect:
    """Return a function that connects to a scheduler that somebody else started."""
    return lambda: Client(address, timeout=CONNECT_S, set_as_default=False, name="icestream")


class Link:
    """One runner's connection to a scheduler."""

    def __init__(self, address: str, connect: Connect) -> None:
        self.address, self._connect = address, connect
        self.topic = f"icestream-{uuid.uuid4().hex}"
        self.news = News()
        self.up = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect.

        Raises
        ------
        SessionError
            The scheduler cannot be reached, or its workers cannot run our steps.
        """
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GB"})  # records travel with their task
        try:
            self._enter(self._connect())
        except LOST_ERRORS as error:
            self.news.close()
            raise SessionError(f"the dask scheduler {self.address} cannot be reached: {error}") from error
        except SessionError:
            self.news.close()
            raise

    def _enter(self, client: Client) -> None:
        self.client = client
        client.subscribe_topic("all", self._heard)
        client.subscribe_topic(self.topic, self._heard)
        try:
            client.register_plugin(HostPlugin(self.topic))
        except ImportError as error:
            client.close()
            raise SessionError(f"the workers of the dask scheduler {self.address} cannot import icestream: {error}") from error
        for about in client.run(_describe).values():  # those that came before the subscription
            self.news.put(Said(about))
        self.up = True

    def _heard(self, event: tuple[float, Any]) -> None:
        what = event[1]
        if isinstance(what, bytes):  # on our own topic
            self.news.put(Said(unpack(what)))
        elif isinstance(what, dict) and what.get("action") == "remove-worker":
            self.news.put(WorkerRemoved(str(what["worker"]), bool(what["expected"])))

    def broken(self) -> bool:
        """Tell whether the scheduler went away since the link was up."""
        return self.up and self.client.status != "running"

    def reopen(self) -> None:
        """Go on connecting in the background until it works."""
        self.up = False
        self._thread = threading.Thread(target=self._try_again, args=(self.client,), daemon=True)
        self._thread.start()

    def _try_again(self, old: Client) -> None:
        old.close(timeout=1)
        pause_s = _FIRST_PAUSE_S
        while not self._closing.wait(pause_s):
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                self._enter(self._connect())
            except (*LOST_ERRORS, SessionError):
                continue  # it is still away
            self.news.put(SchedulerBack(f"the dask scheduler {self.address} is back"))
            return

    def close(self, futures: "Sequence[Future[Any]]") -> None:
        """Take back ``futures`` and leave the scheduler."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2 * CONNECT_S)
        if self.up and not self.broken():
            try:
                self.client.cancel(list(futures))
                self.client.unregister_worker_plugin(self.topic)
                for topic in ("all", self.topic):
                    self.client.unsubscribe_topic(topic)
            except LOST_ERRORS:
                self.up = False  # it went away at the very end: there is nothing to take back
        self.client.close(timeout=5)
        self.news.close()


def _describe(dask_worker: Worker) -> WorkerJoined:
    return describe_worker(dask_worker)
