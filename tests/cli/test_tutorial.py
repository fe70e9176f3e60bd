"""The tutorial from the microscope to the alarm: its commands, typed one block after the other into one shell."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from icestream.facility.runners import find_runner

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "from-microscope-to-alarm.md"
LIMIT_S = 600.0

SMALL = "--movies 3 --set height_px=512 --set width_px=512 --set n_frames=8 --set n_particles=12"
CHANGED = {
    "--movies 24 --seconds-per-movie 12 --write-s 1": SMALL,
    "--run --detach": "--run --detach --set classes.n_classes=4",
}
"""What a test need not wait for: large movies, and a microscope's pace."""


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def until(what: str, holds: Callable[[], object]) -> None:
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
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.poll() is None:
            self._process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._log.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing (Debian: curl)")
    made = Shell(tmp_path)
    yield made
    made.close()
    session = tmp_path / "tutorial" / "sessions" / "first"
    running = find_runner(session) if session.exists() else None
    if running is not None:  # it is a process of its own, which `icestream stop` ends when its work is done
        psutil.Process(running.pid).kill()


def received(folder: Path) -> list[dict[str, object]]:
    path = folder / "received.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


@pytest.mark.timeout(900)  # a dozen commands, each a process; on a busy machine they take their time
def test_its_commands_lead_from_movies_to_an_alarm_a_report_and_dashboards(shell: Shell) -> None:
    ports = {"8765": free_port(), "9000": free_port()}
    folder = shell.home / "tutorial"

    def typed(block: str) -> str:
        for old, new in CHANGED.items():
            block = block.replace(old, new)
        block = block.replace("icestream serve sessions", f"icestream serve sessions --port {ports['8765']}")
        return shell.type(re.sub(r"\b(8765|9000)\b", lambda found: str(ports.get(found.group(), found.group())), block))

    page = blocks()
    at = {word: next(i for i, block in enumerate(page) if word in block) for word in ("tail -n 1", "receiver.py", "--test chat")}
    for old in CHANGED:
        assert any(old in block for block in page)
    for number, block in enumerate(page):
        if number == 1:
            until("the server", lambda: "in a browser" in shell.said)
        if number == at["--test chat"]:
            until("the receiver", lambda: listens(ports["9000"]))
        if number == at["tail -n 1"]:
            until("an alarm", lambda: any(one["rule"] == "resolution" for one in received(folder)))
        # A microscope that is slow to begin seems silent, and that alarm is the first: who reads the list types the other number.
        raised = next((one["number"] for one in received(folder) if one.get("rule") == "resolution"), 1)
        typed(block.replace("--acknowledge 1 ", f"--acknowledge {raised} "))

    told = received(folder)
    assert told[0]["event"] == "test"
    alarm = next(one for one in told if one["rule"] == "resolution")
    assert (alarm["session"], alarm["severity"], str(alarm["first"])[:4]) == ("first", "warning", "mic_")
    assert str(alarm["link"]).startswith(f"http://127.0.0.1:{ports['8765']}/s/first/")
    published = (folder / "published" / "index.html").read_text(encoding="utf-8")
    assert "Beamline 7" in published and "CTF resolution is outside its limits" in published and "strict on purpose" in published
    assert re.search(r"^icestream_exposures\w*\{.*\} [1-3]", shell.said, re.MULTILINE), shell.said
    assert (folder / "monitoring" / "dashboards" / "summary.json").is_file()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
