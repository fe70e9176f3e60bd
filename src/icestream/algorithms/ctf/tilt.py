"""Telling a tilted specimen by its spectra: on a slope the defocus changes over the field, and with it the Thon rings.

The image is cut into windows, and the spectra of any two are correlated. The spectrum of a window is noisy, so even equal rings
would not correlate to 1, and faint ones hardly at all. Two sets of tiles of each window tell signal from noise: what both show is
signal (as with the half sets of a Fourier shell correlation). Frequencies count by their signal (a matched filter), and
correlations are in units of the correlation of a window with itself, its noise left out (correction for attenuation, Spearman
1904, Am. J. Psychol. 15, 72).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from icestream.algorithms.ctf.samples import SpectrumSamples, bin_polar, sample_spectra
from icestream.algorithms.spectra.spectrum import power_spectra

_WINDOWS_PX = (4096, 2048, 1024, 512, 256, 128)
_WINDOWS_PER_SIDE = 2.5
_N_SECTORS = 24
_LOW_RESOLUTION_ANG = 30.0
_SMOOTH_RINGS = 15
_LEAST_SIGNIFICANCE = 20.0
_NOISE_IN_COMMON = 12 / 20 * (1 / 6) ** 2 * 20**0.5
"""Correlation of the noise of the two sets of 3 x 3 tiles: 12 of the 20 pairs overlap by half under the Hann window (correlation
1/6, of power its square), and means of 5 and of 4 tiles are compared."""


@dataclass(frozen=True)
class TiltStatistics:
    """How alike the spectra of the windows of an image are.

    Attributes
    ----------
    spectra
        ``(n_windows, tile, tile // 2 + 1)``: of the windows, row by row.
    significance
        Strength of the rings in the windows, in standard deviations of noise.
    correlation
        ``(n_pairs,)``: of each two windows, in units of that of equal rings. Unset where the rings are too faint to tell:
        below a significance of 20 even a level specimen may show a spread of 0.1.
    spread
        Standard deviation of the correlations without their noise: from the covariance of estimates that share no tile.
    """

    spectra: NDArray[np.float32]
    significance: float
    correlation: NDArray[np.float64] | None
    spread: float | None


def choose_window_px(shape: tuple[int, int]) -> int:
    """Return the largest of 4096, 2048 … 128 pixels that fits 2.5 times into the short side of an image.

    Raises
    ------
    ValueError
        If the short side is below 320 pixels.
    """
    for side in _WINDOWS_PX:
        if side * _WINDOWS_PER_SIDE <= min(shape):
            return side
    raise ValueError(f"image of {shape[0]} x {shape[1]} px is too small to compare its parts; at least 320 x 320 px are needed")


def correlate_windows(
    image: NDArray[Any], *, window_px: int, pixel_size_ang: float, objective_resolution_ang: float
) -> TiltStatistics:
    """Correlate the power spectra of all windows of an image, between 30 Å and the objective resolution.

    Before two spectra are correlated, each is divided by its fall-off, averaged over cells of one ring and 7.5° of direction, and
    rid of what a smooth function of frequency explains: only rings are compared.

    Parameters
    ----------
    image
        ``(h, w)``.
    window_px
        Side of a window; a multiple of 4. As many as fit without overlap are spread evenly over the image.
    pixel_size_ang
        Of the image.
    objective_resolution_ang
        Higher frequencies are cut off.

    Raises
    ------
    ValueError
        If fewer than three windows fit, the windows are too small for spectra, or the image is constant or not finite.

    Notes
    -----
    A wide field shows a tilt best, and windows must be wide enough to resolve the rings. Simulated at 1.5 µm defocus and a
    significance of 30 or more: in a field of 3072 Å with windows of 1024 Å none of 20 level images had a spread above 0.1, and
    all of 10 images tilted by 20° had; in a field of 2048 Å with windows of 512 Å hardly any image tilted by 20° was told.
    """
    starts = [_starts(side, window_px) for side in image.shape]
    n_windows = len(starts[0]) * len(starts[1])
    if window_px % 4 or n_windows < 3:
        raise ValueError(
            f"{n_windows} windows of {window_px} px in an image of {image.shape[0]} x {image.shape[1]} px; "
            "3 or more are needed, with a side divisible by 4"
        )
    halves = np.stack(
        [
            power_spectra(image[y : y + window_px, x : x + window_px], tile_px=window_px // 2, n_sets=2)
            for y in starts[0]
            for x in starts[1]
        ]
    )  # (n_windows, 2, tile, tile // 2 + 1)
    cells = [_rings(each, pixel_size_ang, objective_resolution_ang) for each in halves]
    rings = np.stack([values for values, _ in cells])  # (n_windows, 2, n_sectors, n_rings)
    significance, correlation, spread = _correlate_rings(rings, weight=cells[0][1])
    if significance < _LEAST_SIGNIFICANCE:
        return TiltStatistics(halves.mean(axis=1), significance, None, None)
    return TiltStatistics(halves.mean(axis=1), significance, correlation, spread)


def _starts(side: int, window_px: int) -> list[int]:
    positions: list[int] = np.linspace(0, side - window_px, side // window_px).astype(int).tolist()
    return positions


def _rings(
    halves: NDArray[np.float32], pixel_size_ang: float, objective_resolution_ang: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the rings of both sets of one window ``(2, n_sectors, n_rings)``, and the weights of the cells."""
    resolution_ang = (_LOW_RESOLUTION_ANG, objective_resolution_ang)
    _, *sets = sample_spectra(halves, pixel_size_ang=pixel_size_ang, resolution_ang=resolution_ang)
    cells = [bin_polar(each, n_sectors=_N_SECTORS) for each in sets]
    weight = cells[0].weight.reshape(_N_SECTORS, -1)
    return np.stack([_remove_smooth(each).reshape(_N_SECTORS, -1) for each in cells]), weight


def _remove_smooth(cells: SpectrumSamples) -> NDArray[np.float64]:
    """Return the values of polar cells without what smooth functions of frequency alone explain: ``(n_cells,)``."""
    basis = cells.background[:, cells.ring]  # (n_background, n_cells)
    root = np.sqrt(cells.weight)
    coefficients = np.linalg.lstsq((basis * root).T, cells.value * root, rcond=None)[0]
    left: NDArray[np.float64] = cells.value - coefficients @ basis
    return left


def _correlate_rings(rings: NDArray[np.float64], *, weight: NDArray[np.float64]) -> tuple[float, NDArray[np.float64], float]:
    """Return significance, correlations ``(n_pairs,)`` and their spread, from ``(n_windows, 2, n_sectors, n_rings)``."""
    n_windows = len(rings)
    share = weight / weight.sum(axis=0)  # (n_sectors, n_rings)
    shared = np.einsum("sr,wsr,wsr->wr", share, rings[:, 0], rings[:, 1])  # (n_windows, n_rings)
    total = 0.5 * np.einsum("sr,whsr,whsr->wr", share, rings, rings)
    signal = (shared - _NOISE_IN_COMMON * total) / (1.0 - _NOISE_IN_COMMON)
    noise = uniform_filter1d((total - signal).mean(axis=0), _SMOOTH_RINGS)  # (n_rings,)
    smooth = uniform_filter1d(signal, _SMOOTH_RINGS, axis=1)
    others = (smooth.sum(axis=0) - smooth) / (n_windows - 1)  # a window must not choose the filter that judges it
    strength = float(np.mean(np.sum(np.maximum(others, 0.0) * signal / noise**2, axis=1)))
    filtered = np.maximum(smooth.mean(axis=0), 0.0) / noise**2  # (n_rings,)
    chance = float(np.sqrt(np.sum((filtered * noise) ** 2) / (_N_SECTORS * n_windows)))
    if strength <= 0.0:
        return 0.0, np.zeros(0), 0.0
    scaled = (rings * np.sqrt(share * filtered / strength)).reshape(2 * n_windows, -1)
    product = (scaled @ scaled.T).reshape(n_windows, 2, n_windows, 2)
    one, other = np.triu_indices(n_windows, 1)
    pairs = product[one, :, other, :]  # (n_pairs, 2, 2)
    straight, crossed = np.cov(pairs[:, 0, 0], pairs[:, 1, 1])[0, 1], np.cov(pairs[:, 0, 1], pairs[:, 1, 0])[0, 1]
    return strength / chance, pairs.mean(axis=(1, 2)), float(np.sqrt(max(0.5 * (straight + crossed), 0.0)))
