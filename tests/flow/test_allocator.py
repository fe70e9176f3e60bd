"""The memory that a worker keeps from one task to the next."""

import ctypes
import os
import subprocess
import sys

import pytest

from icestream.flow.execution.allocator import allocator_environment

SCRIPT = """
import psutil
from icestream.flow.execution.allocator import hand_back

def rss_mb():
    return psutil.Process().memory_info().rss / 1e6

before = rss_mb()
held = [b"x" * 50_000_000 for _ in range(8)]
del held
kept = rss_mb() - before
hand_back()
print(kept, rss_mb() - before)
"""

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc, which alone can be told what to keep"
)


def measure(*, memory_gb: float) -> tuple[float, float]:
    """Return the MB that a worker keeps of 400 freed ones, before and after it hands back."""
    environment = os.environ | dict(allocator_environment(memory_gb=memory_gb, cores=2))
    found = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    kept, left = found.stdout.split()
    return float(kept), float(left)


def test_freed_memory_stays_with_a_worker_that_has_room() -> None:
    kept, left = measure(memory_gb=16.0)
    assert kept > 390
    assert left > 390


def test_a_worker_hands_back_what_is_more_than_its_part() -> None:
    kept, left = measure(memory_gb=1.0)
    assert kept > 390
    assert left < 100


def test_what_an_operator_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    environment = allocator_environment(memory_gb=1.0, cores=1)
    assert environment["MALLOC_TRIM_THRESHOLD_"] == "1000000"
    assert environment["MALLOC_TOP_PAD_"] == str(2**26)
