"""The side of a dask worker: it hosts worker processes of ours, the same ones that work on a single machine.

dask carries bytes to the right machine and back. The step itself runs in a process that was started with the thread pools of its
granted cores, can be killed without harm to its neighbours, and dies with the dask worker.
"""

import os
import queue
import secrets
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import psutil
from distributed import Worker, WorkerPlugin, get_worker

from icestream import __version__
from icestream.flow.declaration import FailureKind
from icestream.flow.execution.executor import Request
from icestream.flow.execution.messages import (
    CallAnswer,
    CallEnded,
    CallFailed,
    CallProgress,
    FromWorker,
    WorkerJoined,
    WorkerLeaving,
    WorkerLog,
)
from icestream.flow.execution.pool import Pool
from icestream.flow.execution.wire import pack, unpack
from icestream.settings import Settings

KEY_PREFIX = "icestream-"
"""Keys of our tasks in dask: this and the attempt."""

_LONGEST_WAIT_S = 0.5


@dataclass
class HostedCall:
    """A request on its way through a host, which runs it under a name of its own."""

    request: Request
    attempt: str
    report: Callable[[CallProgress | WorkerLog], None]
    answer: "queue.SimpleQueue[CallAnswer]" = field(default_factory=queue.SimpleQueue)


@dataclass(frozen=True)
class _Run:
    call: HostedCall


@dataclass(frozen=True)
class _Cancel:
    attempt: str


@dataclass(frozen=True)
class _Close:
    pass


_Order = _Run | _Cancel | _Close


class Host:
    """Worker processes beside one dask worker; one thread starts and hears them all, because they die with that thread."""

    def __init__(self, cores: int, memory_gb: float, settings: Settings) -> None:
        self._pool = Pool(cores, memory_gb, settings.image_memory_mb, settings.log_level)
        self._orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._calls: dict[str, HostedCall] = {}
        self._waiting: deque[HostedCall] = deque()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="icestream-host", daemon=True)
        self._thread.start()

    def run(self, call: HostedCall) -> CallAnswer:
        """Run a call; return its answer when there is one."""
        if self._closed.is_set():
            return CallEnded(call.attempt, FailureKind.PREEMPTED, "its dask worker is closing")
        self._order(_Run(call))
        return call.answer.get()

    def cancel(self, attempt: str) -> None:
        """End an attempt, if it is here."""
        self._order(_Cancel(attempt))

    def close(self) -> None:
        """End everything: the dask worker is closing."""
        self._closed.set()
        self._order(_Close())
        self._thread.join(10)

    def _order(self, order: _Order) -> None:
        self._orders.put(order)
        self._mouth.send(b"!")

    def _serve(self) -> None:
        while self._obey():
            self._start_waiting()
            wait([self._ear, *self._pool.waitables()], _LONGEST_WAIT_S)
            for answer in self._pool.answers():
                self._hear(answer.message)

    def _obey(self) -> bool:
        """Take the orders there are; False when there will be no more."""
        try:
            self._ear.recv(1 << 16)
        except BlockingIOError:
            return True
        while not self._orders.empty():
            match self._orders.get():
                case _Close():
                    self._end_all()
                    return False
                case _Cancel(attempt):
                    self._cancel(attempt)
                case _Run(call) if self._closed.is_set():
                    call.answer.put(CallEnded(call.attempt, FailureKind.PREEMPTED, "its dask worker is closing"))
                case _Run(call):
                    self._waiting.append(call)
        return True

    def _cancel(self, attempt: str) -> None:
        for call in [call for call in self._waiting if call.attempt == attempt]:
            self._waiting.remove(call)
            call.answer.put(CallEnded(attempt, FailureKind.CANCELLED, "cancelled"))
        for run, call in self._calls.items():
            if call.attempt == attempt:
                self._pool.cancel(run)

    def _end_all(self) -> None:
        self._pool.shut_down()
        for call in [*self._waiting, *self._calls.values()]:
            call.answer.put(CallEnded(call.attempt, FailureKind.PREEMPTED, "its dask worker was closed"))

    def _start_waiting(self) -> None:
        """Start what fits, in order; runners that share this host cannot make it too busy."""
        while self._waiting and self._fits(self._waiting[0].request):
            call = self._waiting.popleft()
            self._calls[call.request.attempt] = call
            self._pool.book(call.request)
            self._pool.submit(call.request)

    def _fits(self, request: Request) -> bool:
        at_work = [call.request for call in self._calls.values()]
        cores = sum(one.cores for one in at_work) + request.cores
        memory_gb = sum(one.memory_gb for one in at_work) + request.memory_gb
        return not at_work or (cores <= self._pool.cores and memory_gb <= self._pool.memory_gb)

    def _hear(self, message: FromWorker) -> None:
        if isinstance(message, CallProgress):
            call = self._calls[message.attempt]
            call.report(replace(message, attempt=call.attempt))
        elif isinstance(message, CallAnswer):
            call = self._calls.pop(message.attempt)
            call.answer.put(replace(message, attempt=call.attempt))
        elif isinstance(message, WorkerLog) and self._calls:  # the runner of any call beside it may know what to do with it
            next(iter(self._calls.values())).report(message)


