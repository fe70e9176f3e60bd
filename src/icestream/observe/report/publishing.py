"""Publishing the report: a command of the facility copies its folder to where others see it.

The command is a list of arguments, never a line for a shell. It runs when what the report shows has changed; when it fails, it is
tried again after pauses that double, and what it said is kept in the session for `status` and the report itself.
"""

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from icestream.errors import SessionError
from icestream.files import folder_in_session, open_unlinked, publish_text
from icestream.flow.storage import Session
from icestream.observe.report.customising import Publishing

FIRST_PAUSE_S, LONGEST_PAUSE_S = 30.0, 1800.0
_STATE, _LOCK = "report-published.json", "report-published.lock"
_MOST_SAID = 2000
_LARGEST_STATE_BYTES = 1 << 16
_GRACE_S = 5.0


class Publication(BaseModel):
    """How the report was published last; kept in the folder of logs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    digest: str = ""
    """Of what was published last."""
    published_at: FiniteFloat | None = None
    failures: int = Field(0, ge=0)
    """In a row, since it succeeded last."""
    failed_at: FiniteFloat | None = None
    message: str = ""
    next_try_at: FiniteFloat = 0.0

    @property
    def trouble(self) -> str | None:
        """What is to be told, if it does not succeed."""
        if not self.failures:
            return None
        times = "once" if self.failures == 1 else f"{self.failures} times in a row"
        return f"the report could not be published ({times}): {self.message}"


def read_publication(session: Session) -> Publication:
    """Return how the report of a session was published last; one that never was has failed at nothing.

    The file may have come with a session from elsewhere: whatever times it says, publishing goes on after the longest pause.
    """
    try:
        with os.fdopen(open_unlinked(session.folder / "logs" / _STATE, os.O_RDONLY), "rb") as handle:
            found = Publication.model_validate_json(handle.read(_LARGEST_STATE_BYTES))
    except (OSError, SessionError, ValidationError):
        return Publication()
    now = time.time()
    published_at = None if found.published_at is None else min(now, found.published_at)
    more = {"published_at": published_at, "next_try_at": min(now + LONGEST_PAUSE_S, found.next_try_at)}
    return found.model_copy(update=more)


def publish_command(asked: Publishing, session: Session, folder: Path) -> list[str]:
    """Return program and arguments with the report's folder and the session's name filled in."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", session.document.name).strip("._-") or "session"
    values = {"{folder}": str(folder.absolute()), "{session}": name}
    return [re.sub(r"\{folder\}|\{session\}", lambda found: values[found.group()], part) for part in asked.command]


def check_command(command: Sequence[str]) -> list[str]:
    """Return what keeps a command from running, without running it."""
    return [] if shutil.which(command[0]) else [f"{command[0]}: there is no such program, or it cannot be executed"]


class Publisher:
    """Publishes one report, one command at a time, without making anybody wait."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.state = read_publication(session)
        self._running: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._lock: IO[bytes] | None = None
        self._digest, self._until, self._limit_s = "", 0.0, 0.0

    @property
    def busy(self) -> bool:
        """A command is running."""
        return self._running is not None

    def offer(self, asked: Publishing, folder: Path, digest: str) -> None:
        """Start the command if the report has changed since it was published, and it is time."""
        self.look()
        since = time.time() - (self.state.published_at or 0.0)
        if self.busy or digest == self.state.digest or time.time() < self.state.next_try_at or since < asked.at_least_every_s:
            return
        self.start(asked, folder, digest)

    def start(self, asked: Publishing, folder: Path, digest: str) -> None:
        """Start the command, unless another process publishes this report."""
        if not self._take_lock():
            return
        command = publish_command(asked, self.session, folder)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it is closed when the command has ended
        self._digest, self._limit_s = digest, asked.timeout_s
        self._until = time.monotonic() + asked.timeout_s
        try:
            self._running = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self._said, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            self._end(f"{command[0]}: cannot be run: {error.strerror}")

    def look(self) -> None:
        """See whether the command has ended, and end one that takes too long."""
        if self._running is None:
            return
        status = self._running.poll()
        if status is None and time.monotonic() > self._until:
            _kill(self._running)
            self._end(f"{self._name} was ended after {self._limit_s:g} s; it had printed {self._printed() or 'nothing'}")
        elif status is not None:
            failed = f"{self._name} exited with status {status}: {self._printed() or 'it printed nothing'}"
            self._end(None if status == 0 else failed)

    def wait(self) -> None:
        """Wait until the command has ended, at most as long as it may take."""
        while self._running is not None:
            with suppress(subprocess.TimeoutExpired):
                self._running.wait(max(0.0, self._until - time.monotonic()) + 0.01)
            self.look()

    @property
    def _name(self) -> str:
        arguments = self._running.args if self._running is not None else ()
        return shlex.join(map(str, arguments)) if isinstance(arguments, Sequence) else ""

    def _printed(self) -> str:
        if self._said is None:
            return ""
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _MOST_SAID))
        return " ".join(self._said.read().decode(errors="replace").split())

    def _end(self, failure: str | None) -> None:
        now = time.time()
        if failure is None:
            self.state = Publication(digest=self._digest, published_at=now)
        else:
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.state.failures, 20))
            more = {"failures": self.state.failures + 1, "failed_at": now, "message": failure, "next_try_at": now + pause_s}
            self.state = self.state.model_copy(update=more)
        publish_text(folder_in_session(self.session.folder, "logs") / _STATE, self.state.model_dump_json())
        for handle in (self._said, self._lock):
            if handle is not None:
                handle.close()
        self._running = self._said = self._lock = None

    def _take_lock(self) -> bool:
        lock = folder_in_session(self.session.folder, "logs") / _LOCK
        handle = os.fdopen(open_unlinked(lock, os.O_RDWR | os.O_CREAT), "rb")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            return False
        self._lock = handle
        self.state = read_publication(self.session)
        return True


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a command and everything that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
