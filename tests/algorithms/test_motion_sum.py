"""The corrected sum agrees with the sum along the true motion, and dose weights follow their formula."""

from typing import Any

import numpy as np
import pytest
from motion_truth import ideal_frame, make_track
from scipy import fft, ndimage

from icestream.algorithms.fourier import crop_fourier_2d, frequency_radius_2d
from icestream.algorithms.motion.dose import dose_weights
from icestream.algorithms.motion.frames import inspect_frames
from icestream.algorithms.motion.model import N_TERMS, local_shift_px, shift_field_px
from icestream.algorithms.motion.sum import DoseModel, binned_shape, factorise_dose_weights, sum_frames_2d, sum_movie
from icestream.algorithms.motion.warp import block_centres

DOSE = DoseModel(voltage_kv=300, pixel_size_ang=1.2, dose_per_frame_e_per_ang2=1.5, pre_exposure_e_per_ang2=2.0)


def _sum(frames, **options):
    frames = list(frames)
    given = {"global_yx_px": np.zeros((len(frames), 2)), "local_coefficients": None, "dose": None} | options
    return sum_frames_2d(frames, inspect_frames(frames, None, operation="multiply"), **given)


def test_still_frames_add_up_plainly():
    frames = np.random.default_rng(1).poisson(3, (6, 40, 50)).astype(np.uint8)
    plain, weighted = _sum(frames)
    assert weighted is None
    np.testing.assert_allclose(plain, frames.sum(axis=0), rtol=1e-6)


@pytest.mark.parametrize("n_frames", [3, 40])
def test_dose_weighting_is_the_formula(n_frames):
    frames = np.random.default_rng(2).poisson(2, (n_frames, 48, 64)).astype(np.uint8)
    _, weighted = _sum(frames, dose=DOSE, first_frame=2)
    exposure = 2.0 + 1.5 * (3 + np.arange(n_frames))
    q = dose_weights(frequency_radius_2d(48, 64) / 1.2, exposure, voltage_kv=300)
    expected = fft.irfft2((q * fft.rfft2(frames.astype(float))).sum(axis=0) / np.sqrt((q**2).sum(axis=0)), s=(48, 64))
    np.testing.assert_allclose(weighted, expected, atol=2e-3 * expected.std())


def test_a_few_products_make_up_all_dose_weights():
    weights = factorise_dose_weights(DOSE, first_frame=0, n_frames=50)
    assert weights.of_frame.shape[1] <= 8
    power = (weights.of_frame @ weights.of_frequency) ** 2
    np.testing.assert_allclose(power.sum(axis=0), 1, atol=2e-3)


def test_binning_is_fourier_cropping():
    frames = np.random.default_rng(3).poisson(2, (4, 64, 96)).astype(np.uint8)
    plain, weighted = _sum(frames, dose=DOSE, bin=2.0)
    assert plain.shape == weighted.shape == (32, 48)
    np.testing.assert_allclose(plain, crop_fourier_2d(frames.sum(axis=0).astype(np.float32), new_shape=(32, 48)), atol=1e-3)
    assert binned_shape((4092, 5760), bin=1.5) == (2728, 3840)
    assert binned_shape((37, 41), bin=1) == (37, 41)
    with pytest.raises(ValueError, match="must be 1 or more"):
        binned_shape((64, 64), bin=0.5)


def test_shift_field_is_the_model():
    rng = np.random.default_rng(4)
    coefficients = rng.normal(size=(2, N_TERMS))
    field = shift_field_px(coefficients, global_yx_px=np.array((1.0, 0.0)), frame=3, n_frames=8, shape=(64, 96))
    y, x = block_centres(64), block_centres(96)
    expected = local_shift_px(coefficients, frame=3, y_px=y[:, None], x_px=x[None], shape=(64, 96), n_frames=8)
    expected[0] += 1
    np.testing.assert_allclose(field, expected, atol=1e-5)
    still = shift_field_px(coefficients, global_yx_px=np.array((0.0, 0.0)), frame=0, n_frames=8, shape=(64, 96))
    np.testing.assert_array_equal(still, 0)


