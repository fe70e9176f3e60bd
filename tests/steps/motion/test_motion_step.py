"""The step: from a movie file to a micrograph, and clear words about what cannot be processed."""

import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.motion.align import MotionEstimate
from icestream.errors import ItemError, SourceGone, TruncatedFile
from icestream.flow.declaration.step_type import step_type_of
from icestream.io.defects import read_defects
from icestream.io.image import image_header, read_image, write_mrc
from icestream.io.movie import movie_header
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.microscope.simulate import open_studio
from icestream.records import Acquisition, GainReference, Micrograph, Motion, Movie
from icestream.steps.motion.correction import MotionParams, correct_motion, describe_motion
from icestream.testing.context import StepBench

SIDE = 256
SHIFTS = np.array([[0, 0], [2, -1], [3, -3], [5, -4], [6, -6], [7, -6]])
KNOWN = Acquisition(pixel_size_ang=1.1, voltage_kv=300, dose_per_frame_e_per_ang2=1.0)


@pytest.fixture
def frames():
    rng = np.random.default_rng(1)
    k = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    field = fft.irfft2(fft.rfft2(rng.standard_normal((SIDE, SIDE))) / (1 + (k / 0.05) ** 2), s=(SIDE, SIDE))
    specimen = 4 * (1 + 0.15 * field / field.std())
    return np.stack([rng.poisson(np.maximum(np.roll(specimen, tuple(shift), (0, 1)), 0)) for shift in SHIFTS]).astype(np.int16)


@pytest.fixture
def bench(tmp_path):
    return StepBench(tmp_path)


def _movie(bench, frames):
    path = bench.folder / "movie.mrc"
    write_mrc(path, frames, pixel_size_ang=1.1, remember=False)
    n, height, width = frames.shape
    return Movie(
        file="session:movie.mrc", n_frames=n, height_px=height, width_px=width, format="mrc", size_bytes=path.stat().st_size
    )


def _gain(bench, gain, operation="multiply"):
    write_mrc(bench.folder / "gain.mrc", gain.astype(np.float32), pixel_size_ang=1.1, remember=False)
    return GainReference(file="session:gain.mrc", height_px=gain.shape[0], width_px=gain.shape[1], operation=operation)


def test_a_movie_becomes_a_micrograph(bench, frames):
    micrograph = correct_motion(_movie(bench, frames), None, MotionParams(), KNOWN, bench)
    assert (micrograph.height_px, micrograph.width_px, micrograph.bin) == (SIDE, SIDE, 1.0)
    assert micrograph.dose_weighted and micrograph.dose_note is None and micrograph.n_frames == 6
    np.testing.assert_allclose(micrograph.motion.global_yx_px, SHIFTS, atol=0.2)
    steps = np.linalg.norm(np.diff(micrograph.motion.global_yx_px, axis=0), axis=1)
    assert micrograph.motion.total_px == pytest.approx(steps.sum())
    assert micrograph.motion.early_px == pytest.approx(steps[:2].sum())
    expected = sum(np.roll(frame, tuple(-shift), (0, 1)).astype(float) for frame, shift in zip(frames, SHIFTS, strict=True))
    plain = read_image(bench.path(micrograph.unweighted))
    inner = slice(16, -16)
    assert np.corrcoef(plain[inner, inner].ravel(), expected[inner, inner].ravel())[0, 1] > 0.95
    assert read_image(bench.path(micrograph.image)).shape == (SIDE, SIDE)
    assert image_header(bench.path(micrograph.image)).pixel_size_ang == pytest.approx(1.1, rel=1e-5)
    assert image_header(bench.path(micrograph.thumbnail)).format == "png"


@pytest.mark.parametrize("unset", ["pixel_size_ang", "voltage_kv", "dose_per_frame_e_per_ang2"])
def test_without_dose_voltage_or_pixel_size_nothing_is_weighted(bench, frames, unset):
    acquisition = KNOWN.model_copy(update={unset: None})
    micrograph = correct_motion(_movie(bench, frames), None, MotionParams(local=False), acquisition, bench)
    assert not micrograph.dose_weighted and micrograph.unweighted is None
    assert micrograph.dose_note == f"not weighted by dose: unset are {unset}"
    off = correct_motion(_movie(bench, frames), None, MotionParams(local=False, dose_weighting="off"), acquisition, bench)
    assert off.dose_note is None
    assert read_image(bench.path(micrograph.image)).sum() == pytest.approx(frames.sum(), rel=0.02)


