"""Power spectra that leave no pixel unused: tiles as large as can be, tapered at their edges alone.

A tile under a Hann window loses what lies near its edges, and a micrograph of four tiles loses half of what it knows about its
CTF. Here the window is flat (Tukey 1967; Harris 1978, Proc. IEEE 66, 51, section V.D) and the tiles hardly overlap. Each
frequency is as noisy as can be; a fit that knows this, and goes through them all, is close to the best that there is.
"""

from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import fft

_EDGE_SHARE = 1.0 / 16.0
_OUTLIER_FACTOR = 2.0
_FLAT = 1.0 - 2.0 * _EDGE_SHARE
PERIODOGRAM_NOISE_INFLATION = ((_FLAT + 2.0 * _EDGE_SHARE * 35.0 / 128.0) / (_FLAT + 2.0 * _EDGE_SHARE * 3.0 / 8.0) ** 2) ** 2
"""Variance of a smooth weighted sum over the spectrum of one tile, relative to independent pixels: the square of
``N * sum(w⁴) / sum(w²)²`` for the window ``w`` of ``N`` samples."""


def periodogram_tile_px(shape: tuple[int, int], *, pixel_size_ang: float, tile_ang: float) -> int:
    """Return the tile side, in pixels: the whole short side, or an even part of it that is about ``tile_ang`` wide.

    Raises
    ------
    ValueError
        If the image is smaller than 128 pixels along one side.
    """
    short = min(shape)
    if short < 128:
        raise ValueError(f"image of {shape[0]} x {shape[1]} px is too small for a spectrum; at least 128 x 128 px are needed")
    parts = min(max(round(short * pixel_size_ang / tile_ang), 1), short // 128)
    half = short // (2 * parts)
    while fft.next_fast_len(half, real=True) != half:
        half -= 1
    return 2 * half


def periodogram(image: NDArray[Any], *, tile_px: int) -> NDArray[np.float32]:
    """Return the mean power spectrum of tiles that do not overlap more than they must to reach all edges.

    The mean of each tile is removed. A tile whose variance is more than twice the median (the edge of a hole, a lump of ice)
    counts as one of twice the median. White noise of variance ``v`` has the spectrum ``v``.

    Parameters
    ----------
    image
        ``(h, w)``, real.
    tile_px
        Side of the tiles; even, at most the short side of the image.

    Returns
    -------
    spectrum
        ``(tile, tile // 2 + 1)``: power per frequency, unshifted.

    Raises
    ------
    ValueError
        If the tiles do not fit, or the image holds values that are not finite.
    """
    if tile_px % 2 or not 2 <= tile_px <= min(image.shape):
        raise ValueError(f"tile_px is {tile_px}; it must be even, and at most {min(image.shape)} for this image")
    starts = [np.linspace(0, side - tile_px, -(-side // tile_px)).astype(int).tolist() for side in image.shape]
    corners = [(y, x) for y in starts[0] for x in starts[1]]
    variances = np.array([np.var(image[y : y + tile_px : 2, x : x + tile_px : 2], dtype=np.float64) for y, x in corners])
    if not np.all(np.isfinite(variances)):
        raise ValueError("the image holds values that are not finite (NaN or infinite)")
    limit = _OUTLIER_FACTOR * float(np.median(variances))
    window = _flat_window(tile_px)
    spectrum = np.zeros((tile_px, tile_px // 2 + 1), np.float32)
    for (y, x), variance in zip(corners, variances.tolist(), strict=True):
        tile = image[y : y + tile_px, x : x + tile_px].astype(np.float32)  # (tile, tile), a copy
        tile -= tile.mean(dtype=np.float64)
        tile *= window[:, None]
        tile *= window[None, :]
        share = (limit / variance if variance > limit > 0 else 1.0) / len(corners)
        add_power(spectrum, fft.rfft2(tile, overwrite_x=True), np.float32(share))
    if not np.all(np.isfinite(spectrum)):
        raise ValueError("the image holds values that are not finite (NaN or infinite)")
    return spectrum


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc"})
def add_power(total: Any, transform: Any, share: Any) -> None:
    """Add the squared modulus of a transform ``(h, w)``, times ``share``, to ``total``, which is changed."""
    for row in range(transform.shape[0]):
        for column in range(transform.shape[1]):
            value = transform[row, column]
            total[row, column] += share * (value.real * value.real + value.imag * value.imag)


@lru_cache(maxsize=8)
def _flat_window(side: int) -> NDArray[np.float32]:
    """Return a window of unit norm that is flat but for cosine edges: ``(side,)``."""
    place = (np.arange(side) + 0.5) / side
    edge = np.minimum(np.minimum(place, 1.0 - place) / _EDGE_SHARE, 1.0)
    window = 0.5 - 0.5 * np.cos(np.pi * edge)
    unit: NDArray[np.float32] = (window / np.sqrt(np.sum(window**2))).astype(np.float32)
    unit.flags.writeable = False
    return unit
