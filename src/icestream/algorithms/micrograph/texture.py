"""What the texture of a micrograph tells: shot noise alone, ice, particles, crystals, drift.

All are medians over tiles, or sums to which no tile adds much, so that dirt in some of them does not matter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, frequency_grid_2d, frequency_radius_2d

BANDS_PER_PX = ((1 / 64, 1 / 32), (1 / 32, 1 / 16), (1 / 16, 1 / 8), (1 / 8, 1 / 4), (1 / 4, 1 / 2))
"""Octaves of spatial frequency on the reduced image."""

TEXTURE_SCALES_PX = (1.5, 2.5, 4.0, 6.0, 9.0)
"""Standard deviations of the Gaussians between which the grey values are judged; the outer one is twice as wide."""

_TILE_PX = 128
_LEAST_CLEAR = 0.6
_DIRECTED_FROM_PER_PX = 1 / 64
_DIRECTED_TO_PER_PX = (1 / 8, 1 / 4)
_CHANCE = 3.0  # noise alone exceeds this many times its mean square in one of 20, exp(-3)


@dataclass(frozen=True)
class Texture:
    """Power of the octaves over that of the weakest, and the shape of the grey values; see `measure_texture_2d`."""

    band_power: tuple[float, ...]
    noise_power: float
    anisotropy: float
    skewness: float
    n_tiles: int

    @property
    def signal_to_noise(self) -> float:
        """The strongest octave but the lowest, over the weakest of them: 1 is white noise."""
        return max(self.band_power[1:]) / min(self.band_power[1:])

    @property
    def mottle(self) -> float:
        """The lowest octave over the strongest from the third on: what is coarser than weak phases can make it."""
        return self.band_power[0] / max(self.band_power[2:])


def measure_texture_2d(flat: Image, clear: NDArray[np.bool_]) -> Texture:
    """Measure spectrum and grey values of the clear part of a micrograph.

    Shot noise is white; ice and particles lie under a CTF, which lifts some octaves above others. The CTF hides what is coarse,
    so that a strong lowest octave is contrast of amplitude: thickness, or crystals that scatter out of the aperture. Drift
    leaves the spectrum along one direction only. Ice is a Gaussian random field, with symmetric grey values whatever its
    CTF; particles are sparse and dark and give a negative skewness at their own scale.

    Parameters
    ----------
    flat
        ``(h, w)``, reduced and flattened; at least 64 pixels a side.
    clear
        ``(h, w)``, true where there is no film edge and no dark object; all is taken where hardly anything is clear.
    """
    clear, starts, tile = _choose_tiles(clear)
    spectra, weight = _transform_tiles(flat, clear, starts, tile)
    bands = _measure_bands(spectra, weight)
    floor = max(min(bands[1:]), 1e-30)
    return Texture(
        band_power=tuple(max(band / floor, 1.0) if i else band / floor for i, band in enumerate(bands)),
        noise_power=floor,
        anisotropy=_measure_anisotropy(spectra, weight, floor),
        skewness=min(_measure_skewness(flat, clear, starts, (tile, scale)) for scale in TEXTURE_SCALES_PX),
        n_tiles=len(starts),
    )


def measure_noise_power_2d(flat: Image, clear: NDArray[np.bool_]) -> float:
    """Return the power of the weakest octave but the lowest: the variance of shot noise, where some octave has nothing else."""
    clear, starts, tile = _choose_tiles(clear)
    return min(_measure_bands(*_transform_tiles(flat, clear, starts, tile))[1:])


def _choose_tiles(clear: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], list[tuple[int, int]], int]:
    """Return what is taken as clear, and the tiles of it; all of the image where hardly anything is clear."""
    starts, tile = _clear_tiles(clear)
    if len(starts) >= 2:
        return clear, starts, tile
    everything = np.ones(clear.shape, bool)
    return everything, *_clear_tiles(everything)


def _transform_tiles(
    flat: Image, clear: NDArray[np.bool_], starts: list[tuple[int, int]], tile: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the power spectra of tiles ``(n, tile, tile // 2 + 1)``, and how often each frequency counts."""
    weight = np.full((tile, tile // 2 + 1), 2.0)
    weight[:, [0, -1]] = 1.0
    return np.stack([_tile_spectrum(flat, clear, start, tile) for start in starts]), weight


def _measure_bands(spectra: NDArray[np.float64], weight: NDArray[np.float64]) -> list[float]:
    """Return the median over tiles of the mean power in each octave; the lowest frequency stands for an octave without any."""
    radius = frequency_radius_2d(spectra.shape[1], spectra.shape[1])
    bands = []
    for low, high in BANDS_PER_PX:
        inside = weight * ((radius >= low) & (radius < high))
        inside = inside if inside.any() else weight * (radius == np.min(radius[radius > 0]))
        bands.append(float(np.median((spectra * inside).sum((1, 2)) / inside.sum())))
    return bands


def _clear_tiles(clear: NDArray[np.bool_]) -> tuple[list[tuple[int, int]], int]:
    """Return the corners of tiles that overlap by half and are mostly clear, and their side."""
    tile = min(_TILE_PX, 2 * (min(clear.shape) // 4))
    rows, columns = (
        np.linspace(0, side - tile, max(round(2 * (side - tile) / tile), 1) + 1).astype(int).tolist() for side in clear.shape
    )
    starts = [(y, x) for y in rows for x in columns if clear[y : y + tile, x : x + tile].mean() >= _LEAST_CLEAR]
    return starts, tile


def _tile_spectrum(flat: Image, clear: NDArray[np.bool_], start: tuple[int, int], tile: int) -> NDArray[np.float64]:
    """Return the power spectrum of the clear part of a tile, so scaled that white noise of variance ``v`` has the power ``v``."""
    y, x = start
    line = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(tile) + 0.5) / tile)
    weight = np.outer(line, line) * clear[y : y + tile, x : x + tile]  # (tile, tile)
    values = flat[y : y + tile, x : x + tile]
    centred = (values - np.sum(values * weight) / np.sum(weight)) * weight
    spectrum: NDArray[np.float64] = np.abs(fft.rfft2(centred)) ** 2 / np.sum(weight**2)  # (tile, tile // 2 + 1)
    return spectrum


def _measure_anisotropy(spectra: NDArray[np.float64], weight: NDArray[np.float64], floor: float) -> float:
    """Return how one-sided the power above the floor is: 0 for rings, 1 for a line.

    A motion over the length ``d`` multiplies the spectrum by ``sinc(d g)²``, with the frequency ``g`` along it (Frank 1969, Optik
    30, 171): what is left lies across, among coarse frequencies (1/64 to 1/8 per pixel) and among all (to 1/4). So the lesser of
    the two is taken. An ellipse of astigmatism changes its sign from ring to ring.
    """
    return min(_measure_direction(spectra, weight, floor, highest_per_px=highest) for highest in _DIRECTED_TO_PER_PX)


def _measure_direction(
    spectra: NDArray[np.float64], weight: NDArray[np.float64], floor: float, *, highest_per_px: float
) -> float:
    """Return the second angular harmonic of the power above the floor over that power.

    It is summed over tiles, none with more weight than the median one, so that the noise, which has no direction, averages out;
    what the spread of the tiles makes by chance is taken off its square. Lines along the axes are of the camera.
    """
    tile = spectra.shape[1]
    ky, kx = (axis + np.zeros((tile, tile // 2 + 1)) for axis in frequency_grid_2d(tile, tile))
    radius = np.hypot(ky, kx)
    off_axes = (np.abs(ky) > 1.5 / tile) & (kx > 1.5 / tile)
    chosen = weight * ((radius >= _DIRECTED_FROM_PER_PX) & (radius < highest_per_px) & off_axes)
    turn = np.exp(2j * np.arctan2(ky, kx))
    whole = (spectra * chosen).sum((1, 2))  # (n,)
    share = 1 / np.maximum(np.maximum(whole, np.median(whole)), 1e-30)
    turned = share * (spectra * chosen * turn).sum((1, 2))  # (n,), complex
    above = float((share * (whole - floor * chosen.sum())).sum())
    length = np.abs(turned.sum())
    chance = float((np.abs(turned - turned.mean()) ** 2).sum())
    return float(np.sqrt(max(length**2 - _CHANCE * chance, 0.0)) / max(above, length, 1e-30))


def _measure_skewness(
    flat: Image, clear: NDArray[np.bool_], starts: list[tuple[int, int]], tile_scale: tuple[int, float]
) -> float:
    """Return the skewness of the band-passed grey values, from medians over tiles of the second and third moments."""
    tile, scale_px = tile_scale
    fine, coarse = (_blur_clear(flat, clear, factor * scale_px) for factor in (1.0, 2.0))
    band = fine - coarse
    second, third = [], []
    for y, x in starts:
        box = (slice(y, y + tile), slice(x, x + tile))
        values = band[box][clear[box]]
        values = values - values.mean()
        squares = values * values
        second.append(np.mean(squares))
        third.append(np.mean(squares * values))
    return float(np.median(third) / max(float(np.median(second)), 1e-30) ** 1.5)


def _blur_clear(flat: Image, clear: NDArray[np.bool_], sigma_px: float) -> NDArray[np.float64]:
    share = ndimage.gaussian_filter(clear.astype(np.float64), sigma_px)
    blurred: NDArray[np.float64] = ndimage.gaussian_filter(flat * clear, sigma_px) / np.maximum(share, 0.1)
    return blurred
