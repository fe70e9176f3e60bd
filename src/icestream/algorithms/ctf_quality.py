"""How well a CTF explains a spectrum: profiles along rings of equal phase, their correlation, and the resolution limit.

Equi-phase averages after Zhang (2016), Gctf, J. Struct. Biol. 193, 1; the windowed correlation and its thresholds after Rohou &
Grigorieff (2015), CTFFIND4, J. Struct. Biol. 192, 216, and the later practice of that program.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf_refine import CtfRefinement
from icestream.algorithms.ctf_samples import Optics, SpectrumSamples

_MIN_HALF_WINDOW = 5


@dataclass(frozen=True)
class CtfProfile:
    """Curves over frequency, ``(n_rings,)`` each.

    ``measured`` is the equi-phase average of the flattened spectrum without its background, ``fitted`` the model averaged in the
    same way, ``correlation`` their correlation in a window of about two rings.
    """

    frequency_per_ang: NDArray[np.float64]
    measured: NDArray[np.float64]
    fitted: NDArray[np.float64]
    correlation: NDArray[np.float64]


def average_equiphase(samples: SpectrumSamples, fit: CtfRefinement, *, optics: Optics) -> CtfProfile:
    """Average measured and fitted spectrum along lines of equal CTF phase.

    Each sample is moved along the frequency axis to where a CTF without astigmatism, at the mean defocus, has the same phase.
    """
    mean, a, b, phase_deg = fit.parameters
    defocus = mean + a * samples.cos2 + b * samples.sin2
    linear_phase = optics.defocus_rate * samples.g2 * defocus - optics.sphere_rate * samples.g2**2
    equivalent = _frequency_of_phase(linear_phase, mean, optics)
    edges = np.r_[0.0, 0.5 * (samples.ring_per_ang[1:] + samples.ring_per_ang[:-1]), np.inf]
    bins = np.searchsorted(edges, equivalent) - 1
    n = samples.ring_per_ang.size
    count = np.bincount(bins, samples.weight, n)
    rings = -fit.envelope[samples.ring] * np.cos(2.0 * (linear_phase + optics.contrast_rad + np.deg2rad(phase_deg)))
    scale = samples.weight / np.maximum(count, 1e-12)[bins]
    measured = np.bincount(bins, scale * (samples.value - fit.background[samples.ring]), n)
    fitted = np.bincount(bins, scale * rings, n)
    phase = 2.0 * (optics.defocus_rate * samples.ring_per_ang**2 * mean - optics.sphere_rate * samples.ring_per_ang**4)
    correlation = correlate_in_windows(measured, fitted, phase_rad=phase)
    return CtfProfile(samples.ring_per_ang, measured, fitted, correlation)


def correlate_in_windows(
    measured: NDArray[np.float64], fitted: NDArray[np.float64], *, phase_rad: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correlate two curves in a window that spans one ring to either side, and at least eleven samples: ``(n,)``.

    Parameters
    ----------
    phase_rad
        ``(n,)``: phase of the rings, ``2 chi``; one ring is a full turn.
    """
    n = measured.size
    turn = np.abs(np.gradient(phase_rad)) / (2.0 * np.pi)  # rings per sample
    correlation = np.zeros(n)
    for i in range(n):
        half = int(np.clip(np.ceil(1.0 / max(turn[i], 1.0 / n)), _MIN_HALF_WINDOW, n // 4))
        window = slice(max(i - half, 0), i + half + 1)
        correlation[i] = correlate(measured[window], fitted[window])
    return correlation


def correlate(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the normalised cross-correlation of two curves; 0 where one of them is constant."""
    x, y = one - one.mean(), other - other.mean()
    norm = float(np.sqrt(np.sum(x * x) * np.sum(y * y)))
    return float(np.sum(x * y)) / norm if norm > 0 else 0.0


def limit_of_agreement(profile: CtfProfile) -> float:
    """Return the resolution in Å up to which the fit agrees with the spectrum.

    Going up in frequency, the fit stops to agree where the windowed correlation falls below 0.1 after more than three samples
    above 0.1, or below 0.5 after more than three samples above 0.66. Where it never rises above 0.5 the limit is the first
    frequency; where it never falls, the last.
    """
    above_low = above_high = 0
    last = 0
    for i, value in enumerate(profile.correlation):
        above_low += value > 0.1
        above_high += value > 0.66
        if (above_low > 3 and value < 0.1) or (above_high > 3 and value < 0.5):
            break
        if value >= 0.5:
            last = i
    return float(1.0 / profile.frequency_per_ang[last])


def _frequency_of_phase(linear_phase: NDArray[np.float64], defocus_ang: float, optics: Optics) -> NDArray[np.float64]:
    """Invert ``rate g² defocus - sphere g⁴``, on the branch that starts at zero frequency."""
    rate = optics.defocus_rate * defocus_ang
    root = np.sqrt(np.maximum(rate * rate - 4.0 * optics.sphere_rate * linear_phase, 0.0))
    frequency: NDArray[np.float64] = np.sqrt(np.maximum(2.0 * linear_phase / (rate + root), 0.0))
    return frequency
