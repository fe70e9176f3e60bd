"""A clock that moves when it is told to, put in the place of the machine's: for tests alone.

Inside `virtual_machine_time` the functions ``time.monotonic``, ``time.time`` and ``time.sleep`` of this whole process are
those of a `VirtualClock`, so that waiting costs nothing, and a process that kills itself (``os.kill`` with SIGKILL on its own
id) raises `ProcessDied` instead. Other threads of the process see this too: have none that care.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import SupportsIndex

STARTED_AT_S = 1_800_000_000.0
"""What a clock on the wall shows when a virtual clock starts, in seconds since 1970."""


class ProcessDied(BaseException):
    """A process of a virtual machine was killed: nothing in it may go on, so this is no `Exception`."""


@dataclass
class VirtualClock:
    """Seconds since the machine was switched on."""

    now_s: float = 1000.0

    def monotonic(self) -> float:
        """Stand in for ``time.monotonic``."""
        return self.now_s

    def time(self) -> float:
        """Stand in for ``time.time``."""
        return STARTED_AT_S + self.now_s

    def sleep(self, seconds: "float | SupportsIndex") -> None:
        """Stand in for ``time.sleep``."""
        self.now_s += max(0.0, float(seconds))


@contextmanager
def virtual_machine_time(clock: VirtualClock) -> Iterator[None]:
    """Let ``clock`` stand in for the clocks of this process, and let what kills its own process raise `ProcessDied`."""
    kill = os.kill

    def kill_virtually(pid: int, number: int) -> None:
        if pid == os.getpid() and number == signal.SIGKILL:
            raise ProcessDied("it killed itself")
        kill(pid, number)

    earlier = (time.monotonic, time.time, time.sleep, os.kill)
    time.monotonic, time.time, time.sleep, os.kill = clock.monotonic, clock.time, clock.sleep, kill_virtually
    try:
        yield
    finally:
        time.monotonic, time.time, time.sleep, os.kill = earlier
