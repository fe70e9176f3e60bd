"""`icestream monitor` and `alarms`: on a terminal and as JSON."""

import json
import sys
from pathlib import Path

import pytest
from paper_acquisition import write_acquisition
from paper_session import PaperSession
from typer.testing import CliRunner

from icestream.cli import app
from icestream.files import SESSION_ALARMS
from icestream.flow.storage.session import DOCUMENT, dump_document

RULES = "rules:\n  - {name: thin, kind: measure, measure: 'ctf_a:ctf_defocus_micrometers', low: 3.0}\n"


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PaperSession:
    made = write_acquisition(tmp_path / "paper", 24, name="Ribosome")
    (made.session.folder / DOCUMENT).write_text(dump_document(made.session.document), encoding="utf-8")
    (made.session.folder / SESSION_ALARMS).write_text(RULES, encoding="utf-8")
    codes = {"good": "import sys; open(sys.argv[1], 'a').write('x')", "bad": "import sys; sys.exit('the pager is off')"}
    channels = [
        {"name": name, "kind": "command", "command": [sys.executable, "-c", code, str(tmp_path / "heard")]}
        for name, code in codes.items()
    ]
    (tmp_path / "facility.yaml").write_text(json.dumps({"channels": channels}), encoding="utf-8")
    monkeypatch.setenv("ICESTREAM_ALARMS", str(tmp_path / "facility.yaml"))
    return made


def run(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_a_look_raises_alarms_which_are_listed_and_acknowledged(paper, tmp_path):
    folder = paper.session.folder
    assert "nobody has watched this session yet" in run("alarms", folder)
    told = run("monitor", tmp_path, "--once")
    assert "paper: ALARM 1, warning: Defocus is outside its limits: 20 of the newest 20 exposures" in told
    assert "good, raised: sent" in told
    assert "bad, raised: not sent yet: channel 'bad':" in told
    assert (tmp_path / "heard").read_text(encoding="utf-8") == "x"
    listed = run("alarms", folder)
    assert "1  Defocus is outside its limits (ctf_a:ctf_defocus_micrometers)" in listed
    assert "exposures: 20, first" in listed
    assert "ended with status 1: the pager is off" in listed
    assert run("alarms", folder, "--acknowledge", 1, "--note", "is known") == "acknowledged: 1\n"
    assert ": is known" in run("alarms", folder)
    assert "alarm 1, 9: is unknown, over, or was acknowledged before" in run(
        "alarms", folder, "--acknowledge", 1, "--acknowledge", 9, code=1
    )


def test_the_same_as_json(paper, tmp_path):
    folder = paper.session.folder
    (turn,) = json.loads(run("monitor", folder, "--once", "--json"))
    assert (turn["session"], turn["looked"], turn["sent"], turn["trouble"]) == ("paper", True, 1, None)
    (error,) = turn["errors"]
    assert error.endswith("ended with status 1: the pager is off")
    page = json.loads(run("alarms", folder, "--json"))
    assert [one["alarm"]["rule"] for one in page["alarms"]] == ["thin"]
    assert {one["channel"]: one["state"] for one in page["deliveries"]} == {"good": "sent", "bad": "pending"}
    rules = json.loads(run("alarms", folder, "--rules", "--json"))
    assert rules["rules"][-1] == {
        "kind": "measure", "name": "thin", "severity": "warning", "low": 3.0, "margin": 0.0,
        "measure": "ctf_a:ctf_defocus_micrometers", "window": 20, "count": 1,
    }  # fmt: skip
    assert [one["name"] for one in rules["channels"]] == ["good", "bad"]
    assert json.loads(run("alarms", folder, "--test", "good", "--json")) == [{"channel": "good", "error": None}]


def test_channels_are_tried_and_rules_listed(paper):
    folder = paper.session.folder
    assert "good: taken" in run("alarms", folder, "--test", "good")
    assert "the facility has good, bad" in run("alarms", folder, "--test", "chat", code=1)
    told = run("alarms", folder, "--test", "all", code=1)
    assert "the pager is off" in told
    assert "not every channel took the test message" in told
    assert "good (command), bad (command)" in run("alarms", folder, "--rules")


def test_rules_that_are_not_allowed_are_named(paper, tmp_path):
    (paper.session.folder / SESSION_ALARMS).write_text("rules: [{name: a, kind: measure, measure: x}]", encoding="utf-8")
    told = run("monitor", tmp_path, "--once", code=1)
    assert "alarms.yaml: rule 'a': needs low, high or both" in told
    assert "rule 'a': needs low, high or both" in run("alarms", paper.session.folder, code=1)
    assert "is no folder" in run("monitor", tmp_path / "missing", "--once", code=1)
