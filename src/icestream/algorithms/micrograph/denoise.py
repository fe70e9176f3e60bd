"""Denoised micrographs, for eyes and for picking: Wiener filters whose signal and noise are measured, not assumed.

With two halves of the frames the correlation of their rings is the signal's share (Saxton & Baumeister 1982, J. Microsc. 127,
127), and ``2 F / (1 + F)`` filters their sum. Without halves the noise is what the spectrum shows where the CTF is nearly zero,
and as much at frequencies below the first zero: what else there is has passed the lens and is signal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from icestream.algorithms.fourier import Image, crop_fourier_2d, frequency_radius_2d
from icestream.algorithms.frc import fourier_ring_correlation_2d
from icestream.algorithms.spectra.spectrum import power_spectrum

_MOST_RINGS = 192
_SMOOTH_RINGS = 1.0
_TILE_PX = 256
_NEARLY_ZERO = 0.05
_NOISE_RINGS = 5
_SEEN = 0.5


@dataclass(frozen=True)
class Denoised:
    """The filtered image ``(h, w)``, and the finest frequency per pixel at which half of the amplitude is signal (0: none)."""

    image: NDArray[np.float32]
    seen_per_px: float


def reduce_to_pixel_2d(image: Image, *, factor: float) -> Image:
    """Fourier-crop ``(h, w)`` to pixels ``factor`` times as large, or nearly so, sides even; at least 64 pixels are left."""
    sides = (2 * max(round(side / factor / 2), 32) for side in image.shape)
    height, width = (min(side, whole) for side, whole in zip(sides, image.shape, strict=True))
    return crop_fourier_2d(image, new_shape=(height, width))


def denoise_halves_2d(even: Image, odd: Image) -> Denoised:
    """Filter the sum of two images whose noise is independent by the correlation of their rings.

    Parameters
    ----------
    even, odd
        ``(h, w)`` each, such as the sums of frames 0, 2, … and 1, 3, ….

    Raises
    ------
    ValueError
        The shapes differ.
    """
    n_rings = min(_MOST_RINGS, min(even.shape) // 2)
    taper = _taper(even.shape)
    halves = [(half - half.mean()) * taper for half in (even, odd)]
    frequency, correlation = fourier_ring_correlation_2d(*halves, n_rings=n_rings)
    correlation[0] = correlation[1]
    smooth = np.clip(ndimage.gaussian_filter1d(correlation, _SMOOTH_RINGS, mode="nearest"), 0.0, 1.0)
    gain = 2 * smooth / (1 + smooth)  # (n_rings,)
    radius = frequency_radius_2d(*even.shape)
    return _filter(np.asarray(even, np.float32) + odd, np.interp(radius, frequency, gain))


def denoise_by_ctf_2d(image: Image, tile_ctf: NDArray[np.float32]) -> Denoised:
    """Filter an image by the noise that its spectrum shows at the zeros of a known CTF.

    Parameters
    ----------
    image
        ``(h, w)``.
    tile_ctf
        ``(tile, tile // 2 + 1)``, the CTF at the frequencies of a tile of `choose_tile_px`.

    Raises
    ------
    ValueError
        The CTF has no zero among these frequencies.
    """
    tile_px = tile_ctf.shape[0]
    spectrum = power_spectrum(image, tile_px=tile_px).astype(np.float64)
    frequency, gain = _gain_by_zeros(spectrum, np.square(tile_ctf, dtype=np.float64))
    return _filter(image, np.interp(frequency_radius_2d(image.shape[0], image.shape[1]), frequency, gain))


def choose_tile_px(shape: tuple[int, int]) -> int:
    """Return the side of the tiles in which the spectrum is measured: even, 256 pixels or what fits."""
    return min(_TILE_PX, 2 * (min(shape) // 4))


def _gain_by_zeros(
    spectrum: NDArray[np.float64], ctf_squared: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rings in cycles per pixel, and one minus the noise's share of the power in each, from 0 to 1."""
    tile = spectrum.shape[0]
    ring = np.rint(frequency_radius_2d(tile, tile) * tile).astype(np.int64)  # (tile, tile // 2 + 1)
    off_axes = (np.arange(tile)[:, None] > 0) & (np.arange(tile // 2 + 1)[None] > 0)
    at_zero = off_axes & (ctf_squared < _NEARLY_ZERO)
    n_rings = tile // 2 + 1
    power = _ring_means(spectrum, ring, off_axes, n_rings)
    noise = _ring_means(spectrum, ring, at_zero, n_rings)
    known = np.isfinite(noise) & (np.arange(n_rings) >= _first_maximum(ctf_squared))
    if not known.any():
        raise ValueError("the CTF has no zero among the frequencies of the image: the defocus is too small for these pixels")
    rings = np.arange(n_rings, dtype=np.float64)
    level = np.interp(rings, rings[known], ndimage.median_filter(noise[known], _NOISE_RINGS, mode="nearest"))
    power[~np.isfinite(power)] = np.inf
    power[0] = np.inf
    gain = np.clip(1 - level / power, 0.0, 1.0)
    gain[0] = gain[1]
    return rings / tile, ndimage.gaussian_filter1d(gain, _SMOOTH_RINGS, mode="nearest")


def _first_maximum(ctf_squared: NDArray[np.float64]) -> int:
    """Return the ring of the first maximum of the CTF along x, after which its zeros are; beyond all rings if there is none."""
    at_maximum = np.flatnonzero(ctf_squared[0] > 1 - _NEARLY_ZERO)
    return int(at_maximum[0]) if at_maximum.size else ctf_squared.shape[1]


def _ring_means(
    values: NDArray[np.float64], ring: NDArray[np.int64], chosen: NDArray[np.bool_], n_rings: int
) -> NDArray[np.float64]:
    """Return the mean over the chosen frequencies of each ring, not a number where there is none."""
    counts = np.bincount(ring[chosen], minlength=n_rings)[:n_rings]
    sums = np.bincount(ring[chosen], weights=values[chosen], minlength=n_rings)[:n_rings]
    means: NDArray[np.float64] = np.divide(sums, counts, out=np.full(n_rings, np.nan), where=counts > 0)
    return means


def _filter(image: Image, gain: NDArray[np.float64]) -> Denoised:
    """Multiply the spectrum of an image by a real gain; the mean stays."""
    mean = float(image.mean())
    filtered = fft.irfft2(fft.rfft2(np.asarray(image, np.float32) - mean) * gain.astype(np.float32), s=image.shape) + mean
    radius = frequency_radius_2d(image.shape[0], image.shape[1])
    seen = radius[(gain >= _SEEN) & (radius <= 0.5)]
    return Denoised(filtered.astype(np.float32), float(seen.max()) if seen.size else 0.0)


def _taper(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return a window that falls to 0 within an eighth of a side of the border."""
    lines = []
    for side in shape:
        away = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / (side / 8)
        lines.append(0.5 - 0.5 * np.cos(np.pi * np.minimum(away, 1.0)))
    window: NDArray[np.float32] = np.outer(*lines).astype(np.float32)
    return window
