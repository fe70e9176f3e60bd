"""What header and sidecar of a movie tell is compared between movies, and with the values of the session, which win."""

import json
import shutil
from pathlib import Path

import pytest

from icestream.flow.runner.contradictions import find_contradictions
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import SessionDocument, create_session, open_session
from icestream.flow.workflow.graph import StepSpec
from icestream.microscope.pace import Pace
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.records import Acquisition, DoseReference
from icestream.settings import Settings
from icestream.steps.movies.dose_check import DoseCheckParams, check_dose, measure_dose
from icestream.steps.movies.import_movies import read_movie
from icestream.testing.context import StepBench
from toys.session import read_rows

MDOC = "T = SerialEM: Digitized on Krios  29-Nov-26  12:00:00\nVoltage = {kv}\n[FrameSet = 0]\nPixelSpacing = 1.5\nBinning = 1\n"
SETTINGS = SimulationSettings(n_movies=2, height_px=64, width_px=64, n_frames=2, n_particles=1, format="mrc", seed=1, gain=False)


@pytest.fixture
def movies(tmp_path: Path) -> Path:
    """Two movies of one camera: the sidecar of the first says 300 kV, that of the second 200 kV."""
    simulate(tmp_path / "scope", settings=SETTINGS, pace=Pace())
    folder = tmp_path / "movies"
    folder.mkdir()
    for index, kv in ((1, 300), (2, 200)):
        shutil.copy(tmp_path / "scope" / "movies" / f"mic_000{index}.mrc", folder)
        (folder / f"mic_000{index}.mrc.mdoc").write_text(MDOC.format(kv=kv))
    return folder


def test_a_movie_of_another_voltage_is_set_aside_with_both_values(movies: Path) -> None:
    bench = StepBench(movies)
    found = [read_movie(movies / name, f"session:{name}", read_metadata=True)[0] for name in ("mic_0001.mrc", "mic_0002.mrc")]
    assert [movie.told.voltage_kv for movie in found if movie.told] == [300, 200]
    doses = [measure_dose(movie, bench) for movie in found]
    reference = DoseReference(
        counts_per_px_frame=doses[1].counts_per_px_frame, source="median", n_measured=9, n_samples=9, shape=doses[0].shape
    )
    assert check_dose(found[0], doses[0], reference, DoseCheckParams(max_deviation=0.5)).accepted
    reason = check_dose(found[1], doses[1], reference, DoseCheckParams(max_deviation=0.5)).reason
    assert reason == "its header or sidecar gives an acceleration voltage of 200 kV, those of this session 300 kV"
    assert check_dose(found[1], doses[1], reference, DoseCheckParams(max_deviation=0.5, same_shape=False)).accepted


def test_a_value_of_the_session_that_files_contradict_is_told_once_and_still_wins(movies: Path, tmp_path: Path) -> None:
    params = {"max_files": 2, "give_up_s": 0.5, "stable_s": 0.1}
    document = SessionDocument(
        name="s",
        acquisition=Acquisition(voltage_kv=120),
        roots={"movies": str(movies)},
        steps={"movies": StepSpec(use="import_movies", params=params)},
    )
    session = create_session(tmp_path / "session", document)
    run_session(session, Settings(cores=2, min_free_gb=0))
    run_session(open_session(session.folder), Settings(cores=2, min_free_gb=0))
    said = [row["message"] for row in read_rows(session, schema.notice) if "the session says" in row["message"]]
    assert len(said) == 1
    assert said[0].startswith("Acceleration voltage: the session says 120 kV, but mic_000")
    assert said[0].endswith("the session's value is used for all movies")
    told = [json.loads(row["acquisition"])["voltage_kv"] for row in read_rows(session, schema.exposure)]
    assert sorted(told) == [200, 300]


def test_rounding_is_no_contradiction_and_what_is_unset_contradicts_nothing() -> None:
    ours = Acquisition(voltage_kv=300, pixel_size_ang=0.83, dose_per_frame_e_per_ang2=1.2, pre_exposure_e_per_ang2=0)
    told = {"voltage_kv": 300.0, "pixel_size_ang": 0.8293, "dose_per_frame_e_per_ang2": 1.16, "pre_exposure_e_per_ang2": 0.0}
    assert find_contradictions(ours, told, "a") == []
    assert find_contradictions(Acquisition(), {"voltage_kv": 200.0}, "a") == []
    (found,) = find_contradictions(ours, {"pixel_size_ang": 0.66, "cs_mm": 2.7}, "a")
    assert found.subject == "pixel_size_ang=0.83"
    assert found.sentence == (
        "Pixel size of the raw movie: the session says 0.83 Å, but a says 0.66 Å; the session's value is used for all movies"
    )
