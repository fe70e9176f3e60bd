"""The memory that a worker keeps from one task to the next.

Steps make and free large arrays again and again. By default the C library hands each of them back to the system at once, which
must clear the same pages for the next: that took a third as long as correcting a movie itself. So a worker keeps what was freed,
and hands it back between tasks only where it is more than its part of the machine.
"""

import ctypes
import os
from collections.abc import Callable, Mapping

import psutil

_KEEP_MB = "ICESTREAM_KEEP_MEMORY_MB"
_SHARE = 0.25
"""Part of its share of the memory that an idle worker may keep, so that a task elsewhere that needs much has room."""
_GLIBC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""Read by glibc alone: others' allocators keep freed memory, or do not, as they please."""


def allocator_environment(*, memory_gb: float, cores: int) -> Mapping[str, str]:
    """Return the environment of a worker on a machine that gives all of them so much memory; what is set already stays."""
    keep_mb = int(1e3 * memory_gb / max(cores, 1) * _SHARE)
    return {name: os.environ.get(name, value) for name, value in _GLIBC.items()} | {_KEEP_MB: str(keep_mb)}


def hand_back() -> None:
    """Hand freed memory back to the system if this process holds more than it may keep."""
    keep_mb = os.environ.get(_KEEP_MB)
    if keep_mb is None or psutil.Process().memory_info().rss <= 1e6 * int(keep_mb):
        return
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