def test_gain_is_applied_and_its_operation_obeyed(bench, frames):
    pattern = np.random.default_rng(2).uniform(0.7, 1.4, frames.shape[1:])
    pattern[:, 100] = 0
    raw = np.divide(frames * 1.0, pattern, out=np.zeros(frames.shape), where=pattern > 0).astype(np.float32)
    raw[:, :, 100] = 1000
    results = [
        correct_motion(_movie(bench, raw), _gain(bench, gain, operation), MotionParams(local=False), Acquisition(), bench)
        for gain, operation in ((pattern, "multiply"), (np.where(pattern > 0, 1 / np.maximum(pattern, 0.1), 0), "divide"))
    ]
    for micrograph in results:
        np.testing.assert_allclose(micrograph.motion.global_yx_px, SHIFTS, atol=0.2)
    assert read_image(bench.path(results[0].image)).max() < 100


@pytest.mark.parametrize("format", ["mrc", "tiff", "eer"])
def test_simulated_movies_of_every_format_are_freed_of_their_gain(tmp_path, format):
    """The gain file fits its movies by default: rows, and multiply or divide."""
    one_frame = {"n_frames": 1, "dose_per_frame_e_per_ang2": 20.0, "eer_frames_per_frame": 200, "n_particles": 0}
    settings = SimulationSettings(n_movies=1, format=format, height_px=256, width_px=256, **one_frame)
    simulate(tmp_path, settings=settings, pace=Pace())
    header = movie_header(tmp_path / f"movies/mic_0001.{format}")
    movie = Movie(
        file=f"session:movies/mic_0001.{format}",
        n_frames=header.n_frames,
        height_px=256,
        width_px=256,
        format=header.format,
        size_bytes=header.path.stat().st_size,
    )
    gain = GainReference(file="session:gain.mrc", height_px=256, width_px=256)
    images = []
    for given in (None, gain):
        micrograph = correct_motion(movie, given, MotionParams(eer_group=200), Acquisition(), bench := StepBench(tmp_path))
        images.append(read_image(bench.path(micrograph.image)).copy())
    response = np.asarray(open_studio(settings).camera.response)
    usable = (response > 0) & (response < 5)
    follows = [np.corrcoef(image[usable], response[usable])[0, 1] for image in images]
    assert follows[0] > 0.1
    assert abs(follows[1]) < 0.25 * follows[0]  # a tenth is left by coincidences in EER frames


def test_range_of_frames_and_binning(bench, frames):
    params = MotionParams(first_frame=1, last_frame=4, bin=2.0, local=False)
    micrograph = correct_motion(_movie(bench, frames), None, params, KNOWN, bench)
    assert (micrograph.n_frames, micrograph.height_px, micrograph.bin) == (4, SIDE // 2, 2.0)
    np.testing.assert_allclose(micrograph.motion.global_yx_px, SHIFTS[1:5] - SHIFTS[1], atol=0.25)
    assert image_header(bench.path(micrograph.image)).pixel_size_ang == pytest.approx(2.2, rel=1e-5)


def test_the_header_tells_height_and_width_of_a_pixel_where_odd_sides_make_them_differ(bench, frames):
    movie = _movie(bench, np.ascontiguousarray(frames[:, :200, :251]))
    made = correct_motion(movie, None, MotionParams(bin=2, local=False, write_halves=True), KNOWN, bench)
    assert (made.height_px, made.width_px) == (100, 126)
    for ref in (made.image, made.unweighted, made.even, made.odd):
        cell = np.frombuffer(bench.path(ref).read_bytes()[40:52], dtype="<f4")  # width, height, depth in Å
        np.testing.assert_allclose(cell, [251 * 1.1, 200 * 1.1, 251 / 126 * 1.1], rtol=1e-5)


def test_what_cannot_be_processed_is_named(bench, frames):
    def message(movie_frames, gain=None, **params):
        with pytest.raises(ItemError) as caught:
            correct_motion(_movie(bench, movie_frames), gain, MotionParams(**params), Acquisition(), bench)
        return str(caught.value)

    assert "gain is 128×192, movie is 256×256" in message(frames, _gain(bench, np.ones((128, 192))))
    assert "no beam" in message(np.zeros_like(frames))
    assert "NaN" in message(np.full(frames.shape, np.nan, dtype=np.float32))
    assert "saturated" in message(np.full_like(frames, np.iinfo(np.int16).max))
    assert "the movie has frames 0 to 5" in message(frames, last_frame=9)
    assert not list((bench.folder / "steps").rglob("*"))


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="2 to 16"):
        MotionParams(patches=(1, 5))
    with pytest.raises(ValueError, match="before first_frame"):
        MotionParams(first_frame=5, last_frame=2)
    assert all(field.description for field in MotionParams.model_fields.values())
    assert step_type_of(correct_motion).ports[1].optional


