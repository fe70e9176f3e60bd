"""The maximisation step: class averages, noise power and resolution from weighted sums over particles.

Sums and averages are kept as angular orders. A round mask mixes only the rings of one order, so masking needs no image: images
are made of the averages only to be shown and stored.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import jv

from icestream.algorithms.frc import correlation_of_sums
from icestream.algorithms.scoring import (
    Level,
    Polar,
    PolarGrid,
    PolarParticles,
    Poses,
    Real,
    angular_orders,
    image_from_polar_2d,
    polar_from_orders,
    shift_ramps,
    soft_disc_2d,
)


@dataclass(frozen=True)
class Sums:
    """What the particles add up to, in the frame of their class, per half set.

    ``signal`` ``(2, k, n_orders, n_rings)``: CTF times particle; ``ctf_squared`` ``(2, k, 1, n_rings)``; ``weight``
    ``(2, k)`` particles; ``power`` ``(n_rings,)`` summed power of all particles.
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
class References:
    """Class averages as angular orders, ready to be scored against.

    ``orders`` ``(k, n_orders, n_rings)`` filtered to what the halves agree on and masked; ``halves`` ``(2, k, n_orders,
    n_rings)`` unfiltered and masked; ``correlation`` ``(k, n_rings)`` between the halves; ``noise_power`` ``(n_rings,)``.
    ``unmasked`` ``(3, k, n_orders, n_rings)``: the filtered averages and both halves before the mask.
    """

    orders: Polar
    halves: Polar
    correlation: NDArray[np.float64]
    noise_power: Real
    unmasked: Polar


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


def sum_poses_2d(particles: PolarParticles, poses: Poses, *, level: Level, n_classes: int, n_rings: int | None = None) -> Sums:
    """Turn each particle back into the frame of its classes and add it up with the weights of its poses.

    Particles are first added up for each class and each shift, all turns of a particle at once, and the sums are then shifted.
    ``n_rings`` are added up, those of the level when unset; they may be more than those that the poses were found with.
    """
    rings, n_turns = n_rings or level.grid.n_rings, level.grid.n_angles
    n_orders = particles.signal.shape[1]
    grid = PolarGrid(level.grid.box_px, particles.signal.shape[2], 2 * n_orders)
    fine = PolarGrid(grid.box_px, rings, grid.n_angles)
    ramps = np.conj(shift_ramps(level.shifts_yx_px, grid=fine))  # (n_shifts, n_rings, half)
    phases = np.exp((2j * np.pi / n_turns) * np.outer(np.arange(n_turns), np.arange(n_orders))).astype(np.complex64)
    half_set = particles.half_set[poses.particle]
    order = np.lexsort((poses.particle, poses.shift, poses.class_id, half_set))
    group = half_set.astype(np.int64) * n_classes + poses.class_id  # one of 2 k
    starts = np.searchsorted(group[order], np.arange(2 * n_classes + 1))
    signal = np.zeros((2 * n_classes, n_orders, rings), dtype=np.complex64)
    for i in range(2 * n_classes):
        rows = order[starts[i] : starts[i + 1]]
        if len(rows) == 0:
            continue
        shifts, place = np.unique(poses.shift[rows], return_inverse=True)
        by_shift = np.zeros((len(shifts), n_orders, rings), dtype=np.complex64)
        row = (poses.particle[rows], place.astype(np.int64), poses.turn[rows], poses.weight[rows])
        _add_turned(particles.signal, row, phases, by_shift)
        polar = polar_from_orders(by_shift.transpose(0, 2, 1), grid=fine)  # (shifts, n_rings, half)
        whole = (polar * ramps[shifts]).sum(axis=0)  # (n_rings, half)
        signal[i] = angular_orders(whole, n_orders=n_orders).T
    shares = np.zeros((2 * n_classes, len(particles)), dtype=np.float32)
    np.add.at(shares, (group, poses.particle), poses.weight)
    ctf_squared = shares @ particles.ctf_squared[:, :rings]  # (2 k, n_rings)
    return Sums(
        signal.reshape(2, n_classes, n_orders, rings),
        ctf_squared.reshape(2, n_classes, 1, rings),
        shares.sum(axis=1, dtype=np.float64).reshape(2, n_classes),
        particles.power[:, :rings].sum(axis=0, dtype=np.float64),
    )


