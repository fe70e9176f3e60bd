"""A small supervisor of worker processes. A worker that dies loses one task, never the others."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import IO, Any

from icestream.flow.declaration import FailureKind, OomWatch, SeenFile, reap
from icestream.flow.execution.allocator import allocator_environment
from icestream.flow.execution.executor import Answer, Capacity, Request
from icestream.flow.execution.messages import (
    CallEnded,
    CallProgress,
    CancelOrder,
    FromWorker,
    SourceDied,
    SourceEnded,
    SourceFailed,
    StopOrder,
    ToWorker,
    WatchOrder,
    WorkerLog,
)
from icestream.flow.execution.wire import receive, send
from icestream.logs import LogLevel, log_event

_LOG = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")
_PREPARED = 2
"""Workers that wait for a first task, so that it does not wait for a process to start."""


@dataclass(frozen=True)
class Ending:
    """Why a task was told to end, and when its process is killed if it does not."""

    kind: FailureKind
    text: str
    kill_at: float


@dataclass
class Worker:
    """One process; it works on ``request`` or runs the source of a step, or is idle."""

    name: str
    cores: int
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    gpu: int | None = None
    request: Request | None = None
    source: str | None = None
    notepad: "IO[bytes] | None" = None  # where a source writes which file it is reading
    given_at: float = 0.0
    ending: Ending | None = None

    @property
    def idle(self) -> bool:
        """The worker waits for a task."""
        return self.request is None and self.source is None


@dataclass
class Pool:
    """Worker processes by the cores that their thread pools are set to and the GPU they see: the executor of one machine."""

    cores: int = 1
    memory_gb: float = 1.0
    image_memory_mb: int = 512
    log_level: LogLevel = "info"
    oom: OomWatch = field(default_factory=OomWatch)
    workers: list[Worker] = field(default_factory=list)
    started: int = 0
    prepared: bool = False

    def capacity(self) -> Capacity:
        """Return what this machine may run."""
        return Capacity(self.cores, self.memory_gb, self.cores)

    def book(self, request: Request) -> str:
        """Hold a worker for a request: the preferred one if it is idle, else any idle one, else a new one."""
        place = (request.cores, request.gpu)
        idle = [worker for worker in self.workers if worker.idle and (worker.cores, worker.gpu) == place]
        idle.sort(key=lambda worker: worker.name != request.prefer)
        worker = idle[0] if idle else self.start(request.cores, gpu=request.gpu)
        worker.request = request
        return worker.name

    def start(self, cores: int, *, gpu: int | None = None, notepad: "IO[bytes] | None" = None) -> Worker:
        """Start a worker that sees one GPU or none; it is spawned, never forked."""
        ours, theirs = socket.socketpair()
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(cores))
        environment |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "" if gpu is None else str(gpu)}
        environment |= {"ICESTREAM_IMAGE_MEMORY_MB": str(self.image_memory_mb), "ICESTREAM_LOG_LEVEL": self.log_level}
        environment |= allocator_environment(memory_gb=self.memory_gb, cores=self.cores)
        handles = [theirs.fileno(), *([] if notepad is None else [notepad.fileno()])]
        command = [sys.executable, "-m", "icestream.flow.execution.worker", str(os.getpid()), *map(str, handles)]
        process = subprocess.Popen(command, pass_fds=handles, stdin=subprocess.DEVNULL, env=environment)
        theirs.close()
        self.started += 1
        worker = Worker(f"w{self.started}", cores, process, Connection(ours.detach()), gpu, notepad=notepad)
        self.workers.append(worker)
        log_event(_LOG, logging.DEBUG, "worker started", worker=worker.name, pid=process.pid, cores=cores, gpu=gpu)
        return worker

    def prepare(self) -> None:
        """Start workers for the first tasks, once; one that dies unused is not replaced until it is asked for."""
        if self.prepared:
            return
        self.prepared = True
        for _ in range(min(_PREPARED, self.cores) - sum(worker.idle for worker in self.workers)):
            self.start(1)

    def submit(self, request: Request) -> None:
        """Send a request to the worker that was held for it."""
        worker = self._worker_of(request.attempt)
        if worker is not None:
            worker.given_at = time.monotonic()
            _give(worker, request.call)

    def watch(self, step: str, order: WatchOrder) -> None:
        """Start the source of a step in a process of its own."""
        worker = self.start(1, notepad=tempfile.TemporaryFile())  # noqa: SIM115 - lives as long as the worker
        worker.source = step
        _give(worker, order)

    def cancel(self, attempt: str) -> None:
        """Tell a step to end; it is killed after its grace period."""
        worker = self._worker_of(attempt)
        if worker is not None:
            _tell_to_end(worker, FailureKind.CANCELLED, "cancelled")

    def _worker_of(self, attempt: str) -> Worker | None:
        return next((worker for worker in self.workers if worker.request and worker.request.attempt == attempt), None)

    def waitables(self) -> Sequence[Any]:
        """Return the connections of all workers."""
        return [worker.connection for worker in self.workers]

    def answers(self) -> Iterator[Answer]:
        """Yield what workers said, and what became of those that died or were killed at their limit."""
        self.oom.look()
        ready = wait(self.waitables(), 0)
        for worker in [worker for worker in self.workers if worker.connection in ready]:
            yield from self._drain(worker)
        for worker in list(self.workers):
            yield from self._enforce_limits(worker)

    def _drain(self, worker: Worker) -> Iterator[Answer]:
        try:
            while worker in self.workers and worker.connection.poll():
                answer = heard(worker, receive(worker.connection))
                if isinstance(answer.message, SourceEnded | SourceFailed):  # its process was for this source alone
                    self.dismiss(worker)
                yield answer
        except (EOFError, OSError):
            yield from self._bury(worker)

    def _enforce_limits(self, worker: Worker) -> Iterator[Answer]:
        request, now = worker.request, time.monotonic()
        if request is None or not worker.given_at:
            return
        ran_s = now - worker.given_at
        if worker.ending is None and request.time_limit_s is not None and ran_s > request.time_limit_s:
            text = f"it ran for {ran_s:.0f} s; {request.time_limit_s:g} s are allowed"
            _tell_to_end(worker, FailureKind.TRANSIENT, text)
        if worker.ending is not None and now >= worker.ending.kill_at:
            yield from self._bury(worker)

    def _bury(self, worker: Worker) -> Iterator[Answer]:
        """End a process for good and tell what it leaves undone."""
        worker.connection.close()
        peak_gb = reap(worker.process)
        code = worker.process.returncode
        self.workers.remove(worker)
        about = {"worker": worker.name, "pid": worker.process.pid, "exit_status": code, "source": worker.source}
        log_event(_LOG, logging.DEBUG if worker.idle else logging.WARNING, "worker ended", **about)
        if worker.source is not None:
            died = SourceDied(f"its process died (exit status {code})", _last_read(worker))
            yield Answer(worker.name, died, worker.source)
        elif worker.request is not None and worker.ending is not None:
            yield Answer(worker.name, CallEnded(worker.request.attempt, worker.ending.kind, worker.ending.text))
        elif worker.request is not None:
            yield Answer(worker.name, CallEnded(worker.request.attempt, *explain_death(code, peak_gb, self.oom)))
        if worker.notepad is not None:
            worker.notepad.close()

    def dismiss(self, worker: Worker) -> None:
        """End one worker at once; what it says or dies of is not heard any more."""
        for _ in self._bury(worker):
            pass

    def ask_sources_to_stop(self) -> None:
        """Tell the sources that the runner is stopping."""
        for worker in self.workers:
            if worker.source is not None:
                _give(worker, StopOrder())

    def shut_down(self) -> None:
        """End all workers, at once; what they worked on is not committed and will be done again."""
        for worker in list(self.workers):
            worker.process.send_signal(signal.SIGKILL)
        for worker in list(self.workers):
            for _ in self._bury(worker):
                pass  # nobody is left to hear it


def _give(worker: Worker, message: ToWorker) -> None:
    """Send a message; a worker that died meanwhile is noticed by `Pool.answers`."""
    try:
        send(worker.connection, message)
    except (BrokenPipeError, ConnectionResetError):
        return


def _tell_to_end(worker: Worker, kind: FailureKind, text: str) -> None:
    if worker.request is None or worker.ending is not None:
        return
    worker.ending = Ending(kind, text, time.monotonic() + worker.request.grace_s)
    _give(worker, CancelOrder(worker.request.attempt))


def heard(worker: Worker, message: FromWorker) -> Answer:
    """Note that a worker is free again; the result of a step that was told to end is not used."""
    source = worker.source
    if isinstance(message, SourceEnded | SourceFailed):
        worker.source = None
    elif worker.request is not None and not isinstance(message, CallProgress | WorkerLog):
        if worker.ending is not None:
            message = CallEnded(worker.request.attempt, worker.ending.kind, worker.ending.text)
        worker.request, worker.ending, worker.given_at = None, None, 0.0
    return Answer(worker.name, message, source)


def _last_read(worker: Worker) -> SeenFile | None:
    """Return the file that a source was reading when it died."""
    if worker.notepad is None:
        return None
    line = os.pread(worker.notepad.fileno(), 1 << 16, 0).split(b"\n")[0]
    return SeenFile(*json.loads(line)) if line else None


def explain_death(code: int | None, peak_gb: float | None, oom: OomWatch) -> tuple[FailureKind, str]:
    """Return how a task ended whose worker died with exit status ``code``: out of memory if the kernel killed it for that.

    ``peak_gb`` is the most memory that the worker had had, if the kernel told.
    """
    if not oom.explains(code):
        return FailureKind.WORKER_DIED, f"its worker died (exit status {code})"
    had = "" if peak_gb is None else f"; it had used up to {peak_gb:.1f} GB"
    return FailureKind.OUT_OF_MEMORY, f"ran out of memory: the system killed its worker{had}"
