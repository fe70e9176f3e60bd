"""What stands in an export beside the protocols that are steps: unknown ones, checkpoints, tomography, files of defects."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.workflows.scipion.parse import parse_scipion
from icestream.workflows.scipion.template import make_template
from icestream.workflows.scipion.translate import translate_scipion
from icestream.workflows.scipion.translation import CHANGED, LEFT_OUT, MAPPED_SAME, UNKNOWN, Row, Translation

Item = dict[str, Any]


def _item(name: str, identity: int, **values: Any) -> Item:
    return {"object.className": name, "object.id": str(identity), **values}


def _translate(*items: Item) -> Translation:
    return translate_scipion(parse_scipion(json.dumps(items), name="here"))


def _row(translation: Translation, identity: int) -> Row:
    return next(row for row in translation.rows if row.protocol.id == str(identity))


MOVIES = _item("ProtImportMovies", 1, filesPath="/data", filesPattern="*.tiff", samplingRate=0.5)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("ProtRelionAssignOpticsGroup", {"inputSet": "1.outputMovies", "gainFile": "/data/gain.mrc"}),
        ("ProtRelionCompressMovies", {"inputMovies": "1.outputMovies"}),
        ("LabProtLookAtMovies", {"inputMovies": "1.outputMovies"}),
    ],
)
def test_what_only_passes_data_on_cuts_nothing(name: str, values: Item) -> None:
    after = _item("ProtMotionCorr", 3, inputMovies="2.outputMovies")
    translation = _translate(MOVIES, _item(name, 2, **values), after)
    assert translation.problems == ()
    assert translation.steps["aligned"].inputs == {"movie": "movies"}
    row = _row(translation, 2)
    assert row.outcome == (UNKNOWN if name.startswith("Lab") else LEFT_OUT)
    assert any("read movies" in note for note in row.notes)
    assert ("--gain" in " ".join(row.notes)) is ("gainFile" in values)


@pytest.mark.parametrize(("asked", "said"), [(True, True), (False, False), (None, False)])
def test_a_monitor_that_sent_to_influx_says_what_sends_now(asked: bool | None, said: bool) -> None:
    values = {} if asked is None else {"doInflux": asked}
    row = _row(_translate(MOVIES, _item("ProtMonitorSummary", 2, **values)), 2)
    assert row.outcome == CHANGED
    assert ("icestream metrics" in " ".join(row.notes)) is said


def test_an_unknown_protocol_that_makes_something_else_passes_nothing_on() -> None:
    translation = _translate(
        MOVIES,
        _item("ProtMotionCorr", 2, inputMovies="1.outputMovies"),
        _item("LabProtPick", 3, inputMicrographs="2.outputMicrographs"),
        _item("XmippProtExtractParticles", 4, inputCoordinates="3.outputCoordinates"),
        _item("ProtGctf", 5, inputMicrographs="3.outputMicrographsDiscarded"),
    )
    assert list(translation.steps) == ["movies", "aligned"]
    assert _row(translation, 3).notes == ("no protocol of this name is known to icestream",)


def test_what_waits_for_a_checkpoint_waits_at_a_gate() -> None:
    translation = _translate(
        MOVIES,
        _item("ProtManualCheckpoint", 2, boolTimer=True, timeout="2h"),
        _item("ProtMotionCorr", 3, inputMovies="1.outputMovies", _prerequisites="2"),
        _item("ProtGctf", 4, inputMicrographs="3.outputMicrographs"),
        _item("ProtManualCheckpoint", 5, boolTimer=False),
    )
    assert translation.problems == ()
    gate = translation.steps["checkpoint"]
    assert (gate.use, gate.inputs, gate.params) == ("trigger", {"items": "movies"}, {"manual": True, "release_after_h": 2.0})
    assert translation.steps["aligned"].inputs == {"movie": "checkpoint"}
    assert translation.steps["aligned"].after == []
    row = _row(translation, 2)
    assert (row.step, row.outcome, row.notes) == ("checkpoint", CHANGED, ("movies waits at checkpoint for the steps after it",))
    assert not any("does not wait" in note for note in _row(translation, 3).notes)
    assert set(translation.disabled) == {"scipion_5"}


def test_the_template_asks_for_the_folder_of_a_file_of_defects() -> None:
    translation = _translate(MOVIES, _item("ProtMotionCorr", 2, inputMovies="1.outputMovies", defectFile="/k3/defects.txt"))
    template = make_template(translation).template
    assert template.roots["defects"] == {"ask": "defects"}
    assert (template.placeholders["defects"].type, template.placeholders["defects"].default) == ("folder", "/k3")


def test_a_consensus_of_two_ctfs_has_no_criterion_that_scipion_has_not() -> None:
    limits = {"useDefocus": True, "minDefocus": 5000, "maxDefocus": 30000, "useAstigmatism": False, "useResolution": False}
    translation = _translate(
        MOVIES,
        _item("ProtMotionCorr", 2, inputMovies="1.outputMovies"),
        _item("ProtGctf", 3, inputMicrographs="2.outputMicrographs"),
        _item("CistemProtCTFFind", 4, inputMicrographs="2.outputMicrographs"),
        _item("XmippProtCTFConsensus", 5, inputCTF="3.outputCTF", inputCTF2="4.outputCTF", calculateConsensus=True,
              minConsResol=15, useAstigmatismPercentage=False, **limits),
    )  # fmt: skip
    good = translation.steps["good"]
    assert good.use == "ctf_consensus"
    assert (good.params["min_confidence"], good.params["min_confidence_of_both"]) == (None, None)
    assert _row(translation, 5).outcome == MAPPED_SAME


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("ProtImportTs", "it is tomography (ProtImportTs); icestream processes single particles"),
        ("LabProtNew", "none of its protocols has an equivalent, so there is nothing to run"),
    ],
)
def test_a_workflow_without_a_step_is_refused_in_one_line(tmp_path: Path, name: str, told: str) -> None:
    exported, target = tmp_path / "a.json", tmp_path / "a.yaml"
    exported.write_text(json.dumps([_item(name, 1)]), encoding="utf-8")
    result = CliRunner().invoke(app, ["import-scipion", str(exported), "-o", str(target)])
    assert result.exit_code == 1
    assert told in " ".join(result.stderr.split())
    assert not target.exists()


def test_tomography_beside_single_particles_is_said() -> None:
    translation = _translate(MOVIES, _item("ProtImodImportTransformationMatrix", 2))
    assert _row(translation, 2).notes == ("is tomography; icestream processes single particles",)
