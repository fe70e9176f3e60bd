"""Aligning whole frames: the displacement common to the field of view.

As in Zheng et al. (2017), Nat. Methods 14, 331, each frame is compared with the sum of the others, again and again. First the
peak of a correlation cropped in Fourier space is searched (so that the inverse transform is tiny), then Newton steps refine it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import resize_spectrum_2d
from icestream.algorithms.motion_correlate import (
    Band,
    ComplexArray,
    crop_band,
    likelihood_weights,
    measure_power,
    newton_steps,
    spread_weights,
    sum_shifted,
)

_COARSE_SIDE = 256
_REFINE_SIDE = 1024
_HIGHEST_PER_PX = 0.4
_SETTLED_PX = 0.01


def taper_2d(height: int, width: int, *, share: float) -> NDArray[np.float32]:
    """Return a window that falls to zero over ``share`` of each side by a cosine: ``(h, w)``."""

    def edge(length: int) -> NDArray[np.float64]:
        ramp = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5) / max(share * length, 1.0)
        rise: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * np.clip(ramp, 0, 1))
        return rise

    return np.outer(edge(height), edge(width)).astype(np.float32)


def transform_frames(frames: NDArray[np.float32], *, bin: int) -> tuple[ComplexArray, Band, tuple[int, int]]:
    """Return the low frequencies of tapered, binned frames, their band, and the size that was transformed.

    Parameters
    ----------
    frames
        ``(n, h, w)``, binned by ``bin``; an odd remainder of a side that makes transforms slow is left out.
    """
    height, width = (fft.prev_fast_len(length, real=True) // 2 * 2 for length in frames.shape[1:])
    limit = min(_HIGHEST_PER_PX, 0.5 / bin * min(1.0, _REFINE_SIDE / max(height, width)))
    band, rows, columns = crop_band(height, width, bin=bin, limit_per_px=limit)
    window = taper_2d(height, width, share=1 / 16)
    spectra = np.empty((len(frames), len(rows), columns), dtype=np.complex64)
    for index, frame in enumerate(frames):
        image = frame[:height, :width]
        spectrum = fft.rfft2((image - image.mean(dtype=np.float64).astype(np.float32)) * window)  # (h, w // 2 + 1)
        spectra[index] = spectrum[rows, :columns]
    return spectra, band, (height * bin, width * bin)


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
    small = np.stack([_crop_rows(spectrum, side_y, side_x) for spectrum in spectra])  # (n, side_y, side_x // 2 + 1)
    crop = Band(ky=np.fft.fftfreq(side_y) * side_y / shape[0], kx=np.fft.rfftfreq(side_x) * side_x / shape[1])
    weight = spread_weights(np.ones(1), band=crop, b_factor_px2=b_factor_px2)
    scale = np.array([shape[0] / side_y, shape[1] / side_x])  # raw pixels per correlation pixel
    reach = np.minimum(np.ceil(max_shift_px / scale).astype(int), np.array([side_y, side_x]) // 2 - 2)
    shifts = np.zeros((len(spectra), 2))
    for _ in range(iterations):
        total = sum_shifted(small, shifts_yx_px=shifts, band=crop)
        before = shifts.copy()
        for index, spectrum in enumerate(small):
            own = sum_shifted(spectrum[None], shifts_yx_px=before[index : index + 1], band=crop)
            correlation = fft.irfft2(weight * np.conj(total - own) * spectrum, s=(side_y, side_x))
            if correlation.any():  # a frame without signal (all zero) stays where it is
                found = _highest_point(correlation, reach) * scale  # (2,)
                shifts[index] += (found - before[index]) * (len(small) - 1) / len(small)  # all move at once
        if np.max(np.abs(shifts - before)) < 0.25 * scale.max():
            break
    return shifts


def _crop_rows(spectrum: ComplexArray, side_y: int, side_x: int) -> ComplexArray:
    rows, columns = spectrum.shape
    shape, new_shape = (rows, 2 * columns - 1), (side_y, side_x)
    cropped: ComplexArray = resize_spectrum_2d(spectrum, shape=shape, new_shape=new_shape)
    return cropped


def _highest_point(correlation: NDArray[Any], reach: NDArray[Any]) -> NDArray[np.float64]:
    """Return the sub-pixel position of the maximum within ``reach`` of the origin, by a parabola along each axis."""
    rows, columns = np.arange(-reach[0] - 1, reach[0] + 2), np.arange(-reach[1] - 1, reach[1] + 2)
    near = correlation[np.ix_(rows, columns)]  # (2 reach + 3, 2 reach + 3)
    inner = near[1:-1, 1:-1]
    y, x = (int(place) + 1 for place in np.unravel_index(np.argmax(inner), inner.shape))
    offsets = []
    for left, middle, right in ((near[y - 1, x], near[y, x], near[y + 1, x]), (near[y, x - 1], near[y, x], near[y, x + 1])):
        bend = left - 2 * middle + right
        offsets.append(float(np.clip(0.5 * (left - right) / bend, -0.5, 0.5)) if bend < 0 else 0.0)
    return np.array([rows[y] + offsets[0], columns[x] + offsets[1]])


def refine_shifts(
    spectra: ComplexArray, shifts_yx_px: NDArray[Any], *, band: Band, b_factor_px2: float, iterations: int = 6
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return refined displacements ``(n, 2)`` and the weight of each ring of frequencies that was measured on the way."""
    shifts = np.asarray(shifts_yx_px, dtype=np.float64).copy()
    weight = spread_weights(np.ones(1), band=band, b_factor_px2=b_factor_px2)
    rings = np.ones(1)
    for iteration in range(iterations):
        if iteration in {2, 4}:
            total = sum_shifted(spectra, shifts_yx_px=shifts, band=band)
            rings = likelihood_weights(measure_power(spectra, total=total, band=band), n_frames=len(spectra))
            if rings.any():
                weight = spread_weights(rings, band=band, b_factor_px2=0.0)
        steps = newton_steps(spectra, shifts_yx_px=shifts, band=band, weight=weight)
        limit = 2.0 if iteration < 2 else 1.0
        step = np.clip(steps.step_yx_px, -limit, limit)  # (n, 2)
        shifts += step - step.mean(axis=0)
        if iteration >= 3 and np.max(np.abs(step - step.mean(axis=0))) < _SETTLED_PX:
            break
    return shifts, rings
