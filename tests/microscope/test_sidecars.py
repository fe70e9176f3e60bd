"""Sidecars of the simulated microscope: they say what was simulated, and a session lives with those that are late or damaged."""

import json
import threading
from pathlib import Path
from typing import Literal

import pytest

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.flow.workflow.graph import StepSpec
from icestream.io.metadata import find_sidecar, read_beside
from icestream.io.movie import movie_header
from icestream.microscope.pace import Pace
from icestream.microscope.settings import SidecarFault, SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.settings import Settings
from toys.session import read_rows

SMALL = SimulationSettings(n_movies=1, height_px=64, width_px=64, n_frames=3, n_particles=1, seed=1, gain=False)


@pytest.mark.parametrize("kind", ["epu", "serialem"])
@pytest.mark.parametrize("form", ["mrc", "tiff", "eer"])
@pytest.mark.parametrize("naming", ["plain", "epu"])
def test_what_a_sidecar_says_is_what_was_simulated(
    tmp_path: Path, kind: Literal["epu", "serialem"], form: Literal["mrc", "tiff", "eer"], naming: Literal["plain", "epu"]
) -> None:
    settings = SMALL.model_copy(update={"sidecars": kind, "format": form, "naming": naming})
    session = simulate(tmp_path, settings=settings, pace=Pace())
    (movie,) = [path for path in (tmp_path / "movies").rglob("*") if path.suffix in (".mrc", ".tiff", ".eer")]
    header = movie_header(movie)
    metadata, acquisition = read_beside(movie, header.said, header.frames)
    assert session.exposures
    assert find_sidecar(movie) is not None
    assert metadata.note is None
    assert acquisition.pixel_size_ang == pytest.approx(1.5)
    assert acquisition.voltage_kv == 300
    assert acquisition.dose_per_frame_e_per_ang2 == pytest.approx(settings.dose_per_stored_frame_e_per_ang2)
    assert metadata.total_dose_e_per_ang2 == pytest.approx(7.5)


def test_a_live_session_takes_late_damaged_and_contradicting_sidecars(tmp_path: Path) -> None:
    faults = {
        1: SidecarFault.LATE,
        2: SidecarFault.GARBAGE,
        3: SidecarFault.CONTRADICTS,
        4: SidecarFault.MISSING,
        5: SidecarFault.LATE,
    }
    settings = SMALL.model_copy(update={"n_movies": 6, "format": "mrc", "sidecars": "serialem", "sidecar_faults": faults})
    folder = tmp_path / "scope"
    (folder / "movies").mkdir(parents=True)
    params = {"idle_s": 6.0, "stable_s": 0.2, "give_up_s": 0.5, "rescan_s": 0.2, "sidecar_s": 0.3}
    steps = {
        "movies": StepSpec(use="import_movies", params=params),
        "dose": StepSpec(use="measure_dose", inputs={"movie": "movies"}),
    }
    document = SessionDocument(name="s", roots={"movies": str(folder / "movies")}, steps=steps)
    session = create_session(tmp_path / "session", document)
    pace = Pace(seconds_per_movie=1.0)
    writer = threading.Thread(target=simulate, args=(folder,), kwargs={"settings": settings, "pace": pace})
    writer.start()
    run_session(session, Settings(cores=1, min_free_gb=0))
    writer.join()
    told = {row["name"]: json.loads(row["acquisition"]) for row in read_rows(session, schema.exposure)}
    doses = {name: values.get("dose_per_frame_e_per_ang2") for name, values in sorted(told.items())}
    assert doses == {f"mic_000{n}": None if n in (3, 5) else pytest.approx(2.5) for n in range(1, 7)}
    said = " / ".join(row["message"] for row in read_rows(session, schema.notice))
    assert "mic_0003: mic_0003.mrc.mdoc was not read: not a SerialEM mdoc: it is no text" in said
    assert "lists 1 frame, the file has 3: the total dose of 7.5 e/Å² is divided by these" in said
    assert "mic_0005: its files give no voltage_kv" in said
    outcomes = [row["status"] for row in read_rows(session, schema.outcome)]
    assert outcomes == ["item"] * 12
