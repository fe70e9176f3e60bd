import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import WorkflowError
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from icestream.workflows import fill_template, find_workflow, load_template, read_template, read_workflow
from icestream.workflows.scipion.parse import parse_scipion
from icestream.workflows.scipion.translate import translate_scipion
from icestream.workflows.scipion.write import new_command, write_workflow


def _write(text: str) -> str:
    return write_workflow(translate_scipion(parse_scipion(text, name="facility.json.template")))


def test_the_file_is_the_workflow(facility_template: str) -> None:
    translation = translate_scipion(parse_scipion(facility_template, name="here"))
    assert read_workflow(write_workflow(translation), origin="here").steps == translation.steps


def test_the_file_makes_a_session(tmp_path: Path, facility_template: str) -> None:
    path = tmp_path / "facility.yaml"
    path.write_text(_write(facility_template), encoding="utf-8")
    document = fill_template(
        load_template(str(path)),
        {"movies": "/data", "gain": "/data/gain[1].mrc", "dose_per_frame": 1.2},
        name="test",
        settings={"picks_2": {"diameter_ang": [90, 110]}},
    )
    assert build_graph(Workflow(steps=document.steps)).inputs_of("aligned") == {"movies", "gain"}


def test_labels_comments_fields_and_what_is_left_out_are_in_the_file(
    facility: list[dict[str, Any]], facility_template: str
) -> None:
    text = _write(facility_template)
    for part in (
        "# in streaming: 100 %",
        "label: motioncor (gpus 0, 1)",
        "  # strict, for this grid",
        "#   50.resolution: 'Worst resolution' (decimal, default 4.5, name resolution) is now --set resolution",
        "--voltage 200",
    ):
        assert part in text
    unknown = read_template(text, origin="here").disabled["scipion_105"]
    assert unknown.params == next(item for item in facility if item["object.id"] == "105")
    assert unknown.reason == "no protocol of this name is known to icestream"
    assert unknown.inputs == {"inputParticles": ["80.outputParticles"]}


def test_fields_become_placeholders_in_our_units(facility_template: str) -> None:
    template = read_template(_write(facility_template), origin="here")
    asked = template.placeholders
    assert (asked["voltage"].label, asked["voltage"].default, asked["voltage"].unit) == ("Voltage (kV)", 200, "kV")
    assert (asked["movies"].label, asked["movies"].default, asked["movies"].help) == (
        "Folder of the movies", None, "In Scipion: %(HOME)s/movies",
    )  # fmt: skip
    assert (asked["dose_per_frame"].label, asked["dose_per_frame"].required) == ("Dose per frame", True)
    assert (asked["resolution"].default, asked["resolution"].unit, asked["resolution"].gt) == (4.5, "Å", 0)
    values = {"movies": "/data", "dose_per_frame": 1.2, "resolution": 6, "picks_2_diameter": [90, 110], "voltage": 300}
    document = fill_template(template, values)
    assert document.steps["good"].params["max_resolution_ang"] == 6
    assert document.acquisition.voltage_kv == 300
    assert document.roots == {"movies": "/data", "gain": "/data"}
    with pytest.raises(WorkflowError, match=r"'dose_per_frame' \(Dose per frame\) is not given"):
        fill_template(template, {name: value for name, value in values.items() if name != "dose_per_frame"})


def test_fields_of_every_kind_are_asked_for() -> None:
    items = [
        {"object.className": "ProtImportMovies", "object.id": "1", "filesPath": "%(LAB_MOVIES)s"},
        {"object.className": "XmippProtFlexAlign", "object.id": "2", "inputMovies": "1.outputMovies",
         "doLocalAlignment": "~Local?|True|1|doLocal~", "binFactor": "~Binning|2|4|bin~"},
        {"object.className": "XmippProtMovieMaxShift", "object.id": "3", "inputMovies": "2.outputMovies",
         "rejType": "~Rule|3|3|~"},
        {"object.className": "ProtGctf", "object.id": "4", "inputMicrographs": "3.outputMicrographs",
         "minDefocus": "~Least defocus|5000|4|defocus~", "maxDefocus": "~Most defocus|30000|4|defocus~"},
    ]  # fmt: skip
    template = read_template(_write(json.dumps(items)), origin="here")
    asked = template.placeholders
    assert asked["movies"].env == "LAB_MOVIES"
    assert (asked["do_local"].type, asked["do_local"].default) == ("bool", True)
    assert (asked["bin"].type, asked["bin"].default, asked["bin"].ge) == ("float", 2.0, 1)
    assert asked["steady_rule"].choices == ["frame", "movie", "frame and movie", "frame or movie"]
    assert (asked["defocus"].type, asked["defocus"].default, asked["defocus"].unit) == ("list", [0.5, 3.0], "µm")
    assert template.steps["ctf"].params["defocus_um"] == {"ask": "defocus"}


