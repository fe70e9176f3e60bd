"""What runs on a GPU is what runs on cores: the same functions, given arrays of another library.

The library is array-api-strict: it knows nothing beyond the standard, and its second device refuses to mix with any other array,
as a GPU does.
"""

import array_api_strict
import numpy as np
import pytest
from motion_truth import make_movie, make_track

from icestream.algorithms.fourier import crop_fourier_2d, resize_spectrum_2d, shift_spectrum_2d
from icestream.algorithms.gain.correction import correct_frame_2d, draw_good_pixels
from icestream.algorithms.motion.align import align_movie
from icestream.algorithms.motion.correlate import crop_band, measure_power, newton_steps, sum_shifted
from icestream.algorithms.motion.frames import Detector, bin_frames, group_frames, inspect_frames, sum_raw_frames
from icestream.algorithms.motion.global_motion import refine_shifts, search_shifts, take_band, transform_band, transform_frames
from icestream.algorithms.motion.local_motion import cut_patches
from icestream.algorithms.motion.model import N_TERMS
from icestream.algorithms.motion.sum import DoseModel, sum_movie
from icestream.algorithms.motion.warp import add_warped_frames, warp_image_2d
from icestream.algorithms.namespaces import CORES, Place, irfft2, place_of, rfft2, to_numpy
from icestream.algorithms.spectra.spectrum import power_spectra, power_spectrum, tile_variances
from icestream.errors import ItemError

ELSEWHERE = Place(array_api_strict, array_api_strict.Device("device1"))
DOSE = DoseModel(voltage_kv=300, pixel_size_ang=1.0, dose_per_frame_e_per_ang2=1.0, pre_exposure_e_per_ang2=2.0)
ROUNDING = 2e-5
"""Largest difference, in standard deviations of the image, that the order of single-precision sums explains."""


