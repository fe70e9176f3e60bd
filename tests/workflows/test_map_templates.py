"""The templates that end in a map: what they ask for, how their steps are connected, and one of them run to a map."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.errors import WorkflowError
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, create_session
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Graph, Workflow
from icestream.io.image import read_stack, write_mrc
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.observe.queries import open_view
from icestream.observe.report import write_report
from icestream.workflows import fill_template, load_template
from toys.session import outcomes_of, read_rows
from virtual.machine import VirtualMachine

pytestmark = pytest.mark.timeout(900)  # a whole session; on a busy machine it takes its time

N, SIDE_PX, PIXEL_ANG = 5, 512, 4.0
CLASSIFY: dict[str, Any] = {"n_classes": 3, "limit_ang": 20, "psi_step_deg": 15, "first_particles": 30, "batch_particles": 60}
SEARCH: dict[str, Any] = {"starts": 1, "passes": 8, "tries": 1, "quick_particles": 100, "limit_ang": 25}
SETTINGS: dict[str, dict[str, Any]] = {
    "micrographs": {"max_files": N, "stable_s": 0.1},
    "good": {"min_confidence": None, "max_resolution_ang": 50},
    "classes": {**CLASSIFY, "first_iterations": 6, "anneal_iterations": 4},
    "selected": {"min_score": 0.0},
    "good_particles": {"max_misfit": None, "max_residual": None},
    "search": SEARCH,
    "second_search": {**SEARCH, "common_lines": False},
    "initial": {"rounds": 1, "train_particles": 60, "test_particles": 20, "limit_ang": 25},
    "refined": {"max_iterations": 3},
    "quality": {"local_resolution": False, "most_order": 3},
}
VALUES: dict[str, Any] = {"voltage": 300, "cs": 2.7, "amplitude_contrast": 0.07, "pixel_size": PIXEL_ANG, "diameter": (160, 200)}
OWN: dict[str, Any] = {"box": 48, "first_particles": 100, "maps_at": [10_000], "finest": 20.0}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A finished session on micrographs with forty particles each."""
    folder = tmp_path_factory.mktemp("map")
    (folder / "micrographs").mkdir()
    settings = SimulationSettings(
        n_movies=N, seed=70, gain=False, height_px=SIDE_PX, width_px=SIDE_PX, pixel_size_ang=PIXEL_ANG, n_frames=1,
        n_particles=40,
        dose_per_frame_e_per_ang2=60.0, drift_px=(0, 0), local_motion_px=0, phantom_diameter_ang=180.0, b_factor_ang2=10.0,
        particle_contrast=1.0, defocus_um=(0.8, 2.0),
    )  # fmt: skip
    for number in range(N):
        image = render_micrograph(settings, number)[0]
        write_mrc(folder / "micrographs" / f"mic_{number}.mrc", image.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    values = {**VALUES, **OWN, "micrographs": folder / "micrographs"}
    made = create_session(folder / "session", fill_template(load_template("movies_to_map"), values, settings=SETTINGS))
    assert VirtualMachine(made).run_out().finished
    return made


@pytest.mark.services
def test_it_runs_from_micrographs_to_a_map(session: Session) -> None:
    outcomes = outcomes_of(session)
    assert {(step, row["reason"]) for (step, _), row in outcomes.items() if row["status"] == "failed"} == set()
    with open_view(session) as view:
        kept = sum(one.record["count"] for one in view.records("good_particles"))
        (initial,) = view.snapshots("initial", limit=9)
        (refined,) = view.snapshots("refined", limit=9)
        (quality,) = view.snapshots("quality", limit=9)
    assert kept >= 100
    assert refined.record["count"] == kept
    assert (len(initial.record["candidates"]), initial.record["verdict"]) == (2, "map")
    assert refined.record["verdict"] == "map"
    assert quality.record["verdict"] in ("map", "pixel_limit")
    volume = read_stack(session.folder / refined.record["map"].removeprefix("session:"))
    assert len(set(volume.shape)) == 1
    assert not [row["message"] for row in read_rows(session, schema.notice) if row["level"] == "alert"]


@pytest.mark.services
def test_its_particles_were_chosen_by_the_last_classes_and_the_selection_among_these(session: Session) -> None:
    with open_view(session) as view:
        classes, selected = view.snapshots("classes", limit=1)[0].record, view.snapshots("selected", limit=1)[0].record
        removed = {each["reason"] for one in view.records("good_particles") for each in one.record["removed"]}
    assert selected["version"] == classes["version"]
    assert not [reason for reason in removed if "not in the selection" in reason]


@pytest.mark.services
def test_the_report_shows_volumes_their_quality_and_the_forecast(session: Session) -> None:
    page = write_report(session).read_text(encoding="utf-8")
    for title in ("Initial volumes", "Candidates of the initial volume", "Volumes", "Map quality", "When to stop"):
        assert title in page, title
    assert "Fourier shell correlation" in page


def graph_of(name: str, tmp_path: Path, **values: Any) -> Graph:
    document = fill_template(load_template(name), {"movies": tmp_path, **values})
    return build_graph(Workflow(steps=document.steps))


def test_it_begins_with_movies_or_with_micrographs(tmp_path: Path) -> None:
    template = load_template("movies_to_map")
    assert fill_template(template, {"movies": tmp_path}).steps["ctf"].inputs == {"micrograph": "steady"}
    assert fill_template(template, {"micrographs": tmp_path}).steps["ctf"].inputs == {"micrograph": "prepared"}
    with pytest.raises(WorkflowError, match="micrographs"):
        fill_template(template, {})


def test_a_known_map_takes_the_place_of_the_search(tmp_path: Path) -> None:
    searched = graph_of("movies_to_map", tmp_path)
    assert searched.inputs_of("refined") == {"sets", "initial"}
    known = graph_of("movies_to_map", tmp_path, volume=tmp_path / "known.mrc", symmetry="D7")
    assert known.inputs_of("refined") == {"sets", "known_volume"}
    assert not {"search", "second_search", "initial", "first_set"} & set(known.nodes)
    assert known.nodes["known_volume"].params["symmetry"] == "D7"


FACILITY_USES = {
    *("motion", "compare_motion", "motion_consensus", "max_shift", "ctf", "ctf_equiphase", "ctf_consensus", "ctf_average"),
    *("pick_blob", "pick_matched", "pick_consensus", "extract", "trigger", "classify2d", "classify2d_static", "select_classes"),
    *("good_classes", "extract_coordinates", "initial_volume", "consensus_volumes", "classify3d", "consensus_classes3d"),
    *("refine3d", "map_quality", "stop_forecast"),
}


def test_a_facility_does_twice_what_can_be_done_twice(tmp_path: Path) -> None:
    graph = graph_of("facility_spa", tmp_path, enough_particles=50_000, diameter=(100, 150))
    uses = [node.use for node in graph.nodes.values()]
    assert set(uses) >= FACILITY_USES
    twice = ("motion", "extract", "initial_volume", "refine3d", "select_classes", "classify2d")
    assert {use: uses.count(use) for use in twice} == dict.fromkeys(twice, 2)
    assert uses.count("classify3d") == 3
    assert graph.nodes["stop_signal"].closes == ("blob_picks", "matched_picks")
    assert graph.nodes["groups"].domain == "version:groups"
    assert {graph.nodes[name].domain for name in ("initial", "poses", "first_3d", "third_3d")} == {"batch:set_3d"}
    assert not any(node.use.startswith("relion") for node in graph.nodes.values())


@pytest.mark.parametrize(("asked", "source"), [(False, "particles_3d"), (True, "stable")])
def test_a_facility_may_refine_only_what_3d_classifications_agree_on(asked: bool, source: str, tmp_path: Path) -> None:
    graph = graph_of("facility_spa", tmp_path, stable_only=asked)
    assert graph.inputs_of("sets") == {source}
    assert ("stable" in graph.nodes) is asked
    assert "stop_signal" not in graph.nodes
