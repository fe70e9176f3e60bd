"""Worker processes that are none: steps run here, by the code of real workers, in a random order and with random misfortunes."""

import errno
import heapq
import os
import random
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from icestream.files import publish, temporary_path
from icestream.flow.declaration.guard import CallFailure, call_step
from icestream.flow.declaration.outcomes import FailureKind
from icestream.flow.declaration.registry import find_step
from icestream.flow.declaration.source import Arrival
from icestream.flow.execution import bench
from icestream.flow.execution.calls import run_task
from icestream.flow.execution.executor import Answer, Request
from icestream.flow.execution.messages import CallAnswer, CallEnded, SourceDied, SourceEnded, SourceFailed, WatchOrder
from icestream.flow.execution.pool import Pool, Worker, heard
from icestream.flow.execution.watching import WorkerSourceContext
from icestream.flow.execution.wire import pack, unpack
from icestream.flow.execution.worker import describe_found
from virtual.time import ProcessDied, VirtualClock

LOOK_S = 0.5
"""How far the clock moves when nothing happens, and how often a source looks."""

_DIED = "its worker died (exit status -9)"


@dataclass
class Misfortunes:
    """How often things go wrong: probabilities of one attempt, or of one transaction, and until when the disk is full."""

    worker_dies: float = 0.0
    source_dies: float = 0.0
    transient: float = 0.0
    store_away: float = 0.0
    full_until_s: float = 0.0
    mean_run_s: float = 2.0


class _Nobody:
    """The other end of a connection to a process that is none."""

    def send_bytes(self, _content: bytes) -> None:
        """Do nothing."""


@dataclass
class VirtualWorker(Worker):
    """A worker without a process."""

    process: Any = None
    connection: Any = field(default_factory=_Nobody)
    watching: Generator[Any, None, str] | None = None
    context: WorkerSourceContext | None = None
    said: object = None