def test_fields_of_what_handles_streams_are_asked_for() -> None:
    items = [
        {"object.className": "ProtImportMovies", "object.id": "1", "filesPath": "/data", "timeout": "~Idle|12h|0|idle~",
         "fileTimeout": "1m"},
        {"object.className": "XmippProtTriggerData", "object.id": "2", "inputImages": "1.outputMovies",
         "outputSize": "~Movies to wait for|20|3|enough~"},
        {"object.className": "ProtDataSampler", "object.id": "3", "inputImages": "2.outputMovies",
         "samplingProportion": "~Share|0.1|4|share~"},
        {"object.className": "ProtManualCheckpoint", "object.id": "4", "inputSet": "3.outputMovies",
         "boolTimer": True, "timeout": "~Wait at most|90m|0|atMost~"},
    ]  # fmt: skip
    template = read_template(_write(json.dumps(items)), origin="here")
    asked = {name: (template.placeholders[name].label, template.placeholders[name].default) for name in template.placeholders}
    assert asked["enough"] == ("Movies to wait for", 20)
    assert asked["share"] == ("Share", 0.1)
    assert asked["at_most"] == ("Wait at most", 1.5)
    assert asked["idle"] == ("Idle", 43200)
    assert template.steps["trigger"].params["count"] == {"ask": "enough"}
    assert template.steps["movies"].params["stable_s"] == 60
    document = fill_template(template, {"enough": 30, "share": 0.2, "at_most": 2, "idle": 60})
    assert document.steps["trigger"].params["count"] == 30
    assert document.steps["sample"].params["fraction"] == 0.2


HOSTILE = "x\nsteps: {bad: {use: import_movies}}\r\u2028steps: 1\x85y: 2\x00\x1b[31m \ufeff # : [ { ' \" &a *a !!python/object"


def test_text_of_others_cannot_become_part_of_the_workflow() -> None:
    items = [
        {"object.className": "ProtImportMovies", "object.id": "1", "object.label": HOSTILE, "object.comment": HOSTILE,
         "filesPath": f"/data/{HOSTILE}", "gainFile": "~" + HOSTILE + "|a.mrc|5|g~", "other": HOSTILE},
        {"object.className": "LabProtNew", "object.id": "2", "object.label": HOSTILE, HOSTILE: HOSTILE},
    ]  # fmt: skip
    workflow = read_workflow(_write(HOSTILE.replace("[", "") + json.dumps(items)), origin="here")
    assert list(workflow.steps) == ["movies", "gain"]
    assert workflow.steps["movies"].label == " ".join(HOSTILE.split())


def test_nothing_that_has_an_equivalent_gives_an_empty_workflow() -> None:
    text = _write('[{"object.className": "LabProtNew", "object.id": 1}]')
    data = yaml.safe_load(text)
    assert data["steps"] == {}
    assert set(data) == {"steps", "disabled"}
    assert data["disabled"]["scipion_1"]["use"] == "scipion:LabProtNew"
    with pytest.raises(WorkflowError, match="the workflow has no steps"):
        build_graph(read_workflow(text, origin="here"))


def test_the_command_to_go_on_with_is_safe_to_paste() -> None:
    text = '[{"object.className": "ProtImportMovies", "object.id": 1, "filesPath": "/data; rm -r x", "voltage": 300}]'
    command = new_command(translate_scipion(parse_scipion(text, name="here")), file_name="my file.yaml")
    assert command == "icestream new SESSION --workflow 'my file.yaml' --movies '/data; rm -r x' --voltage 300"


@pytest.fixture
def exported(tmp_path: Path, facility_template: str) -> Path:
    path = tmp_path / "facility.json.template"
    path.write_text(facility_template, encoding="utf-8")
    return path


def _run(*words: str | os.PathLike[str]) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["import-scipion", *map(str, words)])
    return result.exit_code, result.output


def test_the_command_writes_the_file_once_and_tells_what_became_of_it(tmp_path: Path, exported: Path) -> None:
    target = tmp_path / "facility.yaml"
    code, told = _run(exported, "-o", target)
    assert code == 0
    for part in (
        "steady",
        "changed meaning",
        "left out",
        "unknown",
        "kept as a comment",
        "Worst resolution",
        "next: icestream new",
    ):
        assert part in told
    assert "particles" in find_workflow(str(target)).steps
    code, told = _run(exported, "-o", target)
    assert code == 1
    assert "already exists" in told


def test_the_command_alone_writes_nothing(tmp_path: Path, exported: Path) -> None:
    code, told = _run(exported)
    assert code == 0
    assert "nothing was written" in told
    assert [path.name for path in tmp_path.iterdir()] == [exported.name]


def test_the_command_prints_json(exported: Path) -> None:
    result = CliRunner().invoke(app, ["import-scipion", str(exported), "--json"])
    told = json.loads(result.stdout)
    assert [row["result"] for row in told["protocols"] if row["id"] == "105"] == ["unknown"]
    assert told["options"]["--voltage"] == "200"
    assert told["fields"][0]["asked"]["cmd_id"] == "moviesPath"


def test_the_command_refuses_what_is_no_export(tmp_path: Path) -> None:
    path = tmp_path / "no.json"
    path.write_text("{}", encoding="utf-8")
    code, told = _run(path)
    assert code == 1
    assert "a Scipion workflow is a JSON array" in told


def test_text_of_others_does_not_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "hostile.json"
    items = [{"object.className": "ProtImportMovies", "object.id": 1, "object.label": HOSTILE, HOSTILE: "~a\x1b[2J|b|0~"}]
    path.write_text(json.dumps(items), encoding="utf-8")
    code, told = _run(path)
    assert code == 0
    assert "\x1b[31m" not in told
    assert "\x1b[2J" not in told
