"""Was it out of memory? What Python, CUDA libraries and the kernel say, and how much a process had."""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_WINDOW_S = 30.0
"""A big process takes a while to die after the kernel chose it."""
_SIGNS = ("cuda out of memory", "cuda_error_out_of_memory", "cudaerrormemoryallocation", "resource_exhausted")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception says that memory, of the machine or of a GPU, was short.

    CUDA libraries (CuPy, PyTorch, numba, JAX) are known by the names of their exceptions, so that none needs to be installed.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "CudaOutOfMemoryError"}:
        return True
    from_library = isinstance(error, RuntimeError) or bool(names & {"CudaAPIError", "CUDARuntimeError", "XlaRuntimeError"})
    return from_library and any(sign in str(error).lower() for sign in _SIGNS)


def peak_memory_gb() -> float:
    """Return the most memory that this process has had."""
    import resource  # noqa: PLC0415 - not on every system

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def reap(process: "subprocess.Popen[bytes]") -> float | None:
    """End a process if it still lives, and wait for it; return the most memory it had, in GB, if the kernel tells.

    `subprocess` asks for the exit status alone, also when it kills; the account of this one process would be lost. The kernel
    counts what a process had before it became another program too: the figure is never below the memory of who started it.
    """
    if process.returncode is None:
        try:
            os.kill(process.pid, signal.SIGKILL)
            _, status, usage = os.wait4(process.pid, 0)
        except (ChildProcessError, ProcessLookupError):
            process.wait()
            return None
        process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_maxrss / 2**20
    return None


@dataclass
class OomWatch:
    """Notices that the kernel killed for memory: in this control group, or on the machine where the group does not tell."""

    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic
    _seen: list[tuple[float, int]] = field(default_factory=list)

    def look(self) -> None:
        """Remember how often the kernel has killed so far; call it now and then."""
        now = self.clock()
        if not self._seen or now - self._seen[-1][0] >= _WINDOW_S:
            self._seen = [*self._seen[-1:], (now, self.count())]

    def explains(self, returncode: int | None) -> bool:
        """Tell whether a process that ended so was killed because memory was short."""
        killed = returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        return killed and bool(self._seen) and self.count() > self._seen[0][1]

    def count(self) -> int:
        """Return how many processes the kernel has killed because memory was short."""
        for path in self._sources():
            try:
                text = path.read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            for line in text.splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill" and value.strip().isdigit():
                    return int(value)
        return 0

    def _sources(self) -> list[Path]:
        """Return the files that count, the nearest to this process first (control groups of version 2, then 1, then all)."""
        groups = []
        try:
            lines = (self.root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            _, controllers, group = [*line.split(":", 2), "", ""][:3]
            below = group.strip("/")
            if ".." in below.split("/"):
                continue
            if controllers == "":
                groups.append(self.root / "sys/fs/cgroup" / below / "memory.events")
            elif "memory" in controllers.split(","):
                groups.append(self.root / "sys/fs/cgroup/memory" / below / "memory.oom_control")
        return [*groups, self.root / "proc/vmstat"]
