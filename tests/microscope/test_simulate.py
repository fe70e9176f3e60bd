import threading
from pathlib import Path

import gemmi
import mrcfile
import numpy as np
import pytest
import tifffile

from icestream.errors import SessionError
from icestream.microscope import Fault, Pace, SimulationSettings, load_exposure_truth, load_session_truth, simulate
from icestream.microscope.settings import Scene
from icestream.microscope.simulate import render_movie
from icestream.microscope.writer import split_events

FAST = Pace()


def settings(**changes):
    small = {
        "n_movies": 2,
        "height_px": 128,
        "width_px": 160,
        "n_frames": 3,
        "pixel_size_ang": 3.0,
        "phantom_diameter_ang": 90.0,
        "n_particles": 4,
        "dose_per_frame_e_per_ang2": 0.5,
        "n_dead_pixels": 3,
        "n_hot_pixels": 2,
    }
    return SimulationSettings.model_validate({**small, **changes})


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("session")
    return folder, simulate(folder, settings=settings(), pace=FAST)


def test_session_holds_movies_gain_and_truth(session):
    folder, truth = session
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "gain.mrc",
        "movies/mic_0001.tiff",
        "movies/mic_0002.tiff",
        *(f"truth/{name}" for name in ("phantom.mrc", "session.json", "session.star")),
        *(f"truth/mic_000{i}.{suffix}" for i in (1, 2) for suffix in ("json", "star")),
    }
    assert truth.exposures == ("mic_0001", "mic_0002")
    assert load_session_truth(folder) == truth


def test_truth_says_what_the_files_hold(session):
    folder, truth = session
    exposure = load_exposure_truth(folder, "mic_0002")
    movie = tifffile.imread(folder / exposure.file)
    assert movie.dtype == np.uint8
    assert movie.shape == (exposure.n_frames, exposure.height_px, exposure.width_px) == (3, 128, 160)
    gain = mrcfile.read(folder / truth.gain_file)
    corrected = movie[:, ::-1] * gain
    assert np.median(corrected) == pytest.approx(exposure.electrons_per_pixel, rel=0.15)
    assert all(gain[y, x] == 0 and not movie[:, ::-1][:, y, x].any() for y, x in truth.dead_yx)
    assert all(movie[:, ::-1][:, y, x].min() > 60 for y, x in truth.hot_yx)
    phantom = mrcfile.open(folder / truth.phantom_file)
    assert float(phantom.voxel_size.x) == pytest.approx(truth.phantom_pixel_size_ang)
    assert phantom.is_volume()


def test_star_truth_can_be_read_by_others(session):
    folder, truth = session
    exposure = load_exposure_truth(folder, truth.exposures[0])
    document = gemmi.cif.read_file(str(folder / "truth" / "mic_0001.star"))
    columns = ["CoordinateY", "CoordinateX", "AngleRot", "AngleTilt", "AnglePsi", "DefocusU"]
    table = document.find_block("particles").find([f"_rln{name}" for name in columns])
    first = [float(value) for value in table[0]]
    p = exposure.particles[0]
    assert first == pytest.approx([p.y_px, p.x_px, p.rot_deg, p.tilt_deg, p.psi_deg, exposure.defocus_u_ang], abs=1e-5)
    assert len(table) == len(exposure.particles) == 4


def test_a_movie_is_the_same_whatever_was_made_before(session, tmp_path: Path):
    folder, _ = session
    truth = render_movie(tmp_path / "again.tiff", settings(), 1)
    assert (tmp_path / "again.tiff").read_bytes() == (folder / "movies" / "mic_0002.tiff").read_bytes()
    assert truth == load_exposure_truth(folder, "mic_0002")
    other = render_movie(tmp_path / "other.tiff", settings(seed=2), 1)
    assert other.particles != truth.particles


def test_several_workers_write_the_same_session(session, tmp_path: Path):
    folder, truth = session
    assert simulate(tmp_path, settings=settings(), pace=FAST, workers=2) == truth
    for path in (folder / "movies").iterdir():
        assert (tmp_path / "movies" / path.name).read_bytes() == path.read_bytes()


def test_a_session_is_not_written_over(session):
    with pytest.raises(SessionError, match="already"):
        simulate(session[0], settings=settings(), pace=FAST)


def test_faults_of_the_image_are_in_the_movie(tmp_path: Path):
    faults = {0: Fault.EMPTY, 1: Fault.WRONG_SIZE, 2: Fault.HUGE_DRIFT, 3: Fault.TRUNCATED}
    truth = simulate(tmp_path, settings=settings(n_movies=4, faults=faults, drift_px=(1.0, 1.0)), pace=FAST)
    assert truth.faults == faults
    empty, small, drifting, cut = (load_exposure_truth(tmp_path, name) for name in truth.exposures)
    assert np.median(tifffile.imread(tmp_path / empty.file)) == 0
    assert tifffile.imread(tmp_path / small.file).shape == (3, small.height_px, small.width_px) == (3, 96, 120)
    assert np.linalg.norm(np.diff(drifting.global_yx_px, axis=0), axis=1).sum() == pytest.approx(12.0)
    whole = tmp_path / "whole.tiff"
    render_movie(whole, truth.settings, 3)
    assert (tmp_path / cut.file).stat().st_size == int(0.6 * whole.stat().st_size)