def _image(seed, shape=(48, 70)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _same(found, wanted, *, tolerance=ROUNDING):
    """Check that an array stayed on the device, kept its type, and has the values that NumPy gave."""
    assert place_of(found) == ELSEWHERE
    host = to_numpy(found)
    assert host.dtype == wanted.dtype
    assert host.shape == wanted.shape
    assert np.abs(host - wanted).max() <= tolerance * wanted.std()


def _coefficients(seed, *, size):
    table = np.zeros((2, 6, 3))
    table[:, 1:, 0] = size * np.random.default_rng(seed).normal(size=(2, 5))
    table[:, 1:, 1] = -0.4 * table[:, 1:, 0]
    return table.reshape(2, N_TERMS)


@pytest.fixture(scope="module")
def movie():
    """A movie with local motion, defects of both kinds and sides that no block divides, and its gain."""
    frames = make_movie(3, side=400, track=make_track(3, 9, length=8.0), coefficients=_coefficients(3, size=6.0), dose=1.5)
    frames = np.ascontiguousarray(frames[:, :395, :])
    frames[:, 100, 100] = 250
    gain = np.random.default_rng(1).uniform(0.8, 1.2, size=frames.shape[1:]).astype(np.float32)
    gain[5, 5] = 0
    gain[200:203, 300:340] = 0
    return list(frames), gain


def test_what_goes_to_a_device_comes_back():
    image = _image(1)
    moved = ELSEWHERE.put(image)
    np.testing.assert_array_equal(to_numpy(moved), image)
    assert not ELSEWHERE.on_cores
    assert CORES.put(image) is image
    assert to_numpy(image) is image
    with pytest.raises(TypeError):
        place_of("no array")


def test_nothing_is_copied_to_the_host_unasked():
    with pytest.raises(RuntimeError):
        np.asarray(ELSEWHERE.put(_image(1)))
    with pytest.raises((TypeError, ValueError)):
        ELSEWHERE.put(_image(1)) + array_api_strict.asarray(_image(1))


@pytest.mark.parametrize("shape", [(48, 70), (33, 47), (2, 20, 31)])
def test_transforms(shape):
    image = _image(2, shape)
    spectrum = rfft2(ELSEWHERE.put(image))
    _same(spectrum, rfft2(image))
    _same(irfft2(spectrum, shape=shape[-2:]), image)


@pytest.mark.parametrize("new_shape", [(48, 70), (24, 34), (64, 100), (31, 81)])
def test_fourier_cropping_and_phase_ramps(new_shape):
    image = _image(3)
    spectrum = rfft2(image)
    moved = ELSEWHERE.put(spectrum)
    _same(
        resize_spectrum_2d(moved, shape=(48, 70), new_shape=new_shape),
        resize_spectrum_2d(spectrum, shape=(48, 70), new_shape=new_shape),
    )
    _same(shift_spectrum_2d(moved, (1.3, -2.7), width=70), shift_spectrum_2d(spectrum, (1.3, -2.7), width=70))
    _same(crop_fourier_2d(ELSEWHERE.put(image), new_shape=new_shape), crop_fourier_2d(image, new_shape=new_shape))


@pytest.mark.parametrize("spread", [0.0, 0.4, 7.0])
def test_warp_by_a_field_that_reaches_beyond_the_border(spread):
    image = _image(4, (70, 90))
    mean = np.array([[[-3.3]], [[8.8]]], np.float32)
    field = np.random.default_rng(4).normal(scale=spread, size=(2, 5, 6)).astype(np.float32) + mean
    moved = warp_image_2d(ELSEWHERE.put(image), field_yx_px=field)
    _same(moved, warp_image_2d(image, field_yx_px=field))


@pytest.mark.parametrize("n", [3, 6])
def test_warped_frames_are_added_by_their_weights(n):
    frames, start = _image(5, (n, 40, 50)), _image(6, (2, 40, 50))
    fields = np.random.default_rng(5).normal(size=(n, 2, 3, 4)).astype(np.float32)
    weights = np.array([[1, 0.2], [0, 0.4], [1, 0], [0.1, 0.3], [2, 2], [-1, 0.5]], dtype=np.float32)[:n]
    sums, moved = start.copy(), ELSEWHERE.put(start)
    add_warped_frames(sums, frames, fields_yx_px=fields, weights=weights)
    add_warped_frames(moved, ELSEWHERE.put(frames), fields_yx_px=fields, weights=weights)
    _same(moved, sums)
    alone = sum(
        weight[:, None, None] * warp_image_2d(frame, field_yx_px=field)
        for weight, frame, field in zip(weights, frames, fields, strict=True)
    )
    np.testing.assert_allclose(sums, start + alone, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_raw_sum_keeps_account_of_types(dtype):
    frames = [np.random.default_rng(i).poisson(3, (20, 30)).astype(dtype) for i in range(4)]
    summed, whole = sum_raw_frames(frames, refuse_empty=True)
    found, whole_there = sum_raw_frames([ELSEWHERE.put(frame) for frame in frames], refuse_empty=True)
    _same(found, summed, tolerance=0)
    assert whole_there is whole is (dtype is not np.float32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frames: [*frames[:2], np.zeros_like(frames[0])], "all zero"),
        (lambda frames: [*frames[:2], np.full_like(frames[0], 255)], "saturated"),
        (lambda frames: [*frames[:2], frames[0][:10]], "shape"),
        (lambda frames: frames[:0], "no frames"),
    ],
)
def test_bad_frames_are_refused_in_the_same_words(change, words):
    frames = change([np.random.default_rng(i).poisson(3, (20, 30)).astype(np.uint8) for i in range(3)])
    with pytest.raises(ItemError, match=words) as here:
        sum_raw_frames(frames, refuse_empty=True)
    with pytest.raises(ItemError, match=words) as there:
        sum_raw_frames([ELSEWHERE.put(frame) for frame in frames], refuse_empty=True)
    assert str(here.value) == str(there.value)


def test_the_same_good_pixels_replace_defects(movie):
    frames, gain = movie
    detector = inspect_frames(frames, gain, operation="multiply")
    moved = detector.on(ELSEWHERE)
    for number, frame in enumerate(frames[:3]):
        _same(moved.correct(ELSEWHERE.put(frame), number=number), detector.correct(frame, number=number), tolerance=0)
    again = moved.on(CORES)
    np.testing.assert_array_equal(again.factor, detector.factor)
    assert again.ranks is None
    with pytest.raises(ItemError, match="frame 4 is 10×395"):
        moved.correct(ELSEWHERE.put(frames[0][:10, :395]), number=4)