_hosts: dict[str, Host] = {}
_hosts_lock = threading.Lock()


def describe_worker(worker: Worker) -> WorkerJoined:
    """Return what a runner wants to know of a dask worker."""
    limit = worker.memory_manager.memory_limit or psutil.virtual_memory().total
    job = os.environ.get("SLURM_JOB_ID")
    return WorkerJoined(worker.address, worker.state.nthreads, limit / 2**30, __version__, job, os.getpid())


def host_of(worker: Worker) -> Host:
    """Return the host beside a dask worker."""
    with _hosts_lock:
        if worker.address not in _hosts:
            about = describe_worker(worker)
            _hosts[worker.address] = Host(about.cores, about.memory_gb, Settings())
        return _hosts[worker.address]


def run_packed(packed: bytes, topic: str) -> bytes:
    """Run one packed request beside this dask worker; what dask is given to do."""
    worker = get_worker()
    request: Request = unpack(packed)
    attempt, folder = request.attempt, Path(request.call.roots["session"])
    if not (folder / "session.yaml").is_file():  # writing there would make files that nobody else sees
        text = f"{worker.address} does not see the session's folder {folder}; is it shared?"
        return pack(CallFailed(attempt, FailureKind.ERROR, "SessionError", text, ""))
    # dask may run a task a second time while the first still lives: each run has temporary files of its own
    run = f"{attempt}-{secrets.token_hex(4)}"
    call, cores = replace(request.call, attempt=run), min(request.cores, worker.state.nthreads)
    request = replace(request, attempt=run, call=call, cores=cores, prefer=None)

    def report(message: CallProgress | WorkerLog) -> None:
        worker.log_event(topic, pack(message))

    return pack(host_of(worker).run(HostedCall(request, attempt, report)))


class HostPlugin(WorkerPlugin):
    """Ends steps whose runner wants them no more or is gone, and all of them when the dask worker closes."""

    idempotent = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.topic = name

    def setup(self, worker: Worker) -> None:
        """Tell the runner about a dask worker."""
        self.worker = worker
        worker.log_event(self.topic, pack(describe_worker(worker)))

    def transition(self, key: Any, start: str, finish: str, **kwargs: Any) -> None:
        """End a step that the scheduler released while it ran."""
        ours = isinstance(key, str) and key.startswith(KEY_PREFIX)
        if ours and start in ("executing", "long-running") and finish not in ("memory", "error"):
            host_of(self.worker).cancel(key.removeprefix(KEY_PREFIX))

    def teardown(self, worker: Worker) -> None:
        """Say goodbye, if it is the worker that closes, and not only this runner that ends."""
        if worker.status.name == "closing":
            worker.log_event(self.topic, pack(WorkerLeaving(worker.address)))
            host = _hosts.pop(worker.address, None)
            if host is not None:
                host.close()
