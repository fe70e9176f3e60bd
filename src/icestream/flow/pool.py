"""A small supervisor of worker processes. A worker that dies loses one task, never the others."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from icestream.flow.wire import Message, receive, send

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass
class Worker:
    """One process; ``task`` is the attempt it works on, if any."""

    name: str
    cores: int
    process: "subprocess.Popen[bytes]"
    connection: "Connection[Any, Any]"
    task: str | None = None
    source: str | None = None
    heard_at: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> bool:
        """The worker waits for a task."""
        return self.task is None and self.source is None


@dataclass(frozen=True)
class Answer:
    """What a worker said; ``message`` is None when it died."""

    worker: Worker
    message: Message | None


@dataclass
class Pool:
    """Worker processes by the number of cores that their thread pools are set to."""

    image_memory_mb: int = 512
    workers: list[Worker] = field(default_factory=list)
    started: int = 0

    def idle_worker(self, cores: int, *, prefer: str | None = None) -> Worker | None:
        """Return an idle worker for ``cores``, the preferred one if it is idle."""
        idle = [worker for worker in self.workers if worker.idle and worker.cores == cores]
        return next((worker for worker in idle if worker.name == prefer), idle[0] if idle else None)

    def start(self, cores: int) -> Worker:
        """Start a worker; it is spawned, never forked."""
        ours, theirs = socket.socketpair()
        environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(cores))
        environment["ICESTREAM_IMAGE_MEMORY_MB"] = str(self.image_memory_mb)
        command = [sys.executable, "-m", "icestream.flow.worker", str(theirs.fileno()), str(os.getpid())]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        theirs.close()
        self.started += 1
        worker = Worker(f"w{self.started}", cores, process, Connection(ours.detach()))
        self.workers.append(worker)
        return worker

    def give(self, worker: Worker, task: Message) -> None:
        """Send a task; a worker that died meanwhile is noticed by `answers`."""
        try:
            send(worker.connection, task)
        except (BrokenPipeError, ConnectionResetError):
            return

    def answers(self, timeout_s: float, *also: Any) -> Iterator[Answer]:
        """Wait until a worker says something (or ``also`` is readable) and yield what was said."""
        ready = wait([*(worker.connection for worker in self.workers), *also], timeout_s)
        for worker in [worker for worker in self.workers if worker.connection in ready]:
            yield from self._drain(worker)

    def _drain(self, worker: Worker) -> Iterator[Answer]:
        try:
            while worker.connection.poll():
                message = receive(worker.connection)
                worker.heard_at = time.monotonic()
                yield Answer(worker, message)
        except (EOFError, OSError):
            self._bury(worker)
            yield Answer(worker, None)

    def _bury(self, worker: Worker) -> None:
        worker.connection.close()
        worker.process.kill()
        worker.process.wait()
        self.workers.remove(worker)

    def dismiss(self, worker: Worker) -> None:
        """End one worker at once; what it says or dies of is not heard any more."""
        worker.process.kill()
        self._bury(worker)

    def ask_sources_to_stop(self) -> None:
        """Tell the sources that the runner is stopping."""
        for worker in self.workers:
            if worker.source is not None:
                self.give(worker, Message({"kind": "stop"}))

    def shut_down(self) -> None:
        """End all workers, at once; what they worked on is not committed and will be done again."""
        for worker in list(self.workers):
            worker.process.send_signal(signal.SIGKILL)
            self._bury(worker)
