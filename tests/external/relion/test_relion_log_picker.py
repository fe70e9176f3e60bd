"""RELION itself picks; where it is not installed these tests are skipped by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from icestream.errors import ItemError
from icestream.external.relion.log_picker import RelionLogPickerParams, pick_with_relion_log
from icestream.flow import Exposure
from icestream.flow.declaration.step_type import step_type_of
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import SessionDocument, create_session
from icestream.io.blocks import from_block
from icestream.io.image import write_mrc
from icestream.io.movie import movie_header
from icestream.microscope import Pace, SimulationSettings, load_exposure_truth, simulate
from icestream.microscope.score import match_picks
from icestream.records import Acquisition, GainReference, Micrograph, Movie, Picks
from icestream.settings import Settings
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.picking.blob import PickBlobParams, pick_blobs
from icestream.testing.context import StepBench
from toys.session import outcomes_of, read_rows

ACQUISITION = Acquisition(pixel_size_ang=2.0)
CENTRES = np.array([[60, 90], [60, 400], [150, 250], [300, 70], [330, 420], [480, 150], [520, 330], [420, 300]])
"""Rows and columns of spots, so few and so far from the middle that nothing is symmetric."""
PARAMS = RelionLogPickerParams(diameter_ang=(100, 160))


@pytest.fixture
def relion() -> None:
    if shutil.which("relion_autopick") is None:
        pytest.skip("missing program: relion_autopick")


def draw(path: Path, centres: np.ndarray = CENTRES, *, dtype: str = "float32") -> Micrograph:
    """Write dark spots on noise, on a micrograph that is no square."""
    y, x = np.mgrid[:600, :500]
    image = np.random.default_rng(3).normal(0, 0.3, y.shape)
    for row, column in centres:
        image -= np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 15**2))
    write_mrc(path, image.astype(np.float32), pixel_size_ang=2.0, dtype=dtype, remember=False)
    return Micrograph(image=f"session:{path.name}", height_px=600, width_px=500, bin=1.0)


def positions(picks: Picks) -> np.ndarray:
    table = from_block(picks.block)
    return np.stack([table["y_px"], table["x_px"]], axis=1)


def test_it_is_declared_with_its_program() -> None:
    declared = step_type_of(pick_with_relion_log)
    assert [program.name for program in declared.programs] == ["relion_autopick"]
    assert (declared.reads, declared.output) == ({"pixel_size_ang"}, Picks)


def test_what_cannot_be_is_refused_before_relion_starts(tmp_path: Path) -> None:
    micrograph, bench = draw(tmp_path / "mic.mrc"), StepBench(tmp_path)
    with pytest.raises(ItemError, match="160 to 100"):
        pick_with_relion_log(micrograph, RelionLogPickerParams(diameter_ang=(160, 100)), ACQUISITION, bench)
    with pytest.raises(ItemError, match="pixel_size_ang"):
        pick_with_relion_log(micrograph, PARAMS, Acquisition(), bench)


@pytest.mark.services
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("shrink", "tolerance_px"), [(1.0, 1.0), (0.0, 5.0)])
def test_positions_are_rows_and_columns_as_ours(
    relion: None, tmp_path: Path, dtype: str, shrink: float, tolerance_px: float
) -> None:
    micrograph = draw(tmp_path / "mic.mrc", dtype=dtype)
    picks = pick_with_relion_log(micrograph, PARAMS.model_copy(update={"shrink": shrink}), ACQUISITION, StepBench(tmp_path))
    distance = cdist(positions(picks), CENTRES)
    assert picks.count == len(CENTRES)
    assert np.abs(positions(picks)[distance.argmin(axis=0)] - CENTRES).max() <= tolerance_px
    table = from_block(picks.block)
    assert (table["pid"].tolist(), (np.diff(table["score"]) <= 0).all()) == (list(range(8)), True)
    assert picks.diameter_ang == pytest.approx(np.sqrt(100 * 160))


@pytest.mark.services
def test_a_micrograph_without_particles_has_no_picks(relion: None, tmp_path: Path) -> None:
    micrograph = draw(tmp_path / "mic.mrc")
    picks = pick_with_relion_log(micrograph, PARAMS.model_copy(update={"threshold": 50.0}), ACQUISITION, StepBench(tmp_path))
    assert (picks.count, len(from_block(picks.block))) == (0, 0)


@pytest.mark.services
def test_in_a_session_results_name_relion_and_hostile_names_do_no_harm(
    relion: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    for name in ("$(touch pwned).mrc", "--help.mrc", "a;b 'c\" d.mrc"):
        draw(tmp_path / "raw" / name)
    document = {
        "name": "spots",
        "roots": {"micrographs": str(tmp_path / "raw")},
        "acquisition": {"pixel_size_ang": 2.0},
        "steps": {
            "mics": {"use": "import_micrographs", "params": {"idle_s": 1.0, "stable_s": 0.2, "rescan_s": 0.2}},
            "picks": {"use": "relion_log_picker", "in": {"micrograph": "mics"}, "params": {"diameter_ang": [100, 160]}},
        },
    }
    session = create_session(tmp_path / "session", SessionDocument.model_validate(document))
    report = run_session(session, Settings(cores=2, min_free_gb=0))
    assert (report.n_exposures, report.n_failed) == (3, 0)
    picked = [row for (step, _), row in outcomes_of(session).items() if step == "picks"]
    assert [row["weight"] for row in picked] == [8, 8, 8]
    made = {row["software"] for row in read_rows(session, schema.result) if row["record_type"] == "Picks"}
    assert [text for text in made if "relion_log_picker 1, relion_autopick 3." in text and "/relion_autopick)" in text]
    assert not list(tmp_path.rglob("pwned"))
    assert not list((session.folder / "work").iterdir())


@pytest.mark.services
def test_on_simulated_micrographs_it_finds_what_ours_finds(relion: None, tmp_path: Path) -> None:
    truth = simulate(tmp_path, settings=SimulationSettings(n_movies=2, n_particles=55, seed=11), pace=Pace())
    acquisition = Acquisition(
        pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07, dose_per_frame_e_per_ang2=2.5
    )
    gain = GainReference(file="session:gain.mrc", height_px=1024, width_px=1024)
    for name in truth.exposures:
        bench = StepBench(tmp_path, exposure=Exposure("0" * 32, name))
        header = movie_header(tmp_path / "movies" / f"{name}.tiff")
        movie = Movie(
            file=f"session:movies/{name}.tiff",
            n_frames=header.n_frames,
            height_px=header.height_px,
            width_px=header.width_px,
            format="tiff",
            size_bytes=header.path.stat().st_size,
        )
        micrograph = correct_motion(movie, gain, MotionParams(), acquisition, bench)
        true = load_exposure_truth(tmp_path, name).positions_yx_px
        theirs = pick_with_relion_log(micrograph, RelionLogPickerParams(diameter_ang=(135, 165)), acquisition, bench)
        ours = pick_blobs(micrograph, PickBlobParams(diameter_ang=(135, 165)), acquisition, bench)
        scores = [match_picks(positions(picks), true, radius_px=30).f1 for picks in (theirs, ours)]
        assert min(scores) > 0.97, f"{name}: F1 of RELION's LoG picker {scores[0]:.3f}, of pick_blob {scores[1]:.3f}"
        shutil.rmtree(bench.work_folder)
