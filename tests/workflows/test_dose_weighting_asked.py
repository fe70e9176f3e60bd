"""The template asks whether a movie without a dose may go on among weighted ones."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import ItemError, WorkflowError
from icestream.flow.storage.session import open_session
from icestream.records import Acquisition, Movie
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.testing.context import StepBench
from icestream.workflows import fill_template, load_template

NAME = "movies_to_ctf_full"


@pytest.mark.parametrize("asked", [None, "required", "off"])
def test_dose_weighting_is_asked_for(asked: str | None, tmp_path: Path) -> None:
    given = {"movies": tmp_path, **({} if asked is None else {"dose_weighting": asked})}
    params = fill_template(load_template(NAME), given).steps["aligned"].params
    assert MotionParams(**params).dose_weighting == (asked or "where known")


def test_another_word_is_refused_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(WorkflowError, match="where known, required, off"):
        fill_template(load_template(NAME), {"movies": tmp_path, "dose_weighting": "maybe"})


def test_off_is_a_word_on_the_command_line_too(tmp_path: Path) -> None:
    options = ["--template", NAME, "--movies", str(tmp_path), "--set", "dose_weighting=off"]
    answer = CliRunner().invoke(app, ["new", str(tmp_path / "s"), *options])
    assert answer.exit_code == 0, answer.output
    assert open_session(tmp_path / "s").document.steps["aligned"].params["dose_weighting"] == "off"


def test_where_it_is_required_a_movie_without_a_dose_fails_by_name(tmp_path: Path) -> None:
    document = fill_template(load_template(NAME), {"movies": tmp_path, "dose_weighting": "required"})
    movie = Movie(file="session:m.mrc", n_frames=4, height_px=64, width_px=64, format="mrc", size_bytes=1)
    params = MotionParams(**document.steps["aligned"].params)
    known = Acquisition(voltage_kv=300, pixel_size_ang=1.0)
    with pytest.raises(ItemError, match="dose_per_frame_e_per_ang2 is unset"):
        correct_motion(movie, None, params, known, StepBench(tmp_path))
