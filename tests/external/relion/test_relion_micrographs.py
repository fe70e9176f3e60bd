"""RELION corrects a movie, picks with references and extracts; where it is not installed these tests are skipped by name."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from icestream.algorithms.motion.model import local_shift_px
from icestream.algorithms.motion.relion import convert_local_model, local_model_from_relion
from icestream.errors import FileFormatError, ItemError
from icestream.external.relion.extract import RelionExtractParams, extract_with_relion, read_extracted
from icestream.external.relion.motion import RelionMotionParams, correct_with_relion, describe_found_motion, read_motion
from icestream.external.relion.reference_picker import RelionReferencePickerParams, pick_with_relion_references
from icestream.io.blocks import from_block
from icestream.io.image import read_image, read_stack, write_mrc
from icestream.io.picks import make_picks, table_of_picks
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.records import Acquisition, CtfFit, GainReference, Micrograph, Movie, Particles, PickTemplates
from icestream.steps.motion.consensus import compare_motion
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.particles.extract import ExtractParams, extract_particles
from icestream.testing.context import StepBench

ACQUISITION = Acquisition(pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.1, dose_per_frame_e_per_ang2=2.5)
CTF = CtfFit(defocus_u_ang=12000, defocus_v_ang=11000, astigmatism_angle_deg=25, score=0.5, resolution_ang=4)
MOTION = """
data_general

_rlnImageSizeX 64
_rlnMotionModelVersion {version}

data_global_shift

loop_
_rlnMicrographFrameNumber #1
_rlnMicrographShiftX #2
_rlnMicrographShiftY #3
1 0.0 0.0
2 -1.0 2.0
3 -1.5 2.5

data_local_motion_model

