"""Resampling and shifting in Fourier space, against sums over the whole plane."""

import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.fourier import crop_fourier_2d, radial_average_2d, resize_spectrum_2d, shift_spectrum_2d

SIZES = [((8, 8), (12, 12)), ((7, 9), (12, 10)), ((8, 10), (9, 15)), ((8, 8), (8, 12)), ((9, 8), (9, 11)), ((6, 7), (11, 7))]


def fold(spectrum: np.ndarray, new_length: int, axis: int) -> np.ndarray:
    """Crop one axis of a whole ``fft2`` about zero frequency; both Nyquist lines fall on one of an even axis."""
    moved = np.moveaxis(spectrum, axis, 0)
    kept = np.zeros((new_length, *moved.shape[1:]), complex)
    for k in np.rint(np.fft.fftfreq(len(moved)) * len(moved)).astype(int):
        if abs(k) <= new_length / 2:
            kept[k % new_length] += moved[k]
    return np.moveaxis(kept, 0, axis)


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_an_image_that_is_padded_and_cropped_is_itself(small: tuple[int, int], large: tuple[int, int]) -> None:
    image = np.random.default_rng(1).normal(size=small)
    before = image.copy()
    np.testing.assert_allclose(crop_fourier_2d(crop_fourier_2d(image, new_shape=large), new_shape=small), image, atol=1e-12)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("small", "large"), SIZES)
def test_cropping_keeps_every_frequency_once(small: tuple[int, int], large: tuple[int, int]) -> None:
    image = np.random.default_rng(2).normal(size=large)
    whole = fold(fold(fft.fft2(image), small[0], 0), small[1], 1)
    expected = fft.ifft2(whole) * (small[0] * small[1]) / (large[0] * large[1])
    assert np.abs(expected.imag).max() < 1e-12
    np.testing.assert_allclose(crop_fourier_2d(image, new_shape=small), expected.real, atol=1e-12)


def test_stacks_are_resized_one_by_one() -> None:
    images = np.random.default_rng(3).normal(size=(3, 10, 12))
    stack = resize_spectrum_2d(fft.rfft2(images), shape=(10, 12), new_shape=(6, 8))
    for image, spectrum in zip(images, stack, strict=True):
        np.testing.assert_array_equal(resize_spectrum_2d(fft.rfft2(image), shape=(10, 12), new_shape=(6, 8)), spectrum)


@pytest.mark.parametrize(("size", "new"), [(40, 20), (160, 64), (150, 98), (20, 40)])
def test_the_centre_of_an_even_box_stays_its_centre(size: int, new: int) -> None:
    along = np.arange(size) - size // 2
    blob = np.exp(-(along[:, None] ** 2 + along[None, :] ** 2) / (2 * (size / 12) ** 2))
    resized = crop_fourier_2d(blob, new_shape=(new, new))
    assert np.argmax(resized) == new // 2 * new + new // 2
    assert resized.max() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("width", [32, 33])
def test_a_shift_moves_the_content_along(width: int) -> None:
    image = np.zeros((30, width))
    image[10, 12] = 1.0
    moved = fft.irfft2(shift_spectrum_2d(fft.rfft2(image), (3.0, -4.0), width=width), s=image.shape)
    np.testing.assert_allclose(moved, np.roll(image, (3, -4), (0, 1)), atol=1e-5)


def test_rings_of_white_noise_are_level_and_the_corners_are_left_out() -> None:
    frequency, average = radial_average_2d(np.ones((24, 13)), width=24)
    np.testing.assert_array_equal(average, 1.0)
    assert frequency[-1] < 0.5
