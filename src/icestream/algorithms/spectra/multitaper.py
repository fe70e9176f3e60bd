"""Power spectra by several tapers: every pixel of the image counts, and spectra of two tapers are independent.

A single taper leaves the edges of a tile all but unused. Orthogonal tapers share the image among them, so a whole micrograph may
be one tile and still has a spectrum with little noise (Thomson 1982, Proc. IEEE 70, 1055). The tapers are sines, which leak least
for their width (Riedel & Sidorenko 1995, IEEE Trans. Signal Process. 43, 188).
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.spectra.periodogram import add_power, periodogram_tile_px

_OUTLIER_FACTOR = 2.0
MULTITAPER_NOISE_INFLATION = 6.25
"""Variance of a smooth weighted sum over the spectrum of two sine tapers a side, relative to independent pixels: the square of
``N / 2 * sum((h1² + h2²)²)`` with the tapers ``h`` of ``N`` samples."""


def multitaper_tile_px(shape: tuple[int, int], *, pixel_size_ang: float, tile_ang: float) -> int:
    """Return the tile side, in pixels: the whole short side, or an even part of it that is about ``tile_ang`` wide.

    Raises
    ------
    ValueError
        If the image is smaller than 128 pixels along one side.
    """
    return periodogram_tile_px(shape, pixel_size_ang=pixel_size_ang, tile_ang=tile_ang)


def multitaper_spectra(image: NDArray[Any], *, tile_px: int) -> NDArray[np.float32]:
    """Return two independent power spectra of one image, each from all of its pixels.

    Tiles do not overlap more than they must to reach all edges. Each is multiplied by the four products of two sine tapers along
    either side; the products of equal order make one spectrum, the mixed ones the other. A tile whose variance is more than twice
    the median (the edge of a hole, a lump of ice) counts as one of twice the median. White noise of variance ``v`` has the
    spectrum ``v``.

    Parameters
    ----------
    image
        ``(h, w)``, real.
    tile_px
        Side of the tiles; even, at most the short side of the image.

    Returns
    -------
    spectra
        ``(2, tile, tile // 2 + 1)``: power per frequency, unshifted.

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
    limit = _OUTLIER_FACTOR * float(np.median(variances))
    tapers = _sine_tapers(tile_px)
    spectra = np.zeros((2, tile_px, tile_px // 2 + 1), np.float32)
    for (y, x), variance in zip(corners, variances.tolist(), strict=True):
        tile = image[y : y + tile_px, x : x + tile_px].astype(np.float32)  # (tile, tile), a copy
        tile -= tile.mean(dtype=np.float64)
        share = 0.5 / len(corners) * (limit / variance if variance > limit > 0 else 1.0)
        for i, along_y in enumerate(tapers):
            for j, along_x in enumerate(tapers):
                transform = fft.rfft2(tile * along_y[:, None] * along_x[None, :], overwrite_x=True)
                add_power(spectra[i ^ j], transform, np.float32(share))
    if not np.all(np.isfinite(spectra)):
        raise ValueError("the image holds values that are not finite (NaN or infinite)")
    return spectra


@lru_cache(maxsize=8)
def _sine_tapers(side: int) -> NDArray[np.float32]:
    """Return the two lowest sine tapers, of unit norm: ``(2, side)``."""
    position = np.pi * np.arange(1, side + 1) / (side + 1)
    tapers: NDArray[np.float32] = (np.sqrt(2.0 / (side + 1)) * np.sin(np.outer([1, 2], position))).astype(np.float32)
    tapers.flags.writeable = False
    return tapers
