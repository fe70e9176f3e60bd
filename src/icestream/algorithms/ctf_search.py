"""Exhaustive search for the defocus, astigmatism and phase shift that best explain a power spectrum.

The spectrum, averaged over polar cells, is correlated once with the rings of every defocus in every direction; the score of any
astigmatic CTF is then a sum of table entries, one a direction. The score is a matched filter: the correlation in units of its
standard deviation in pure noise, with everything a smooth background could explain projected out.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf_samples import Optics, SpectrumSamples, bin_polar

_N_SECTORS = 24
_FALLOFF_ANG2 = (30.0, 120.0, 480.0)
_PHASE_STEP_DEG = 15.0
_MAX_HALF_DIFFERENCE_ANG = 1500.0


@dataclass(frozen=True)
class CtfCandidate:
    """One astigmatic CTF: ``defocus + a cos(2 theta) + b sin(2 theta)`` along the direction ``theta``.

    ``significance`` is the matched-filter score in standard deviations of noise.
    """

    defocus_ang: float
    a_ang: float
    b_ang: float
    phase_shift_deg: float
    significance: float


def search_ctf(
    samples: SpectrumSamples,
    *,
    optics: Optics,
    defocus_ang: tuple[float, float],
    phase_shift_deg: tuple[float, float],
    n_best: int,
) -> list[CtfCandidate]:
    """Return the ``n_best`` most significant CTFs that differ in defocus, best first.

    Parameters
    ----------
    samples
        Samples of the whole half spectrum.
    defocus_ang, phase_shift_deg
        Closed ranges to search; a range of width zero fixes the phase shift.
    """
    cells = bin_polar(samples, n_sectors=_N_SECTORS)
    n_rings = samples.ring_per_ang.size
    weight = cells.weight.reshape(_N_SECTORS, n_rings)
    value, ring_weight = _remove_background(cells.value.reshape(_N_SECTORS, n_rings), weight, samples.background)
    noise = _noise_of_samples(samples)
    step = 0.4 / (2.0 * optics.defocus_rate * samples.ring_per_ang[-1] ** 2)
    grid = np.arange(defocus_ang[0], defocus_ang[1] + step, step)  # (n_defocus,)
    shapes = _astigmatism_shapes(step)  # (n_shapes, 2)
    offsets = np.ascontiguousarray((shapes @ _sector_directions()) / step)  # (n_shapes, n_sectors), in steps of the grid
    phase0 = 2.0 * (np.outer(grid, optics.defocus_rate * samples.ring_per_ang**2) - optics.sphere_rate * samples.ring_per_ang**4)
    phase0 += 2.0 * optics.contrast_rad  # (n_defocus, n_rings)
    cosine, sine = np.cos(phase0), np.sin(phase0)
    found: list[CtfCandidate] = []
    for falloff in _FALLOFF_ANG2:
        envelope = np.exp(-falloff * samples.ring_per_ang**2)
        filtered = (weight * value * envelope).T  # (n_rings, n_sectors)
        tables = (cosine @ filtered, sine @ filtered)
        for phase in _phase_grid(phase_shift_deg):
            c, s = np.cos(2.0 * np.deg2rad(phase)), np.sin(2.0 * np.deg2rad(phase))
            table = np.ascontiguousarray(s * tables[1] - c * tables[0])  # (n_defocus, n_sectors)
            rings = envelope * (s * sine - c * cosine)
            scale = 1.0 / (noise * _norm_outside_background(rings, ring_weight, samples.background))
            best, which = _scan_astigmatism(table, offsets)
            found += [
                CtfCandidate(float(grid[i]), *map(float, shapes[which[i]]), phase, float(best[i] * scale[i]))
                for i in _peaks(best * scale, n_best)
            ]
    return _distinct(found, separation=3.0 * step, n_best=n_best)


def _sector_directions() -> NDArray[np.float64]:
    middle = 2.0 * np.pi * (np.arange(_N_SECTORS) + 0.5) / _N_SECTORS
    return np.stack([np.cos(middle), np.sin(middle)])  # (2, n_sectors)


def _astigmatism_shapes(step_ang: float) -> NDArray[np.float64]:
    """Return half differences ``(a, b)`` on circles ``step`` apart, about as dense along as across: ``(n_shapes, 2)``."""
    shapes = [(0.0, 0.0)]
    spacing = max(2.0 * step_ang, _MAX_HALF_DIFFERENCE_ANG / 12)
    for radius in np.arange(spacing, _MAX_HALF_DIFFERENCE_ANG + 1.0, spacing):
        turns = np.arange(0.0, 2.0 * np.pi, min(spacing / radius, np.pi / 4))
        shapes += [(radius * np.cos(t), radius * np.sin(t)) for t in turns]
    return np.array(shapes)


def _phase_grid(phase_shift_deg: tuple[float, float]) -> list[float]:
    low, high = phase_shift_deg
    count = int(np.ceil((high - low) / _PHASE_STEP_DEG)) + 1
    return [float(phase) for phase in np.linspace(low, high, count)]


def _remove_background(
    value: NDArray[np.float64], weight: NDArray[np.float64], background: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Subtract the smooth background fitted to ring averages; return the rest and the weight of each ring."""
    ring_weight = weight.sum(axis=0)  # (n_rings,)
    average = (weight * value).sum(axis=0) / ring_weight
    root = np.sqrt(ring_weight)
    fit = np.linalg.lstsq((background * root).T, average * root, rcond=None)[0]
    return value - fit @ background, ring_weight


