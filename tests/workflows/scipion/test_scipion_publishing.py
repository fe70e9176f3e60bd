"""Scipion's command that published the report becomes a line for `report.yaml` that is right as it stands."""

import json
import re

import pytest

from icestream.documents import parse_document
from icestream.observe.report.customising import ReportSettings
from icestream.workflows.scipion.parse import read_scipion_file
from icestream.workflows.scipion.publishing import tell_publishing
from icestream.workflows.scipion.translate import translate_scipion
from toys.scipion_exports import protocol


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (
            "rsync -avL %(REPORT_FOLDER)s scipion@webserver:public_html/",
            ("rsync", "-avL", "{folder}", "scipion@webserver:public_html/"),
        ),
        ("cp -r '%(REPORT_FOLDER)s/.' '/srv/my reports'", ("cp", "-r", "{folder}/.", "/srv/my reports")),
    ],
)
def test_a_command_becomes_a_list_of_arguments(text, command):
    (note,) = tell_publishing({"publishCmd": text})
    line = re.search(r"`(publish: .*)` in the facility's", note)[1]
    assert ReportSettings.model_validate(parse_document(line)).publish.command == command


@pytest.mark.parametrize("text", ["rsync %(REPORT_FOLDER)s a: && touch b", "cp %(REPORT_FOLDER)s $HOME", "echo 'open", "a | b"])
def test_what_needs_a_shell_is_said_to(text):
    (note,) = tell_publishing({"publishCmd": text})
    assert f"publishing needed a shell ({text})" in note


def test_without_a_command_nothing_is_told():
    assert tell_publishing({}) == tell_publishing({"publishCmd": ""}) == tell_publishing({"publishCmd": None}) == []


def test_the_monitor_of_an_exported_workflow_says_it(tmp_path):
    monitor = protocol("ProtMonitorSummary", 110, "monitor", inputProtocols=[], publishCmd="rsync -a %(REPORT_FOLDER)s web:")
    (tmp_path / "exported.json").write_text(json.dumps([monitor]))
    translation = translate_scipion(read_scipion_file(tmp_path / "exported.json"))
    (row,) = translation.rows
    assert any('publish: {command: ["rsync", "-a", "{folder}", "web:"]}' in note for note in row.notes)
