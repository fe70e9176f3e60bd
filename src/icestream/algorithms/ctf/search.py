"""Exhaustive search for the defocus, astigmatism and phase shift that best explain a power spectrum.

The spectrum, averaged over polar cells, is correlated once with the rings of every defocus in every direction; the score of any
astigmatic CTF is then a sum of table entries, one a direction. The score is a matched filter: the correlation in units of its
standard deviation in pure noise, with everything a smooth background could explain projected out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.ctf.samples import Optics, SpectrumSamples

_FALLOFF_ANG2 = (30.0, 120.0, 480.0)
_PHASE_STEP_DEG = 15.0
_N_RADII = 8
_MAX_ASTIGMATISM_SHARE = 0.7


@dataclass(frozen=True)
class CtfRange:
    """Where to look for a CTF; a phase range of width zero fixes the phase shift.

    The astigmatism, the difference of the two defocus values, is at most ``astigmatism_ang`` and 70 % of the mean defocus.
    """

    defocus_ang: tuple[float, float]
    astigmatism_ang: float
    phase_shift_deg: tuple[float, float]

    def confine(self, parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Move ``(4,)`` parameters (mean defocus, a, b in Å, phase shift in degrees) to the nearest allowed ones."""
        defocus = np.clip(parameters[0], *self.defocus_ang)
        limit = self._most_ang(float(defocus))
        a, b = parameters[1:3] * min(1.0, limit / max(np.hypot(parameters[1], parameters[2]), 1e-9))
        return np.array([defocus, a, b, np.clip(parameters[3], *self.phase_shift_deg)])

    def is_at_end(self, parameters: NDArray[np.float64]) -> bool:
        """Tell whether defocus or astigmatism went as far as they may: the spectrum asks for another CTF, or for none."""
        defocus = float(parameters[0])
        ends = np.isclose(defocus, self.defocus_ang, rtol=1e-6)
        return bool(np.any(ends)) or float(np.hypot(*parameters[1:3])) > (1.0 - 1e-6) * self._most_ang(defocus)

    def _most_ang(self, defocus_ang: float) -> float:
        """Return the largest half difference of the defocus values."""
        return 0.5 * min(self.astigmatism_ang, _MAX_ASTIGMATISM_SHARE * defocus_ang)


@dataclass(frozen=True)
class CtfCandidate:
    """Parameters ``(4,)`` (mean defocus, a, b, phase shift) and their matched-filter score in standard deviations of noise."""

    parameters: NDArray[np.float64]
    significance: float


@dataclass(frozen=True)
class CtfSearch:
    """The tables of a search, prepared once for all spectra with the same frequencies.

    ``grid`` (n_grid,) reaches beyond the searched defocus by ``margin`` entries at either end; ``rings`` (2, n_grid, n_rings)
    are cosine and sine of twice the CTF phase; ``envelopes`` (n_falloffs, n_rings); ``norms`` (n_falloffs, 3, n_radii, n_defocus)
    are the squared norms cos-cos, cos-sin, sin-sin of the rings outside the background.
    """

    limits: CtfRange
    grid: NDArray[np.float64]
    margin: int
    radii: NDArray[np.float64]
    rings: NDArray[np.float64]
    envelopes: NDArray[np.float64]
    norms: NDArray[np.float64]


def prepare_search(cells: SpectrumSamples, *, n_sectors: int, optics: Optics, limits: CtfRange) -> CtfSearch:
    """Compute the rings of every defocus, and their norms.

    Parameters
    ----------
    cells
        Polar cells from `icestream.algorithms.ctf.samples.bin_polar`; their values do not matter.
    n_sectors
        As given to `bin_polar`.
    optics
        Rates of the CTF phase.
    limits
        Where to look.
    """
    g2 = cells.ring_per_ang**2
    step = 0.4 / (2.0 * optics.defocus_rate * g2[-1])
    radii = np.linspace(0.0, 0.5 * limits.astigmatism_ang, _N_RADII + 1)  # (n_radii,) half differences
    margin = int(np.ceil(radii[-1] / step)) + 1
    low, high = limits.defocus_ang
    grid = low + step * np.arange(-margin, np.ceil((high - low) / step) + margin + 1)
    phase = 2.0 * (np.outer(grid, optics.defocus_rate * g2) - optics.sphere_rate * g2 * g2 + optics.contrast_rad)
    rings = np.stack([np.cos(phase), np.sin(phase)])  # (2, n_grid, n_rings)
    envelopes = np.exp(-np.outer(_FALLOFF_ANG2, g2))  # (n_falloffs, n_rings)
    shifts = np.rint(np.outer(radii, _cosines(n_sectors)) / step).astype(int) + margin  # (n_radii, n_sectors)
    norms = np.stack([_norms_outside_background(rings * envelope, cells, shifts) for envelope in envelopes])
    return CtfSearch(limits, grid, margin, radii, rings, envelopes, norms)


