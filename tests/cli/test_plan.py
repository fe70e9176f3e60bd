from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.cli.plan import acquisition_from, parse_roots, parse_settings, parse_values
from icestream.errors import WorkflowError
from icestream.flow.storage.session import SessionDocument, create_session, open_session
from icestream.workflows import fill_template, load_template, unset_values


def _document(*settings: str, **changes: Any) -> SessionDocument:
    values = {"movies": "/data", "diameter": (100.0, 120.0), **changes}
    given = {name: value for name, value in values.items() if value is not None}
    return fill_template(load_template("movies_to_classes"), given, name="test", settings=parse_settings(settings))


def test_without_a_gain_its_step_and_input_are_left_out() -> None:
    steps = _document().steps
    assert "gain" not in steps
    assert steps["aligned"].inputs == {"movie": "movies"}


def test_a_gain_is_named_exactly_even_with_a_bracket_in_it() -> None:
    steps = _document(gain="/data/gain[1].mrc").steps
    assert steps["gain"].params == {"root": "gain", "pattern": "gain[[]1].mrc"}
    assert steps["aligned"].inputs == {"movie": "movies", "gain": "gain"}


def test_the_pattern_is_for_the_movies_not_for_the_gain() -> None:
    steps = _document(gain="/data/gain.mrc", pattern="*.tiff").steps
    assert steps["movies"].params == {"pattern": "*.tiff"}
    assert steps["gain"].params["pattern"] == "gain.mrc"


def test_the_diameter_goes_to_the_picking_step_only() -> None:
    steps = _document().steps
    assert {name for name, spec in steps.items() if "diameter_ang" in spec.params} == {"picks"}


def test_settings_are_yaml_and_win() -> None:
    steps = _document("picks.diameter_ang=[80, 90]", "aligned.bin=2", "aligned.local=false", "aligned.patches=null").steps
    assert steps["picks"].params["diameter_ang"] == [80, 90]
    assert steps["aligned"].params == {"bin": 2, "local": False, "patches": None}


@pytest.mark.parametrize("text", ["picks", "picks=3", "picks.=3", ".a=3", "picks.a", "=3"])
def test_a_setting_that_is_written_otherwise_is_refused(text: str) -> None:
    with pytest.raises(WorkflowError, match=r"STEP\.PARAM=VALUE"):
        parse_settings([text])


def test_a_setting_for_no_step_tells_the_steps() -> None:
    with pytest.raises(WorkflowError, match="no step 'pick' in this session; it has movies, aligned"):
        _document("pick.a=1")


def test_a_value_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(WorkflowError, match="not YAML"):
        parse_values(["a=[1"])


def test_a_source_without_a_folder_tells_which_option() -> None:
    with pytest.raises(WorkflowError, match=r"'movies'.*write --movies FOLDER"):
        _document(movies=None)
    with pytest.raises(WorkflowError, match=r"write --root cold=FOLDER"):
        _document("movies.root=cold")


def test_roots_are_absolute_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    roots = parse_roots(["cold=store"], movies=Path("m"), micrographs=None, gain=Path("ref/gain.mrc"))
    assert roots == {"cold": str(tmp_path / "store"), "movies": str(tmp_path / "m"), "gain": str(tmp_path / "ref")}
    with pytest.raises(WorkflowError, match="NAME=FOLDER"):
        parse_roots(["cold"], movies=None, micrographs=None, gain=None)


def test_an_impossible_microscope_is_refused() -> None:
    with pytest.raises(WorkflowError, match="voltage_kv is -300"):
        acquisition_from(voltage_kv=-300.0)


def test_values_that_nobody_gave_name_their_readers(tmp_path: Path) -> None:
    session = create_session(tmp_path / "s", _document(voltage=300, pixel_size=1, dose_per_frame=1))
    assert unset_values(session.document)["cs_mm"] == ["ctf", "particles", "classes", "relion", "good_relion"]
    assert "voltage_kv" not in unset_values(session.document)


@pytest.mark.parametrize(
    "words",
    [["--diameter", "120,160"], ["--diameter", "120 160"], ["--diameter", "120", "160"], ["--diameter=[120, 160]"]],
)
def test_a_pair_of_values_is_the_same_however_it_is_typed(words: list[str], tmp_path: Path) -> None:
    values = [str(tmp_path / "s"), "--movies", str(tmp_path), "--no-input", "--template", "movies_to_classes"]
    made = CliRunner().invoke(
        app, ["new", *values, *words, "--set", "movies.pattern=*.tiff", "--set", "ctf.resolution_ang=30, 5"]
    )
    assert made.exit_code == 0, made.output
    session = open_session(tmp_path / "s")
    assert session.document.steps["picks"].params["diameter_ang"] == [120, 160]
    assert session.document.steps["movies"].params["pattern"] == "*.tiff"
    assert session.graph().nodes["ctf"].params["resolution_ang"] == [30, 5]