def test_motion_record_survives_storage(bench, frames):
    micrograph = correct_motion(_movie(bench, frames), None, MotionParams(), KNOWN, bench)
    restored = Micrograph.restore(micrograph.model_dump_json(), version=1, block=None)
    assert isinstance(restored.motion, Motion) and restored == micrograph


def test_a_movie_that_was_purged_is_gone_and_not_broken(bench, frames):
    movie = _movie(bench, frames)
    bench.path(movie.file).unlink()
    with pytest.raises(SourceGone, match="is not there"):
        correct_motion(movie, None, MotionParams(), Acquisition(), bench)


def test_halves_add_up_to_the_image(bench, frames):
    for acquisition in (KNOWN, Acquisition()):
        micrograph = correct_motion(_movie(bench, frames), None, MotionParams(write_halves=True), acquisition, bench)
        even, odd, whole = (read_image(bench.path(ref)) for ref in (micrograph.even, micrograph.odd, micrograph.image))
        np.testing.assert_allclose(even + odd, whole, atol=1e-3 * whole.std())
        assert np.corrcoef(even.ravel(), odd.ravel())[0, 1] < np.corrcoef(even.ravel(), whole.ravel())[0, 1]
    alone = correct_motion(_movie(bench, frames), None, MotionParams(write_unweighted=False), KNOWN, bench)
    assert (alone.even, alone.odd, alone.unweighted) == (None, None, None)
    off = correct_motion(_movie(bench, frames), None, MotionParams(dose_weighting="off"), KNOWN, bench)
    assert not off.dose_weighted


def test_the_record_says_which_frames_and_what_was_done_to_them(bench, frames):
    raw = frames.astype(np.float32)
    pattern = np.random.default_rng(2).uniform(0.7, 1.4, raw.shape[1:])
    pattern[:, 100] = 0
    raw = np.divide(raw, pattern, out=np.zeros_like(raw), where=pattern > 0)
    raw[:, 40, 50] = 500  # hot
    (bench.folder / "defects.txt").write_text("7 9 2 1\n")
    params = MotionParams(first_frame=1, last_frame=4, local=False, defects="session:defects.txt")
    gain = _gain(bench, np.rot90(pattern[::-1]), None)
    use = correct_motion(_movie(bench, raw), gain, params, Acquisition(), bench).frames
    assert (use.movie, use.movie_frames, use.first_frame) == ("session:movie.mrc", 6, 1)
    assert (use.gain, use.gain_operation, use.gain_orientation) == ("session:gain.mrc", "multiply", "flip rot90")
    assert use.gain_slope == pytest.approx(1, abs=0.1)
    assert use.gain_residual is not None and abs(use.gain_residual) < 0.1
    assert (use.n_known_defects, use.n_hot_px) == (SIDE + 2, 1)
    assert read_defects(bench.path(use.hot_pixels), shape=(SIDE, SIDE))[40, 50]


