"""Where steps run: one interface before the processes of this machine and the workers of a cluster.

An executor is told what to run and tells what became of it. It never opens the store and never tries anything again by itself:
what is tried again, and how often, is decided from the store.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Protocol

from icestream.flow.execution.messages import Call, FromWorker


@dataclass(frozen=True)
class Request:
    """One attempt at one call of a step, and what it may use."""

    attempt: str
    step: str
    call: Call
    cores: int
    memory_gb: float
    gpu_gb: float = 0.0
    gpu: int | None = None
    prefer: str | None = None  # the worker that made an input
    time_limit_s: float | None = None
    grace_s: float = 10.0  # how long a step may take to end after it was told to


@dataclass(frozen=True)
class Answer:
    """What a worker said, or what became of it; ``source`` names the step whose source it runs."""

    worker: str
    message: FromWorker
    source: str | None = None


@dataclass(frozen=True)
class Capacity:
    """What may run at one moment; nothing gets more cores than the widest worker has."""

    cores: int
    memory_gb: float
    widest: int


class Executor(Protocol):
    """Runs attempts somewhere."""

    def capacity(self) -> Capacity:
        """Return what may run at this moment; a cluster grows and shrinks."""

    def book(self, request: Request) -> str:
        """Return the name of the worker that will probably run a request; nothing starts yet."""

    def submit(self, request: Request) -> None:
        """Start a request that was booked."""

    def cancel(self, attempt: str) -> None:
        """End an attempt: its step is told, and after a grace period its process is killed. It answers `CallEnded`."""

    def waitables(self) -> Sequence[Any]:
        """Return what becomes readable when there are answers."""

    def answers(self) -> Iterator[Answer]:
        """Yield what was said since the last call, without waiting."""

    def shut_down(self) -> None:
        """End everything at once; what was running is not committed and will be done again."""


def hear(executors: Sequence[Executor], timeout_s: float) -> list[Answer]:
    """Wait until one of several executors has an answer, or for ``timeout_s``; return all answers there are."""
    wait([waitable for executor in executors for waitable in executor.waitables()], timeout_s)
    return [answer for executor in executors for answer in executor.answers()]