def _noise_of_samples(samples: SpectrumSamples) -> float:
    """Return the standard deviation of a sample about its ring average."""
    count = np.bincount(samples.ring)
    average = np.bincount(samples.ring, samples.value) / count
    return float(np.sqrt(np.mean((samples.value - average[samples.ring]) ** 2)))


def _norm_outside_background(
    rings: NDArray[np.float64], ring_weight: NDArray[np.float64], background: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the norm of each row of ``rings`` after the background is projected out: ``(n_defocus,)``."""
    root = np.sqrt(ring_weight)
    basis, _ = np.linalg.qr((background * root).T)  # (n_rings, n_background)
    weighted = rings * root
    inside = weighted @ basis
    total = np.sum(weighted**2, axis=1)
    norm: NDArray[np.float64] = np.sqrt(np.maximum(total - np.sum(inside**2, axis=1), 1e-3 * total))
    return norm


def _peaks(score: NDArray[np.float64], n_best: int) -> list[int]:
    padded = np.r_[-np.inf, score, -np.inf]
    is_peak = (padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:])
    index = np.flatnonzero(is_peak)
    return [int(i) for i in index[np.argsort(-score[index])][:n_best]]


def _distinct(found: list[CtfCandidate], *, separation: float, n_best: int) -> list[CtfCandidate]:
    chosen: list[CtfCandidate] = []
    for candidate in sorted(found, key=lambda each: -each.significance):
        near = any(
            abs(candidate.defocus_ang - other.defocus_ang) < separation
            and abs(candidate.phase_shift_deg - other.phase_shift_deg) < 2 * _PHASE_STEP_DEG
            for other in chosen
        )
        if not near:
            chosen.append(candidate)
        if len(chosen) == n_best:
            break
    return chosen


@numba.njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan_astigmatism(table: NDArray[np.float64], offsets: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """For each defocus, find the astigmatism whose table entries, one a sector, have the largest sum."""
    n_defocus, n_sectors = table.shape
    best = np.full(n_defocus, -np.inf)
    which = np.zeros(n_defocus, np.int64)
    for k in range(offsets.shape[0]):
        for i in range(n_defocus):
            total = 0.0
            for s in range(n_sectors):
                position = min(max(i + offsets[k, s], 0.0), n_defocus - 1.0)
                j = min(int(position), n_defocus - 2)
                part = position - j
                total += (1.0 - part) * table[j, s] + part * table[j + 1, s]
            if total > best[i]:
                best[i] = total
                which[i] = k
    return best, which