def test_corrected_sum_keeps_the_spectrum_up_to_nine_tenths_of_nyquist():
    side, n = 320, 8
    track = make_track(5, n, length=9.0)
    table = np.zeros((2, 6, 3))
    table[:, 1:, 0] = np.random.default_rng(5).normal(0, 4, (2, 5))
    coefficients = table.reshape(2, N_TERMS)
    specimen = _white_specimen(side)
    frames = [ideal_frame(specimen, side, track[i], coefficients, frame=i, n_frames=n).astype(np.float32) for i in range(n)]
    plain, _ = _sum(frames, global_yx_px=track, local_coefficients=coefficients)
    inner = slice(32, -32)
    mean = ideal_frame(specimen, side, (0, 0), coefficients, frame=(n - 1) / 2, n_frames=n)  # all terms are linear in time
    truth = fft.rfft2(n * mean[inner, inner])
    found = fft.rfft2(plain[inner, inner])
    k = frequency_radius_2d(256, 256)
    for low, high in ((0.02, 0.2), (0.2, 0.35), (0.35, 0.42), (0.42, 0.45)):
        ring = (k >= low) & (k < high)
        agreement = np.real(found[ring] @ truth[ring].conj()) / np.sqrt(
            np.sum(abs(found[ring]) ** 2) * np.sum(abs(truth[ring]) ** 2)
        )
        damping = np.sqrt(np.sum(abs(found[ring]) ** 2) / np.sum(abs(truth[ring]) ** 2))
        assert agreement > 0.97, (low, agreement)
        assert damping > 0.95, (low, damping)


def _white_specimen(side):
    """A specimen with as much at high as at low frequency."""
    shape = (2 * (side + 64),) * 2
    noise = np.random.default_rng(6).standard_normal(shape)
    k = np.hypot(np.fft.fftfreq(shape[0], 0.5)[:, None], np.fft.rfftfreq(shape[1], 0.5)[None])
    image = 10 + fft.irfft2(fft.rfft2(noise) * (k < 0.48), s=shape)
    return ndimage.spline_filter(image, order=3, output=np.float32)


def test_thousand_frames_are_streamed_in_groups():
    frames = np.random.default_rng(7).poisson(0.1, (300, 32, 32)).astype(np.uint8)
    plain, weighted = _sum(frames, dose=DOSE)
    np.testing.assert_allclose(plain, frames.sum(axis=0, dtype=float), atol=1e-3)
    assert weighted.shape == (32, 32)


@pytest.mark.parametrize(("n_frames", "dose", "before"), [(1, 1.0, 0.0), (30, 1.2, 0.0), (60, 0.5, 20.0)])
def test_dose_weights_are_made_up_of_few_functions_of_which_the_first_is_one(n_frames, dose, before):
    model = DoseModel(voltage_kv=200, pixel_size_ang=1.1, dose_per_frame_e_per_ang2=dose, pre_exposure_e_per_ang2=before)
    found = factorise_dose_weights(model, first_frame=2, n_frames=n_frames)
    np.testing.assert_array_equal(found.of_frame[:, 0], 1)
    assert found.of_frame.shape[1] <= min(8, n_frames + 1)
    frequency = np.linspace(0, np.sqrt(0.5), found.of_frequency.shape[1]) / model.pixel_size_ang
    wanted = dose_weights(frequency, before + dose * (3 + np.arange(n_frames)), voltage_kv=200).astype(np.float64)
    wanted /= np.sqrt(np.sum(wanted**2, axis=0))
    np.testing.assert_allclose(found.of_frame @ found.of_frequency, wanted, atol=3e-4 / np.sqrt(n_frames))


def test_large_images_one_by_one_give_the_same_sums(monkeypatch):
    rng = np.random.default_rng(6)
    frames = rng.poisson(3, (7, 96, 80)).astype(np.uint8)
    detector = inspect_frames(frames, None, operation="multiply")
    motion: dict[str, Any] = {"global_yx_px": rng.normal(0, 2, (7, 2)), "local_coefficients": rng.normal(0, 1, (2, 18))}
    dose = DoseModel(voltage_kv=300, pixel_size_ang=1.0, dose_per_frame_e_per_ang2=2.0, pre_exposure_e_per_ang2=0)
    usual = sum_movie(frames, detector, **motion, dose=dose, halves=True)
    monkeypatch.setattr("icestream.algorithms.motion.sum._CHUNK_BYTES", 4 * 96 * 80)
    one_by_one = sum_movie(frames, detector, **motion, dose=dose, halves=True)
    for name in ("plain", "weighted", "even", "odd"):
        np.testing.assert_allclose(getattr(one_by_one, name), getattr(usual, name), rtol=2e-6, atol=1e-5)