def test_a_defect_without_a_good_neighbour_becomes_zero():
    frame = np.full((2000, 4), 7, dtype=np.float32)
    defects = np.ones(frame.shape, dtype=np.bool_)
    defects[-1, -1] = False
    detector = Detector(np.ones(frame.shape, np.float32), defects, np.argwhere(defects))
    assert (draw_good_pixels(defects, detector.positions, seed=1) == -1).any()
    wanted = correct_frame_2d(frame, detector.factor, defects, positions=detector.positions, seed=1)
    _same(detector.on(ELSEWHERE).correct(ELSEWHERE.put(frame), number=1), wanted, tolerance=0)


def test_a_camera_without_defects():
    frames = [np.random.default_rng(i).poisson(30, (32, 32)).astype(np.uint8) for i in range(3)]
    detector = inspect_frames(frames, None, operation="multiply")
    assert not len(detector.positions)
    moved = detector.on(ELSEWHERE)
    _same(moved.correct(ELSEWHERE.put(frames[0]), number=0), detector.correct(frames[0], number=0), tolerance=0)


@pytest.mark.parametrize(("bin", "group"), [(1, 1), (2, 1), (3, 2)])
def test_grouping_and_binning(movie, bin, group):
    frames, gain = movie
    detector = inspect_frames(frames, gain, operation="multiply")
    images, times = bin_frames(frames, detector, bin=bin, group=group)
    if group == 1:
        height, width = images.shape[1:]
        whole = detector.correct(frames[2], number=2)[: height * bin, : width * bin]
        np.testing.assert_allclose(images[2], whole.reshape(height, bin, width, bin).mean(axis=(1, 3)), rtol=1e-5)
    moved = [ELSEWHERE.put(frame) for frame in frames]
    found, times_there = bin_frames(moved, detector.on(ELSEWHERE), bin=bin, group=group)
    _same(found, images)
    np.testing.assert_array_equal(times_there, times)
    sizes = [(time, size) for time, size, _ in group_frames(moved, group=group)]
    assert sizes == [(time, size) for time, size, _ in group_frames(frames, group=group)]


def test_alignment_part_by_part(movie):
    frames, gain = movie
    images, _ = bin_frames(frames, inspect_frames(frames, gain, operation="multiply"), bin=1, group=1)
    spectra, band, shape = transform_frames(images, bin=1)
    moved, band_there, shape_there = transform_frames(ELSEWHERE.put(images), bin=1)
    assert shape_there == shape
    np.testing.assert_array_equal(band_there.ky, band.ky)
    _same(moved, spectra)
    shifts = search_shifts(spectra, band=band, shape=shape, max_shift_px=40.0, b_factor_px2=150.0)
    there = search_shifts(moved, band=band, shape=shape, max_shift_px=40.0, b_factor_px2=150.0)
    np.testing.assert_allclose(there, shifts, atol=1e-3)
    total = sum_shifted(spectra, shifts_yx_px=shifts, band=band)
    _same(sum_shifted(moved, shifts_yx_px=shifts, band=band), total)
    for here, elsewhere in zip(
        measure_power(spectra, total=total, band=band),
        measure_power(moved, total=ELSEWHERE.put(total), band=band),
        strict=True,
    ):
        np.testing.assert_allclose(elsewhere, here, rtol=1e-5, atol=1e-5 * np.abs(here).max())
    weight = np.random.default_rng(1).random(total.shape).astype(np.float32)
    steps = newton_steps(spectra, shifts_yx_px=shifts, band=band, weight=weight)
    steps_there = newton_steps(moved, shifts_yx_px=shifts, band=band, weight=weight)
    known = newton_steps(spectra, shifts_yx_px=shifts, band=band, weight=weight, total=total)
    np.testing.assert_array_equal(known.step_yx_px, steps.step_yx_px)
    np.testing.assert_allclose(steps_there.step_yx_px, steps.step_yx_px, atol=1e-3)
    np.testing.assert_allclose(steps_there.information, steps.information, rtol=1e-4)
    refined, rings = refine_shifts(spectra, shifts, band=band, b_factor_px2=150.0)
    refined_there, rings_there = refine_shifts(moved, shifts, band=band, b_factor_px2=150.0)
    np.testing.assert_allclose(refined_there, refined, atol=1e-3)
    np.testing.assert_allclose(rings_there, rings, rtol=1e-3, atol=1e-4 * rings.max())


