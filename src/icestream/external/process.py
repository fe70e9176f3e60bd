"""Running a program: in a private folder, with a clean environment, for a limited time, and without leaving anything behind."""

import errno
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icestream.external.command import Command
from icestream.external.log import Log
from icestream.flow import Context, FoundProgram, ItemError, Program
from icestream.flow.declaration import OomWatch
from icestream.flow.workflow import clean_environment

GRACE_S = 2.0
"""How long a program may take to end after SIGTERM; then it is killed."""
_PATIENCE_S = 10.0
"""Longest wait for the end of what was killed: a process may hang in a read from a file server that is away."""
_POLL_S = 0.1
_CHUNK_BYTES = 1 << 16
_GUARDIAN = Path(__file__).with_name("guardian.py")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

ReadProgress = Callable[[str], float | None]
"""Returns how far a program has come, 0 to 1, from a line that it prints; None if the line does not tell."""


EndedWell = Callable[[int, str], bool]


@dataclass(frozen=True)
class Finished:
    """A program that ended well: which one, where it worked, where its log is, and the last lines it printed."""

    program: FoundProgram
    folder: Path
    log: Path
    tail: str


def run_program(
    program: Program,
    command: Command,
    ctx: Context,
    *,
    folder: Path | None = None,
    read_progress: ReadProgress | None = None,
    ended_well: EndedWell | None = None,
    timeout_s: float | None = None,
    answers: str | None = None,
) -> Finished:
    """Run a program that the step declares, and wait for its end.

    Parameters
    ----------
    folder
        Where it works; unset: ``ctx.work_folder``. A long job that can go on from its own checkpoints is given
        ``ctx.checkpoint_dir``.
    read_progress
        Finds progress in the lines it prints; it is shown as that of the step.
    ended_well
        Tells from the exit status (negative: a signal) and the last lines it printed whether the program did its work; unset:
        the status is 0.
    timeout_s
        Longest time; unset: that of the facility's file of programs, or no limit.
    answers
        What it reads from its standard input, a line for each question that it asks; unset: nothing.

    Raises
    ------
    ItemError
        It did not end well: the message has the last lines it printed, and says where its log is kept.
    TimeoutError
        It ran for too long.
    MemoryError
        The system killed it for memory.
    OSError
        It is not there, or cannot be started.
    """
    found = ctx.program(program)
    folder = ctx.work_folder if folder is None else folder
    limit_s = timeout_s if timeout_s is not None else found.settings.timeout_s
    log = Log(folder / f"{program.name}.log", _listener(ctx, read_progress))
    oom = OomWatch()
    oom.look()
    with _started(found, command, folder, _environment(found, ctx, folder), answers) as running:
        why = _follow(running, log, ctx, limit_s)
        said = running.end()
    log.close()
    if why is None and _ended_well(said, log, ended_well):
        return Finished(found, folder, log.path, log.tail())
    where = ctx.keep_log(log.path)
    text = f"{found.name} {why or _how_it_ended(said)}; its log is kept as {where}. It was called as: {found.name} {command}"
    raise _error(said, why, oom)(f"{text}\n{log.tail()}")


def _listener(ctx: Context, read_progress: ReadProgress | None) -> Callable[[str], None] | None:
    if read_progress is None:
        return None

    def on_line(line: str) -> None:
        fraction = read_progress(line)
        if fraction is not None:
            ctx.progress(min(max(fraction, 0.0), 1.0), line.strip()[:80])

    return on_line


def _environment(found: FoundProgram, ctx: Context, folder: Path) -> dict[str, str]:
    """Return what a program finds in its environment: as many threads and the GPU that were granted, and what was added."""
    threads = dict.fromkeys(_THREADS, str(ctx.cores))
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", str(ctx.gpu)) if ctx.gpu is not None else ""
    seen = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": devices}
    return {**threads, **clean_environment(found.settings), **seen, "TMPDIR": str(folder)}


@dataclass
class _Running:
    """A guardian at work."""

    process: "subprocess.Popen[bytes]"
    output: int
    lifeline: int | None
    report: int

    def cut(self) -> None:
        """Let the guardian end the program."""
        if self.lifeline is not None:
            os.close(self.lifeline)
            self.lifeline = None

    def end(self) -> str:
        """Wait for the guardian; return how the program ended."""
        said = b""
        while chunk := os.read(self.report, _CHUNK_BYTES):
            said += chunk
        self.process.wait()
        return said.decode(errors="replace")


@contextmanager
def _started(
    found: FoundProgram, command: Command, folder: Path, environment: dict[str, str], answers: str | None
) -> Iterator[_Running]:
    given = Path(os.devnull) if answers is None else folder / f"{found.name}.answers"
    if answers is not None:
        given.write_text(answers)
    lifeline, ours = os.pipe()
    report, theirs = os.pipe()
    arguments = [
        str(lifeline),
        str(theirs),
        str(GRACE_S),
        *found.command_in(folder),
        *command.arguments,
        *found.settings.arguments,
    ]
    try:
        with given.open("rb") as reading:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARDIAN), *arguments],
                cwd=folder,
                env=environment,
                stdin=reading,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(lifeline, theirs),
                start_new_session=True,
            )
    except BaseException:
        os.close(ours)
        os.close(report)
        raise
    finally:
        os.close(lifeline)
        os.close(theirs)
    with process, open(report, "rb", buffering=0) as listening:  # noqa: PTH123 - a descriptor
        running = _Running(process, process.stdout.fileno() if process.stdout else -1, ours, listening.fileno())
        try:
            yield running
        finally:
            running.cut()


def _follow(running: _Running, log: Log, ctx: Context, limit_s: float | None) -> str | None:
    """Read what a program prints until it ends; return why it was made to end, or None."""
    started, why = time.monotonic(), None
    given_up = math.inf
    while time.monotonic() < given_up:
        ready, _, _ = select.select([running.output], [], [], _POLL_S)
        if ready:
            chunk = os.read(running.output, _CHUNK_BYTES)
            if not chunk:
                return why
            log.take(chunk)
        ran_s = time.monotonic() - started
        if why is None and ctx.cancelled():
            why = "was cancelled"
        elif why is None and limit_s is not None and ran_s > limit_s:
            why = f"ran for more than {limit_s:g} s (`timeout_s` in the file of programs)"
        if why is not None and given_up == math.inf:
            running.cut()
            given_up = time.monotonic() + GRACE_S + _PATIENCE_S
    return why


def _status_in(said: str) -> int | None:
    """Return the exit status that a guardian reports; None if the program never ran, or the guardian was killed with it."""
    word, _, number = said.partition(" ")
    return int(number) if word == "exit" else None


def _ended_well(said: str, log: Log, asked: EndedWell | None) -> bool:
    status = _status_in(said)
    if status is None or asked is None:
        return status == 0
    return asked(status, log.tail())


def _how_it_ended(said: str) -> str:
    if said.startswith("cannot start"):
        return f"could not be started ({said.partition(': ')[2]})"
    status = _status_in(said)
    if status is None:
        return "was killed together with its guardian"
    return f"ended with exit status {status}" if status >= 0 else f"was killed by signal {-status} ({_signal_name(-status)})"


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else "unknown"


def _error(said: str, why: str | None, oom: OomWatch) -> Callable[[str], Exception]:
    """Return the kind of error: another try may help after a time-out; memory is a matter of its own; the rest is the item's."""
    if why is not None:
        return TimeoutError
    if oom.explains(_status_in(said)):
        return MemoryError
    return _cannot_start if said.startswith("cannot start") else ItemError


def _cannot_start(text: str) -> Any:
    return OSError(errno.ENOEXEC, text)