def test_a_gain_of_physical_pixels_fits_super_resolution(bench, frames):
    pattern = np.random.default_rng(2).uniform(0.7, 1.4, (SIDE // 2, SIDE // 2))
    raw = (frames / pattern.repeat(2, axis=0).repeat(2, axis=1)).astype(np.float32)
    micrograph = correct_motion(_movie(bench, raw), _gain(bench, pattern), MotionParams(local=False, bin=2), Acquisition(), bench)
    assert (micrograph.height_px, micrograph.width_px) == (SIDE // 2, SIDE // 2)
    plain = correct_motion(_movie(bench, frames), None, MotionParams(local=False, bin=2), Acquisition(), bench)
    residual = micrograph.frames.gain_residual
    assert residual is not None and abs(residual) < 0.1
    np.testing.assert_allclose(micrograph.motion.global_yx_px, plain.motion.global_yx_px, atol=0.1)


@pytest.mark.parametrize("shape", [(200, 256), (201, 255), (256, 131)])
@pytest.mark.parametrize("n_frames", [1, 2, 4])
def test_few_frames_and_odd_sensors_work_and_say_what_was_left_out(bench, frames, shape, n_frames):
    micrograph = correct_motion(_movie(bench, frames[:n_frames, : shape[0], : shape[1]]), None, MotionParams(), KNOWN, bench)
    assert read_image(bench.path(micrograph.image)).shape == shape == (micrograph.height_px, micrograph.width_px)
    assert len(micrograph.motion.global_yx_px) == n_frames
    np.testing.assert_allclose(micrograph.motion.global_yx_px, SHIFTS[:n_frames], atol=0.5)
    if n_frames < 4 or min(shape) < 200:  # too few frames, or too narrow for patches
        assert micrograph.motion.local_coefficients is None
        assert micrograph.motion.note


def test_a_thousand_thin_frames_are_grouped_by_dose(bench):
    rng = np.random.default_rng(1)
    k = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    field = fft.irfft2(fft.rfft2(rng.standard_normal((SIDE, SIDE))) / (1 + (k / 0.05) ** 2), s=(SIDE, SIDE))
    specimen = np.maximum(1 + 0.2 * field / field.std(), 0)
    shifts = np.stack([np.arange(1000) // 100, np.arange(1000) // 200], axis=1)
    movie = np.stack([rng.poisson(0.04 * np.roll(specimen, tuple(shift), (0, 1))).astype(np.int8) for shift in shifts])
    dose = KNOWN.model_copy(update={"dose_per_frame_e_per_ang2": 0.04 / 1.21})
    micrograph = correct_motion(_movie(bench, movie), None, MotionParams(), dose, bench)
    assert micrograph.n_frames == 1000
    error = np.array(micrograph.motion.global_yx_px) - shifts
    assert np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)) < 0.5


def test_wrong_frames_are_each_named(bench, frames):
    def message(movie, **params):
        with pytest.raises(ItemError) as caught:
            correct_motion(movie, None, MotionParams(**params), Acquisition(), bench)
        return str(caught.value)

    movie = _movie(bench, frames)
    assert "has 6 frames; expected are 40" in message(movie, expected_frames=40)
    assert "had 7 when it was imported" in message(movie.model_copy(update={"n_frames": 7}))
    assert "voltage_kv is unset" in message(movie, dose_weighting="required")
    empty = frames.copy()
    empty[2] = 0
    assert "1 frames are all zero (frames 2)" in message(_movie(bench, empty))
    other = np.random.default_rng(3).uniform(0.7, 1.4, frames.shape[1:])
    assert "belongs to another camera" in _refused(_movie(bench, frames), _gain(bench, other), bench)
    damaged = frames.astype(np.float32)
    damaged[1, :64] = np.nan
    assert "25% of the pixels are NaN" in message(_movie(bench, damaged))
    assert not list((bench.folder / "steps").rglob("*"))


def _refused(movie, gain, bench):
    with pytest.raises(ItemError) as caught:
        correct_motion(movie, gain, MotionParams(), Acquisition(), bench)
    return str(caught.value)


def test_single_absurd_values_are_defects_and_many_are_a_damaged_movie(bench, frames):
    broken = frames.astype(np.float32)
    broken[3, 60:70, 80:95] = 3e38
    broken[4, 10, 10] = -1e20
    broken[5, 5, 5] = np.nan
    micrograph = correct_motion(_movie(bench, broken), None, MotionParams(local=False), KNOWN, bench)
    assert micrograph.frames.n_hot_px == 152
    good = correct_motion(_movie(bench, frames), None, MotionParams(local=False), KNOWN, bench)
    found, expected = (read_image(bench.path(one.image)) for one in (micrograph, good))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97
    broken[:, :30] = 1e30
    with pytest.raises(ItemError, match="12% of the pixels are NaN or infinite"):
        correct_motion(_movie(bench, broken), None, MotionParams(), KNOWN, bench)


def test_a_movie_that_was_cut_off_publishes_nothing(bench, frames):
    movie = _movie(bench, frames)
    path = bench.path(movie.file)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(TruncatedFile, match="header declares"):
        correct_motion(movie, None, MotionParams(), Acquisition(), bench)
    assert not list((bench.folder / "steps").rglob("*"))


@pytest.mark.parametrize(
    ("n_frames", "dose", "group"),
    [(1000, None, 25), (1000, 0.04, 25), (1000, 0.05, 20), (1012, 0.04, 23), (1000, 0.5, 10), (30, 0.001, 3), (5, None, 1)],
)
def test_eer_frames_are_added_up_by_dose(bench, monkeypatch, n_frames, dose, group):
    movie = Movie(file="session:a.eer", n_frames=n_frames, height_px=64, width_px=64, format="eer", size_bytes=1)
    asked = []

    def refuse(path, *, eer_group, eer_upsampling):
        asked.append(eer_group)
        raise SourceGone(f"{path}: the file is not there")

    monkeypatch.setattr("icestream.steps.motion.correction.open_movie", refuse)
    with pytest.raises(SourceGone):
        correct_motion(movie, None, MotionParams(), Acquisition(dose_per_frame_e_per_ang2=dose), bench)
    assert asked == [group]


@pytest.mark.parametrize(
    ("offset", "size", "bin"),
    [((40, 17), (180, 201), 1.0), ((0, 60), None, 1.0), ((3, 5), (240, 200), 2.0), ((16, 16), (224, 160), 1.5)],
)
def test_a_crop_is_what_cropped_frames_give(bench, frames, offset, size, bin):
    rows, columns = (slice(first, None if size is None else first + size[axis]) for axis, first in enumerate(offset))
    params = {"bin": bin, "write_halves": True}
    crop = MotionParams(crop_offset_yx_px=offset, crop_size_yx_px=size, **params)
    cropped = correct_motion(_movie(bench, frames), None, crop, KNOWN, bench)
    images = [read_image(bench.path(ref)).copy() for ref in (cropped.image, cropped.unweighted, cropped.even)]
    cut = correct_motion(
        _movie(bench, np.ascontiguousarray(frames[:, rows, columns])), None, MotionParams(**params), KNOWN, bench
    )
    for image, ref in zip(images, (cut.image, cut.unweighted, cut.even), strict=True):
        np.testing.assert_array_equal(image, read_image(bench.path(ref)))
    assert cropped.motion.global_yx_px == cut.motion.global_yx_px
    assert (cropped.height_px, cropped.width_px, cropped.bin) == (cut.height_px, cut.width_px, cut.bin)
    height, width = frames[0, rows, columns].shape
    assert cropped.frames.crop_px == (*offset, height, width) and cut.frames.crop_px is None
    assert (cropped.frames.height_px, cropped.frames.width_px) == (SIDE, SIDE)
    assert cropped.bin == pytest.approx(bin, rel=0.01)
    assert image_header(bench.path(cropped.image)).pixel_size_ang == pytest.approx(1.1 * cropped.bin, rel=1e-5)


def test_gain_and_defects_are_those_of_the_whole_sensor_also_with_a_crop(bench, frames):
    pattern = np.random.default_rng(2).uniform(0.7, 1.4, frames.shape[1:])
    pattern[:, 100] = 0
    raw = np.divide(frames * 1.0, pattern, out=np.zeros(frames.shape), where=pattern > 0).astype(np.float32)
    raw[:, 40, 50] = 900  # hot, outside of the crop
    raw[:, 90, 150] = 900  # hot, inside
    crop = MotionParams(local=False, crop_offset_yx_px=(60, 80), crop_size_yx_px=(130, 140))
    gain = _gain(bench, np.rot90(pattern[::-1]), None)
    micrograph = correct_motion(_movie(bench, raw), gain, crop, Acquisition(), bench)
    assert (micrograph.frames.gain_orientation, micrograph.frames.n_hot_px) == ("flip rot90", 2)
    hot = read_defects(bench.path(micrograph.frames.hot_pixels), shape=(SIDE, SIDE))
    assert hot[40, 50] and hot[90, 150]
    assert read_image(bench.path(micrograph.image)).max() < 100
    np.testing.assert_allclose(micrograph.motion.global_yx_px, SHIFTS, atol=0.3)


def test_the_crop_of_super_resolution_frames_counts_in_camera_pixels(tmp_path):
    one = {"n_frames": 6, "dose_per_frame_e_per_ang2": 5.0, "eer_frames_per_frame": 20, "n_particles": 4}
    simulate(tmp_path, settings=SimulationSettings(n_movies=1, format="eer", height_px=256, width_px=256, **one), pace=Pace())
    path = tmp_path / "movies/mic_0001.eer"
    size = {"n_frames": movie_header(path).n_frames, "height_px": 256, "width_px": 256, "size_bytes": path.stat().st_size}
    movie = Movie(file="session:movies/mic_0001.eer", format="eer", **size)
    bench = StepBench(tmp_path)
    params = {"eer_group": 20, "eer_upsampling": 2, "bin": 2.0, "crop_offset_yx_px": (32, 64), "crop_size_yx_px": (160, 128)}
    micrograph = correct_motion(movie, None, MotionParams(**params), KNOWN, bench)
    assert (micrograph.height_px, micrograph.width_px, micrograph.bin) == (160, 128, 1.0)
    assert micrograph.frames.crop_px == (64, 128, 320, 256)
    assert image_header(bench.path(micrograph.image)).pixel_size_ang == pytest.approx(1.1, rel=1e-5)
    ours = read_image(bench.path(micrograph.image)).copy()
    whole = correct_motion(movie, None, MotionParams(eer_group=20, eer_upsampling=2, bin=2.0), KNOWN, bench)
    part = read_image(bench.path(whole.image))[32:192, 64:192]
    assert np.corrcoef(ours[16:-16, 16:-16].ravel(), part[16:-16, 16:-16].ravel())[0, 1] > 0.8  # the same place of the sensor


@pytest.mark.parametrize(
    ("crop", "said"),
    [
        ({"crop_offset_yx_px": (0, 1), "crop_size_yx_px": (256, 256)}, "a crop of 256×256 from row 0, column 1 reaches beyond"),
        ({"crop_offset_yx_px": (256, 0)}, "a crop to the border from row 256, column 0 reaches beyond its frames of 256×256"),
    ],
)
def test_a_crop_beyond_the_frames_is_refused(bench, frames, crop, said):
    with pytest.raises(ItemError, match=said):
        correct_motion(_movie(bench, frames), None, MotionParams(**crop), Acquisition(), bench)
    assert not list((bench.folder / "steps").rglob("*"))


def test_a_crop_that_is_no_crop_changes_nothing(bench, frames):
    same = correct_motion(_movie(bench, frames), None, MotionParams(crop_size_yx_px=(SIDE, SIDE)), KNOWN, bench)
    assert same.frames.crop_px is None
    for wrong in ({"crop_offset_yx_px": (-1, 0)}, {"crop_size_yx_px": (63, 64)}):
        with pytest.raises(ValueError, match=r"crop_\w+ is \("):
            MotionParams(**wrong)


def test_the_record_says_from_where_the_sum_counts_local_motion():
    since, track = np.array([0.3, 0.15, 0.1]), np.zeros((5, 2))
    bent = describe_motion(MotionEstimate(track, np.ones((2, 18)), 0.1, None), since=since, finer=2)
    assert bent.local_reference == since.tolist()
    assert describe_motion(MotionEstimate(track, None, None, None), since=since).local_reference is None