loop_
_rlnMotionModelCoeffsIdx #1
_rlnMotionModelCoeff #2
{rows}
"""


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"missing program: {program}")


def test_a_local_motion_of_relion_is_ours_again() -> None:
    rng, shape = np.random.default_rng(5), (200, 300)
    coefficients = rng.normal(0, 2, (2, 18))
    words = convert_local_model(coefficients, shape=shape, n_frames=12)
    again = local_model_from_relion(words, shape=shape, n_frames=12)
    place = {"frame": np.arange(12)[:, None], "y_px": rng.uniform(0, 199, 9), "x_px": rng.uniform(0, 299, 9)}
    seen = [local_shift_px(one, **place, shape=shape, n_frames=12) for one in (coefficients, again)]
    assert np.abs(seen[0] - seen[1]).max() < 1e-6


def test_a_motion_is_read_as_displacement_of_the_specimen(tmp_path: Path) -> None:
    path = tmp_path / "movie.star"
    path.write_text(MOTION.format(version=1, rows="".join(f"{i} {0.01 * i:.2f}\n" for i in range(36))))
    motion = describe_found_motion(read_motion(path, n_frames=3), shape=(64, 64))
    assert motion.global_yx_px == [(0, 0), (-2.0, 1.0), (-2.5, 1.5)]
    assert motion.total_px == pytest.approx(5**0.5 + 0.5**0.5)
    assert motion.local_coefficients is not None
    path.write_text(MOTION.format(version=0, rows="0 0.0"))
    assert read_motion(path, n_frames=3).words is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("data_general", "data_other"), "it has the tables other"),
        (("_rlnMicrographShiftY", "_rlnOther"), "no column 'rlnMicrographShiftY'"),
        (("3 -1.5 2.5\n", ""), "has 2 shifts; the movie has 3 frames"),
        (("35 0.35\n", ""), "has 35 coefficients"),
        (("2 -1.0 2.0", "2 -1.0 nan"), "has 3 shifts"),
        (("_rlnMotionModelVersion", "_rlnOther"), "no column 'rlnMotionModelVersion'"),
    ],
)
def test_a_motion_that_lacks_something_is_refused(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    path = tmp_path / "movie.star"
    text = MOTION.format(version=1, rows="".join(f"{i} {0.01 * i:.2f}\n" for i in range(36)))
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(FileFormatError, match=told):
        read_motion(path, n_frames=3)


def test_a_movie_that_relion_cannot_read_is_refused_before_it_starts(tmp_path: Path) -> None:
    movie = Movie(file="session:m.eer", n_frames=3, height_px=64, width_px=64, format="eer", size_bytes=9)
    with pytest.raises(ItemError, match=r"this is eer as \.eer"):
        correct_with_relion(movie, None, RelionMotionParams(), ACQUISITION, StepBench(tmp_path))


@pytest.mark.services
def test_a_movie_is_corrected_as_ours_is_with_its_gain(tmp_path: Path) -> None:
    need("relion_run_motioncorr")
    side, n_frames = 512, 8
    settings = SimulationSettings(
        n_movies=1, height_px=side, width_px=side, n_frames=n_frames, drift_px=(12, 12), local_motion_px=0.3
    )
    simulate(tmp_path, settings=settings, pace=Pace())
    path = tmp_path / "movies/mic_0001.tiff"
    size = {"n_frames": n_frames, "height_px": side, "width_px": side, "size_bytes": path.stat().st_size}
    movie = Movie(file="session:movies/mic_0001.tiff", format="tiff", **size)
    gain = GainReference(file="session:gain.mrc", height_px=side, width_px=side)
    bench = StepBench(tmp_path)
    theirs = correct_with_relion(movie, gain, RelionMotionParams(patches=(1, 1)), ACQUISITION, bench)
    image = read_image(bench.path(theirs.image))
    ours = correct_motion(movie, gain, MotionParams(), ACQUISITION, bench)
    agreement = compare_motion(ours, theirs)
    assert (theirs.dose_weighted, theirs.n_frames) == (True, n_frames)
    assert agreement.range_px > 3
    assert agreement.rms_px < 0.5
    assert theirs.frames is not None
    assert ours.frames is not None
    assert theirs.frames.gain_orientation == ours.frames.gain_orientation
    smooth = [ndimage.gaussian_filter(one, 4)[64:-64, 64:-64] for one in (image, read_image(bench.path(ours.image)))]
    assert np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1] > 0.9
    assert read_image(bench.path(str(theirs.unweighted))).shape == (side, side)


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> tuple[StepBench, Micrograph, np.ndarray]:
    """Return dark rings on noise, on a micrograph that is no square, and where they are."""
    bench = StepBench(tmp_path_factory.mktemp("spots"))
    centres = np.array([[60, 90], [60, 400], [150, 250], [300, 70], [330, 420], [480, 150], [520, 330], [420, 300]])
    y, x = np.mgrid[:600, :500]
    image = np.random.default_rng(3).normal(0, 0.3, y.shape)
    for row, column in centres:
        image -= np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 12**2))
    write_mrc(bench.folder / "mic.mrc", image.astype(np.float32), pixel_size_ang=1.5, remember=False)
    return bench, Micrograph(image="session:mic.mrc", height_px=600, width_px=500, bin=1.0), centres


@pytest.mark.services
def test_references_find_what_they_look_like(spots: tuple[StepBench, Micrograph, np.ndarray]) -> None:
    need("relion_autopick")
    bench, micrograph, centres = spots
    y, x = np.mgrid[-32:32, -32:32]
    reference = np.exp(-(y**2 + x**2) / (2 * 12**2)).astype(np.float32)
    write_mrc(bench.folder / "t.mrcs", reference[None], pixel_size_ang=1.5)
    templates = PickTemplates(
        stack="session:t.mrcs", picture="session:t.png", count=1, box_px=64, pixel_size_ang=1.5, diameter_ang=70,
        made_from="one", templates=[],
    )  # fmt: skip
    params = RelionReferencePickerParams(threshold=0.3, angle_deg=360, lowpass_ang=15)
    shutil.rmtree(bench.work_folder)
    picks = pick_with_relion_references(micrograph, templates, None, params, ACQUISITION, bench)
    table = from_block(picks.block)
    found = np.stack([table["y_px"], table["x_px"]], axis=1)
    assert (picks.count, picks.reference) == (8, "session:t.mrcs")
    assert np.linalg.norm(found[:, None] - centres, axis=2).min(axis=0).max() < 3


@pytest.mark.services
def test_extracted_particles_are_ours(spots: tuple[StepBench, Micrograph, np.ndarray]) -> None:
    need("relion_preprocess")
    bench, micrograph, centres = spots
    inside = make_picks(table_of_picks(centres[2:5] + 0.4, np.array([3.0, 2.0, 1.0])), diameter_ang=70)
    shutil.rmtree(bench.work_folder)
    params = RelionExtractParams(box_px=96, background_diameter_ang=99)
    theirs = extract_with_relion(micrograph, inside, CTF, params, ACQUISITION, bench)
    images = read_stack(bench.path(str(theirs.stack)))
    ours_params = ExtractParams(box_px=96, background_diameter_ang=99, dust_level=None)
    ours = extract_particles(micrograph, inside, CTF, ours_params, ACQUISITION, bench)
    assert np.allclose(images, read_stack(bench.path(str(ours.stack))), atol=1e-5)
    names = ("pid", "y_px", "x_px", "defocus_u_ang", "slice")
    assert all((from_block(theirs.block)[name] == from_block(ours.block)[name]).all() for name in names)
    assert (theirs.table_key, theirs.inverted, theirs.n_padded) == (ours.table_key, True, 0)


@pytest.mark.services
def test_a_box_beyond_the_border_is_padded_and_counted(spots: tuple[StepBench, Micrograph, np.ndarray]) -> None:
    need("relion_preprocess")
    bench, micrograph, _ = spots
    picks = make_picks(table_of_picks(np.array([[10.0, 250.0], [300.0, 250.0]]), np.ones(2)), diameter_ang=70)
    shutil.rmtree(bench.work_folder)
    found = extract_with_relion(micrograph, picks, None, RelionExtractParams(box_px=96, scaled_box_px=48), ACQUISITION, bench)
    assert (found.count, found.n_padded, found.box_px, found.bin) == (2, 1, 48, 2.0)
    assert np.isnan(from_block(found.block)["defocus_u_ang"]).all()
    assert read_stack(bench.path(str(found.stack))).shape == (2, 48, 48)


def test_particles_at_other_places_are_refused(tmp_path: Path) -> None:
    table = np.zeros(1, dtype=[("y_px", "f4"), ("x_px", "f4")])
    head = "\ndata_particles\n\nloop_\n_rlnImageName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
    path = tmp_path / "particles.star"
    for text, told in [("000001@a.mrcs 5 0\n", "other places"), ("x@a.mrcs 0 0\n", "invalid literal")]:
        path.write_text(head + text)
        with pytest.raises(FileFormatError, match=told):
            read_extracted(path, table, box_px=8)
    path.write_text("\ndata_other\n\nloop_\n_rlnImageName #1\n000001@a.mrcs\n")
    with pytest.raises(FileFormatError, match="no table 'particles'"):
        read_extracted(path, table, box_px=8)


def test_no_picks_are_no_particles(tmp_path: Path) -> None:
    micrograph = Micrograph(image="session:mic.mrc", height_px=600, width_px=500, bin=1.0)
    none = make_picks(table_of_picks(np.empty((0, 2)), np.empty(0)), diameter_ang=70)
    found = extract_with_relion(micrograph, none, None, RelionExtractParams(box_px=96), ACQUISITION, StepBench(tmp_path))
    assert isinstance(found, Particles)
    assert (found.count, found.stack) == (0, None)
