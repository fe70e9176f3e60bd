"""The demonstration, small: everything from movies to the table, through real processes and files."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.cli.demo_plan import plan_demo
from icestream.cli.demo_table import Measure, measure
from icestream.flow.session import open_session
from icestream.microscope.truth import load_exposure_truth, save_exposure_truth
from icestream.observe.queries import open_view


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a finished demonstration and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "here"
    result = CliRunner().invoke(app, ["demo", "--fast", "--folder", str(folder)])
    assert result.exit_code == 0, result.output
    yield folder, result.output


def _measures(folder: Path) -> dict[str, Measure]:
    return {line.name: line for line in measure(open_session(folder / "session"), folder / "microscope")}


def test_what_is_found_is_near_the_truth(demo: tuple[Path, str]) -> None:
    values = {name: line.value for name, line in _measures(demo[0]).items()}
    assert values["movies through to particles"] == 2
    assert values["exposures set aside or failed"] == 1
    assert values["global motion, rms error of a track, median"] < 0.3
    assert values["defocus, absolute error, median"] < 100
    assert values["picking, precision"] > 0.5
    assert values["picking, recall"] > 0.3


def test_the_table_and_the_places_are_printed(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    assert all(name in printed for name in _measures(folder))
    assert f"icestream status {folder / 'session'}" in printed
    assert (folder / "session" / "report" / "index.html").stat().st_size > 10_000


def test_the_broken_movie_is_the_one_that_failed(demo: tuple[Path, str]) -> None:
    plan = plan_demo(movies=3, seed=1, fast=True)
    (broken,) = plan.simulation.faults
    with open_view(open_session(demo[0] / "session")) as view:
        assert [item.exposure for item in view.failed()] == [f"mic_{broken + 1:04d}"]


def test_the_table_follows_the_truth(demo: tuple[Path, str]) -> None:
    folder = demo[0]
    before = _measures(folder)
    names = [load_exposure_truth(folder / "microscope", f"mic_{number:04d}") for number in (1, 3)]
    for truth in names:
        other = {"defocus_u_ang": truth.defocus_u_ang + 5000, "defocus_v_ang": truth.defocus_v_ang + 5000, "particles": ()}
        save_exposure_truth(truth.model_copy(update=other), folder / "microscope")
    after = _measures(folder)
    for truth in names:
        save_exposure_truth(truth, folder / "microscope")
    defocus, precision, recall = "defocus, absolute error, median", "picking, precision", "picking, recall"
    assert abs(after[defocus].value - 5000) <= before[defocus].value + 1
    assert after[precision].value == 0
    assert math.isnan(after[recall].value)
