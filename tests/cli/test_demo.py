"""The demonstration, small: everything from movies to the table, through real processes and files."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from icestream.cli import app
from icestream.cli.demo_plan import plan_demo
from icestream.cli.demo_table import Measure, measure
from icestream.flow.storage.session import open_session
from icestream.microscope.draw import name_exposure
from icestream.microscope.truth import load_exposure_truth, save_exposure_truth
from icestream.observe.grid_map import read_grid_map
from icestream.observe.next_holes import NextQuery, read_next_holes
from icestream.observe.queries import open_view

PLAN = plan_demo(movies=3, seed=1, fast=True)
FIRST, BROKEN, LAST = (name_exposure(PLAN.simulation, index)[0] for index in range(3))


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
    assert values["movies processed to particles"] == 2
    assert values["movies set aside or failed"] == 1
    assert values["global motion, rms error of a track, median"] < 0.3
    assert values["defocus, absolute error, median"] < 100
    assert values["picking, precision"] > 0.5
    assert values["picking, recall"] > 0.3


def test_the_table_and_the_places_are_printed(demo: tuple[Path, str]) -> None:
    folder, printed = demo
    assert all(name in printed for name in _measures(folder))
    assert f"icestream status {folder / 'session'}" in printed
    assert (folder / "session" / "report" / "index.html").stat().st_size > 10_000
    assert re.search(r"page: +http://127\.0\.0\.1:\d+/", printed)


def test_the_broken_movie_is_the_one_that_failed(demo: tuple[Path, str]) -> None:
    assert list(PLAN.simulation.faults) == [1]
    with open_view(open_session(demo[0] / "session")) as view:
        assert [item.exposure for item in view.failed()] == [BROKEN]


def test_the_map_has_squares_and_holes_and_the_ice_is_measured(demo: tuple[Path, str]) -> None:
    with open_view(open_session(demo[0] / "session")) as view:
        found = read_grid_map(view, colour="ice:ice_transmission_mean_free_paths")
        following = read_next_holes(view, NextQuery())
        counts = {step.name: step.counts for step in view.steps()}
    assert (len(found.squares), found.n_placed, found.software) == (9, 2, "epu")
    assert found.atlas is not None and found.atlas.picture
    assert sorted(one.value is not None for one in found.holes)[-2:] == [True, True]
    assert following.goes_with == found.colour and len(following.holes) > 10
    assert [counts[name].item for name in ("ice", "ice_ring")] == [2, 2]


def test_the_table_follows_the_truth(demo: tuple[Path, str]) -> None:
    folder = demo[0]
    before = _measures(folder)
    names = [load_exposure_truth(folder / "microscope", name) for name in (FIRST, LAST)]
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


def _call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_trace_tells_each_result_once(demo: tuple[Path, str]) -> None:
    printed = _call("trace", demo[0] / "session", FIRST).output
    assert "out = CtfFit" in printed
    assert f"{FIRST}.tiff" in printed
    assert printed.count(" image=session:") == 1
    assert "used version 1 of gain" in printed
    told = json.loads(_call("trace", demo[0] / "session", FIRST, "--json").output)
    assert told["steps"][0]["step"] == "movies"


def test_status_and_failed_tell_of_the_broken_movie(demo: tuple[Path, str]) -> None:
    session = demo[0] / "session"
    told = json.loads(_call("status", session, "--json").output)
    counts = {step["name"]: step["counts"] for step in told["steps"]}
    assert (counts["movies"]["item"], counts["movies"]["failed"], counts["ctf"]["skipped"]) == (2, 1, 1)
    assert "closed: 3 files arrived" in _call("status", session).output
    assert BROKEN in _call("failed", session, "movies", "--tracebacks").output
    assert _call("failed", session, "ctf").output == "nothing failed\n"
    assert "has no step 'ctff'" in _call("failed", session, "ctff").stderr


def test_retry_asks_the_runner(demo: tuple[Path, str]) -> None:
    session = demo[0] / "session"
    assert "nothing to retry" in _call("retry", session, "ctf").output
    asked = _call("retry", session, "--exposure", BROKEN).output
    assert "1 arrived broken: write those files again" in asked
    assert "at the next run" in asked
    assert "no exposure" in _call("retry", session, "--exposure", "mic_9999").stderr


def test_a_report_is_written_where_it_is_wanted(demo: tuple[Path, str], tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    assert str(target) in _call("report", demo[0] / "session", "--to", target).output
    assert FIRST in target.read_text(encoding="utf-8")
