"""Power spectra of tiles."""

import numpy as np
import pytest

from icestream.algorithms.spectra.spectrum import (
    HANN_NOISE_INFLATION,
    power_spectra,
    power_spectrum,
    spectrum_tile_px,
    tile_variances,
)


def test_white_noise_has_a_flat_spectrum_at_its_variance() -> None:
    image = 3.0 * np.random.default_rng(1).standard_normal((1024, 1024))
    spectrum = power_spectrum(image, tile_px=128)
    assert spectrum.shape == (128, 65)
    inner = spectrum[8:-8, 8:-8]
    assert np.mean(inner) == pytest.approx(9.0, rel=0.01)
    assert np.std(inner) / 9.0 == pytest.approx(1.0 / np.sqrt(225), rel=0.15)  # 15 x 15 tiles, hardly correlated


def test_a_wave_is_one_peak_at_its_frequency() -> None:
    y, x = np.mgrid[:512, :512]
    spectrum = power_spectrum(np.cos(2 * np.pi * (x * 10 - y * 20) / 128), tile_px=128)
    assert np.unravel_index(np.argmax(spectrum), spectrum.shape) == (128 - 20, 10)
    assert spectrum[60, 40] < 1e-6 * spectrum.max()


def test_the_mean_grey_value_does_not_matter_and_the_image_is_not_changed() -> None:
    image = np.random.default_rng(2).standard_normal((300, 260)).astype(np.float32)
    before = image.copy()
    plain = power_spectrum(image, tile_px=100)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_allclose(power_spectrum(image + 50, tile_px=100), plain, rtol=1e-3, atol=1e-4)


def test_integer_images_are_transformed_like_floats() -> None:
    image = np.random.default_rng(3).integers(0, 4000, (256, 256), dtype=np.uint16)
    np.testing.assert_allclose(power_spectrum(image, tile_px=64), power_spectrum(image.astype(np.float32), tile_px=64), rtol=1e-5)


def test_the_sets_are_disjoint_and_make_up_the_whole() -> None:
    image = np.random.default_rng(4).standard_normal((192, 192))
    halves = power_spectra(image, tile_px=64, n_sets=2)  # 5 x 5 tiles: 13 and 12
    whole = power_spectrum(image, tile_px=64)
    np.testing.assert_allclose((13 * halves[0] + 12 * halves[1]) / 25, whole, rtol=1e-4)
    a, b = (half[4:-4, 4:-4] - 1.0 for half in halves)
    assert abs(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b))) < 0.2


def test_a_tile_with_a_lump_counts_no_more_than_twice_the_median() -> None:
    image = np.random.default_rng(5).standard_normal((512, 512))
    clean = power_spectrum(image, tile_px=64)
    image[200:216, 200:216] += 1000.0
    dirty = power_spectrum(image, tile_px=64)
    assert dirty.mean() < 1.1 * clean.mean()


def test_neighbouring_pixels_are_correlated_as_stated() -> None:
    spectra = np.stack([power_spectrum(np.random.default_rng(seed).standard_normal((64, 64)), tile_px=64) for seed in range(400)])
    block = spectra[:, 8:24, 8:24].mean(axis=(1, 2))
    independent = np.var(spectra[:, 8:24, 8:24]) / 256
    assert np.var(block) / independent == pytest.approx(HANN_NOISE_INFLATION, rel=0.3)


@pytest.mark.parametrize(
    ("shape", "pixel_size_ang"), [((4096, 4096), 1.0), ((3838, 3710), 0.66), ((1024, 1440), 0.6), ((700, 700), 2.0)]
)
def test_tiles_are_nearly_as_wide_as_asked_and_overlap_by_half(shape: tuple[int, int], pixel_size_ang: float) -> None:
    side = spectrum_tile_px(shape, pixel_size_ang=pixel_size_ang, tile_ang=1000)
    assert side % 2 == 0
    assert min(700, 0.6 * min(shape) * pixel_size_ang) < side * pixel_size_ang <= 1000
    n_rows, n_columns = tile_variances(np.zeros(shape, np.float32), tile_px=side).shape
    for length, count in zip(shape, (n_rows, n_columns), strict=True):
        assert 0.35 < 1 - (length - side) / (count - 1) / side < 0.65


def test_what_cannot_be_transformed_is_refused() -> None:
    image = np.zeros((256, 256))
    with pytest.raises(ValueError, match="tile_px is 300"):
        power_spectrum(image, tile_px=300)
    with pytest.raises(ValueError, match="tile_px is 63"):
        power_spectrum(image, tile_px=63)
    with pytest.raises(ValueError, match="cannot fill 2 sets"):
        power_spectra(image, tile_px=256, n_sets=2)
    with pytest.raises(ValueError, match="100 x 300 px is too small"):
        spectrum_tile_px((100, 300), pixel_size_ang=1.0, tile_ang=500)
    image[3, 4] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        power_spectrum(image, tile_px=64)
    assert tile_variances(np.ones((256, 192)), tile_px=64).shape == (7, 5)
