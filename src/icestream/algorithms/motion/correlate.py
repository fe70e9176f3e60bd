"""Correlating frames with the sum of the others, in Fourier space.

For shifts ``s`` of frames ``F`` the sum is ``R = sum F exp(2πi k·s)``; each frame is compared with ``R`` less itself. The score
of a frame, ``sum w Re(conj(R') F exp(2πi k·s))``, has an analytic gradient and curvature in ``s``, so that a shift is found by
Newton steps without an inverse transform. With weights ``w = S / (N (N + n S))``, from the measured signal ``S`` and noise
``N`` of a frame, it is the likelihood of the shift (Knapp & Carter 1976, IEEE Trans. ASSP 24, 320).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from icestream.algorithms.motion.arrays import add_shifted_arrays, slopes_of_arrays, sum_power_arrays
from icestream.algorithms.namespaces import Array, place_of, to_numpy

ComplexArray = Array
"""Complex numbers of single precision, of any library."""
RING_PER_PX = 0.5 / 384
"""Width of a ring of frequencies, in cycles per pixel: so narrow that the zeros of the CTF get little weight."""
_BROAD_RINGS = 9.0


@dataclass(frozen=True)
class Band:
    """The frequencies of cropped half spectra, in cycles per raw pixel: ``ky`` ``(h,)`` and ``kx`` ``(w,)`` with ``kx >= 0``."""

    ky: NDArray[np.floating[Any]]
    kx: NDArray[np.floating[Any]]

    @property
    def squared(self) -> NDArray[np.float64]:
        """``|k|²``: ``(h, w)``."""
        squared: NDArray[np.float64] = self.ky[:, None] ** 2 + self.kx[None, :] ** 2
        return squared


@dataclass(frozen=True)
class Steps:
    """Newton's view of the score at the present shifts."""

    step_yx_px: NDArray[np.float64]
    """``(n, 2)``: how far each frame should move on."""
    information: NDArray[np.float64]
    """``(n, 2)``: curvature of the score along y and x."""


def crop_band(height: int, width: int, *, bin: int, limit_per_px: float) -> tuple[Band, NDArray[np.intp], int]:
    """Return the band below ``limit_per_px`` of an ``rfft2`` of images binned by ``bin``, its rows, and its number of columns."""
    ky = np.fft.fftfreq(height, float(bin))  # (h,)
    rows = np.flatnonzero((np.abs(ky) <= limit_per_px) & (np.abs(ky) < 0.5 / bin))
    kx = np.fft.rfftfreq(width, float(bin))  # (w // 2 + 1,)
    columns = int(np.count_nonzero((kx <= limit_per_px) & (kx < 0.5 / bin)))
    return Band(ky=ky[rows], kx=kx[:columns]), rows, columns


@njit(cache=True, nogil=True, fastmath=True)
def _add_shifted(spectra: Any, ramps_y: Any, ramps_x: Any, total: Any) -> None:
    for index in range(spectra.shape[0]):
        ramp_x = ramps_x[index]
        for y in range(total.shape[0]):
            ramp_y = ramps_y[index, y]
            source = spectra[index, y]
            target = total[y]
            for x in range(total.shape[1]):
                target[x] += source[x] * (ramp_y * ramp_x[x])


@njit(cache=True, nogil=True)
def _add_power(spectra: Any, single: Any) -> None:
    for index in range(spectra.shape[0]):
        for y in range(single.shape[0]):
            source, target = spectra[index, y], single[y]
            for x in range(single.shape[1]):
                target[x] += source[x].real * source[x].real + source[x].imag * source[x].imag