def search_ctf(search: CtfSearch, cells: SpectrumSamples, *, n_sectors: int, noise: float, n_best: int) -> list[CtfCandidate]:
    """Return the ``n_best`` most significant CTFs that differ clearly, best first.

    Parameters
    ----------
    search
        From `prepare_search`.
    cells
        Polar cells of one spectrum.
    n_sectors
        As given to `bin_polar`.
    noise
        Standard deviation of one sample of the spectrum.
    n_best
        How many to return.
    """
    shape = (n_sectors, cells.ring_per_ang.size)
    weighted = (cells.weight * (cells.value - _background_fit(cells, shape))).reshape(shape)  # (n_sectors, n_rings)
    step = float(search.grid[1] - search.grid[0])
    shapes, radius_index = _astigmatism_shapes(search.radii)
    turn = 2.0 * np.pi * (np.arange(n_sectors) + 0.5) / n_sectors
    directions = np.stack([np.cos(turn), np.sin(turn)])  # (2, n_sectors)
    offsets = shapes @ directions / step + search.margin  # (n_shapes, n_sectors), in steps of the grid
    share = 0.5 * _MAX_ASTIGMATISM_SHARE
    found: list[CtfCandidate] = []
    for table, norm, phase in _tables(search, weighted):
        scale = np.divide(1.0 / noise, np.sqrt(norm), out=np.zeros_like(norm), where=norm > 0)  # (n_radii, n_defocus)
        defocus = search.grid[search.margin : search.margin + norm.shape[1]]
        scale[search.radii[:, None] > share * defocus] = 0.0
        best, which = _scan_astigmatism(table.astype(np.float32), offsets, scale[radius_index].astype(np.float32))
        found += [CtfCandidate(np.array([defocus[i], *shapes[which[i]], phase]), float(best[i])) for i in _peaks(best, n_best)]
    return _distinct(found, separation=3.0 * step, n_best=n_best)


