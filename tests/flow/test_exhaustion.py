"""Out of memory: how it is recognised."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from icestream.flow.declaration.exhaustion import OomWatch, is_out_of_memory, reap
from icestream.flow.declaration.guard import CallFailure, call_step
from icestream.flow.declaration.outcomes import FailureKind


class OutOfMemoryError(RuntimeError):
    """As CuPy and PyTorch name theirs."""


class CudaAPIError(Exception):
    """As numba names its own."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("Unable to allocate 3 TiB"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OutOfMemoryError("out of memory allocating 9 bytes"), True),
        (CudaAPIError("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (OSError(errno.ENOSPC, "No space left"), False),
        (RuntimeError("the picker ran out of particles"), False),
        (ValueError("cuda out of memory"), False),
    ],
)
def test_which_errors_say_that_memory_was_short(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def _fill() -> None:
    bytearray(1 << 60)


def test_a_memory_error_tells_how_much_the_process_had() -> None:
    failure = call_step(_fill)
    assert isinstance(failure, CallFailure)
    assert failure.kind is FailureKind.OUT_OF_MEMORY
    assert "GB of memory" in failure.message


def _kernel(root: Path, *, cgroup: str, counters: dict[str, str]) -> None:
    (root / "proc" / "self").mkdir(parents=True, exist_ok=True)
    (root / "proc" / "self" / "cgroup").write_text(cgroup)
    for name, text in counters.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "file", "before"),
    [
        ("0::/user.slice/a\n", "sys/fs/cgroup/user.slice/a/memory.events", "low 0\noom 4\noom_kill {}\noom_group_kill 0\n"),
        ("4:memory:/box\n0::/\n", "sys/fs/cgroup/memory/box/memory.oom_control", "under_oom 0\noom_kill {}\n"),
        ("0::/\n", "proc/vmstat", "nr_free_pages 9\noom_kill {}\n"),
        ("0::/../../escape\n", "proc/vmstat", "oom_kill {}\n"),
    ],
)
def test_the_kernels_counters_explain_a_kill(cgroup: str, file: str, before: str, tmp_path: Path) -> None:
    _kernel(tmp_path, cgroup=cgroup, counters={file: before.format(3)})
    now = [0.0]
    watch = OomWatch(tmp_path, lambda: now[0])
    watch.look()
    assert not watch.explains(-signal.SIGKILL)
    _kernel(tmp_path, cgroup=cgroup, counters={file: before.format(4)})
    assert watch.explains(-signal.SIGKILL)
    assert not watch.explains(-signal.SIGSEGV)
    now[0] = 31.0
    watch.look()
    assert watch.explains(-signal.SIGKILL), "a big process takes a while to die"
    now[0] = 62.0
    watch.look()
    assert not watch.explains(-signal.SIGKILL), "an old kill explains nothing"


def test_the_machines_counter_does_not_count_where_the_group_has_its_own(tmp_path: Path) -> None:
    group = {"sys/fs/cgroup/a/memory.events": "oom_kill 0\n"}
    _kernel(tmp_path, cgroup="0::/a\n", counters={**group, "proc/vmstat": "oom_kill 5\n"})
    watch = OomWatch(tmp_path, lambda: 0.0)
    watch.look()
    (tmp_path / "proc" / "vmstat").write_text("oom_kill 6\n")
    assert not watch.explains(-signal.SIGKILL)


def test_a_system_without_counters_explains_nothing(tmp_path: Path) -> None:
    watch = OomWatch(tmp_path)
    watch.look()
    assert not watch.explains(-signal.SIGKILL)


REAP_TWO = """
import subprocess, sys
from icestream.flow.declaration.exhaustion import reap
code = "b = bytearray({} << 20); print(len(b), flush=True); input()"
for size_mb in (200, 1):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code.format(size_mb)], **pipes)
    process.stdout.readline()
    print(reap(process), process.returncode, reap(process))
"""


def test_reaping_tells_the_peak_of_that_process_alone() -> None:
    # in a small process of its own: the kernel counts what a process had before it became another program
    done = subprocess.run([sys.executable, "-c", REAP_TWO], capture_output=True, text=True, check=True)
    (big, *big_rest), (small, *small_rest) = (line.split() for line in done.stdout.splitlines())
    assert float(big) > 0.19 > float(small) > 0
    assert big_rest == small_rest == [str(-signal.SIGKILL), "None"]


def test_reaping_gives_the_signal_as_popen_does() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    os.kill(process.pid, signal.SIGKILL)
    reap(process)
    assert process.returncode == -signal.SIGKILL
