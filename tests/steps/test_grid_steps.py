"""Squares, holes and atlas of a simulated grid, as EPU and SerialEM write them, come back as they were simulated."""

import json
from pathlib import Path

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.flow.workflow.graph import StepSpec
from icestream.io.blocks import from_block
from icestream.io.metadata import read_beside
from icestream.io.movie import movie_header
from icestream.microscope.draw import grid_of
from icestream.microscope.grid import FIRST_HOLE, SimulatedGrid
from icestream.microscope.pace import Pace
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.observe.grid_map import read_grid_map
from icestream.observe.queries import open_view
from icestream.records import GridMap
from icestream.settings import Settings
from icestream.steps.movies.grid import find_grid_files, map_grid
from icestream.testing.context import StepBench
from icestream.web.pictures import read_picture

GRID = {"rows": 3, "columns": 3, "exposures_per_hole": 2, "visited_per_square": 4}
SMALL = {"height_px": 64, "width_px": 64, "n_frames": 2, "n_particles": 1, "gain": False, "format": "mrc", "grid": GRID}


def simulated(folder: Path, sidecars: str, n_movies: int = 4) -> SimulatedGrid:
    values = {**SMALL, "n_movies": n_movies, "sidecars": sidecars, "naming": "epu" if sidecars == "epu" else "plain"}
    settings = SimulationSettings.model_validate(values)
    simulate(folder, settings=settings, pace=Pace())
    grid = grid_of(settings)
    assert grid is not None
    return grid


def read(folder: Path, context: Path) -> GridMap:
    files = find_grid_files(folder, "grid", None)
    assert files is not None
    return map_grid(files, StepBench(context, roots={"grid": folder}))


@pytest.mark.parametrize("sidecars", ["epu", "serialem"])
def test_holes_and_squares_are_those_that_were_simulated(tmp_path: Path, sidecars: str) -> None:
    grid = simulated(tmp_path / "scope", sidecars)
    found = read(tmp_path / "scope", tmp_path / "session")
    rows = from_block(found.block)
    assert found.software == sidecars
    assert found.n_holes == len(grid.square) == len(rows)
    assert rows["square"].tolist() == grid.square.tolist()
    np.testing.assert_allclose(np.column_stack([rows["y_um"], rows["x_um"]]), grid.yx_um, atol=1e-3)
    centres = np.array([(one.y_um, one.x_um) for one in found.squares], dtype=np.float64)
    np.testing.assert_allclose(centres, grid.centres_yx_um, atol=1e-3)
    if sidecars == "epu":
        assert rows["hole"][0] == str(FIRST_HOLE)
        assert (rows["wanted"] == 1).tolist() == (~grid.empty[grid.square]).tolist()


def test_the_atlas_is_placed_by_the_squares_on_it(tmp_path: Path) -> None:
    grid = simulated(tmp_path / "scope", "epu")
    found = read(tmp_path / "scope", tmp_path / "session")
    assert found.picture is not None
    assert found.place is not None
    assert found.missing == []
    assert found.place.rms_um < 0.05
    assert found.place.n_squares == 9
    corner, down, right = (np.array(getattr(found.place, f"{name}_yx_um")) for name in ("corner", "down", "right"))
    middle = (grid.centres_yx_um.min(axis=0) + grid.centres_yx_um.max(axis=0)) / 2
    np.testing.assert_allclose(corner + 0.5 * down + 0.5 * right, middle, atol=0.05)
    assert down[0] < 0 < right[1]  # rows go down, columns to the right
    assert np.linalg.norm(down) == pytest.approx(np.linalg.norm(right), rel=1e-3)


