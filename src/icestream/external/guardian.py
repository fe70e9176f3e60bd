"""Runs one program for a worker and sees to it that nothing of it survives: neither a cancel nor the death of the worker.

``python -I -S guardian.py LIFELINE REPORT GRACE_S PROGRAM ARGUMENT…``, started by `icestream.external.process`. LIFELINE is the
reading end of a pipe whose other end only the worker holds: when it is closed, whether on purpose or because the worker was
killed, everything that descends from the program is ended, also what has left its process group. REPORT takes one line that says
how the program ended. Imports nothing of icestream: it has to start at once.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02
_PATIENCE_S = 5.0
"""Longest wait for processes that were killed: one may hang in a read from a file server that is away."""


def main() -> None:
    """Run the program until it ends or the lifeline is closed."""
    lifeline, report, grace_s, command = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the worker decides, by its lifeline
        signal.signal(name, _ignore)
    if sys.platform == "linux":  # what the program leaves behind becomes our child
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        program = subprocess.Popen(command, start_new_session=True)  # what it reads is what we were given
    except OSError as error:
        os.write(report, f"cannot start: {error.strerror}".encode())
        return
    cut = _wait(program, lifeline)
    if cut:
        _end(program, grace_s)
    _kill_the_rest(program)
    os.write(report, f"{'ended' if cut else 'exit'} {program.wait()}".encode())


def _ignore(_signal: int, _frame: object) -> None:
    """Do nothing; unlike SIG_IGN this is not inherited by the program."""


def _wait(program: "subprocess.Popen[bytes]", lifeline: int) -> bool:
    """Wait until the program ends; tell whether the lifeline was closed before."""
    while program.poll() is None:
        if select.select([lifeline], [], [], _POLL_S)[0]:
            return True
    return False


def _end(program: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """Ask the group of the program to end, and kill it after a while."""
    _signal_group(program.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while program.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    _signal_group(program.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_the_rest(program: "subprocess.Popen[bytes]") -> None:
    """Kill what descends from the program and still lives; it may start more meanwhile."""
    _signal_group(program.pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        left = _children()
        for child in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        if not left and program.poll() is not None:
            return
        _reap(program)
        time.sleep(_POLL_S / 4)


def _reap(program: "subprocess.Popen[bytes]") -> None:
    """Take leave of children that have ended; the program itself is asked by its object, which keeps its status."""
    program.poll()
    for child in _children():
        if child != program.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


def _children() -> list[int]:
    """Return our children, and what the program has left behind, where the system tells (Linux)."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listed:  # noqa: PTH123 - pathlib takes longer to import
            return [int(word) for word in listed.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    main()