@njit(cache=True, nogil=True, fastmath=True)
def _slopes(  # noqa: PLR0917 - compiled
    spectra: Any, total: Any, ramps_y: Any, ramps_x: Any, weight: Any, ky: Any, kx: Any
) -> tuple[Any, Any]:
    count, height, width = spectra.shape
    gradient = np.zeros((count, 2), dtype=np.float64)
    curvature = np.zeros((count, 3), dtype=np.float64)
    for index in range(count):
        for y in range(height):
            ramp_y = ramps_y[index, y]
            source, reference, row_weight = spectra[index, y], total[y], weight[y]
            ramp_x = ramps_x[index]
            odd_0, odd_1 = np.float32(0), np.float32(0)
            even_0, even_1, even_2 = np.float32(0), np.float32(0), np.float32(0)
            for x in range(width):
                ramp = ramp_y * ramp_x[x]
                re = source[x].real * ramp.real - source[x].imag * ramp.imag
                im = source[x].real * ramp.imag + source[x].imag * ramp.real
                other_re, other_im = reference[x].real - re, reference[x].imag - im
                even = row_weight[x] * (other_re * re + other_im * im)
                odd = row_weight[x] * (other_re * im - other_im * re)
                odd_0 += odd
                odd_1 += odd * kx[x]
                even_0 += even
                even_1 += even * kx[x]
                even_2 += even * kx[x] * kx[x]
            gradient[index, 0] -= ky[y] * odd_0
            gradient[index, 1] -= odd_1
            curvature[index, 0] += ky[y] * ky[y] * even_0
            curvature[index, 1] += ky[y] * even_1
            curvature[index, 2] += even_2
    return gradient, curvature


