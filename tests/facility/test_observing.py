"""Observing sessions: what is seen becomes alarms, each told once, however many observers there are."""

import json
import sys
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_session import PaperSession

from icestream.alarms.machine import Sampler
from icestream.facility.observing import Observer, alarm_store_of
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.records import CtfFit

RECEIVER = """
import json, os, sys
from pathlib import Path
message = json.load(sys.stdin)
with Path(sys.argv[1]).open("a") as log:
    log.write(json.dumps({**message, "heard": os.environ["ICESTREAM_ALARM_HEADING"]}) + "\\n")
"""


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def paper(tmp_path: Path) -> PaperSession:
    """A session that is running."""
    made = write_acquisition(tmp_path / "paper", 12, name="Ribosome")
    (made.session.folder / DOCUMENT).write_text(dump_document(made.session.document), encoding="utf-8")
    return made


@pytest.fixture
def facility(tmp_path: Path) -> Path:
    """A facility that hands messages to a program, which writes them down."""
    receiver, path = tmp_path / "receiver.py", tmp_path / "facility.yaml"
    receiver.write_text(RECEIVER, encoding="utf-8")
    command = [sys.executable, str(receiver), str(tmp_path / "heard.jsonl")]
    channels = [{"name": "staff", "kind": "command", "command": command}]
    rules = [
        {"name": "thick", "kind": "measure", "measure": "ctf_defocus_micrometers", "high": 3.0, "window": 5, "count": 2},
    ]
    path.write_text(json.dumps({"channels": channels, "rules": rules, "defaults": False}), encoding="utf-8")
    return path


def heard(tmp_path: Path) -> list[dict]:
    path = tmp_path / "heard.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def observer(facility: Path | None, clock: Clock, name: str) -> Observer:
    return Observer(facility, sampler=Sampler(clock=clock, gpus=tuple), clock=clock, holder=name)


def worsen(paper: PaperSession, first: int, count: int, *, defocus_ang: float) -> None:
    """Let exposures arrive that are far from focus."""
    for number in range(first, first + count):
        paper.now += 60
        unit = paper.expose(f"FoilHole_9{number:03d}", number)
        fit = CtfFit(
            defocus_u_ang=defocus_ang, defocus_v_ang=defocus_ang, astigmatism_angle_deg=0.0, score=0.3, resolution_ang=4.0
        )
        paper.make("ctf_a", unit, fit)


def test_an_alarm_is_raised_told_once_and_ends(paper, facility, tmp_path):
    clock = Clock(paper.now + 1)
    two = [observer(facility, clock, name) for name in ("serve", "watch")]
    assert [one.turn(paper.session.folder).opened for one in two] == [(), ()]
    worsen(paper, 13, 3, defocus_ang=36_000)
    clock.now = paper.now + 5
    turns = [one.turn(paper.session.folder) for one in two]
    told = [(turn.evaluated is not None, len(turn.opened), len(turn.deliveries)) for turn in turns]
    assert told == [(True, 1, 1), (False, 0, 0)]
    (message,) = heard(tmp_path)
    assert message["event"] == "raised"
    assert message["rule"] == "thick"
    assert message["subject"] == "ctf_a:ctf_defocus_micrometers"
    assert (message["exposures"], message["first"], message["newest"]) == (3, "FoilHole_9013", "FoilHole_9015")
    assert message["since"] == paper.now - 120
    assert "3.6\N{NO-BREAK SPACE}µm" in message["detail"]
    assert "FoilHole_9015" in message["look_at"]
    assert message["heard"] == message["heading"] == "[icestream] Ribosome: Defocus is outside its limits"
    worsen(paper, 16, 5, defocus_ang=15_000)
    clock.now = paper.now + 5
    turns = [one.turn(paper.session.folder) for one in reversed(two)]  # the first has not come back for long, and lost its turn
    assert [(turn.evaluated is not None, len(turn.ended)) for turn in turns] == [(True, 1), (False, 0)]
    assert [one["event"] for one in heard(tmp_path)] == ["raised", "ended"]
    kept = alarm_store_of(paper.session).alarms()
    assert [(one.alarm.number, one.alarm.ended_because) for one in kept] == [(1, "it is well again")]