@pytest.mark.parametrize("sidecars", ["epu", "serialem"])
def test_sidecars_say_square_hole_stage_and_shift(tmp_path: Path, sidecars: str) -> None:
    grid = simulated(tmp_path / "scope", sidecars)
    movie = next(path for path in sorted((tmp_path / "scope" / "movies").rglob("*.mrc")) if "0002" in path.name)
    header = movie_header(movie)
    metadata, _ = read_beside(movie, header.said, header.frames)
    truth = grid.expose(1)
    assert (metadata.stage_y_um, metadata.stage_x_um) == pytest.approx((truth.stage_y_um, truth.stage_x_um), rel=1e-4)
    shift = (
        (metadata.beam_shift_y, metadata.beam_shift_x)
        if sidecars == "epu"
        else (metadata.image_shift_y_um, metadata.image_shift_x_um)
    )
    assert all(shift)
    assert metadata.foil_hole == (str(FIRST_HOLE + truth.hole) if sidecars == "epu" else f"h{truth.hole + 1}")
    assert (metadata.grid_square is not None) == (sidecars == "epu")


def test_what_cannot_be_read_is_named_and_the_rest_stands(tmp_path: Path) -> None:
    simulated(tmp_path / "scope", "epu", n_movies=1)
    first, *_ = sorted((tmp_path / "scope" / "movies" / "Metadata").iterdir())
    first.write_text("<GridSquareXml", encoding="utf-8")
    (tmp_path / "scope" / "Atlas" / "Atlas_1.jpg").unlink()
    found = read(tmp_path / "scope", tmp_path / "session")
    assert len(found.squares) == 8
    assert [one.partition(":")[0] for one in found.missing] == [
        f"{first.name} was not read",
        "there is no Atlas_….jpg beside Atlas.dm",
    ]
    assert found.picture is None


def test_a_plain_table_of_holes_is_enough(tmp_path: Path) -> None:
    rows = [{"hole": "a", "square": "s", "y_um": 1.5, "x_um": 2, "wanted": True}, {"hole": "b", "y_um": 0, "x_um": 1}]
    (tmp_path / "holes.json").write_text(json.dumps(rows), encoding="utf-8")
    table = from_block(read(tmp_path, tmp_path / "session").block)
    assert table.tolist() == [(0, "a", 1.5, 2.0, 1), (-1, "b", 0.0, 1.0, -1)]
    (tmp_path / "holes.json").write_text('[{"hole": "a", "y_um": "north"}]', encoding="utf-8")
    with pytest.raises(ItemError, match="row 1: needs hole, y_um and x_um"):
        read(tmp_path, tmp_path / "session")


def test_a_session_reads_the_grid_beside_its_movies_and_again_when_it_changes(tmp_path: Path) -> None:
    grid = simulated(tmp_path / "scope", "epu")
    quick = {"idle_s": 2.0, "rescan_s": 0.2}
    steps = {
        "movies": StepSpec(use="import_movies", params={**quick, "stable_s": 0.1}),
        "grid_files": StepSpec(use="import_grid", params=quick),
        "grid": StepSpec(use="map_grid", inputs={"files": "grid_files"}),
    }
    roots = {"movies": str(tmp_path / "scope" / "movies"), "grid": str(tmp_path / "scope")}
    session = create_session(tmp_path / "session", SessionDocument(name="grid", roots=roots, steps=steps))
    report = run_session(session, Settings(min_free_gb=0, cores=1))
    assert report.finished, report.reason
    with open_view(session) as view:
        (version,) = view.snapshots("grid")
        found = read_grid_map(view, colour="exposures")
        picture, kind = read_picture(view, version.key, "picture")
    assert (found.n_placed, found.n_holes) == (4, len(grid.square))
    (missing,) = found.missing
    assert missing.startswith("what a shift of the beam means on the stage is unknown: too few exposures")
    assert sum(one.n_exposures for one in found.holes) == 4
    assert found.atlas is not None
    assert (kind, picture[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    for path in (tmp_path / "scope" / "movies" / "Metadata").glob("*.dm"):
        path.write_text(path.read_text(encoding="utf-8").replace("true</Selected>", "false</Selected>"), encoding="utf-8")
    report = run_session(session, Settings(min_free_gb=0, cores=1))
    assert report.finished, report.reason
    with open_view(session) as view:
        assert [one.version for one in view.snapshots("grid")] == [2, 1]
        assert not any(one.wanted for one in read_grid_map(view).holes)
