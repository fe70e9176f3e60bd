"""Steps on the workers of a dask.distributed scheduler; who runs what is decided here, and dask carries it there.

Each attempt is bound to one dask worker, with no retries: when that worker goes, the attempt ends and the store decides what is
next. Everything that dask's threads hear is queued, so that only the runner's thread touches the state.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import Future

from icestream import __version__
from icestream.flow.declaration import FailureKind
from icestream.flow.execution.dask_host import KEY_PREFIX, run_packed
from icestream.flow.execution.dask_link import LOST_ERRORS, CallBack, Heard, Link, Said, SchedulerBack, WorkerRemoved
from icestream.flow.execution.executor import Answer, Capacity, Request
from icestream.flow.execution.messages import (
    CallEnded,
    CallProgress,
    ExecutorNotice,
    FromCluster,
    WorkerJoined,
    WorkerLeaving,
    WorkerLog,
)
from icestream.flow.execution.wire import pack, unpack

_LONGEST_FETCH_S = 120.0


@dataclass
class Member:
    """A dask worker and what it runs for us."""

    address: str
    cores: int
    memory_gb: float
    running: dict[str, Request] = field(default_factory=dict)

    @property
    def free_cores(self) -> int:
        """The cores that nothing of ours uses."""
        return self.cores - sum(request.cores for request in self.running.values())

    def fits(self, request: Request) -> bool:
        """Tell whether a request may start here; one that is too big for the worker starts where nothing else runs."""
        if not self.running:
            return True
        used_gb = sum(one.memory_gb for one in self.running.values())
        return request.cores <= self.free_cores and used_gb + request.memory_gb <= self.memory_gb


class DaskExecutor:
    """Runs attempts on the workers of a dask scheduler."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._members: dict[str, Member] = {}
        self._leaving: set[str] = set()
        self._backlog: deque[Request] = deque()
        self._placed: dict[str, tuple[Request, str, Future[bytes]]] = {}
        self._own: deque[Answer] = deque()  # what we have to say ourselves
        self._strange: set[str] = set()
        link.open()

    def capacity(self) -> Capacity:
        """Return what all workers of the scheduler may run."""
        members = self._members.values()
        cores, memory_gb = sum(one.cores for one in members), sum(one.memory_gb for one in members)
        return Capacity(cores, memory_gb, max((one.cores for one in members), default=0))

    def demand_cores(self) -> int:
        """Return the cores that all attempts ask for, running or waiting."""
        placed = sum(request.cores for request, _, _ in list(self._placed.values()))
        return placed + sum(request.cores for request in list(self._backlog))

    def book(self, request: Request) -> str:
        """Return the address of the worker that will probably run a request."""
        member = self._choose(request)
        return "is waiting for a worker" if member is None else member.address

    def _choose(self, request: Request) -> Member | None:
        fitting = [member for member in self._members.values() if member.fits(request) and member.address not in self._leaving]
        return max(fitting, key=lambda member: (member.address == request.prefer, member.free_cores), default=None)

    def submit(self, request: Request) -> None:
        """Start a request, as soon as a worker has room."""
        self._backlog.append(request)
        self._feed()

    def _feed(self) -> None:
        while self._backlog and self.link.up:
            member = self._choose(self._backlog[0])
            if member is None:
                return
            request = self._backlog.popleft()
            member.running[request.attempt] = request
            future = self.link.client.submit(
                run_packed,
                pack(request),
                self.link.topic,
                key=f"{KEY_PREFIX}{request.attempt}",
                workers=[member.address],
                allow_other_workers=False,
                pure=False,
                retries=0,
            )
            self._placed[request.attempt] = (request, member.address, future)
            future.add_done_callback(partial(self._fetch, request.attempt))

    def _fetch(self, attempt: str, future: "Future[bytes]") -> None:
        """Queue what became of an attempt; called by a thread of dask."""
        if future.status == "finished":
            try:
                self.link.news.put(CallBack(attempt, answer=future.result(timeout=_LONGEST_FETCH_S)))
            except LOST_ERRORS as error:
                self.link.news.put(CallBack(attempt, reason=f"its answer was lost: {error}"))
        elif future.status == "error":
            self.link.news.put(CallBack(attempt, reason=f"dask says: {future.exception()}", raised=True))
        else:
            self.link.news.put(CallBack(attempt, reason="dask cancelled it"))

    def cancel(self, attempt: str) -> None:
        """End an attempt: its worker tells the step, and kills it after its grace period."""
        for request in [request for request in self._backlog if request.attempt == attempt]:
            self._backlog.remove(request)
            self._say(attempt, FailureKind.CANCELLED, "cancelled before it started")
        if attempt in self._placed:
            self._give_up(attempt, FailureKind.CANCELLED, "cancelled")

    def _give_up(self, attempt: str, kind: FailureKind, text: str) -> None:
        worker, future = self._release(attempt)
        future.cancel()
        self._say(attempt, kind, text, worker)

    def _release(self, attempt: str) -> "tuple[str, Future[bytes]]":
        _, address, future = self._placed.pop(attempt)
        if address in self._members:
            self._members[address].running.pop(attempt, None)
        return address, future

    def _say(self, attempt: str, kind: FailureKind, text: str, worker: str = "") -> None:
        self._own.append(Answer(worker, CallEnded(attempt, kind, text)))

    def waitables(self) -> Sequence[Any]:
        """Return what becomes readable when dask's threads have queued something."""
        return [self.link.news.ear]

    def answers(self) -> Iterator[Answer]:
        """Yield what workers said and what became of attempts."""
        if self.link.broken():
            self._lost_scheduler()
        for heard in self.link.news.take():
            yield from self._hear(heard)
        self._feed()
        while self._own:
            yield self._own.popleft()

    # News ------------------------------------------------------------------------------------------------------------------

    def _hear(self, heard: Heard) -> Iterator[Answer]:
        match heard:
            case Said(message):
                yield from self._said(message)
            case WorkerRemoved(address, expected):
                yield from self._lost_worker(address, expected=expected)
            case SchedulerBack(text):
                yield Answer("", ExecutorNotice("info", self.link.address, text))
            case CallBack(attempt) if attempt in self._placed:
                yield self._end(heard)

    def _end(self, back: CallBack) -> Answer:
        worker, _ = self._release(back.attempt)
        if back.answer is not None:
            return Answer(worker, unpack(back.answer))
        kind = self.kind_of_loss(worker) if back.raised else FailureKind.PREEMPTED
        return Answer(worker, CallEnded(back.attempt, kind, back.reason))

    def _said(self, message: FromCluster) -> Iterator[Answer]:
        match message:
            case CallProgress(attempt) if attempt in self._placed:
                yield Answer(self._placed[attempt][1], message)
            case WorkerLog():
                yield Answer("", message)
            case WorkerLeaving(address):
                self._leaving.add(address)
            case WorkerJoined():
                yield from self._joined(message)

    def _joined(self, worker: WorkerJoined) -> Iterator[Answer]:
        address = worker.address
        if worker.version != __version__:
            if address not in self._strange:
                text = (
                    f"the worker {address} has icestream {worker.version}, this runner has {__version__}; the worker is not used"
                )
                yield Answer("", ExecutorNotice("warning", address, text))
            self._strange.add(address)
        elif address not in self._members:
            self._leaving.discard(address)
            self._members[address] = Member(address, max(1, worker.cores), worker.memory_gb)

    def _lost_worker(self, address: str, *, expected: bool) -> Iterator[Answer]:
        member = self._members.pop(address, None)
        graceful = expected or address in self._leaving
        self._leaving.discard(address)
        if member is None or not member.running:
            return
        kind = FailureKind.PREEMPTED if graceful else self.kind_of_loss(address)
        word = "was removed" if kind is FailureKind.PREEMPTED else "died"
        text = f"the worker {address} {word}"
        yield Answer("", ExecutorNotice("warning", address, f"{text} while {len(member.running)} calls were running on it"))
        for attempt in list(member.running):
            self._give_up(attempt, kind, text)

    def kind_of_loss(self, address: str) -> FailureKind:
        """Return how a worker that left without a word is judged; a batch system may know better."""
        return FailureKind.WORKER_DIED

    def _lost_scheduler(self) -> None:
        """Hand everything back: it is dispatched again when the scheduler is there again."""
        running = list(self._placed)
        text = f"the dask scheduler {self.link.address} is unavailable"
        again = f"{text}; {len(running) + len(self._backlog)} calls will be dispatched again when it is back"
        self._own.append(Answer("", ExecutorNotice("alert", self.link.address, again)))
        for attempt in running:
            worker, _ = self._release(attempt)
            self._say(attempt, FailureKind.PREEMPTED, text, worker)
        for request in self._backlog:
            self._say(request.attempt, FailureKind.PREEMPTED, text)
        self._backlog.clear()
        self._members.clear()
        self._leaving.clear()
        self.link.reopen()

    def shut_down(self) -> None:
        """Take back what is running and leave the scheduler."""
        futures = [future for _, _, future in self._placed.values()]
        self._placed.clear()
        self._backlog.clear()
        self.link.close(futures)