def orders_of_stored(signal: Polar, ctf_squared: Real) -> tuple[Polar, Real]:
    """Return what `Sums` keep, also of sums that version 1 kept on polar samples, both ``(2, k, n_rings, half)``."""
    if ctf_squared.shape != signal.shape:
        return signal, ctf_squared
    orders = angular_orders(signal, n_orders=signal.shape[-1])  # (2, k, n_rings, n_orders)
    return np.ascontiguousarray(np.swapaxes(orders, -1, -2)), ctf_squared.mean(axis=-1)[:, :, None, :]


def estimate_references_2d(sums: Sums, *, grid: PolarGrid, mask_radius_px: float, edge_px: float, tau_fudge: float) -> References:
    """Divide the sums, with a prior from the agreement of the half sets, and update the noise.

    The prior variance per ring is ``2 FRC / (1 - FRC)`` times the noise of the average (Scheres 2012), times ``tau_fudge``.
    """
    n_orders, n_rings = sums.signal.shape[2:]
    mask = mask_of_orders(grid, mask_radius_px, edge_px)[:n_orders, :n_rings, :n_rings]
    unmasked_halves = np.stack([_divide(sums.signal[h], sums.ctf_squared[h], 0.05) for h in (0, 1)])
    halves = _masked(unmasked_halves, mask)
    correlation = halves_correlation(halves)  # (k, n_rings)
    smooth = smooth_curves(correlation)
    ratio = tau_fudge * 2 * smooth / (1 - smooth)  # signal to noise of the average
    signal, ctf_squared = sums.signal.sum(axis=0), sums.ctf_squared.sum(axis=0)  # (k, n_orders, n_rings), (k, 1, n_rings)
    unmasked = _divide(signal, ctf_squared, (1 / np.maximum(ratio, 1e-4))[:, None, :])
    orders = _masked(unmasked, mask)
    noise_power = _noise_power(sums, signal, ctf_squared, orders, grid)
    return References(orders, halves, correlation, noise_power, np.concatenate([unmasked[None], unmasked_halves]))


def render_averages_2d(references: References, *, grid: PolarGrid, mask_radius_px: float, edge_px: float) -> Averages:
    """Turn references into images."""
    mask = soft_disc_2d(grid.box_px, radius_px=mask_radius_px, edge_px=edge_px)
    fine = PolarGrid(grid.box_px, references.orders.shape[-1], grid.n_angles)
    images = np.stack([_masked_images(part, mask, fine) for part in references.unmasked])  # (3, k, box, box)
    return Averages(images[0], images[1:], references.correlation, references.noise_power)


