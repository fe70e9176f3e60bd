"""The map of the grid and the next holes through the interface, from a session on paper."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from icestream.cli import app
from icestream.microscope.grid import FIRST_HOLE, FIRST_SQUARE
from web.paper_grid import SETTINGS, paper_grid, write_grid
from web.parts import Served, serve_folder

AT = "/api/v1/sessions/grid"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("map") / "grid"
    write_grid(folder)
    return folder


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Served:
    return serve_folder(folder, tmp_path / "access.json")


def test_squares_and_holes_are_where_they_are_and_have_the_median_of_their_exposures(site: Served):
    found = site.client().get(f"{AT}/map?colour=ctf:ctf_resolution_angstroms").json()
    grid = paper_grid()
    assert (found["label"], found["unit"], found["better"]) == ("CTF resolution", "Å", "low")
    assert (found["n_exposures"], found["n_placed"], found["n_holes"]) == (72, 72, len(grid.square))
    assert [one["name"] for one in found["squares"]] == [str(FIRST_SQUARE + number) for number in range(9)]
    assert [one["n_exposures"] for one in found["squares"]] == [12] * 6 + [0] * 3
    assert found["squares"][0]["n_exposed"] == 6
    hole = int(grid.visited[1])
    mine = next(one for one in found["holes"] if one["name"] == str(FIRST_HOLE + hole))
    assert (mine["y_um"], mine["x_um"]) == pytest.approx(grid.yx_um[hole], abs=1e-3)
    assert mine["value"] == pytest.approx(9.0 - 6.0 * grid.good[hole], abs=1e-4)
    assert (mine["n_exposures"], mine["listed"]) == (2, True)
    assert abs(found["turn_deg"] - SETTINGS.turn_deg) <= 1.0
    assert found["half_side_um"] == pytest.approx(SETTINGS.side_um / 2 + 1.5, abs=1.0)
    assert found["missing"] == []


def test_what_a_beam_shift_means_is_learnt_from_holes_whose_places_are_listed(site: Served):
    found = site.client().get(f"{AT}/map?square={FIRST_SQUARE + 1}").json()
    assert found["shift"]["rms_um"] < 0.5  # two exposures of a hole are beside its middle
    matrix = np.array(found["shift"]["matrix_um"])
    assert abs(np.linalg.det(matrix)) == pytest.approx(22.0**2, rel=0.05)
    assert np.linalg.det(matrix) < 0  # the simulated shift is mirrored
    grid = paper_grid()
    exposures = [one for hole in found["holes"] for one in hole["exposures"]]
    assert sorted(one["number"] for one in exposures) == list(range(13, 25))
    for one in exposures:
        truth = grid.expose(one["number"] - 1)
        assert (one["y_um"], one["x_um"]) == pytest.approx((truth.y_um, truth.x_um), abs=0.25)
    assert len(found["holes"]) == SETTINGS.holes_per_side**2


def test_colour_by_the_number_of_exposures_and_mistakes(site: Served):
    client = site.client()
    found = client.get(f"{AT}/map?colour=exposures").json()
    assert (found["label"], found["high"]) == ("Exposures", 2.0)
    assert "no step measures this" in client.get(f"{AT}/map?colour=ctf:nothing").json()["detail"]
    assert client.get(f"{AT}/map?square=nowhere").status_code == 400
    assert client.get(f"{AT}/next-holes?good=ctf:ctf_resolution_angstroms,x,y").status_code == 400
    assert client.get(f"{AT}/next-holes?limit=0").status_code == 422


def test_the_atlas_is_shown_where_it_was_placed(site: Served):
    client = site.client()
    atlas = client.get(f"{AT}/map").json()["atlas"]
    corner, down, right = (np.array(atlas[f"{name}_yx_um"]) for name in ("corner", "down", "right"))
    centres = paper_grid().centres_yx_um
    assert corner + (down + right) / 2 == pytest.approx((centres.min(axis=0) + centres.max(axis=0)) / 2, abs=0.05)
    picture = client.get(f"{AT}/pictures/{atlas['picture']['key']}/{atlas['picture']['field']}")
    assert picture.headers["content-type"] == "image/jpeg"


def test_the_next_holes_are_new_wanted_and_better_than_chance(site: Served):
    found = site.client().get(f"{AT}/next-holes?good=ctf:ctf_resolution_angstroms,,5&limit=20").json()
    grid = paper_grid()
    holes = [int(one["hole"]) - FIRST_HOLE for one in found["holes"]]
    assert len(set(holes)) == 20
    assert not set(holes) & set(grid.visited[:36].tolist())
    assert not grid.empty[grid.square[holes]].any()
    wanted = ~grid.empty[grid.square]
    left = np.setdiff1d(np.flatnonzero(wanted), grid.visited[:36])
    assert found["n_candidates"] == len(left)
    assert found["n_judged"] == 36
    assert grid.good[holes].mean() > 1.15 * grid.good[left].mean()
    assert found["good"] == ["CTF resolution (ctf) is at most 5 Å", "no step failed or set it aside"]
    one = found["holes"][0]
    assert one["rank"] == 1
    assert 0 <= one["expected"] <= 1
    assert one["score"] >= one["expected"]


def test_the_command_says_the_same_as_the_address(site: Served, folder: Path, tmp_path: Path):
    asked = site.client().get(f"{AT}/next-holes?limit=7").json()
    run = CliRunner().invoke(app, ["next-holes", str(folder), "--format", "json", "--limit", "7"])
    assert run.exit_code == 0
    assert json.loads(run.stdout) == asked
    rows = CliRunner().invoke(app, ["next-holes", str(folder), "--format", "csv", "--limit", "7"]).stdout.splitlines()
    assert rows[0] == "rank,hole,square,y_um,x_um,score,expected,sd,sd_square,n_seen_in_square"
    assert len(rows) == 8
    grid = paper_grid()
    (y, x), first = grid.yx_um[-1], grid.yx_um[int(grid.visited[0])]
    table = tmp_path / "holes.csv"
    table.write_text(f"hole,square,y_um,x_um\nmine,{FIRST_SQUARE + 8},{y},{x}\ntaken,,{first[0]},{first[1]}\n", encoding="utf-8")
    own = CliRunner().invoke(app, ["next-holes", str(folder), "--holes", str(table), "--format", "json"])
    assert [(one["hole"], one["square"]) for one in json.loads(own.stdout)["holes"]] == [("mine", str(FIRST_SQUARE + 8))]


def test_without_the_software_s_list_the_page_says_what_is_missing(tmp_path: Path):
    write_grid(tmp_path / "grid", n_exposures=24, with_map=False)
    client = serve_folder(tmp_path / "grid", tmp_path / "access.json").client()
    found = client.get(f"{AT}/map").json()
    assert [one["n_exposures"] for one in found["squares"]] == [12, 12]
    assert not any(one["listed"] for one in found["holes"])
    assert found["shift"] is None
    assert (
        found["missing"][0]
        == "squares, holes that were not exposed, and the atlas are unknown: add the steps import_grid and map_grid"
    )
    assert found["missing"][1].startswith("what a shift of the beam means on the stage is unknown")
    following = client.get(f"{AT}/next-holes").json()
    assert following["holes"] == []
    assert following["missing"][-1].startswith("no hole is known that was not exposed")