def phase_ramps(shifts_yx_px: NDArray[Any], band: Band) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Return the factors that move each of ``n`` spectra back by its shift, along y ``(n, h)`` and x ``(n, w)``."""
    ramps_y = np.exp(2j * np.pi * shifts_yx_px[:, :1] * band.ky).astype(np.complex64)  # (n, h)
    ramps_x = np.exp(2j * np.pi * shifts_yx_px[:, 1:] * band.kx).astype(np.complex64)  # (n, w)
    return ramps_y, ramps_x


def sum_shifted(spectra: ComplexArray, *, shifts_yx_px: NDArray[Any], band: Band) -> ComplexArray:
    """Return the sum of ``(n, h, w)`` spectra, each moved back by its shift: ``(h, w)``."""
    return _total(spectra, *phase_ramps(shifts_yx_px, band))


def _total(spectra: ComplexArray, ramps_y: NDArray[Any], ramps_x: NDArray[Any]) -> ComplexArray:
    if not place_of(spectra).on_cores:
        return add_shifted_arrays(spectra, ramps_y, ramps_x)
    total = np.zeros(spectra.shape[1:], dtype=np.complex64)
    _add_shifted(spectra, ramps_y, ramps_x, total)
    return total


def newton_steps(
    spectra: ComplexArray,
    *,
    shifts_yx_px: NDArray[Any],
    band: Band,
    weight: NDArray[np.float32],
    total: ComplexArray | None = None,
) -> Steps:
    """Return for each frame the Newton step towards the best agreement with the sum of the others.

    Parameters
    ----------
    spectra
        ``(n, h, w)``.
    shifts_yx_px
        ``(n, 2)``, present displacement of the specimen in each.
    weight
        ``(h, w)``.
    total
        `sum_shifted` of the same spectra and shifts, where it is known already.

    Notes
    -----
    All frames are meant to move at once, each towards the sum of the others: ``(n - 1) / n`` of a step does not overshoot.
    A frame whose own curvature is less than half of the mean (noise can make it negative) takes the mean.
    """
    ramps_y, ramps_x = phase_ramps(shifts_yx_px, band)
    total = _total(spectra, ramps_y, ramps_x) if total is None else total
    kx = band.kx.astype(np.float32)
    slopes = _slopes if place_of(spectra).on_cores else slopes_of_arrays
    gradient, curvature = slopes(spectra, total, ramps_y, ramps_x, weight, band.ky, kx)
    gradient *= 2 * np.pi  # (n, 2)
    curvature *= (2 * np.pi) ** 2  # (n, 3): yy, yx, xx
    mean = curvature.mean(axis=0)
    if mean[0] <= 0 or mean[2] <= 0 or mean[0] * mean[2] <= mean[1] ** 2:
        return Steps(np.zeros_like(gradient), np.zeros_like(gradient))
    used = np.where((curvature[:, [0]] + curvature[:, [2]]) < 0.5 * (mean[0] + mean[2]), mean, curvature)  # (n, 3)
    determinant = used[:, 0] * used[:, 2] - used[:, 1] ** 2
    used = np.where((determinant <= 0)[:, None], mean, used)
    determinant = used[:, 0] * used[:, 2] - used[:, 1] ** 2
    step = np.stack(
        [
            (used[:, 2] * gradient[:, 0] - used[:, 1] * gradient[:, 1]) / determinant,
            (used[:, 0] * gradient[:, 1] - used[:, 1] * gradient[:, 0]) / determinant,
        ],
        axis=1,
    )
    n = spectra.shape[0]
    return Steps(step * ((n - 1) / n), used[:, [0, 2]])


def rings_of(band: Band) -> NDArray[np.intp]:
    """Return the ring of frequencies each coefficient belongs to: ``(h, w)``."""
    rings: NDArray[np.intp] = (np.sqrt(band.squared) / RING_PER_PX).astype(np.intp)
    return rings


def measure_power(spectra: ComplexArray, *, total: ComplexArray, band: Band) -> tuple[NDArray[np.float64], ...]:
    """Return per ring the summed power of single frames, the summed power common to frames, and the number of coefficients."""
    rings = rings_of(band).ravel()
    single, total = _sum_power(spectra), to_numpy(total)
    n = spectra.shape[0]
    common = (total.real.astype(np.float64) ** 2 + total.imag.astype(np.float64) ** 2 - single) / (n * (n - 1))
    usable: NDArray[np.float64] = ((band.ky[:, None] != 0) & (band.kx[None, :] != 0)).ravel().astype(np.float64)
    size = int(rings.max()) + 1

    def per_ring(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(rings, weights=usable * values, minlength=size), dtype=np.float64)

    return per_ring(single.ravel() / n), per_ring(common.ravel()), per_ring(usable)


def _sum_power(spectra: ComplexArray) -> NDArray[np.float64]:
    if not place_of(spectra).on_cores:
        return sum_power_arrays(spectra)
    single = np.zeros(spectra.shape[1:], dtype=np.float64)
    _add_power(spectra, single)
    return single


def likelihood_weights(power: tuple[NDArray[np.float64], ...], *, n_frames: int) -> NDArray[np.float64]:
    """Return the weight of each ring, ``S / (N (N + n S))``, zero where no signal is measured.

    The signal ``S`` of a ring is that of its wider surroundings, and as much of what the ring itself shows beside that as is not
    noise (shrunk as by James & Stein 1961): Thon rings are followed where they are seen, and faint signal is not cut off.

    Parameters
    ----------
    power
        From `measure_power` (sums over patches may be added up).
    n_frames
        Number of frames in a sum.
    """
    single, common, count = power
    noise = np.maximum(
        _smooth(single - common, count, width=_BROAD_RINGS)[0], 1e-3 * _smooth(single, count, width=1.0)[0] + 1e-30
    )
    broad, broad_modes = _smooth(common, count, width=_BROAD_RINGS)
    fine, fine_modes = _smooth(common, count, width=1.0)
    scale = noise / np.sqrt(n_frames * (n_frames - 1))  # a ring of m coefficients is known to this over the root of m
    noise_seen, _ = _smooth(count * scale**2 / fine_modes, count, width=_BROAD_RINGS)
    seen, _ = _smooth(count * (fine - broad) ** 2, count, width=_BROAD_RINGS)
    share = np.clip(1.0 - noise_seen / np.maximum(seen, 1e-300), 0.0, 1.0)
    signal = np.where(broad > 2.0 * scale / np.sqrt(broad_modes), np.maximum(broad + share * (fine - broad), 0.0), 0.0)
    weights: NDArray[np.float64] = signal / (noise * (noise + n_frames * signal))
    return weights


def _smooth(sums: NDArray[Any], count: NDArray[Any], *, width: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of neighbouring rings, weighed by a Gaussian, and of how many coefficients it is about the mean."""
    near = np.maximum(gaussian_filter1d(count, width, mode="nearest"), 1e-9)
    mean: NDArray[np.float64] = gaussian_filter1d(sums, width, mode="nearest") / near
    return mean, np.maximum(near * 2 * np.sqrt(np.pi) * width, 1.0)


def spread_weights(rings: NDArray[np.float64], *, band: Band, b_factor_px2: float) -> NDArray[np.float32]:
    """Return the weight of each coefficient from that of its ring, times ``exp(-B |k|²)``: ``(h, w)``.

    The axes of Fourier space get none: the frame border and the read-out of a camera leave their marks there.
    """
    weight = rings[np.minimum(rings_of(band), len(rings) - 1)] * np.exp(-b_factor_px2 * band.squared)  # (h, w)
    weight[band.ky == 0, :] = 0
    weight[:, band.kx == 0] = 0
    largest = float(weight.max(initial=0.0))
    return (weight / largest if largest > 0 else weight).astype(np.float32)
