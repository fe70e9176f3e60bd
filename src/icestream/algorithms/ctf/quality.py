"""How well a CTF explains a spectrum: profiles along rings of equal phase, their correlation, and the resolution limit.

Equi-phase averages after Zhang (2016), Gctf, J. Struct. Biol. 193, 1; the windowed correlation and its thresholds after Rohou &
Grigorieff (2015), CTFFIND4, J. Struct. Biol. 192, 216, and the later practice of that program.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.refine import CtfRefinement
from icestream.algorithms.ctf.samples import Optics, SpectrumSamples
from icestream.algorithms.spectra.spectrum import HANN_NOISE_INFLATION

_MIN_HALF_WINDOW = 5
_HANN_RING_INFLATION = float(np.sqrt(HANN_NOISE_INFLATION))


@dataclass(frozen=True)
class CtfProfile:
    """Curves over frequency, ``(n_rings,)`` each.

    ``measured`` is the equi-phase average of the flattened spectrum without its background, ``fitted`` the model averaged in the
    same way, ``count`` the number of samples in each average, ``phase_rad`` twice the CTF phase at the mean defocus (one ring is
    a full turn).
    """

    frequency_per_ang: NDArray[np.float64]
    measured: NDArray[np.float64]
    fitted: NDArray[np.float64]
    count: NDArray[np.float64]
    phase_rad: NDArray[np.float64]


def average_equiphase(samples: SpectrumSamples, fit: CtfRefinement, *, optics: Optics) -> CtfProfile:
    """Average measured and fitted spectrum along lines of equal CTF phase.

    Each sample is moved along the frequency axis to where a CTF without astigmatism, at the mean defocus, has the same phase.
    """
    mean, a, b, phase_deg = fit.parameters
    defocus = mean + a * samples.cos2 + b * samples.sin2
    linear_phase = optics.defocus_rate * samples.g2 * defocus - optics.sphere_rate * samples.g2**2
    equivalent = _frequency_of_phase(linear_phase, mean, optics)
    per_ang = samples.ring_per_ang
    edges = np.r_[0.0, 0.5 * (per_ang[1:] + per_ang[:-1]), np.inf]
    bins = np.searchsorted(edges, equivalent, side="right") - 1
    count = np.bincount(bins, samples.weight, per_ang.size).astype(np.float64)
    rings = -fit.envelope[samples.ring] * np.cos(2.0 * (linear_phase + optics.contrast_rad + np.deg2rad(phase_deg)))
    scale = samples.weight / np.maximum(count, 1e-12)[bins]
    measured = np.bincount(bins, scale * (samples.value - fit.background[samples.ring]), per_ang.size).astype(np.float64)
    fitted = np.bincount(bins, scale * rings, per_ang.size).astype(np.float64)
    phase = 2.0 * (optics.defocus_rate * per_ang**2 * mean - optics.sphere_rate * per_ang**4)
    return CtfProfile(per_ang, measured, fitted, count, phase)


def remove_smooth(profile: CtfProfile, basis: NDArray[np.float64]) -> CtfProfile:
    """Subtract from both curves of a profile what smooth functions ``basis`` (n_basis, n_rings) can explain of them.

    What is left of a fit is what only rings can explain; agreement in the rest would prove nothing.
    """
    root = np.sqrt(profile.count)
    curves = np.stack([profile.measured, profile.fitted])  # (2, n_rings)
    smooth = np.linalg.lstsq((basis * root).T, (curves * root).T, rcond=None)[0].T @ basis
    measured, fitted = curves - smooth
    return replace(profile, measured=measured, fitted=fitted)


def correlate_in_windows(profiles: Sequence[CtfProfile]) -> NDArray[np.float64]:
    """Correlate measured and fitted curves in a window of one ring to either side, and at least eleven samples: ``(n_rings,)``.

    Several profiles over the same frequencies are pooled: one correlation over the windows of all.
    """
    n = profiles[0].measured.size
    measured, fitted = (np.stack([getattr(each, name) for each in profiles]) for name in ("measured", "fitted"))
    turn = np.abs(np.gradient(profiles[0].phase_rad)) / (2.0 * np.pi)  # rings per sample
    half = np.clip(np.ceil(1.0 / np.maximum(turn, 1.0 / n)), _MIN_HALF_WINDOW, max(n // 4, _MIN_HALF_WINDOW)).astype(int)
    windows: NDArray[np.float64] = _correlate_windows(measured, fitted, half)
    return windows


def correlate_profiles(profiles: Sequence[CtfProfile]) -> float:
    """Correlate measured and fitted curves of all profiles, rings weighted by samples."""
    measured, fitted, weight = (np.stack([getattr(each, name) for each in profiles]) for name in ("measured", "fitted", "count"))
    return correlate(measured, fitted, weight=weight)


def correlate(one: NDArray[np.float64], other: NDArray[np.float64], *, weight: NDArray[np.float64] | None = None) -> float:
    """Return the normalised cross-correlation of two arrays whose rows are centred one by one; 0 where one is constant."""
    w = np.ones_like(one) if weight is None else weight
    x, y = (each - np.average(each, axis=-1, weights=w, keepdims=True) for each in (one, other))
    norm = float(np.sqrt(np.sum(w * x * x) * np.sum(w * y * y)))
    return float(np.sum(w * x * y)) / norm if norm > 0 else 0.0


def limit_of_agreement(profiles: Sequence[CtfProfile], correlation: NDArray[np.float64]) -> float:
    """Return the resolution in Å up to which the fit agrees with the spectrum.

    Going up in frequency, the fit stops to agree where the windowed correlation falls below 0.1 after more than three samples
    above 0.1, or below 0.5 after more than three samples above 0.66 (the thresholds of CTFFIND4). The limit is the last frequency
    before, with a windowed correlation of at least 0.5, and a correlation of everything up to there that is at least 0.3 and
    three standard deviations of chance; the latter keeps a stray agreement in noise from counting. Where there is none the limit
    is the first frequency.
    """
    above_low = above_high = last = 0
    up_to = _correlate_up_to(*(np.stack([getattr(each, name) for each in profiles]) for name in ("measured", "fitted", "count")))
    for i, value in enumerate(correlation.tolist()):
        above_low += value > 0.1
        above_high += value > 0.66
        if (above_low > 3 and value < 0.1) or (above_high > 3 and value < 0.5):
            break
        n_rings = min(i + 1 + _MIN_HALF_WINDOW, correlation.size)
        by_chance = np.sqrt(_HANN_RING_INFLATION / (n_rings * len(profiles)))
        if value >= 0.5 and up_to[n_rings - 1] >= max(0.3, 3.0 * by_chance):
            last = i
    return float(1.0 / profiles[0].frequency_per_ang[last])


def _frequency_of_phase(linear_phase: NDArray[np.float64], defocus_ang: float, optics: Optics) -> NDArray[np.float64]:
    """Invert ``rate g² defocus - sphere g⁴``, on the branch that starts at zero frequency."""
    rate = optics.defocus_rate * defocus_ang
    root = np.sqrt(np.maximum(rate * rate - 4.0 * optics.sphere_rate * linear_phase, 0.0))
    frequency: NDArray[np.float64] = np.sqrt(np.maximum(2.0 * linear_phase / (rate + root), 0.0))
    return frequency


@numba.njit(cache=True, nogil=True)
def _correlate_windows(one: Any, other: Any, half: Any) -> Any:
    """Correlate in a window of ``half`` to either side of each place; rows are centred one by one, and pooled."""
    n_rows, n = one.shape
    found = np.zeros(n)
    for i in range(n):
        first, last = max(i - half[i], 0), min(i + half[i] + 1, n)
        xx, yy, xy = 0.0, 0.0, 0.0
        for row in range(n_rows):
            x_mean, y_mean = np.mean(one[row, first:last]), np.mean(other[row, first:last])
            for k in range(first, last):
                x, y = one[row, k] - x_mean, other[row, k] - y_mean
                xx += x * x
                yy += y * y
                xy += x * y
        if xx > 0.0 and yy > 0.0:
            found[i] = xy / np.sqrt(xx * yy)
    return found


@numba.njit(cache=True, nogil=True)
def _correlate_up_to(one: Any, other: Any, weight: Any) -> Any:
    """Correlate everything up to each place, weighted; rows are centred one by one, and pooled.

    The running sums are those of West (1979, Comm. ACM 22, 532), exact where one curve is constant.
    """
    n_rows, n = one.shape
    xx, yy, xy = np.zeros(n), np.zeros(n), np.zeros(n)
    for row in range(n_rows):
        total, x_mean, y_mean, x_sum, y_sum, cross = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for k in range(n):
            w = weight[row, k]
            if w > 0.0:
                total += w
                x, y = one[row, k] - x_mean, other[row, k] - y_mean
                x_mean += x * w / total
                y_mean += y * w / total
                x_sum += w * x * (one[row, k] - x_mean)
                y_sum += w * y * (other[row, k] - y_mean)
                cross += w * x * (other[row, k] - y_mean)
            xx[k] += x_sum
            yy[k] += y_sum
            xy[k] += cross
    return xy / np.sqrt(np.maximum(xx * yy, 1e-300))
