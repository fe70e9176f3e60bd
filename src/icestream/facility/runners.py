"""Runners as processes of their own: they outlive whoever starts them and are found again by process id and starting time."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil
from sqlalchemy import select

from icestream.errors import ExitStatus, SessionBusy, SessionError
from icestream.facility.folders import IMAGE_SUFFIXES
from icestream.files import folder_in_session, open_unlinked
from icestream.flow.storage import Session, open_session, schema
from icestream.io.raw_folder import RawFolder, plain_text
from icestream.observe.queries import open_view

_TAIL_BYTES = 2000
_STARTING_S = 2.0
_GOOD_ENDS = (0, ExitStatus.SOME_FAILED, ExitStatus.INTERRUPTED)
"""So `icestream run` ends where nothing is wrong with the session; somebody may have stopped it at once."""


class RunEnd(StrEnum):
    """How a run ended."""

    CLOSED = "closed"
    STOPPED = "stopped"
    DIED = "died"


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one of the same number."""

    pid: int
    started: float


def launch_runner(session: Path, options: Sequence[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Run a session in a process of its own that outlives this one; return it, and where its words begin in its log.

    Raises
    ------
    SessionError
        Its log would be written outside the session.
    """
    log = folder_in_session(session, "logs") / "runner.log"
    command = [sys.executable, "-m", "icestream", "run", str(session), *options]
    with os.fdopen(open_unlinked(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as target:
        started = target.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ
        )
    return process, started


def start_runner(session: Path, options: Sequence[str] = ()) -> int:
    """Run a session in a process of its own that outlives this one; return its number.

    Raises
    ------
    SessionBusy
        A runner processes the session already.
    SessionError
        The runner ended at once, with what it said.
    """
    running = find_runner(session)
    if running is not None:
        raise SessionBusy(f"{session.name}: is already running, as process {running.pid}")
    process, started = launch_runner(session, options)
    threading.Thread(target=process.wait, daemon=True).start()  # a process whose end nobody looks at stays in the list of all
    end = time.monotonic() + _STARTING_S
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    if process.poll() not in (None, *_GOOD_ENDS):
        said = _read_log(session, started).decode(errors="replace").strip()
        raise SessionError(f"the runner exited at once with status {process.poll()}: {said or 'it printed nothing'}")
    return process.pid


def typed_options(
    *, cores: int | None, newest_first: bool, where: tuple[str, str | None, Path | None] = ("local", None, None)
) -> list[str]:
    """Return the options of ``icestream run`` as they are typed; ``where`` is executor, scheduler and settings of a cluster."""
    executor, scheduler, cluster_settings = where
    options = {
        "--cores": cores,
        "--executor": executor,
        "--scheduler": scheduler,
        "--cluster-settings": None if cluster_settings is None else cluster_settings.resolve(),
    }
    typed = [text for name, value in options.items() if value is not None for text in (name, str(value))]
    return [*typed, "--newest-first"] if newest_first else typed


@dataclass
class Runners:
    """Starts runners and looks after them."""

    cores: int | None = None
    newest_first: bool = False
    _children: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, session: Path) -> Process:
        """Start the runner of a session, or find the one that runs it already."""
        running = find_runner(session)
        if running is not None:
            return running
        child, _ = launch_runner(session, typed_options(cores=self.cores, newest_first=self.newest_first))
        self._children[child.pid] = child
        try:
            return Process(child.pid, psutil.Process(child.pid).create_time())
        except psutil.NoSuchProcess:
            return Process(child.pid, 0.0)

    def alive(self, process: Process) -> bool:
        """Tell whether a runner lives."""
        child, lives = self._children.get(process.pid), _lives(process)
        if child is not None and (child.poll() is not None or not lives):
            child.wait()
            del self._children[process.pid]
            return False
        return lives

    def ask_to_stop(self, process: Process) -> None:
        """Let a runner stop after what it is doing; asked twice it stops at once."""
        if self.alive(process):
            os.kill(process.pid, signal.SIGTERM)


def _lives(process: Process) -> bool:
    try:
        found = psutil.Process(process.pid)
        return found.status() != psutil.STATUS_ZOMBIE and abs(found.create_time() - process.started) < 1.0
    except psutil.NoSuchProcess:
        return False


def find_runner(session: Path) -> Process | None:
    """Return the process that runs a session now, whoever started it."""
    with open_view(open_session(session)) as view:
        runner = view.overview().runner
    if not runner.alive or runner.pid is None:
        return None
    try:
        return Process(runner.pid, psutil.Process(runner.pid).create_time())
    except psutil.NoSuchProcess:
        return None


def how_run_ended(session: Path) -> RunEnd:
    """Return how the last run of a session ended, as its store says."""
    with open_view(open_session(session)) as view:
        state = view.overview().runner.state
    return {"finished": RunEnd.CLOSED, "stopped": RunEnd.STOPPED}.get(state, RunEnd.DIED)


def last_log_line(session: Path) -> str:
    """Return the end of what the runner said."""
    lines = _read_log(session).decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "its log is empty"


def _read_log(session: Path, start: int = 0) -> bytes:
    """Return the end of what the runner said, from byte ``start`` on; nothing of what a link leads to."""
    try:
        with os.fdopen(open_unlinked(session / "logs" / "runner.log", os.O_RDONLY), "rb") as handle:
            handle.seek(max(start, handle.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return handle.read()
    except (OSError, SessionError):
        return b""


def untaken_files(folder: Path) -> set[str]:
    """Return the images below the roots of a session's sources that the session has not taken, each with size and time."""
    session = open_session(folder)
    with open_view(session) as view, view.reading() as connection:
        table = schema.source_file
        asked = select(table.c.ref, table.c.size_bytes, table.c.modified_ns)
        rows = [] if connection is None else [tuple(row) for row in connection.execute(asked)]
    taken = {f"{ref}|{size}|{modified}" for ref, size, modified in rows}
    return {name for name in _files_of(session) if name not in taken}


def _files_of(session: Session) -> set[str]:
    found = set()
    for node in session.graph().nodes.values():
        root, pattern = node.params.get("root"), node.params.get("pattern")
        if node.type.kind.value != "source" or root not in session.roots or not isinstance(pattern, str):
            continue
        folder = Path(session.roots[root])
        for path in RawFolder(folder, pattern, IMAGE_SUFFIXES).scan().files:
            with suppress(OSError):  # the source tells of what it cannot read
                status = path.stat()
                found.add(f"{root}:{plain_text(path.relative_to(folder))}|{status.st_size}|{status.st_mtime_ns}")
    return found