@dataclass
class VirtualPool(Pool):
    """The pool of one runner on a virtual machine; whoever asks for answers moves the clock to the next thing that happens."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    rng: random.Random = field(default_factory=random.Random)
    misfortunes: Misfortunes = field(default_factory=Misfortunes)
    deaths: int = 0
    ran: int = 0
    _due: list[tuple[float, int, VirtualWorker]] = field(default_factory=list)
    _order: int = 0
    _ready: list[int] = field(default_factory=list)

    def start(self, cores: int, *, gpu: int | None = None, notepad: "IO[bytes] | None" = None) -> VirtualWorker:
        """Add a worker."""
        self.started += 1
        worker = VirtualWorker(f"w{self.started}", cores, gpu=gpu)
        self.workers.append(worker)
        return worker

    def submit(self, request: Request) -> None:
        """Let a worker begin; what it will have to say is found out when it is due."""
        super().submit(request)
        worker = self._worker_of(request.attempt)
        if isinstance(worker, VirtualWorker):
            self._later(worker, self.rng.expovariate(1 / self.misfortunes.mean_run_s))

    def watch(self, step: str, order: WatchOrder) -> None:
        """Start a source."""
        worker = self.start(1)
        worker.source = step
        order = unpack(pack(order))
        worker.context = _SourceContext(order.roots, set(order.seen), threading.Event(), dict(order.set_aside))
        declared = find_step(order.use)
        worker.watching = declared.call(params=declared.params.model_validate(order.params), ctx=worker.context)
        self._later(worker, self.rng.uniform(0.0, LOOK_S))

    def _later(self, worker: VirtualWorker, seconds: float) -> None:
        self._order += 1
        heapq.heappush(self._due, (self.clock.now_s + seconds, self._order, worker))

    def waitables(self) -> Sequence[Any]:
        """Return something that is always readable: nobody really waits here."""
        if not self._ready:
            read, write = os.pipe()
            os.write(write, b".")
            self._ready = [read, write]
        return self._ready[:1]

    def answers(self) -> Iterator[Answer]:
        """Move the clock to the next thing that happens, and yield what workers say then."""
        until = self.clock.now_s + LOOK_S
        self.clock.now_s = min(until, max(self.clock.now_s, self._due[0][0])) if self._due else until
        while self._due and self._due[0][0] <= self.clock.now_s:
            _, _, worker = heapq.heappop(self._due)
            if worker in self.workers:
                yield from self._look_in(worker) if worker.source is not None else self._end(worker)

    # Steps -----------------------------------------------------------------------------------------------------------------

    def _end(self, worker: VirtualWorker) -> Iterator[Answer]:
        request = worker.request
        if request is None:
            return
        answer = None if self._is_hit(self.misfortunes.worker_dies) else self._run(request)
        if answer is None:
            self.deaths += 1
            if self.rng.random() < 0.7:
                self._leave_undone(request)
            self.workers.remove(worker)
            answer = CallEnded(request.attempt, FailureKind.WORKER_DIED, _DIED)
            if worker.ending is not None:
                answer = CallEnded(request.attempt, worker.ending.kind, worker.ending.text)
            yield Answer(worker.name, answer)
            return
        yield heard(worker, answer)

    def _run(self, request: Request) -> CallAnswer | None:
        """Run a step as a worker does; None if it killed its worker."""
        trouble: OSError | None = None
        if self.clock.now_s < self.misfortunes.full_until_s:
            trouble = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif self._is_hit(self.misfortunes.transient):
            trouble = OSError(errno.EIO, os.strerror(errno.EIO))
        self.ran += 1
        try:
            with _publishing(trouble):
                answer: CallAnswer = unpack(pack(run_task(unpack(pack(request.call)), report=_say_nothing)))
                return answer
        except ProcessDied:
            return None

    def _leave_undone(self, request: Request) -> None:
        """Leave behind what a killed process leaves: a half-written file, or a whole result that nobody heard of."""
        trouble = ProcessDied("killed") if self.rng.random() < 0.5 else None
        try:
            with _publishing(trouble):
                run_task(unpack(pack(request.call)), report=_say_nothing)
        except ProcessDied:
            return

    def _is_hit(self, probability: float) -> bool:
        return probability > 0 and self.rng.random() < probability

    # Sources ---------------------------------------------------------------------------------------------------------------

    def _look_in(self, worker: VirtualWorker) -> Iterator[Answer]:
        """Let a source go on to the next thing it says."""
        if self._is_hit(self.misfortunes.source_dies):
            self.deaths += 1
            self.workers.remove(worker)
            yield Answer(worker.name, SourceDied(_DIED, None), worker.source)
            return
        found = call_step(_next_found, worker.watching)
        if isinstance(found, CallFailure):
            message: Any = SourceFailed(found.message, found.traceback)
        elif isinstance(found, _Ended):
            stopped = worker.context is not None and worker.context.stopping()
            message = SourceEnded(found.reason, stopped)
        else:
            self._later(worker, 0.001 if isinstance(found, Arrival) else LOOK_S)
            if found == worker.said:
                return
            worker.said = found
            message = describe_found(found, "")
        answer = heard(worker, unpack(pack(message)))
        if isinstance(message, SourceEnded | SourceFailed):  # a real one ends with its source
            self.dismiss(worker)
        yield answer

    # Endings ---------------------------------------------------------------------------------------------------------------

    def dismiss(self, worker: Worker) -> None:
        """End one worker at once."""
        self.workers.remove(worker)

    def ask_sources_to_stop(self) -> None:
        """Tell the sources that the runner is stopping."""
        for worker in self.workers:
            if isinstance(worker, VirtualWorker) and worker.context is not None:
                worker.context.stop.set()

    def shut_down(self) -> None:
        """Kill all workers; some have published results that nobody heard of, some leave half a file."""
        for worker in self.workers:
            if worker.request is not None and worker.given_at and self.rng.random() < 0.6:
                self._leave_undone(worker.request)
        self.workers.clear()
        for handle in self._ready:
            os.close(handle)
        self._ready.clear()


@dataclass
class _SourceContext(WorkerSourceContext):
    """A source's context that does not wait: its pool calls it again later."""

    def wait(self, seconds: float) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class _Ended:
    reason: str


def _next_found(watching: Generator[Any, None, str]) -> object:
    try:
        return next(watching)
    except StopIteration as stop:
        return _Ended(str(stop.value or "the source ended"))


def _say_nothing(_fraction: float, _text: str) -> None:
    """Take a report of progress."""


@contextmanager
def _publishing(trouble: BaseException | None) -> Iterator[None]:
    """Let the first file that is published meet with trouble; a process that dies there leaves half of it behind."""

    @contextmanager
    def publish_badly(target: Path, *, attempt: str = "0", durable: bool = True) -> Iterator[Path]:
        if isinstance(trouble, Exception):
            with publish(target, attempt=attempt, durable=durable) as temporary:
                yield temporary
                raise trouble
        elif trouble is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_path(target, attempt=attempt)
            yield temporary
            content = temporary.read_bytes()
            temporary.write_bytes(content[: len(content) // 2])
            raise trouble
        else:
            with publish(target, attempt=attempt, durable=durable) as temporary:
                yield temporary

    setattr(bench, "publish", publish_badly)  # noqa: B010 - a module's function is replaced for the time of one call
    try:
        yield
    finally:
        setattr(bench, "publish", publish)  # noqa: B010
