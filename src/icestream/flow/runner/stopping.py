"""Being asked to stop by a signal. Handlers interrupt each other, so nothing here takes a lock."""

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType


class StopRequests:
    """Counts how often somebody has asked this process to stop, and wakes who waits.

    `threading.Event` would not do: a second signal that comes while the handler of the first one sets the event waits for a
    lock that it holds itself, for ever.
    """

    def __init__(self) -> None:
        self._asked: list[None] = []  # appending is one step, counting up is three
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    @property
    def count(self) -> int:
        """How often somebody has asked."""
        return len(self._asked)

    def ask(self) -> None:
        """Ask once more."""
        self._asked.append(None)
        with suppress(BlockingIOError):  # nobody reads what is written: a full pipe wakes as well as one byte
            os.write(self._writer, b"!")

    def wait(self, timeout_s: float) -> None:
        """Sleep until somebody has asked, at most ``timeout_s``; who was asked before does not sleep."""
        select.select([self._reader], [], [], timeout_s)

    def close(self) -> None:
        """Give back what waiting takes; only after nobody can ask any more."""
        os.close(self._reader)
        os.close(self._writer)


@dataclass
class RunnerStop:
    """Whether a runner is to stop: once asked, after what is running; asked twice, at once."""

    asked: int = 0
    asked_at: float = 0.0
    reason: str = "stopped by its operator"

    def ask(self) -> None:
        """Ask it to stop. Called by signals, so it takes no lock."""
        self.asked += 1
        self.asked_at = time.monotonic()


@contextmanager
def on_stop_signals(act: Callable[[], None]) -> Iterator[None]:
    """Act on each SIGINT and SIGTERM; ``act`` may be interrupted by itself, so it must take no lock.

    In another thread than the main one nothing is heard: signals go to the main one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        act()

    earlier = {name: signal.signal(name, handle) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)
