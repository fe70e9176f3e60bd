"""Power spectra of micrographs: averaged periodograms of overlapping, tapered tiles.

The estimator is that of Welch (1967), IEEE Trans. Audio Electroacoust. 15, 70: tiles that overlap by half and are tapered by a
Hann window, so that the strong low frequencies do not leak and hardly any pixel is left unused.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

HANN_NOISE_INFLATION = (1.0 + 2.0 * ((2.0 / 3.0) ** 2 + (1.0 / 6.0) ** 2)) ** 2
"""Sum of the squared correlations between the pixel of a 2D Hann-tapered periodogram and its neighbours: the factor by which the
variance of a smooth weighted sum over the spectrum exceeds that of independent pixels."""

_OUTLIER_FACTOR = 2.0


def spectrum_tile_px(shape: tuple[int, int], *, pixel_size_ang: float, tile_ang: float) -> int:
    """Return the tile side, in pixels, that is about ``tile_ang`` wide, quick to transform, and fits the image.

    The side in Å, not in pixels, decides which Thon rings a spectrum can resolve. A tile is never wider than half the short side
    of the image (at least nine tiles are averaged), nor narrower than 64 pixels.

    Raises
    ------
    ValueError
        If the image is smaller than 128 pixels along one side.
    """
    if min(shape) < 128:
        raise ValueError(f"image of {shape[0]} x {shape[1]} px is too small for a spectrum; at least 128 x 128 px are needed")
    wanted = min(round(tile_ang / pixel_size_ang), min(shape) // 2)
    side = max(wanted // 2, 32)
    while fft.next_fast_len(side, real=True) != side:
        side -= 1
    return 2 * side


def power_spectrum(image: NDArray[Any], *, tile_px: int) -> NDArray[np.float32]:
    """Average the power spectra of tiles that overlap by half.

    The mean of each tile is removed. A tile whose variance is more than twice the median (the edge of a hole, a lump of ice) is
    weighted down so that it counts as twice the median. White noise of variance ``v`` has the spectrum ``v``.

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
    height, width = image.shape
    if tile_px % 2 or not 2 <= tile_px <= min(height, width):
        raise ValueError(f"tile_px is {tile_px}; it must be even, and at most {min(height, width)} for this image")
    taper = _hann_2d(tile_px)
    total = np.zeros((tile_px, tile_px // 2 + 1), np.float32)
    variances = tile_variances(image, tile_px=tile_px)
    limit = _OUTLIER_FACTOR * float(np.median(variances))
    for (y, x), variance in zip(_tile_corners(height, width, tile_px), variances.tolist(), strict=True):
        tile = image[y : y + tile_px, x : x + tile_px].astype(np.float32)  # (tile, tile), a copy
        tile -= tile.mean(dtype=np.float64)
        tile *= taper
        transform = fft.rfft2(tile, overwrite_x=True)  # (tile, tile // 2 + 1)
        power = transform.real**2 + transform.imag**2
        if variance > limit > 0:
            power *= limit / variance
        total += power
    return total * np.float32(1.0 / (len(variances) * float(np.sum(taper.astype(np.float64) ** 2))))


def tile_variances(image: NDArray[Any], *, tile_px: int) -> NDArray[np.float64]:
    """Return the grey-value variance of each tile of `power_spectrum`, in its order: ``(n_tiles,)``.

    Raises
    ------
    ValueError
        If a value is not finite.
    """
    height, width = image.shape
    corners = _tile_corners(height, width, tile_px)
    # A quarter of the pixels tells an outlying tile just as well.
    variances = np.array([np.var(image[y : y + tile_px : 2, x : x + tile_px : 2], dtype=np.float64) for y, x in corners])
    if not np.all(np.isfinite(variances)):
        raise ValueError("the image holds values that are not finite (NaN or infinite)")
    return variances


def _tile_corners(height: int, width: int, tile_px: int) -> list[tuple[int, int]]:
    """Return the first pixels of tiles spread evenly from edge to edge, overlapping by at least half."""
    rows, columns = (np.linspace(0, side - tile_px, -(-2 * (side - tile_px) // tile_px) + 1).astype(int) for side in (height, width))
    return [(int(y), int(x)) for y in rows for x in columns]


@lru_cache(maxsize=8)
def _hann_2d(side: int) -> NDArray[np.float32]:
    line = 0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(side) + 0.5) / side)  # (side,)
    taper: NDArray[np.float32] = np.outer(line, line).astype(np.float32)  # (side, side)
    taper.flags.writeable = False
    return taper
