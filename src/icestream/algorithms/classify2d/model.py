"""The maximisation step: class averages, noise power and resolution from weighted sums over particles."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.classify2d.polar import (
    Polar,
    PolarGrid,
    Real,
    image_from_polar_2d,
    sample_polar_2d,
    shift_ramps,
    soft_disc_2d,
)
from icestream.algorithms.classify2d.search import Level, PolarParticles, Poses
from icestream.algorithms.frc import correlation_of_sums


@dataclass(frozen=True)
class Sums:
    """What the particles add up to, in the frame of their class, per half set.

    ``signal`` ``(2, k, n_rings, half)``: CTF times particle; ``ctf_squared`` ``(2, k, n_rings, half)``; ``weight`` ``(2, k)``
    particles; ``power`` ``(n_rings,)`` summed power of all particles.
    """

    signal: Polar
    ctf_squared: Real
    weight: NDArray[np.float64]
    power: NDArray[np.float64]

    def decayed(self, fraction: float, other: "Sums", gain: float) -> "Sums":
        """Return ``fraction`` of these sums with ``gain`` times the ``other`` added."""
        return Sums(
            (fraction * self.signal + gain * other.signal).astype(np.complex64),
            (fraction * self.ctf_squared + gain * other.ctf_squared).astype(np.float32),
            fraction * self.weight + gain * other.weight,
            fraction * self.power + gain * other.power,
        )


@dataclass(frozen=True)
class Averages:
    """Class averages with what is known about them.

    ``images`` ``(k, box, box)`` filtered to what the halves agree on and masked; ``halves`` ``(2, k, box, box)`` unfiltered and
    masked; ``correlation`` ``(k, n_rings)`` between the halves; ``noise_power`` ``(n_rings,)``.
    """

    images: Real
    halves: Real
    correlation: NDArray[np.float64]
    noise_power: Real


def sum_poses_2d(particles: PolarParticles, poses: Poses, *, level: Level, n_classes: int) -> Sums:
    """Turn each particle back into the frame of its classes and add it up with the weights of its poses."""
    grid = level.grid
    signal = np.zeros((2, n_classes, grid.n_rings, grid.half), dtype=np.complex64)
    ctf_squared = np.zeros(signal.shape, dtype=np.float32)
    own_signal = np.ascontiguousarray(particles.signal[:, : grid.n_rings, :: level.stride])  # (n, n_rings, half)
    own_ctf_squared = np.ascontiguousarray(particles.ctf_squared[:, : grid.n_rings, :: level.stride])
    ramps = np.conj(shift_ramps(level.shifts_yx_px, grid=grid))  # (n_shifts, n_rings, half)
    row = (poses.particle, poses.class_id, poses.turn, poses.shift)
    _add_poses(own_signal, own_ctf_squared, particles.half_set, ramps, row, poses.weight, signal, ctf_squared)
    weight = np.zeros((2, n_classes))
    np.add.at(weight, (particles.half_set[poses.particle], poses.class_id), poses.weight.astype(np.float64))
    return Sums(signal, ctf_squared, weight, particles.power[:, : grid.n_rings].sum(axis=0, dtype=np.float64))


def estimate_averages_2d(sums: Sums, *, grid: PolarGrid, mask_radius_px: float, edge_px: float, tau_fudge: float) -> Averages:
    """Divide the sums, with a prior from the agreement of the half sets, and update the noise.

    The prior variance per ring is ``2 FRC / (1 - FRC)`` times the noise of the average (Scheres 2012), times ``tau_fudge``.
    """
    mask = soft_disc_2d(grid.box_px, radius_px=mask_radius_px, edge_px=edge_px)
    halves = np.stack([_masked_images(_divide(sums.signal[h], sums.ctf_squared[h], 0.05), mask, grid) for h in (0, 1)])
    correlation = _halves_correlation(halves, grid)  # (k, n_rings)
    smooth = smooth_curves(correlation)
    ratio = tau_fudge * 2 * smooth / (1 - smooth)  # signal to noise of the average
    total_signal, total_ctf_squared = sums.signal.sum(axis=0), sums.ctf_squared.sum(axis=0)  # (k, n_rings, half)
    averages = _divide(total_signal, total_ctf_squared, (1 / np.maximum(ratio, 1e-4))[:, :, None])
    images = _masked_images(averages, mask, grid)
    noise_power = _noise_power(sums, total_signal, total_ctf_squared, sample_polar_2d(images, grid=grid))
    return Averages(images, halves, correlation, noise_power)


def smooth_curves(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth curves over three rings and end each where it first falls below 0.143: ``(k, n_rings)`` within 0 and 0.999."""
    padded = np.pad(correlation, ((0, 0), (1, 1)), mode="edge")
    smooth = np.clip((padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3, 0.0, 0.999)
    alive = np.cumprod(smooth > 0.143, axis=1)
    return np.where(alive > 0, smooth, smooth.min(axis=1, keepdims=True) * 0.0)


def _divide(signal: Polar, ctf_squared: Real, prior: NDArray[np.float64] | float) -> Polar:
    """Return ``signal / (ctf_squared + prior * its ring mean)``, 0 for a class without particles."""
    ring = ctf_squared.mean(axis=-1, keepdims=True)  # (k, n_rings, 1)
    floor = np.maximum(ctf_squared + prior * ring, 1e-6)
    quotient: Polar = (signal / floor).astype(np.complex64)
    return quotient


def _masked_images(polar: Polar, mask: Real, grid: PolarGrid) -> Real:
    """Return images whose background has mean 0, masked: ``(k, box, box)``."""
    images = image_from_polar_2d(polar, grid=grid)
    outside = soft_disc_2d(grid.box_px, radius_px=grid.box_px / 2 - 1, edge_px=1.0) * (1 - mask)
    background = (images * outside).sum(axis=(1, 2), keepdims=True) / max(float(outside.sum()), 1.0)
    masked: Real = ((images - background) * mask).astype(np.float32)
    return masked


def _halves_correlation(halves: Real, grid: PolarGrid) -> NDArray[np.float64]:
    a, b = (sample_polar_2d(half, grid=grid) for half in halves)  # (k, n_rings, half)
    cross = np.real(a * np.conj(b)).sum(axis=-1, dtype=np.float64)
    power_a, power_b = ((np.abs(x) ** 2).sum(axis=-1, dtype=np.float64) for x in (a, b))
    return correlation_of_sums(cross, power_a, power_b)


def _noise_power(sums: Sums, signal: Polar, ctf_squared: Real, averages: Polar) -> Real:
    """Return what the averages leave unexplained, ``(n_rings,)``: the exact expectation, from the sums alone."""
    explained = 2 * np.real(np.conj(averages) * signal) - ctf_squared * np.abs(averages) ** 2  # (k, n_rings, half)
    per_ring = explained.mean(axis=-1, dtype=np.float64).sum(axis=0)
    count = max(float(sums.weight.sum()), 1e-6)
    left = np.maximum(sums.power - per_ring, 0.05 * sums.power) / count
    noise: Real = np.maximum(left, 1e-12).astype(np.float32)
    return noise


@njit(cache=True, fastmath=True)
def _add_poses(  # noqa: PLR0917 - numba wants positions
    own_signal: Polar,
    own_ctf_squared: Real,
    half_set: NDArray[np.int8],
    ramps: Polar,
    row: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]],
    weight: Real,
    signal: Polar,
    ctf_squared: Real,
) -> None:
    """Add to ``signal`` and ``ctf_squared``, which the caller has just made."""
    particle, class_id, turn, shift = row
    _, n_rings, half = own_signal.shape
    for i in range(particle.size):
        n, k, t, w = particle[i], class_id[i], shift[i], weight[i]
        side = half_set[n]
        for r in range(n_rings):
            for first in (0, half):
                # Directions of the particle that lie in this half of the circle; the second half is the conjugate of the first.
                offset = turn[i] - first
                for h in range(max(0, -offset), min(half, half - offset)):
                    value = own_signal[n, r, h + offset]
                    if first > 0:
                        value = np.conj(value)
                    signal[side, k, r, h] += w * value * ramps[t, r, h]
                    ctf_squared[side, k, r, h] += w * own_ctf_squared[n, r, h + offset]
            offset = turn[i] - 2 * half
            for h in range(max(0, -offset), half):
                signal[side, k, r, h] += w * own_signal[n, r, h + offset] * ramps[t, r, h]
                ctf_squared[side, k, r, h] += w * own_ctf_squared[n, r, h + offset]
