"""The templates that pick in other ways, each run from simulated micrographs to good particles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.errors import WorkflowError
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, create_session
from icestream.io.image import write_mrc
from icestream.io.star import read_star
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.observe.queries import open_view
from icestream.workflows import fill_template, load_template
from toys.session import outcomes_of, read_rows
from virtual.machine import VirtualMachine

N, SIDE_PX, PIXEL_ANG = 6, 512, 4.0
NAMES = ("classes_from_several_pickers", "classes_from_own_templates", "classes_from_trained_picker")
SETTINGS: dict[str, dict[str, Any]] = {
    "micrographs": {"max_files": N, "stable_s": 0.1},
    "good": {"min_confidence": None, "max_resolution_ang": 50},
    "size": {"first_micrographs": 2},
}
CLASSIFY: dict[str, Any] = {
    "n_classes": 3,
    "limit_ang": 20,
    "psi_step_deg": 15,
    "first_particles": 30,
    "first_iterations": 6,
    "anneal_iterations": 4,
}
OWN: dict[str, dict[str, Any]] = {
    "classes_from_several_pickers": {"quality": {"first_micrographs": 3}},
    "classes_from_own_templates": {"first_classes": CLASSIFY},
    "classes_from_trained_picker": {"first_classes": CLASSIFY, "picker": {"first_micrographs": 4}},
}


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("micrographs")
    for number in range(N):
        settings = SimulationSettings(
            n_movies=1, seed=40 + number, gain=False, height_px=SIDE_PX, width_px=SIDE_PX, pixel_size_ang=PIXEL_ANG, n_frames=1,
            n_particles=40, dose_per_frame_e_per_ang2=40.0, drift_px=(0, 0), local_motion_px=0, phantom_diameter_ang=180.0,
        )  # fmt: skip
        image = render_micrograph(settings, 0)[0]
        write_mrc(folder / f"mic_{number}.mrc", image.astype(np.float32), pixel_size_ang=PIXEL_ANG)
    return folder


def make(folder: Path, micrographs: Path, name: str) -> Session:
    values: dict[str, Any] = {
        "micrographs": micrographs,
        "voltage": 300,
        "cs": 2.7,
        "pixel_size": PIXEL_ANG,
        "diameter": (120, 260),
    }
    template = load_template(name)
    if "first_micrographs" in template.placeholders:
        values["first_micrographs"] = 4
    document = fill_template(template, values, settings={**SETTINGS, "classes": CLASSIFY, **OWN[name]})
    return create_session(folder / "session", document)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_micrographs_to_good_particles(tmp_path: Path, micrographs: Path, name: str) -> None:
    session = make(tmp_path, micrographs, name)
    assert VirtualMachine(session).run_out().finished
    failed = {(step, row["reason"]) for (step, _), row in outcomes_of(session).items() if row["status"] == "failed"}
    assert failed == set()
    with open_view(session) as view:
        picked = [one.record for one in view.records("clean_picks")]
        kept = [one.record for one in view.records("good_particles")]
        first = [one.record for one in view.records("first_particles")] if name != NAMES[0] else []
    assert len(picked) == len(kept) == N
    assert sum(one["count"] for one in picked) > 20 * N
    assert len(first) == (0 if name == NAMES[0] else 4)  # the first classes are of the first micrographs only
    exported = read_star(session.folder / "exports/good_relion/Extract/job003/particles.star")["particles"]
    assert len(exported) == sum(one["count"] for one in kept) > 10 * N
    references = {one["reference"] is not None for one in picked}
    assert references == {name == "classes_from_own_templates"} or name == "classes_from_trained_picker"
    if name == "classes_from_trained_picker":
        with open_view(session) as view:
            (model,) = view.snapshots("picker", limit=1)
        assert len(model.record["trials"]) >= 1  # it was trained; whether it is used depends on whether it is better
    assert not [row["message"] for row in read_rows(session, schema.notice) if row["level"] == "alert"]


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_movies_or_with_micrographs(tmp_path: Path, name: str) -> None:
    template = load_template(name)
    from_movies = fill_template(template, {"movies": tmp_path})
    assert (from_movies.steps["ctf"].inputs, "prepared" in from_movies.steps) == ({"micrograph": "steady"}, False)
    from_micrographs = fill_template(template, {"micrographs": tmp_path})
    assert (from_micrographs.steps["ctf"].inputs, "steady" in from_micrographs.steps) == ({"micrograph": "prepared"}, False)
    with pytest.raises(WorkflowError, match="micrographs"):
        fill_template(template, {})


def test_relion_picks_too_where_its_diameters_are_given(tmp_path: Path) -> None:
    template = load_template(NAMES[0])
    without = fill_template(template, {"micrographs": tmp_path})
    both = fill_template(template, {"micrographs": tmp_path, "relion_diameter": (100, 150)})
    assert without.steps["agreed"].inputs["picks"] == ["blob_picks", "matched_picks"]
    assert both.steps["agreed"].inputs["picks"] == ["blob_picks", "matched_picks", "relion_picks"]