def _tables(search: CtfSearch, weighted: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Yield, for each falloff and phase shift, the table (n_sectors, n_grid), the squared norms, and the phase shift."""
    low, high = search.limits.phase_shift_deg
    phases = np.linspace(low, high, int(np.ceil((high - low) / _PHASE_STEP_DEG)) + 1)
    for envelope, (cos_cos, cos_sin, sin_sin) in zip(search.envelopes, search.norms, strict=True):
        filtered = weighted * envelope  # (n_sectors, n_rings)
        cosine, sine = filtered @ search.rings[0].T, filtered @ search.rings[1].T  # (n_sectors, n_grid)
        for phase in phases.tolist():
            c, s = np.cos(2.0 * np.deg2rad(phase)), np.sin(2.0 * np.deg2rad(phase))
            yield s * sine - c * cosine, c * c * cos_cos - 2.0 * c * s * cos_sin + s * s * sin_sin, phase


def _cosines(n_sectors: int) -> NDArray[np.float64]:
    """Return the cosine of twice the direction of each sector."""
    cosines: NDArray[np.float64] = np.cos(2.0 * np.pi * (np.arange(n_sectors) + 0.5) / n_sectors)
    return cosines


def _astigmatism_shapes(radii: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return half differences ``(a, b)`` on the circles, as dense along as across, and the circle of each: ``(n_shapes, 2)``."""
    shapes, index = [(0.0, 0.0)], [0]
    for k, radius in enumerate(radii[1:].tolist(), start=1):
        turns = np.arange(0.0, 2.0 * np.pi, min(radii[1] / radius, np.pi / 4))
        shapes += [(radius * np.cos(t), radius * np.sin(t)) for t in turns]
        index += [k] * turns.size
    return np.array(shapes), np.array(index)


def _background_fit(cells: SpectrumSamples, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Fit the smooth background to the ring averages; return it for every cell."""
    weight = cells.weight.reshape(shape)
    ring_weight = weight.sum(axis=0)  # (n_rings,)
    average = (weight * cells.value.reshape(shape)).sum(axis=0) / ring_weight
    root = np.sqrt(ring_weight)
    fit = np.linalg.lstsq((cells.background * root).T, average * root, rcond=None)[0]
    background: NDArray[np.float64] = (fit @ cells.background)[cells.ring]
    return background


def _norms_outside_background(
    rings: NDArray[np.float64], cells: SpectrumSamples, shifts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return squared norms after the background is projected out, for each astigmatism: ``(3, n_radii, n_defocus)``."""
    root = np.sqrt(np.bincount(cells.ring, cells.weight))  # (n_rings,)
    basis, _ = np.linalg.qr((cells.background * root).T)  # (n_rings, n_background)
    weighted = rings * root
    inside = weighted @ basis  # (2, n_grid, n_background)
    pairs = ((0, 0), (0, 1), (1, 1))
    total = np.stack([np.einsum("dk,dk->d", weighted[p], weighted[q]) for p, q in pairs])  # (3, n_grid)
    n_defocus = rings.shape[1] - 2 * int(shifts[0, 0])
    norms = np.empty((3, shifts.shape[0], n_defocus))
    for r, row in enumerate(shifts.tolist()):
        mean_inside = np.mean([inside[:, s : s + n_defocus] for s in row], axis=0)  # (2, n_defocus, n_background)
        mean_total = np.mean([total[:, s : s + n_defocus] for s in row], axis=0)  # (3, n_defocus)
        for k, (p, q) in enumerate(pairs):
            norms[k, r] = mean_total[k] - np.einsum("db,db->d", mean_inside[p], mean_inside[q])
    return norms


def _peaks(score: NDArray[np.float64], n_best: int) -> list[int]:
    padded = np.r_[-np.inf, score, -np.inf]
    index = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:]))
    return [int(i) for i in index[np.argsort(-score[index])][:n_best]]


def _distinct(found: list[CtfCandidate], *, separation: float, n_best: int) -> list[CtfCandidate]:
    chosen: list[CtfCandidate] = []
    for candidate in sorted(found, key=lambda each: -each.significance):
        gaps = [np.abs(candidate.parameters - other.parameters) for other in chosen]
        if all(gap[0] > separation or gap[3] > 1.5 * _PHASE_STEP_DEG for gap in gaps):
            chosen.append(candidate)
        if len(chosen) == n_best:
            break
    return chosen


@numba.njit(cache=True, nogil=True, fastmath=True)
def _scan_astigmatism(table: Any, offsets: Any, scale: Any) -> Any:
    """For each defocus, find the astigmatism whose table entries, one a sector, have the largest scaled sum."""
    n_shapes, n_sectors = offsets.shape
    n_defocus = scale.shape[1]
    best = np.full(n_defocus, np.float32(-1e30))
    which = np.zeros(n_defocus, np.int64)
    total = np.empty(n_defocus, np.float32)  # single precision: twice as many lanes
    for k in range(n_shapes):
        total[:] = np.float32(0.0)
        for s in range(n_sectors):
            first = int(offsets[k, s])
            part = np.float32(offsets[k, s] - first)
            rest = np.float32(1.0) - part
            near, far = table[s, first : first + n_defocus], table[s, first + 1 : first + 1 + n_defocus]
            for i in range(n_defocus):  # with indices that cannot be negative, several at once
                total[i] += rest * near[i] + part * far[i]
        for i in range(n_defocus):
            score = total[i] * scale[k, i]
            if score > best[i] and scale[k, i] > 0.0:
                best[i] = score
                which[i] = k
    return best, which
