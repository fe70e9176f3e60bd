"""The tutorial from the microscope to the alarm: its commands, typed one block after the other into one shell."""

import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from toys.shell import Shell, blocks, kill_runner, until

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "from-microscope-to-alarm.md"

SMALL = "--movies 3 --set height_px=512 --set width_px=512 --set n_frames=8 --set n_particles=12"
CHANGED = {
    "--movies 24 --seconds-per-movie 12 --write-s 1": SMALL,
    "--run --detach": "--run --detach --set classes.n_classes=4",
}
"""What a test need not wait for: large movies, and a microscope's pace."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    if shutil.which("curl") is None:
        pytest.skip("curl is missing (Debian: curl)")
    made = Shell(tmp_path)
    yield made
    made.close()
    kill_runner(tmp_path / "tutorial" / "sessions" / "first")


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

    page = blocks(PAGE)
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