def test_patches(movie):
    images = np.stack([frame.astype(np.float32) for frame in movie[0]])
    shifts = make_track(3, 9, length=8.0)
    patches, band = cut_patches(images, bin=1, shifts_yx_px=shifts, grid=(3, 2), limit_per_px=0.3)
    there, band_there = cut_patches(ELSEWHERE.put(images), bin=1, shifts_yx_px=shifts, grid=(3, 2), limit_per_px=0.3)
    np.testing.assert_array_equal(band_there.kx, band.kx)
    assert len(there) == len(patches) == 6
    for patch, other in zip(patches, there, strict=True):
        _same(other.spectra, patch.spectra)
        np.testing.assert_array_equal(other.cut_yx_px, patch.cut_yx_px)
        assert other.centre_yx_px == patch.centre_yx_px


@pytest.mark.parametrize("height", [40, 41])
def test_the_band_is_what_its_rows_say(height):
    spectrum = rfft2(_image(7, (height, 50)))
    _, rows, columns = crop_band(height, 50, bin=1, limit_per_px=0.3)
    np.testing.assert_array_equal(take_band(spectrum, rows=rows, columns=columns), spectrum[rows, :columns])
    image = _image(7, (height, 50))
    np.testing.assert_allclose(transform_band(image, rows=rows, columns=columns), spectrum[rows, :columns], atol=1e-4)
    _same(transform_band(ELSEWHERE.put(image), rows=rows, columns=columns), spectrum[rows, :columns])
    _same(take_band(ELSEWHERE.put(spectrum), rows=rows, columns=columns), spectrum[rows, :columns], tolerance=0)


@pytest.mark.parametrize(
    ("dose", "bin", "halves"), [(DOSE, 1.3, True), (DOSE, 1.0, False), (None, 1.0, True), (None, 2.0, False)]
)
def test_a_whole_movie(movie, dose, bin, halves):
    frames, gain = movie
    moved = [ELSEWHERE.put(frame) for frame in frames]
    found = []
    for those in (frames, moved):
        detector = inspect_frames(those, gain, operation="multiply")
        motion = align_movie(those, detector, max_shift_px=40.0)
        assert motion.local_coefficients is not None
        found.append((motion, detector))
    (here, detector), (there, detector_there) = found
    track, local = here.global_yx_px, here.local_coefficients  # taps are tabled in steps of 1/512 px: rounding can take the next
    sums, sums_there = (
        sum_movie(those, one, global_yx_px=track, local_coefficients=local, dose=dose, bin=bin, first_frame=3, halves=halves)
        for those, one in ((frames, detector), (moved, detector_there))
    )
    assert there.note == here.note
    np.testing.assert_allclose(there.global_yx_px, here.global_yx_px, atol=1e-3)
    assert there.local_coefficients is not None and here.local_coefficients is not None
    np.testing.assert_allclose(there.local_coefficients, here.local_coefficients, atol=1e-3)
    for name in ("plain", "weighted", "even", "odd"):
        image, other = getattr(sums, name), getattr(sums_there, name)
        assert (image is None) == (other is None), name
        if image is not None:
            _same(other, image, tolerance=1e-4)
            np.testing.assert_array_equal(getattr(sums_there.to_numpy(), name), to_numpy(other))


@pytest.mark.parametrize("n_sets", [1, 2, 5])
def test_power_spectra_for_the_ctf(n_sets):
    image = _image(8, (300, 260)) + 100
    image[:80, :90] *= 3  # tiles that are weighted down
    spectra = power_spectra(image, tile_px=96, n_sets=n_sets)
    moved = ELSEWHERE.put(image)
    np.testing.assert_allclose(power_spectra(moved, tile_px=96, n_sets=n_sets), spectra, rtol=1e-3, atol=1e-4 * spectra.mean())
    np.testing.assert_allclose(tile_variances(moved, tile_px=96), tile_variances(image, tile_px=96), rtol=1e-9)
    if n_sets == 1:
        np.testing.assert_array_equal(power_spectrum(moved, tile_px=96), power_spectra(moved, tile_px=96, n_sets=1)[0])


def test_a_spectrum_of_what_is_not_finite_is_refused():
    image = _image(9, (200, 200))
    image[50, 50] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        power_spectra(ELSEWHERE.put(image), tile_px=64, n_sets=1)
