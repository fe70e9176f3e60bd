"""Power spectra of nearly untapered tiles."""

import numpy as np
import pytest

from icestream.algorithms.spectra.periodogram import PERIODOGRAM_NOISE_INFLATION, periodogram, periodogram_tile_px


def test_white_noise_has_its_variance_as_spectrum_and_the_image_is_not_changed() -> None:
    image = 3.0 * np.random.default_rng(1).standard_normal((512, 700)).astype(np.float32) + 40.0
    before = image.copy()
    spectrum = periodogram(image, tile_px=256)
    assert spectrum.shape == (256, 129)
    assert np.mean(spectrum[8:-8, 8:-8]) == pytest.approx(9.0, rel=0.02)
    np.testing.assert_array_equal(image, before)


def test_neighbouring_frequencies_are_correlated_as_stated() -> None:
    rng = np.random.default_rng(2)
    blocks = np.array([periodogram(rng.standard_normal((128, 128)), tile_px=128)[8:56, 8:56] for _ in range(600)])
    independent = np.var(blocks) / blocks[0].size
    assert np.var(blocks.mean(axis=(1, 2))) / independent == pytest.approx(PERIODOGRAM_NOISE_INFLATION, rel=0.2)


def test_a_strong_wave_leaks_little_beyond_its_neighbours() -> None:
    y, x = np.mgrid[:256, :256]
    spectrum = periodogram(np.cos(2 * np.pi * (x * 10.5 + y * 20.5) / 256), tile_px=256)
    assert np.unravel_index(np.argmax(spectrum), spectrum.shape) in {(r, c) for r in (20, 21) for c in (10, 11)}
    assert spectrum[100:150, 80:].max() < 1e-8 * spectrum.max()


def test_a_lump_in_one_tile_counts_no_more_than_twice_the_median() -> None:
    image = np.random.default_rng(3).standard_normal((512, 512))
    clean = periodogram(image, tile_px=128)
    image[200:216, 200:216] += 1000.0
    assert periodogram(image, tile_px=128).mean() < 1.2 * clean.mean()


@pytest.mark.parametrize(("shape", "pixel"), [((1024, 1024), 0.6), ((1024, 2048), 2.0), ((4096, 4096), 1.0), ((129, 131), 1.0)])
def test_tiles_fit_the_image_and_are_even(shape: tuple[int, int], pixel: float) -> None:
    tile_px = periodogram_tile_px(shape, pixel_size_ang=pixel, tile_ang=2000.0)
    assert tile_px % 2 == 0
    assert tile_px <= min(shape)
    assert tile_px * pixel > 0.6 * min(2000.0, min(shape) * pixel)


def test_what_has_no_spectrum_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        periodogram_tile_px((100, 500), pixel_size_ang=1.0, tile_ang=1000)
    with pytest.raises(ValueError, match="must be even"):
        periodogram(np.zeros((256, 256)), tile_px=255)
    broken = np.zeros((256, 256))
    broken[3, 3] = np.nan  # at an odd place, which the variance of a tile does not see
    with pytest.raises(ValueError, match="not finite"):
        periodogram(broken, tile_px=256)
