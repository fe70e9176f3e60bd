"""The equi-phase curve of a spectrum, and how well it oscillates as a CTF must.

All frequencies at which a CTF has the same phase are averaged (Zhang 2016, Gctf, J. Struct. Biol. 193, 1): along ellipses, one
turn of phase a Thon ring. If the CTF is right, the curve is ``-cos(2 chi)`` times an amplitude; if it is wrong, the rings blur.
Whatever changes slowly is taken out by a running mean over one ring, of the curve and of what it is compared with, so no shape
is assumed for the background.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.samples import Optics, SpectrumSamples

_BINS_PER_RING = 13
_HALF = _BINS_PER_RING // 2
_AMPLITUDE_RINGS = 1.5


@dataclass(frozen=True)
class EquiphaseCurve:
    """Averages along lines of equal phase, ``(n_bins,)`` each, from zero frequency on.

    ``frequency_per_ang`` is that of the phase at the mean defocus, ``phase_rad`` twice the phase without that of contrast and
    phase plate, ``count`` the number of samples, ``measured`` the curve without its running mean.
    """

    frequency_per_ang: NDArray[np.float64]
    phase_rad: NDArray[np.float64]
    count: NDArray[np.float64]
    measured: NDArray[np.float64]

    def model(self, constant_rad: float, amplitude: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return ``-amplitude cos(2 chi)`` without its running mean; ``constant_rad`` is the phase of contrast and phase plate.

        The amplitude stands inside the mean: where it changes, the mean over a ring is not zero, and would turn the phase.
        """
        return _without_running_mean(-amplitude * np.cos(self.phase_rad + 2.0 * constant_rad), self.count)


def equiphase_curve(samples: SpectrumSamples, parameters: NDArray[np.float64], *, optics: Optics) -> EquiphaseCurve:
    """Average samples along the lines of equal phase of one CTF.

    Parameters
    ----------
    samples
        Single frequencies, or polar cells; cells of weight zero are left out, as are frequencies beyond the one at which
        spherical aberration turns the phase back.
    parameters
        ``(4,)``: mean defocus, a, b in Å; the phase shift does not matter here.
    optics
        Rates of the CTF phase.
    """
    highest, n_bins = _reach(samples, parameters, optics=optics)
    total, count = _sum_by_phase(
        (samples.g2, samples.cos2, samples.sin2),
        samples.value,
        samples.weight,
        parameters,
        (optics.defocus_rate, optics.sphere_rate, highest),
        n_bins,
    )
    linear = np.pi * np.arange(n_bins) / _BINS_PER_RING
    rate = optics.defocus_rate * float(parameters[0])
    root = np.sqrt(np.maximum(rate * rate - 4.0 * optics.sphere_rate * linear, 0.0))
    measured = _without_running_mean(total / np.maximum(count, 1e-9), count)
    return EquiphaseCurve(np.sqrt(2.0 * linear / (rate + root)), 2.0 * linear, count, measured)


def ring_amplitude(curve: EquiphaseCurve, constant_rad: float) -> NDArray[np.float64]:
    """Return the amplitude of the rings about each point of the curve, not negative: ``(n_bins,)``.

    It is the regression of the curve on the CTF over one and a half rings to either side, and then twice as wide a mean.
    """
    model = curve.model(constant_rad, 1.0)
    both = np.stack([curve.count * curve.measured * model, curve.count * model * model])  # (2, n_bins)
    widest = (both.shape[1] - 1) | 1
    for rings in (_AMPLITUDE_RINGS, 2.0 * _AMPLITUDE_RINGS):
        window = _hann_window(min(int(2.0 * rings * _BINS_PER_RING) | 1, widest))
        both = np.stack([np.convolve(each, window, mode="same") for each in both])
    amplitude: NDArray[np.float64] = np.maximum(both[0] / np.maximum(both[1], 1e-9), 0.0)
    return amplitude


@lru_cache(maxsize=8)
def _hann_window(width: int) -> NDArray[np.float64]:
    window: NDArray[np.float64] = np.hanning(width + 2)[1:-1]
    window.flags.writeable = False
    return window


def agreements(
    samples: SpectrumSamples, points: NDArray[np.float64], amplitude: NDArray[np.float64], *, optics: Optics, whole_curve: bool
) -> NDArray[np.float64]:
    """Return, for each of several CTFs, how far the sum of squares drops when rings of a given amplitude are subtracted.

    It is half the drop of that of the equi-phase curve. The maximum is the least-squares fit; unlike a correlation it does not
    gain where there is no signal.

    Parameters
    ----------
    samples
        As for `equiphase_curve`.
    points
        ``(n, 4)``: mean defocus, a, b in Å, phase shift in degrees; quickest where those that differ in the last alone follow
        each other.
    amplitude
        ``(n_rings,)``: of the rings, at the frequencies ``samples.ring_per_ang``.
    optics
        Of the CTF.
    whole_curve
        Whether to add what the running mean explains: then the sum of squares is that of the samples, the same for all CTFs.
    """
    reach = [_reach(samples, each, optics=optics) for each in points]
    values: NDArray[np.float64] = _agreements(
        (samples.g2, samples.cos2, samples.sin2),
        (samples.value, samples.weight),
        points,
        (optics.defocus_rate, optics.sphere_rate, optics.contrast_rad),
        (np.array([highest for highest, _ in reach]), np.array([n_bins for _, n_bins in reach])),
        (samples.ring_per_ang, amplitude, whole_curve),
    )
    return values