def test_late_gain_epu_folders_and_progress(tmp_path: Path):
    seen = []
    simulate(
        tmp_path,
        settings=settings(naming="epu"),
        pace=Pace(late_gain_after=1),
        on_progress=lambda truth: seen.append((truth.file, (tmp_path / truth.file).exists(), (tmp_path / "gain.mrc").exists())),
    )
    place = "movies/Images-Disc1/GridSquare_1000001/Data"
    assert seen == [
        (f"{place}/FoilHole_000001_Fractions.tiff", True, False),
        (f"{place}/FoilHole_000002_Fractions.tiff", True, True),
    ]


def test_stop_ends_after_the_movie_being_written(tmp_path: Path):
    stop = threading.Event()
    truth = simulate(tmp_path, settings=settings(n_movies=5), pace=FAST, stop=stop, on_progress=lambda _: stop.set())
    assert truth.exposures == ("mic_0001",)
    assert load_session_truth(tmp_path).exposures == ("mic_0001",)
    assert not (tmp_path / ".encoding").exists()


@pytest.mark.parametrize("mrc_type", ["int8", "int16", "uint16", "float32"])
def test_mrc_movies_hold_the_same_counts_as_tiff(session, tmp_path: Path, mrc_type):
    folder, _ = session
    render_movie(tmp_path / "movie.mrc", settings(format="mrc", mrc_type=mrc_type), 0)
    with mrcfile.open(tmp_path / "movie.mrc") as handle:
        movie = handle.data
        assert movie.dtype == np.dtype(mrc_type)
        assert float(handle.voxel_size.x) == pytest.approx(3.0)
        assert float(handle.header.dmean) == pytest.approx(movie.mean(dtype=np.float64), rel=1e-5)
        tiff = tifffile.imread(folder / "movies" / "mic_0001.tiff")[:, ::-1]
        limit = 127 if mrc_type == "int8" else 255
        assert np.array_equal(np.minimum(movie, limit), np.minimum(tiff, limit))


def test_eer_movie_has_its_camera_frames_and_nearly_all_electrons(tmp_path: Path):
    made = settings(format="eer", width_px=128, eer_frames_per_frame=8, n_hot_pixels=0)
    render_movie(tmp_path / "movie.eer", made, 0)
    with tifffile.TiffFile(tmp_path / "movie.eer") as handle:
        assert len(handle.pages) == 24
        assert handle.pages[0].shape == (128, 128)
        assert handle.pages[0].tags["Compression"].value == 65001


def test_events_keep_pixel_and_number_of_electrons():
    frame = np.array([[0, 3], [1, 0]], np.int32)
    parts = list(split_events(iter([frame, frame]), 5, generator=np.random.default_rng(1)))
    assert len(parts) == 10
    for whole in (parts[:5], parts[5:]):
        pixels = np.concatenate(whole) // 4
        counts = np.zeros((2, 2), int)
        np.add.at(counts, tuple(pixels.T), 1)
        assert np.array_equal(counts, frame)


def test_a_weak_beam_gives_seven_tenths_of_the_counts(tmp_path: Path):
    truth = simulate(tmp_path, settings=settings(n_movies=2, faults={1: Fault.WEAK_BEAM}, gain=False), pace=FAST)
    whole, weak = (load_exposure_truth(tmp_path, name) for name in truth.exposures)
    assert weak.electrons_per_pixel == pytest.approx(0.7 * whole.electrons_per_pixel)
    counts = [tifffile.imread(tmp_path / exposure.file).mean() for exposure in (whole, weak)]
    assert counts[1] / counts[0] == pytest.approx(0.7, rel=0.05)


def test_ice_that_flows_is_the_same_at_first_and_another_at_last(tmp_path):
    """Where frame 0 is the same, the rest differs; what a scene adds to the ice stays."""
    still = {
        "n_frames": 6,
        "dose_per_frame_e_per_ang2": 40.0,
        "n_particles": 0,
        "gain": False,
        "drift_px": (0, 0),
        "format": "mrc",
    }
    still |= {"local_motion_px": 0.0, "ice_thickness_ang": 4000.0}

    def alike(name, **changes):
        render_movie(tmp_path / name, settings(**still, **changes), 0)
        frames = mrcfile.read(tmp_path / name).astype(float)
        return np.corrcoef(frames[0].ravel(), frames[-1].ravel())[0, 1]

    kept, flown = alike("still.mrc"), alike("flowing.mrc", ice_motion_ang2_per_e=30.0)
    assert flown < 0.5 * kept
    dirty = {"scenes": {0: Scene.CARBON_EDGE}}
    assert alike("edge.mrc", ice_motion_ang2_per_e=30.0, **dirty) > 2 * flown
