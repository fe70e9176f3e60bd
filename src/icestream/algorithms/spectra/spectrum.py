"""Power spectra of micrographs: averaged periodograms of overlapping, tapered tiles.

The estimator is that of Welch (1967), IEEE Trans. Audio Electroacoust. 15, 70: tiles that overlap by half and are tapered by a
Hann window, so that the strong low frequencies do not leak and hardly any pixel is left unused.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.namespaces import Array, place_of, rfft2, to_numpy
from icestream.algorithms.spectra.periodogram import add_power

HANN_NOISE_INFLATION = (1.0 + 2.0 * ((2.0 / 3.0) ** 2 + (1.0 / 6.0) ** 2)) ** 2
"""Sum of the squared correlations between the pixel of a 2D Hann-tapered periodogram and its neighbours: the factor by which the
variance of a smooth weighted sum over the spectrum exceeds that of independent pixels."""

_OUTLIER_FACTOR = 2.0


def spectrum_tile_px(shape: tuple[int, int], *, pixel_size_ang: float, tile_ang: float) -> int:
    """Return the tile side, in pixels, that is about ``tile_ang`` wide, quick to transform, and fits the image.

    The side in Å, not in pixels, decides which Thon rings a spectrum can resolve. It is chosen a little below ``tile_ang``, so
    that tiles that overlap by half span the image; more overlap would only make their noise alike. A tile is never wider than two
    thirds of the short side of the image (at least four tiles are averaged), nor narrower than 64 pixels.

    Raises
    ------
    ValueError
        If the image is smaller than 128 pixels along one side.
    """
    if min(shape) < 128:
        raise ValueError(f"image of {shape[0]} x {shape[1]} px is too small for a spectrum; at least 128 x 128 px are needed")
    steps = max(int(np.ceil(2.0 * min(shape) * pixel_size_ang / tile_ang)) - 2, 1)  # half tiles from the first to the last
    side = max(min(shape) // (steps + 2), 32)
    while fft.next_fast_len(side, real=True) != side:
        side -= 1
    return 2 * side


def power_spectrum(image: Array, *, tile_px: int) -> NDArray[np.float32]:
    """Average the power spectra of tiles that overlap by half.

    Returns
    -------
    spectrum
        ``(tile, tile // 2 + 1)``; see `power_spectra`, of which this is the case of one set.
    """
    (spectrum,) = power_spectra(image, tile_px=tile_px, n_sets=1)
    whole: NDArray[np.float32] = spectrum
    return whole


def power_spectra(image: Array, *, tile_px: int, n_sets: int) -> NDArray[np.float32]:
    """Average the power spectra of disjoint, interleaved sets of tiles that overlap by about half.

    The mean of each tile is removed. A tile whose variance is more than twice the median (the edge of a hole, a lump of ice) is
    weighted down so that it counts as twice the median. White noise of variance ``v`` has the spectrum ``v``. Tiles of two sets
    share pixels, but through the taper their periodograms are correlated by less than 3 %.

    Parameters
    ----------
    image
        ``(h, w)``, real, of any library of arrays.
    tile_px
        Side of the tiles; even, at most the short side of the image.
    n_sets
        Number of sets; the tile in row ``i`` and column ``j`` belongs to set ``(i + j) % n_sets``.

    Returns
    -------
    spectra
        ``(n_sets, tile, tile // 2 + 1)``: power per frequency, unshifted; on the host, where the fit is.

    Raises
    ------
    ValueError
        If the tiles do not fit, are fewer than the sets, or the image holds values that are not finite.
    """
    height, width = image.shape
    if tile_px % 2 or not 2 <= tile_px <= min(height, width):
        raise ValueError(f"tile_px is {tile_px}; it must be even, and at most {min(height, width)} for this image")
    rows, columns = _tile_starts(height, tile_px), _tile_starts(width, tile_px)
    variances = tile_variances(image, tile_px=tile_px)  # (n_rows, n_columns)
    if rows.size + columns.size - 1 < n_sets:
        raise ValueError(f"{variances.size} tiles of {tile_px} px cannot fill {n_sets} sets; use smaller tiles")
    limit = _OUTLIER_FACTOR * float(np.median(variances))
    taper = _hann_2d(tile_px)
    damping = np.minimum(1.0, limit / np.maximum(variances, limit)) if limit > 0 else np.ones_like(variances)
    sum_tiles = _sum_tiles if isinstance(image, np.ndarray) else _sum_tile_arrays
    spectra = sum_tiles(image, (rows, columns), taper, damping, n_sets)
    n_tiles = np.bincount(np.add.outer(np.arange(rows.size), np.arange(columns.size)).ravel() % n_sets, minlength=n_sets)
    scale = 1.0 / (n_tiles * np.sum(taper.astype(np.float64) ** 2))  # (n_sets,)
    spectra *= scale.astype(np.float32)[:, None, None]
    if not np.all(np.isfinite(spectra)):
        raise ValueError("the image holds values that are not finite (NaN or infinite)")
    return spectra


def _sum_tiles(
    image: NDArray[Any], starts: tuple[Any, Any], taper: NDArray[np.float32], damping: NDArray[np.float64], n_sets: int
) -> NDArray[np.float32]:
    """Return the sum of the damped periodograms of each set: ``(n_sets, tile, tile // 2 + 1)``."""
    tile_px = taper.shape[0]
    spectra = np.zeros((n_sets, tile_px, tile_px // 2 + 1), np.float32)
    for (i, j), factor in np.ndenumerate(damping):
        y, x = starts[0][i], starts[1][j]
        tile = image[y : y + tile_px, x : x + tile_px].astype(np.float32)  # (tile, tile), a copy
        tile -= tile.mean(dtype=np.float64)
        tile *= taper
        transform = fft.rfft2(tile, overwrite_x=True)  # (tile, tile // 2 + 1)
        add_power(spectra[(i + j) % n_sets], transform, np.float32(factor))
    return spectra


def _sum_tile_arrays(
    image: Array, starts: tuple[Any, Any], taper: NDArray[np.float32], damping: NDArray[np.float64], n_sets: int
) -> NDArray[np.float32]:
    """Do what `_sum_tiles` does for arrays on a device, a row of tiles at a time."""
    place, tile_px = place_of(image), taper.shape[0]
    xp, window = place.xp, place.put(taper)
    columns = place.put(np.add.outer(starts[1], np.arange(tile_px)).ravel())  # (n_columns * tile,)
    spectra = place.zeros((n_sets, tile_px, tile_px // 2 + 1), "float32")
    for i, y in enumerate(starts[0].tolist()):
        line = xp.astype(image[y : y + tile_px, :], xp.float32)
        tiles = xp.reshape(xp.take(line, columns, axis=1), (tile_px, len(starts[1]), tile_px))
        tiles = xp.permute_dims(tiles, (1, 0, 2))  # (n_columns, tile, tile)
        means = xp.mean(xp.astype(tiles, xp.float64), axis=(1, 2), keepdims=True)
        transforms = rfft2((tiles - xp.astype(means, xp.float32)) * window)  # (n_columns, tile, tile // 2 + 1)
        powers = xp.real(transforms) ** 2 + xp.imag(transforms) ** 2
        powers = powers * place.put(damping[i].astype(np.float32))[:, None, None]
        for number in range(n_sets):
            first = (number - i) % n_sets
            if first >= powers.shape[0]:
                continue
            spectra[number, :, :] += xp.sum(powers[first::n_sets, :, :], axis=0)
    return to_numpy(spectra)


def tile_variances(image: Array, *, tile_px: int) -> NDArray[np.float64]:
    """Return the grey-value variance of each tile of `power_spectra`, from every fourth pixel: ``(n_rows, n_columns)``."""
    height, width = image.shape
    rows, columns = _tile_starts(height, tile_px).tolist(), _tile_starts(width, tile_px).tolist()
    if not isinstance(image, np.ndarray):
        return _tile_variances_on_device(image, rows, columns, tile_px=tile_px)
    return np.array([[np.var(image[y : y + tile_px : 2, x : x + tile_px : 2], dtype=np.float64) for x in columns] for y in rows])


def _tile_variances_on_device(image: Array, rows: list[int], columns: list[int], *, tile_px: int) -> NDArray[np.float64]:
    place = place_of(image)
    xp, half = place.xp, tile_px // 2
    places = place.put(np.add.outer(columns, np.arange(0, tile_px, 2)).ravel())  # (n_columns * half,)
    found = []
    for y in rows:
        line = xp.astype(xp.take(image[y : y + tile_px : 2, :], places, axis=1), xp.float64)
        found.append(to_numpy(xp.var(xp.reshape(line, (half, len(columns), half)), axis=(0, 2))))
    return np.stack(found)


def _tile_starts(side: int, tile_px: int) -> NDArray[np.int64]:
    """Return the first pixels of tiles spread evenly from edge to edge, overlapping by about half."""
    count = max(round(2.0 * (side - tile_px) / tile_px), 1) + 1 if side > tile_px else 1
    return np.linspace(0, side - tile_px, count).astype(np.int64)


@lru_cache(maxsize=8)
def _hann_2d(side: int) -> NDArray[np.float32]:
    line = 0.5 - 0.5 * np.cos(2.0 * np.pi * (np.arange(side) + 0.5) / side)  # (side,)
    taper: NDArray[np.float32] = np.outer(line, line).astype(np.float32)  # (side, side)
    taper.flags.writeable = False
    return taper