def _reach(samples: SpectrumSamples, parameters: NDArray[np.float64], *, optics: Optics) -> tuple[float, int]:
    """Return the highest squared frequency that counts, and the number of bins up to there."""
    defocus = float(parameters[0])
    highest = float(samples.ring_per_ang[-1]) ** 2
    if optics.sphere_rate > 0:
        highest = min(highest, 0.5 * optics.defocus_rate * defocus / optics.sphere_rate)
    top = optics.defocus_rate * highest * (defocus + float(np.hypot(parameters[1], parameters[2]))) / np.pi
    return highest, int(np.ceil(top * _BINS_PER_RING)) + 2


def _without_running_mean(curve: NDArray[np.float64], count: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract from a curve its weighted mean over one ring: ``(n_bins,)``."""
    left: NDArray[np.float64] = _flatten(curve, count)
    return left


@numba.njit(cache=True, nogil=True)
def _flatten(curve: Any, count: Any) -> Any:
    n = curve.size
    left = np.empty(n)
    total, weight = 0.0, 0.0
    for k in range(min(_HALF, n)):
        total += curve[k] * count[k]
        weight += count[k]
    for k in range(n):
        if k + _HALF < n:
            total += curve[k + _HALF] * count[k + _HALF]
            weight += count[k + _HALF]
        if k > _HALF:
            total -= curve[k - _HALF - 1] * count[k - _HALF - 1]
            weight -= count[k - _HALF - 1]
        left[k] = curve[k] - total / max(weight, 1e-9)
    return left


@numba.njit(cache=True, nogil=True)
def _agreements(place: Any, data: Any, points: Any, rates: Any, reach: Any, rings: Any) -> Any:
    """Make the curve and its model of each point, and compare them: ``(n,)``."""
    value, weight = data
    defocus_rate, sphere_rate, contrast_rad = rates
    highest, n_bins = reach
    ring_per_ang, amplitude, whole_curve = rings
    found = np.empty(n_bins.size)
    count, measured, along, smooth = np.empty(0), np.empty(0), np.empty(0), 0.0
    for p in range(n_bins.size):
        n = n_bins[p]
        if p == 0 or np.any(points[p, :3] != points[p - 1, :3]):
            total, count = _sum_by_phase(place, value, weight, points[p], (defocus_rate, sphere_rate, highest[p]), n)
            curve = total / np.maximum(count, 1e-9)
            measured = _flatten(curve, count)
            if whole_curve:
                smooth = 0.5 * np.sum(count * (curve - measured) * (curve + measured))
            along = np.empty(n)
            rate = defocus_rate * points[p, 0]
            ring = 0
            for k in range(n):
                linear = np.pi * k / _BINS_PER_RING
                root = np.sqrt(max(rate * rate - 4.0 * sphere_rate * linear, 0.0))
                per_ang = np.sqrt(2.0 * linear / (rate + root))
                while ring + 2 < ring_per_ang.size and ring_per_ang[ring + 1] < per_ang:
                    ring += 1
                part = (per_ang - ring_per_ang[ring]) / (ring_per_ang[ring + 1] - ring_per_ang[ring])
                part = min(max(part, 0.0), 1.0)
                along[k] = (1.0 - part) * amplitude[ring] + part * amplitude[ring + 1]
        constant = 2.0 * (contrast_rad + points[p, 3] * np.pi / 180.0)
        model = np.empty(n)
        for k in range(n):
            model[k] = -along[k] * np.cos(2.0 * np.pi * k / _BINS_PER_RING + constant)
        model = _flatten(model, count)
        found[p] = smooth + np.sum(count * model * (measured - 0.5 * model))
    return found


@numba.njit(cache=True, nogil=True)
def _sum_by_phase(place: Any, value: Any, weight: Any, parameters: Any, rates: Any, n_bins: Any) -> Any:
    """Share each sample between the two nearest phases: sums and counts, ``(n_bins,)`` each."""
    g2, cos2, sin2 = place
    defocus_rate, sphere_rate, highest = rates
    total, count = np.zeros(n_bins), np.zeros(n_bins)
    per_rad = _BINS_PER_RING / np.pi
    for i in range(g2.size):
        if weight[i] == 0.0 or g2[i] > highest:
            continue
        defocus = parameters[0] + parameters[1] * cos2[i] + parameters[2] * sin2[i]
        place_of = (defocus_rate * g2[i] * defocus - sphere_rate * g2[i] * g2[i]) * per_rad
        first = int(place_of)
        if place_of < 0.0 or first + 1 >= n_bins:
            continue
        part = (place_of - first) * weight[i]
        rest = weight[i] - part
        total[first] += rest * value[i]
        count[first] += rest
        total[first + 1] += part * value[i]
        count[first + 1] += part
    return total, count
