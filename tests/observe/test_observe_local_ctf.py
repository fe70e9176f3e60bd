"""Local defocus in the report of a live session."""

from pathlib import Path

import mrcfile
import pytest

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph
from icestream.observe.queries import open_view
from icestream.observe.report import gather
from icestream.settings import Settings

MICROSCOPE = {"pixel_size_ang": 1.5, "voltage_kv": 300, "cs_mm": 2.7, "amplitude_contrast": 0.07}


def test_the_report_shows_the_surface_of_the_newest_micrograph(tmp_path: Path) -> None:
    simulated = {
        "height_px": 512,
        "width_px": 512,
        "n_frames": 2,
        "n_particles": 20,
        "drift_px": (0.0, 0.0),
        "local_motion_px": 0.0,
    }
    settings = SimulationSettings.model_validate(
        {**MICROSCOPE, **simulated, "dose_per_frame_e_per_ang2": 30.0, "defocus_um": (1.5, 1.6), "n_movies": 1, "seed": 4}
    )
    (tmp_path / "data").mkdir()
    mrcfile.write(tmp_path / "data" / "one.mrc", render_micrograph(settings, 0)[0])
    steps = {
        "micrographs": {"use": "import_micrographs", "params": {"max_files": 1, "stable_s": 0.1}},
        "ctf": {"use": "ctf", "in": {"micrograph": "micrographs"}},
        "local": {"use": "ctf_local", "in": {"micrograph": "micrographs", "ctf": "ctf"}},
    }
    document = {"name": "local", "roots": {"micrographs": str(tmp_path / "data")}, "acquisition": MICROSCOPE, "steps": steps}
    session = create_session(tmp_path / "session", SessionDocument.model_validate(document))
    assert run_session(session, Settings(cores=2, min_free_gb=0)).finished
    with open_view(session) as view:
        (stored,) = view.records("local")
        shown = {one.title: one for one in gather(view, refresh_s=0).panels}["Local defocus"]
    assert shown.measures[0].median == pytest.approx(stored.record["range_ang"])
    assert shown.newest is not None
    assert ("Error of the defocus", stored.record["error_ang"], "Å") in shown.newest.numbers
    assert shown.newest.picture is not None
    assert shown.newest.picture.uri is not None
    assert "red is more" in shown.newest.note
