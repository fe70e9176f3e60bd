"""Aligning whole frames: the displacement common to the field of view.

As in Zheng et al. (2017), Nat. Methods 14, 331, each frame is compared with the sum of the others, again and again. First the
peak of a correlation cropped in Fourier space is searched (so that the inverse transform is tiny), then Newton steps refine it.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import resize_spectrum_2d
from icestream.algorithms.motion.arrays import shift_each
from icestream.algorithms.motion.correlate import (
    Band,
    ComplexArray,
    crop_band,
    likelihood_weights,
    measure_power,
    newton_steps,
    phase_ramps,
    spread_weights,
    sum_shifted,
)
from icestream.algorithms.namespaces import Array, irfft2, place_of, rfft2, to_numpy

_COARSE_SIDE = 256
_REFINE_SIDE = 1024
_HIGHEST_PER_PX = 0.4
_SETTLED_PX = 0.01
_FAR_PX = 0.5
"""A step by fine detail that is longer leads away from what coarse detail found: one of the two is wrong."""
_SOFTER = 0.25
_BATCH = 32
_LEAST_LOG_WEIGHT = 7.0
"""Weights below exp(-7) count as none."""


def taper_2d(height: int, width: int, *, share: float) -> NDArray[np.float32]:
    """Return a window that falls to zero over ``share`` of each side by a cosine: ``(h, w)``."""

    def edge(length: int) -> NDArray[np.float64]:
        ramp = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5) / max(share * length, 1.0)
        rise: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * np.clip(ramp, 0, 1))
        return rise

    return np.outer(edge(height), edge(width)).astype(np.float32)


@njit(cache=True, nogil=True, fastmath=True)
def _taper(image: Any, window: Any, out: Any, y_start: int, x_start: int) -> None:
    total = np.float64(0)
    for y in range(window.shape[0]):
        line = image[y_start + y, x_start : x_start + window.shape[1]]
        row = np.float32(0)
        for x in range(window.shape[1]):
            row += line[x]
        total += row
    mean = np.float32(total / window.size)
    for y in range(window.shape[0]):
        line, factor, target = image[y_start + y, x_start : x_start + window.shape[1]], window[y], out[y]
        for x in range(window.shape[1]):
            target[x] = (line[x] - mean) * factor[x]


def transform_band(image: Array, *, rows: NDArray[np.intp], columns: int) -> ComplexArray:
    """Return the coefficients of the transform of one real image that `crop_band` names: ``(len(rows), columns)``.

    On cores columns beyond the band are left out before the second axis is transformed.
    """
    if not isinstance(image, np.ndarray):
        return take_band(rfft2(image), rows=rows, columns=columns)
    along_x = fft.rfft(image, axis=1)  # (h, w // 2 + 1)
    return take_band(fft.fft(along_x[:, :columns], axis=0), rows=rows, columns=columns)


def taper_part(image: Array, window: Array, *, origin_yx: tuple[int, int]) -> Array:
    """Return the part of ``image`` that begins at ``origin_yx``, less its mean, times ``window`` ``(h, w)``: ``(h, w)``."""
    place, (y, x), (height, width) = place_of(window), origin_yx, window.shape
    if not place.on_cores:
        part, xp = image[y : y + height, x : x + width], place.xp
        return (part - xp.astype(xp.mean(xp.astype(part, xp.float64)), xp.float32)) * window
    out = np.empty(window.shape, dtype=np.float32)
    _taper(image, window, out, y, x)
    return out


def transform_frames(frames: Array, *, bin: int) -> tuple[ComplexArray, Band, tuple[int, int]]:
    """Return the low frequencies of tapered, binned frames, their band, and the size that was transformed.

    Parameters
    ----------
    frames
        ``(n, h, w)``, binned by ``bin``; an odd remainder of a side that makes transforms slow is left out.
    """
    height, width = (fft.prev_fast_len(length, real=True) // 2 * 2 for length in frames.shape[1:])
    limit = min(_HIGHEST_PER_PX, 0.5 / bin * min(1.0, _REFINE_SIDE / max(height, width)))
    band, rows, columns = crop_band(height, width, bin=bin, limit_per_px=limit)
    place = place_of(frames)
    window = place.put(taper_2d(height, width, share=1 / 16))
    spectra = place.zeros((frames.shape[0], len(rows), columns), "complex64")
    for index in range(frames.shape[0]):
        tapered = taper_part(frames[index, :, :], window, origin_yx=(0, 0))  # (h, w)
        spectra[index, :, :] = transform_band(tapered, rows=rows, columns=columns)
    return spectra, band, (height * bin, width * bin)


def take_band(spectra: ComplexArray, *, rows: NDArray[np.intp], columns: int) -> ComplexArray:
    """Return the rows (first and last ones) and first columns of ``(..., h, w // 2 + 1)`` that `crop_band` names."""
    first = int(np.count_nonzero(2 * rows < spectra.shape[-2]))
    last = spectra.shape[-2] - (len(rows) - first)
    return place_of(spectra).xp.concat([spectra[..., :first, :columns], spectra[..., last:, :columns]], axis=-2)


def narrow_band(spectra: ComplexArray, *, band: Band, b_factor_px2: float) -> tuple[ComplexArray, Band]:
    """Return the part of ``(n, h, w)`` spectra over ``band`` to which ``exp(-B |k|²)`` leaves weight, and its band."""
    limit = np.sqrt(_LEAST_LOG_WEIGHT / b_factor_px2) if b_factor_px2 > 0 else np.inf
    if limit >= max(float(band.ky.max()), float(band.kx.max())):
        return spectra, band
    rows, columns = np.flatnonzero(np.abs(band.ky) <= limit), int(np.count_nonzero(band.kx <= limit))
    return take_band(spectra, rows=rows, columns=columns), Band(ky=band.ky[rows], kx=band.kx[:columns])


def search_shifts(
    spectra: ComplexArray, *, band: Band, shape: tuple[int, int], max_shift_px: float, b_factor_px2: float, iterations: int = 8
) -> NDArray[np.float64]:
    """Return the displacement of each frame by the highest point of its correlation with the others: ``(n, 2)``.

    Parameters
    ----------
    spectra
        ``(n, h, w)`` over ``band``.
    shape
        Height and width of the frames in raw pixels.
    max_shift_px
        How far from the mean position is searched.
    """
    rows, columns = len(band.ky), len(band.kx)
    side_y, side_x = (min(_COARSE_SIDE, length // 2 * 2) for length in (rows - 1, 2 * (columns - 1)))
    small = resize_spectrum_2d(spectra, shape=(rows, 2 * columns - 1), new_shape=(side_y, side_x))  # (n, side_y, side_x // 2 + 1)
    crop = Band(ky=np.fft.fftfreq(side_y) * side_y / shape[0], kx=np.fft.rfftfreq(side_x) * side_x / shape[1])
    weight = spread_weights(np.ones(1), band=crop, b_factor_px2=b_factor_px2)
    scale = np.array([shape[0] / side_y, shape[1] / side_x])  # raw pixels per correlation pixel
    reach = np.minimum(np.ceil(max_shift_px / scale).astype(int), np.array([side_y, side_x]) // 2 - 2)
    shifts = np.zeros((spectra.shape[0], 2))
    n = len(shifts)
    for _ in range(iterations):
        before = shifts.copy()
        near = _correlate(small, before, band=crop, weight=weight, shape=(side_y, side_x), reach=reach)
        for index in range(n):
            if near[index].any():  # a frame without signal (all zero) stays where it is
                found = _highest_point(near[index], reach) * scale  # (2,)
                shifts[index] += (found - before[index]) * (n - 1) / n  # all move at once
        if np.max(np.abs(shifts - before)) < 0.25 * scale.max():
            break
    return shifts


def _correlate(
    small: ComplexArray,
    shifts_yx_px: NDArray[Any],
    *,
    band: Band,
    weight: NDArray[np.float32],
    shape: tuple[int, int],
    reach: NDArray[Any],
) -> NDArray[Any]:
    """Return the correlation of each frame with the sum of the others, near the origin: ``(n, 2 reach + 3, 2 reach + 3)``."""
    place = place_of(small)
    total = sum_shifted(small, shifts_yx_px=shifts_yx_px, band=band)
    weight = place.put(weight)
    rows, columns = (place.put(np.arange(-reach[axis] - 1, reach[axis] + 2) % shape[axis]) for axis in (0, 1))
    found = []
    batch = 1 if place.on_cores else _BATCH
    for start in range(0, small.shape[0], batch):
        some = slice(start, min(start + batch, small.shape[0]))
        if place.on_cores:
            own = sum_shifted(small[some], shifts_yx_px=shifts_yx_px[some], band=band)
        else:
            own = shift_each(small[some, :, :], *phase_ramps(shifts_yx_px[some], band))
        correlation = irfft2(weight * place.xp.conj(total - own) * small[some, :, :], shape=shape)
        near = place.xp.take(place.xp.take(correlation, rows, axis=1), columns, axis=2)
        found.append(to_numpy(near))
    return np.concatenate(found)


def _highest_point(near: NDArray[Any], reach: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sub-pixel position of the maximum within ``reach`` of the origin, by a parabola along each axis.

    ``near`` is the correlation from ``-reach - 1`` to ``reach + 1``.
    """
    rows, columns = np.arange(-reach[0] - 1, reach[0] + 2), np.arange(-reach[1] - 1, reach[1] + 2)
    inner = near[1:-1, 1:-1]
    y, x = (int(place) + 1 for place in np.unravel_index(np.argmax(inner), inner.shape))
    offsets = []
    for left, middle, right in ((near[y - 1, x], near[y, x], near[y + 1, x]), (near[y, x - 1], near[y, x], near[y, x + 1])):
        bend = left - 2 * middle + right
        offsets.append(float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0)
    return np.array([rows[y] + offsets[0], columns[x] + offsets[1]])


def refine_shifts(
    spectra: ComplexArray, shifts_yx_px: NDArray[Any], *, band: Band, b_factor_px2: float, iterations: int = 8
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return refined displacements ``(n, 2)`` and the weight of each ring of frequencies that was measured on the way."""
    shifts = np.asarray(shifts_yx_px, dtype=np.float64).copy()
    weight = spread_weights(np.ones(1), band=band, b_factor_px2=b_factor_px2)
    rings, between = np.ones(1), False
    for iteration in range(iterations):
        total = None
        if iteration in {2, 4}:
            total = sum_shifted(spectra, shifts_yx_px=shifts, band=band)
            rings = likelihood_weights(measure_power(spectra, total=total, band=band), n_frames=spectra.shape[0])
            if rings.any():
                weight, between = spread_weights(rings, band=band, b_factor_px2=0.0), False
        steps = newton_steps(spectra, shifts_yx_px=shifts, band=band, weight=weight, total=total)
        if iteration == 2 and np.max(np.abs(steps.step_yx_px)) > _FAR_PX:  # detail between coarse and fine leads the way
            weight, between = spread_weights(rings, band=band, b_factor_px2=_SOFTER * b_factor_px2), True
            steps = newton_steps(spectra, shifts_yx_px=shifts, band=band, weight=weight, total=total)
        limit = 2.0 if iteration < 2 else 1.0
        step = np.clip(steps.step_yx_px, -limit, limit)  # (n, 2)
        shifts += step - step.mean(axis=0)
        if iteration >= 3 and not between and np.max(np.abs(step - step.mean(axis=0))) < _SETTLED_PX:
            break
    return shifts, rings
