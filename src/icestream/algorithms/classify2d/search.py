"""The expectation step: how likely each particle shows each class at each rotation and shift.

With independent complex Gaussian noise of power ``S`` per Fourier component a particle ``X`` taken through the CTF ``C`` has, for
class average ``A`` shifted by ``t`` and then rotated by ``psi``, ``log p = sum (2 Re(C X conj A) - C² |A|²) / S``
(Scheres 2012, J. Mol. Biol. 415, 406; Sigworth 1998, J. Struct. Biol. 122, 328). On polar samples the sum over the angle is a
circular correlation: one matrix product per angular order, then one transform, gives all rotations at once.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.classify2d.polar import Polar, PolarGrid, Real, shift_ramps

_ORDERS_AT_ONCE = 6
_PARTICLES_AT_ONCE = 16
_NEGLIGIBLE_LOG = 7.0
"""Poses less likely than the best by this factor (as a logarithm) count as impossible."""
_MOST_POSES = 400


@dataclass(frozen=True)
class PolarParticles:
    """Particles ready for comparison.

    ``signal`` ``(n, n_rings, half)`` is the CTF times the particle, ``ctf_squared`` ``(n, n_rings, half)``, ``power``
    ``(n, n_rings)`` the mean squared modulus per ring, ``half_set`` ``(n,)`` 0 or 1.
    """

    signal: Polar
    ctf_squared: Real
    power: Real
    half_set: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.signal)

    def take(self, rows: NDArray[np.int64]) -> "PolarParticles":
        """Return some of the particles."""
        return PolarParticles(self.signal[rows], self.ctf_squared[rows], self.power[rows], self.half_set[rows])


@dataclass(frozen=True)
class Level:
    """How finely to search: the grid compared on, every ``stride``-th stored angle, shifts ``(n, 2)`` and their log prior."""

    grid: PolarGrid
    stride: int
    shifts_yx_px: NDArray[np.float64]
    log_prior: Real


@dataclass(frozen=True)
class Poses:
    """Significant poses of a run of particles; row ``i`` of the list belongs to ``particle[i]``.

    ``class_id``, ``turn`` (steps of the level's grid) and ``shift`` (row of the level's table) with their ``weight``, which sums
    to 1 over each particle; ``gain`` ``(n,)`` is the log likelihood ratio of the best pose against noise alone, ``class_gain``
    ``(n, k)`` that of the best pose of each class.
    """

    particle: NDArray[np.int32]
    class_id: NDArray[np.int32]
    turn: NDArray[np.int32]
    shift: NDArray[np.int32]
    weight: Real
    gain: Real
    class_gain: Real


def make_level(grid: PolarGrid, *, n_rings: int, stride: int, shift_step_px: float, max_shift_px: float) -> Level:
    """Return a search over the first rings, each ``stride``-th angle and a disc of shifts, which nearer ones win when equal."""
    steps = int(np.floor(max_shift_px / shift_step_px + 1e-6))
    y, x = np.mgrid[-steps : steps + 1, -steps : steps + 1] * shift_step_px
    inside = y * y + x * x <= max_shift_px**2 + 1e-6
    shifts = np.stack([y[inside], x[inside]], axis=1)  # (n_shifts, 2)
    sigma = max(max_shift_px / 2, 1e-3)
    log_prior = (-0.5 * (shifts**2).sum(axis=1) / sigma**2).astype(np.float32)
    coarse = PolarGrid(grid.box_px, min(n_rings, grid.n_rings), grid.n_angles // stride)
    return Level(coarse, stride, shifts, log_prior)


def search_poses_2d(
    particles: PolarParticles, references: Polar, *, noise_power: Real, level: Level, overlap: float, log_class_prior: Real
) -> Poses:
    """Return the significant poses of each particle.

    Parameters
    ----------
    particles
        On the full grid.
    references
        ``(k, n_rings, half)`` on the level's grid.
    level
        Where to search.
    noise_power
        ``(n_rings,)`` of the level's grid, mean squared modulus of the noise in one component.
    overlap
        Fraction of the box's area that the particle mask leaves: neighbouring components are correlated by it.
    log_class_prior
        ``(k,)``.
    """
    weight = 2 * np.pi * level.grid.radii() * overlap / level.grid.n_angles / noise_power  # (n_rings,)
    bank, energy_bank = _reference_bank(references, weight, level)
    prior = (log_class_prior[:, None] + level.log_prior[None, :]).astype(np.float32)  # (k, n_shifts)
    parts: list[tuple[NDArray[np.int32], Real, Real]] = []
    for start in range(0, len(particles), _PARTICLES_AT_ONCE):
        rows = slice(start, start + _PARTICLES_AT_ONCE)
        signal = particles.signal[rows, : level.grid.n_rings, :: level.stride]  # (b, n_rings, half)
        ctf_squared = particles.ctf_squared[rows, : level.grid.n_rings, :: level.stride]
        cross = _correlate_turns(signal, bank, level.grid)  # (n_angles, b, k * n_shifts)
        energy = _correlate_energy(ctf_squared, energy_bank, level.grid)  # (half, b, k)
        found, weights, class_gain = _pick_significant(cross, energy, prior, _NEGLIGIBLE_LOG, _MOST_POSES)
        found[:, 0] += start
        parts.append((found, weights, class_gain))
    table = np.concatenate([part[0] for part in parts]) if parts else np.empty((0, 4), np.int32)
    weights = np.concatenate([part[1] for part in parts]) if parts else np.empty(0, np.float32)
    class_gain = np.concatenate([part[2] for part in parts]) if parts else np.empty((0, len(references)), np.float32)
    return Poses(table[:, 0], table[:, 1], table[:, 2], table[:, 3], weights, class_gain.max(axis=1), class_gain)


def _reference_bank(references: Polar, weight: NDArray[np.float64], level: Level) -> tuple[Polar, Polar]:
    """Return the angular orders of all shifted references ``(orders, n_rings, k * n_shifts)`` and of their power."""
    ramps = shift_ramps(level.shifts_yx_px, grid=level.grid)  # (n_shifts, n_rings, half)
    n_classes, n_rings, half = references.shape
    bank = np.empty((half + 1, n_rings, n_classes, len(ramps)), dtype=np.complex64)
    for k in range(n_classes):
        orders = _angular_orders(references[k] * ramps)  # (n_shifts, n_rings, half + 1)
        bank[:, :, k, :] = np.conj(orders * weight[:, None]).transpose(2, 1, 0)
    power = np.abs(references) ** 2 * weight[:, None]  # (k, n_rings, half)
    energy = np.conj(fft.rfft(power, axis=-1)).astype(np.complex64).transpose(2, 1, 0)  # (half // 2 + 1, n_rings, k)
    return bank.reshape(half + 1, n_rings, -1), np.ascontiguousarray(energy)


def _angular_orders(polar: Polar) -> Polar:
    """Transform along the full circle: ``(..., half)`` to the non-negative orders ``(..., half + 1)``."""
    circle = np.concatenate([polar, np.conj(polar)], axis=-1)  # (..., n_angles)
    orders: Polar = fft.fft(circle, axis=-1)[..., : polar.shape[-1] + 1]
    return orders


def _correlate_turns(signal: Polar, bank: Polar, grid: PolarGrid) -> Real:
    """Correlate over all turns: ``(n_angles, b, k * n_shifts)``."""
    orders = np.ascontiguousarray(_angular_orders(signal).transpose(2, 0, 1))  # (half + 1, b, n_rings)
    product = np.empty((grid.half + 1, signal.shape[0], bank.shape[2]), dtype=np.complex64)
    for start in range(0, grid.half + 1, _ORDERS_AT_ONCE):
        # An image inside the box has angular order m only on rings beyond m / pi.
        ring = min(max(int(start / np.pi) - 3, 0), grid.n_rings - 1)
        some = slice(start, start + _ORDERS_AT_ONCE)
        np.matmul(orders[some, :, ring:], bank[some, ring:], out=product[some])
    turns: Real = fft.irfft(product, n=grid.n_angles, axis=0, overwrite_x=True)
    return turns


def _correlate_energy(ctf_squared: Real, energy_bank: Polar, grid: PolarGrid) -> Real:
    orders = fft.rfft(ctf_squared, axis=-1).transpose(2, 0, 1)  # (half // 2 + 1, b, n_rings)
    energy: Real = fft.irfft(np.matmul(orders, energy_bank), n=grid.half, axis=0)
    return energy


@njit(cache=True)
def _pick_significant(
    cross: Real, energy: Real, prior: Real, negligible: float, most: int
) -> tuple[NDArray[np.int32], Real, Real]:
    """Return rows (particle, class, turn, shift) and weights of the poses that matter, and the best of each class."""
    n_turns, n, _ = cross.shape
    half, _, n_classes = energy.shape
    n_shifts = prior.shape[1]
    table = np.empty((n * most, 4), np.int32)
    weights = np.empty(n * most, np.float32)
    gains = np.full((n, n_classes), np.float32(-1e30), np.float32)
    filled = 0
    for b in range(n):
        best = np.float32(-1e30)
        for j in range(n_turns):
            for k in range(n_classes):
                top = np.float32(-1e30)
                for t in range(n_shifts):
                    top = max(top, cross[j, b, k * n_shifts + t] + prior[k, t])
                gains[b, k] = max(gains[b, k], top - energy[j % half, b, k])
                best = max(best, gains[b, k])
        counts = np.zeros(29, np.int64)
        for j in range(n_turns):
            for k in range(n_classes):
                floor = best - negligible + energy[j % half, b, k]
                for t in range(n_shifts):
                    value = cross[j, b, k * n_shifts + t] + prior[k, t]
                    if value > floor:
                        counts[int(4.0 * (best + energy[j % half, b, k] - value) * 7.0 / negligible)] += 1
        depth = _depth_within(counts, most, negligible)
        begin = filled
        for j in range(n_turns):
            for k in range(n_classes):
                floor = best - depth + energy[j % half, b, k]
                for t in range(n_shifts):
                    value = cross[j, b, k * n_shifts + t] + prior[k, t]
                    if value > floor and filled < begin + most:
                        table[filled, 0], table[filled, 1], table[filled, 2], table[filled, 3] = b, k, j, t
                        weights[filled] = np.exp(value - energy[j % half, b, k] - best)
                        filled += 1
        weights[begin:filled] /= weights[begin:filled].sum()
    return table[:filled].copy(), weights[:filled].copy(), gains


@njit(cache=True)
def _depth_within(counts: NDArray[np.int64], most: int, negligible: float) -> float:
    """Return how far below the best to go so that at most ``most`` poses are taken."""
    total = 0
    for i in range(counts.size):
        total += counts[i]
        if total > most:
            return max(i, 1) * negligible / 28.0
    return negligible
