"""A shell into which the blocks of a tutorial are typed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from icestream.facility.runners import find_runner

LIMIT_S = 600.0


def blocks(page: Path) -> list[str]:
    """Return what a page lets people type, block by block."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def until(what: str, holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.2)


class Shell:
    """One shell, into which blocks are typed; the first command that fails ends it."""

    def __init__(self, home: Path) -> None:
        self.home, self.written = home, home / "shell.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ICESTREAM_")}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            "ICESTREAM_STATE": str(home / "state"),
            "ICESTREAM_MIN_FREE_GB": "0",
        }
        self._log = self.written.open("wb")
        self._process = subprocess.Popen(
            [shutil.which("bash") or "bash", "--noprofile", "--norc", "-euo", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment,
            start_new_session=True,
        )
        self._count = 0

    @property
    def said(self) -> str:
        """Everything that was printed."""
        return self.written.read_text(encoding="utf-8", errors="replace")

    def type(self, block: str) -> str:
        """Type a block, and return what it printed when its last command has ended."""
        assert self._process.stdin is not None
        self._count += 1
        before, mark = len(self.said), f"== {self._count} =="
        self._process.stdin.write(f"{block}\necho '{mark}'\n".encode())
        self._process.stdin.flush()
        until(f"the end of\n{block}", lambda: mark in self.said or self._process.poll() is not None)
        assert self._process.poll() is None, self.said
        return self.said[before:]

    def close(self) -> None:
        """End the shell, and what it started."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.poll() is None:
            self._process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._log.close()


def kill_runner(session: Path) -> None:
    """Kill the runner of a session, if there is one: it is a process of its own."""
    running = find_runner(session) if session.exists() else None
    if running is not None:  # `icestream stop` would end it only when its work is done
        psutil.Process(running.pid).kill()
