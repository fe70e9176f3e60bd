"""Scipion's monitors become rules of alarms, and whom they wrote to."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from icestream.alarms.document import make_policy, read_facility_alarms, read_session_alarms
from icestream.alarms.rules import MeasureRule, SystemRule
from icestream.cli import app
from icestream.workflows.scipion.parse import parse_scipion
from icestream.workflows.scipion.translate import translate_scipion
from icestream.workflows.scipion.translation import CHANGED, Translation
from icestream.workflows.scipion.write import write_workflow
from icestream.workflows.template import read_template

MOVIES = {
    "object.className": "ProtImportMovies", "object.id": "1", "object.label": "movies", "filesPath": "/data", "voltage": 300.0,
    "sphericalAberration": 2.7, "amplitudeContrast": 0.1, "samplingRate": 1.0,
}  # fmt: skip
SUMMARY = {
    "maxDefocus": 35000.0, "minDefocus": 5000.0, "astigmatism": 1000.0, "stddevValue": 0.04, "ratio1Value": 1.2,
    "ratio2Value": 4.5, "cpuAlert": 101.0, "memAlert": 95.0, "swapAlert": 80.0, "doMail": True, "emailFrom": "scipion@lab.org",
    "emailTo": "anna@lab.org, bea@lab.org", "smtp": "smtp.lab.org", "publishCmd": "rsync -av x web:", "doInflux": False,
}  # fmt: skip


def translate(*items: dict[str, Any]) -> Translation:
    return translate_scipion(parse_scipion(json.dumps([MOVIES, *items]), name="w.json"))


def monitor(name: str, number: int, **values: object) -> dict[str, Any]:
    return {"object.className": name, "object.id": str(number), "object.label": name, "inputProtocols": ["1"], **values}


def test_the_summary_monitor_becomes_rules_in_our_units():
    translation = translate(monitor("ProtMonitorSummary", 2, **SUMMARY))
    assert translation.alarms is not None
    rules = {rule.name: rule for rule in translation.alarms.rules}
    assert rules["ctf-defocus"] == MeasureRule(
        name="ctf-defocus", measure="ctf_defocus_micrometers", low=0.5, high=3.5, window=20
    )
    highs = {name: rule.high for name, rule in rules.items() if isinstance(rule, MeasureRule | SystemRule)}
    assert highs == {
        "ctf-defocus": 3.5, "ctf-astigmatism": 1000.0, "gain-unevenness": 4.0, "gain-spread": 1.2, "gain-peak": 4.5,
        "memory": 95.0, "swap": 80.0,
    }  # fmt: skip
    assert translation.alarms.mail_to == ("anna@lab.org", "bea@lab.org")
    row = next(row for row in translation.rows if row.protocol.id == "2")
    assert (row.outcome, row.step) == (CHANGED, None)
    told = "; ".join(row.notes)
    assert "its thresholds are rules of alarms: ctf-defocus, ctf-astigmatism, gain-unevenness" in told
    assert "ICESTREAM_ALARMS names (host smtp.lab.org, sender scipion@lab.org)" in told
    assert "to publish the report" in told
    assert "doInflux" not in told


@pytest.mark.parametrize(("name", "values", "rules"), [
    ("ProtMonitorCTF", {"maxDefocus": 4.0, "minDefocus": 0.1}, ["ctf-defocus"]),
    ("ProtMonitorMovieGain", {"stddevValue": 0.05, "ratio1": 1.3}, ["gain-unevenness", "gain-spread"]),
    ("ProtMonitorSystem", {"cpuAlert": 90, "memAlert": 101, "swapAlert": 101}, ["cpu"]),
    ("ProtMonitorSystem", {}, []),
])  # fmt: skip
def test_each_monitor_has_its_own_thresholds(name, values, rules):
    alarms = translate(monitor(name, 2, **values)).alarms
    assert alarms is not None
    assert [rule.name for rule in alarms.rules] == rules
    assert alarms.mail_to == ()


def test_several_monitors_are_joined_and_what_cannot_be_read_is_told():
    translation = translate(
        monitor("ProtMonitorCTF", 2, maxDefocus=30000, minDefocus=40000, astigmatism="many"),
        monitor("ProtMonitorSystem", 3, cpuAlert=90, doMail=True, emailTo="nobody"),
        monitor("ProtMonitorSystem", 4, cpuAlert=95, doMail=True, emailTo="anna@lab.org"),
    )
    assert translation.alarms is not None
    assert [rule.high for rule in translation.alarms.rules if isinstance(rule, SystemRule)] == [95.0]
    assert translation.alarms.mail_to == ("anna@lab.org",)
    notes = {row.protocol.id: "; ".join(row.notes) for row in translation.rows}
    assert "low is 4 and must be below high, which is 3; the default rule holds" in notes["2"]
    assert "astigmatism is 'many', which is not a number" in notes["2"]
    assert "emailTo is no list of addresses" in notes["3"]


def test_a_session_of_the_imported_workflow_has_the_rules(tmp_path: Path):
    text = write_workflow(translate(monitor("ProtMonitorSummary", 2, **SUMMARY)))
    template = read_template(text, origin="here")
    assert template.alarms is not None
    (tmp_path / "facility.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "movies").mkdir()
    words = ["new", tmp_path / "s", "--template", tmp_path / "facility.yaml", "--movies", tmp_path / "movies", "--no-input"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    document = read_session_alarms(tmp_path / "s")
    assert document == template.alarms
    assert "ctf-defocus" in {rule.name for rule in make_policy(read_facility_alarms(None), document).rules}