def smooth_curves(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth curves over three rings and end each where it first falls below 0.143: ``(k, n_rings)`` within 0 and 0.999."""
    padded = np.pad(correlation, ((0, 0), (1, 1)), mode="edge")
    smooth = np.clip((padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3, 0.0, 0.999)
    alive = np.cumprod(smooth > 0.143, axis=1)
    return np.where(alive > 0, smooth, smooth.min(axis=1, keepdims=True) * 0.0)


@lru_cache(maxsize=32)
def mask_of_orders(grid: PolarGrid, radius_px: float, edge_px: float) -> Real:
    """Return what a soft disc does to each angular order, after the mean outside is subtracted: ``(n_orders, n_rings, n_rings)``.

    An image is the Hankel transform of its orders; the disc multiplies it and the way back follows.
    """
    step = 0.5
    radius = np.arange(step / 2, grid.box_px / 2, step)
    inside = 0.5 + 0.5 * np.cos(np.pi * np.clip((radius - radius_px) / edge_px, 0.0, 1.0))
    outside = (1 - inside) * (radius < grid.box_px / 2 - 0.5)
    wave = 2 * np.pi * np.outer(np.arange(1, grid.n_rings + 1), radius) / grid.box_px  # (n_rings, points)
    area = radius * step * (2 * np.pi / grid.box_px) ** 2
    matrices = np.empty((grid.half, grid.n_rings, grid.n_rings), dtype=np.float32)
    for q in range(grid.half):
        bessel = jv(q, wave)
        kept = (bessel * (inside * area)) @ bessel.T
        if q == 0:
            mean = (bessel * (outside * radius)).sum(axis=1) / max((outside * radius).sum(), 1e-9)
            kept -= np.outer((bessel * (inside * area)).sum(axis=1), mean)
        matrices[q] = kept * np.arange(1, grid.n_rings + 1)
    return matrices


def _masked(orders: Polar, mask: Real) -> Polar:
    """Mask ``(..., k, n_orders, n_rings)``."""
    flat = np.moveaxis(orders, -2, 0).reshape(len(mask), -1, mask.shape[-1])  # (n_orders, …, n_rings)
    moved = np.matmul(flat.real, mask.transpose(0, 2, 1)) + 1j * np.matmul(flat.imag, mask.transpose(0, 2, 1))
    whole = moved.reshape(len(mask), *orders.shape[:-2], mask.shape[-1])
    return np.ascontiguousarray(np.moveaxis(whole, 0, -2)).astype(np.complex64)


def _divide(signal: Polar, ctf_squared: Real, prior: NDArray[np.float64] | float) -> Polar:
    """Return ``signal / (ctf_squared * (1 + prior))``, 0 for a class without particles."""
    floor = np.maximum(ctf_squared * (1 + prior), 1e-6)  # (k, 1, n_rings)
    quotient: Polar = (signal / floor).astype(np.complex64)
    return quotient


def _masked_images(orders: Polar, mask: Real, grid: PolarGrid) -> Real:
    """Return images whose background has mean 0, masked: ``(k, box, box)``."""
    images = image_from_polar_2d(polar_from_orders(orders.transpose(0, 2, 1), grid=grid), grid=grid)
    outside = soft_disc_2d(grid.box_px, radius_px=grid.box_px / 2 - 1, edge_px=1.0) * (1 - mask)
    background = (images * outside).sum(axis=(1, 2), keepdims=True) / max(float(outside.sum()), 1.0)
    masked: Real = ((images - background) * mask).astype(np.float32)
    return masked


def halves_correlation(halves: Polar) -> NDArray[np.float64]:
    """Return the ring correlation of two sets of averages ``(2, k, n_orders, n_rings)``: ``(k, n_rings)``."""
    a, b = halves
    twice = np.where(np.arange(a.shape[1]) > 0, 2.0, 1.0)
    cross = np.einsum("q,kqr->kr", twice, np.real(a * np.conj(b)))
    power_a, power_b = (np.einsum("q,kqr->kr", twice, np.square(np.abs(x))) for x in (a, b))
    return correlation_of_sums(cross, power_a, power_b)


def _noise_power(sums: Sums, signal: Polar, ctf_squared: Real, orders: Polar, grid: PolarGrid) -> Real:
    """Return what the averages leave unexplained, ``(n_rings,)``: the exact expectation, from the sums alone."""
    twice = np.where(np.arange(orders.shape[1]) > 0, 2.0, 1.0) / grid.n_angles**2
    explained = 2 * np.real(np.conj(orders) * signal) - ctf_squared * np.square(np.abs(orders))
    per_ring = np.einsum("q,kqr->r", twice, explained.astype(np.float64))
    count = max(float(sums.weight.sum()), 1e-6)
    left = np.maximum(sums.power - per_ring, 0.05 * sums.power) / count
    noise: Real = np.maximum(left, 1e-12).astype(np.float32)
    return noise


@njit(cache=True, fastmath=True)
def _add_turned(
    own: Polar,
    row: tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32], Real],
    phases: Polar,
    by_shift: Polar,
) -> None:
    """Add to ``by_shift`` ``(shifts, n_orders, n_rings)``, which the caller has just made, each particle in all its turns."""
    particle, place, turn, weight = row
    _, n_orders, n_rings = by_shift.shape
    turned = np.empty(n_orders, np.complex64)
    # An image inside the box has angular order q only on rings beyond q / pi.
    n_orders = min(n_orders, int(np.pi * (n_rings + 3)))
    i = 0
    while i < particle.size:
        n, t = particle[i], place[i]
        turned[:] = 0
        while i < particle.size and particle[i] == n and place[i] == t:
            for q in range(n_orders):
                turned[q] += weight[i] * phases[turn[i], q]
            i += 1
        for q in range(n_orders):
            for r in range(max(0, int(q / np.pi) - 3), n_rings):
                by_shift[t, q, r] += turned[q] * own[n, q, r]
