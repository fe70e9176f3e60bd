"""Warping keeps high frequencies, and a field and its inverse cancel."""

import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.fourier import frequency_radius_2d, shift_spectrum_2d
from icestream.algorithms.gain.correction import correct_frame_2d, draw_good_pixels
from icestream.algorithms.motion.warp import BLOCK_PX, add_corrected_warped, add_warped_frames, interpolation_table, warp_image_2d


def _constant_field(shape, shift):
    blocks = [-(-length // BLOCK_PX) for length in shape]
    return np.broadcast_to(np.asarray(shift, dtype=np.float32)[:, None, None], (2, *blocks))


def test_whole_pixels_are_exact():
    image = np.random.default_rng(1).normal(size=(70, 90)).astype(np.float32)
    moved = warp_image_2d(image, field_yx_px=_constant_field(image.shape, (3, -5)))
    np.testing.assert_array_equal(moved[:60, 10:], image[3:63, 5:-5])


def test_zero_field_is_identity_and_arguments_are_unchanged():
    image = np.random.default_rng(1).normal(size=(33, 47)).astype(np.float32)
    field = np.zeros((2, 3, 3), dtype=np.float32)
    before = image.copy()
    np.testing.assert_array_equal(warp_image_2d(image, field_yx_px=field), image)
    np.testing.assert_array_equal(image, before)
    assert not field.any()


def test_border_is_mirrored():
    image = np.arange(40, dtype=np.float32)[:, None] * np.ones((1, 40), dtype=np.float32)
    moved = warp_image_2d(image, field_yx_px=_constant_field(image.shape, (-4, 0)))
    np.testing.assert_array_equal(moved[:8, 20], [3, 2, 1, 0, 0, 1, 2, 3])


@pytest.mark.parametrize("shift", [(0.5, 0.5), (-2.3, 7.8)])
def test_high_frequencies_survive(shift):
    rng = np.random.default_rng(2)
    image = rng.normal(size=(256, 256)).astype(np.float32)
    displaced = fft.irfft2(shift_spectrum_2d(fft.rfft2(image), shift, width=256), s=(256, 256))
    found = warp_image_2d(displaced, field_yx_px=_constant_field(image.shape, shift))
    inner = slice(24, -24)
    spectrum, truth = fft.rfft2(found[inner, inner]), fft.rfft2(image[inner, inner])
    k = frequency_radius_2d(*found[inner, inner].shape)
    for low, high, least in ((0.05, 0.3, 0.999), (0.3, 0.4, 0.99), (0.40, 0.45, 0.97)):
        ring = (k >= low) & (k < high)
        agreement = np.real(spectrum[ring] @ truth[ring].conj()) / np.sqrt(
            np.sum(abs(spectrum[ring]) ** 2) * np.sum(abs(truth[ring]) ** 2)
        )
        assert agreement > least, (low, high, agreement)


def test_taps_pass_a_constant_and_mirror_each_other():
    table = interpolation_table()
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(table, table[::-1, ::-1], atol=1e-5)


def test_sums_are_weighted_and_additive():
    rng = np.random.default_rng(3)
    frames = rng.normal(size=(3, 40, 50)).astype(np.float32)
    fields = rng.normal(size=(3, 2, 3, 4)).astype(np.float32)
    weights = rng.normal(size=(3, 2)).astype(np.float32)
    sums = np.ones((2, 40, 50), dtype=np.float32)
    add_warped_frames(sums, frames, fields_yx_px=fields, weights=weights)
    single = np.stack([warp_image_2d(frame, field_yx_px=field) for frame, field in zip(frames, fields, strict=True)])
    np.testing.assert_allclose(sums, 1 + np.einsum("nr,nyx->ryx", weights, single), atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 50), (64, 48), (33, 700)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_correcting_on_the_way_is_correcting_first(shape, dtype):
    rng = np.random.default_rng(4)
    frames = rng.poisson(3.0, (6, *shape)).astype(dtype)
    factor = rng.uniform(0.8, 1.2, shape).astype(np.float32)
    defects = rng.random(shape) < 0.03
    defects[0, 0] = defects[-1, -1] = True
    positions = np.argwhere(defects)
    fields = rng.uniform(-9, 9, (6, 2, *(-(-length // BLOCK_PX) for length in shape))).astype(np.float32)
    weights = rng.normal(size=(6, 3)).astype(np.float32)
    expected, found = np.zeros((3, *shape), dtype=np.float32), np.zeros((3, *shape), dtype=np.float32)
    corrected = np.stack(
        [correct_frame_2d(frame, factor, defects, positions=positions, seed=seed) for seed, frame in enumerate(frames)]
    )
    add_warped_frames(expected, corrected, fields_yx_px=fields, weights=weights)
    sources = np.stack([draw_good_pixels(defects, positions, seed=seed) for seed in range(6)])
    before = frames.copy()
    add_corrected_warped(found, frames, factor, positions=positions, sources=sources, fields_yx_px=fields, weights=weights)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(frames, before)


def test_shifts_larger_than_the_frame_are_mirrored_again():
    image = np.random.default_rng(5).normal(size=(20, 20)).astype(np.float32)
    moved = warp_image_2d(image, field_yx_px=_constant_field(image.shape, (40, -80)))
    np.testing.assert_array_equal(moved, image)
