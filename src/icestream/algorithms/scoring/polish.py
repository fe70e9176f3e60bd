"""Moving a committed pose off the grid: Newton's steps in the turn and the shift.

What it finds is for averaging and for reporting. It never feeds back into the search: polished poses sharpen the contrast of
scores and make a classification look converged too early.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.scoring.bank import Level
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.scoring.polar import Polar, PolarGrid, Real, polar_from_orders

_AT_ONCE = 64
_STEPS = 3
_REACH = 2.0
"""Largest way from the grid, in cells of the search."""


@dataclass(frozen=True)
class PolishedPoses:
    """One pose for each image: the turn ``(n,)``, the shift ``(n, 2)`` of the reference before it is turned, and the score.

    ``score`` ``(n,)`` is the log likelihood ratio without the norm of the reference, which no pose changes, and ``gained``
    ``(n,)`` what the polish added to it, never negative.
    """

    psi_rad: NDArray[np.float64]
    shift_yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    gained: NDArray[np.float64]


def polish_poses_2d(
    particles: PolarParticles,
    references: Polar,
    *,
    class_id: NDArray[np.int32],
    psi_rad: NDArray[Any],
    shift_yx_px: NDArray[np.float64],
    grid: PolarGrid,
    level: Level,
    shift_step_px: float,
    noise_power: Real,
    overlap: float,
) -> PolishedPoses:
    """Maximise the score of each image over turn and shift from a pose of the grid on, at most two cells away.

    Parameters
    ----------
    particles
        On the full grid.
    references
        ``(k, n_orders, n_rings)``.
    class_id, psi_rad, shift_yx_px
        ``(n,)``, ``(n,)`` and ``(n, 2)``: the reference and the pose where each image begins.
    grid, level, noise_power, overlap
        As of `make_bank`.
    shift_step_px
        Between neighbouring shifts of the level.
    """
    rings, n_orders = level.grid.n_rings, min(level.grid.half, grid.half)
    scale = level.grid.n_angles / grid.n_angles
    weight = 4 * np.pi * level.grid.radii() * overlap / level.grid.n_angles / noise_power[:rings]  # for half the circle
    used = np.unique(class_id)
    cut = references[used][:, :n_orders, :rings].transpose(0, 2, 1) * np.float32(scale)  # (used, n_rings, n_orders)
    polar = polar_from_orders(cut, grid=level.grid)  # (used, n_rings, half)
    target = (np.conj(polar) * (weight * scale)[:, None]).astype(np.complex64)
    cell = np.array([2 * np.pi / level.grid.n_angles, shift_step_px, shift_step_px])
    start = np.column_stack([psi_rad, shift_yx_px]).astype(np.float64)  # (n, 3)
    parts = []
    for first in range(0, len(particles), _AT_ONCE):
        rows = slice(first, first + _AT_ONCE)
        own = target[np.searchsorted(used, class_id[rows])]
        parts.append(_climb(particles.signal[rows, :n_orders, :rings], own, start[rows], cell, level.grid))
    pose = np.concatenate([part[0] for part in parts]) if parts else start
    score, began = (np.concatenate([part[i] for part in parts]) if parts else np.empty(0) for i in (1, 2))
    return PolishedPoses(pose[:, 0], pose[:, 1:], score, score - began)


def _climb(
    signal: Polar, target: Polar, start: NDArray[np.float64], cell: NDArray[np.float64], grid: PolarGrid
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the best pose found ``(n, 3)``, its score and that of the start ``(n,)``."""
    pose = best = start
    score, slope, curvature = _derivatives(signal, target, pose, grid)
    began = top = score
    for _ in range(_STEPS):
        scaled = curvature * np.outer(cell, cell)
        value, vector = np.linalg.eigh(scaled)  # (n, 3), (n, 3, 3)
        along = np.einsum("nij,ni->nj", vector, slope * cell) / np.maximum(np.abs(value), 1e-9)
        step = np.clip(np.einsum("nij,nj->ni", vector, along), -0.5, 0.5) * cell
        pose = np.clip(pose + step, start - _REACH * cell, start + _REACH * cell)
        score, slope, curvature = _derivatives(signal, target, pose, grid)
        better = score > top
        best, top = np.where(better[:, None], pose, best), np.where(better, score, top)
    return best, top, began


def _derivatives(
    signal: Polar, target: Polar, pose: NDArray[np.float64], grid: PolarGrid
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the score ``(n,)``, its slope ``(n, 3)`` and curvature ``(n, 3, 3)`` with respect to turn and shift.

    A derivative with respect to the turn multiplies order ``q`` by ``i q``, one with respect to the shift each sample by
    ``2 pi i`` times its frequency.
    """
    order = np.arange(signal.shape[1])
    turned = (signal * np.exp(1j * np.outer(pose[:, 0], order))[:, :, None]).transpose(0, 2, 1)  # (n, n_rings, n_orders)
    wave = (2 * np.pi / grid.box_px) * grid.radii()[:, None]  # (n_rings, 1)
    angles = grid.angles_rad()
    frequency = np.stack([(wave * np.sin(angles)).ravel(), (wave * np.cos(angles)).ravel()])  # (2, samples)
    ramp = np.exp(1j * (pose[:, 1:] @ frequency)).astype(np.complex64)  # (n, samples)
    moved = target.reshape(len(signal), -1) * ramp
    y, x = frequency
    products = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x]).astype(np.float32)  # (6, samples)
    sums = []
    for factor in (np.ones(len(order)), 1j * order, -(order**2)):
        some = polar_from_orders((turned * factor).astype(np.complex64), grid=grid).reshape(len(signal), -1) * moved
        sums.append(some.real @ products.T + 1j * (some.imag @ products.T))  # (n, 6)
    flat, once, twice = sums
    slope = np.stack([once[:, 0].real, -flat[:, 1].imag, -flat[:, 2].imag], axis=1)
    across = -once[:, 1:3].imag
    curvature = np.empty((len(signal), 3, 3))
    curvature[:, 0, 0] = twice[:, 0].real
    curvature[:, 0, 1:] = curvature[:, 1:, 0] = across
    curvature[:, 1, 1], curvature[:, 2, 2] = -flat[:, 3].real, -flat[:, 5].real
    curvature[:, 1, 2] = curvature[:, 2, 1] = -flat[:, 4].real
    return flat[:, 0].real.astype(np.float64), slope.astype(np.float64), curvature
