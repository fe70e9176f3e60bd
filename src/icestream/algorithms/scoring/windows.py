"""The search of lists: each image looks only at the references, turns and shifts that it is told to.

This is local search about known poses, and the second half of a search from coarse to fine (`cascade`).
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.namespaces import to_numpy
from icestream.algorithms.scoring.bank import Bank
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.scoring.polar import Polar, Real
from icestream.algorithms.scoring.search import MOST_POSES, NEGLIGIBLE_LOG, NOWHERE, Poses, join_poses

_PARTICLES_AT_ONCE = 64


@dataclass(frozen=True)
class PoseWindows:
    """Where each image is to look: a list of windows, each of one reference, some neighbouring turns, and a group of shifts.

    Row ``i`` belongs to ``particle[i]`` (rising) and covers ``n_turns[i]`` turns of ``reference[i]`` from ``first_turn[i]`` on,
    around the circle, and the shifts of ``group[i]``; ``log_prior[i]`` counts for all of it. Group ``g`` is
    ``shifts[group_starts[g] : group_starts[g + 1]]``, rows of the level's table. Windows of one image must not overlap.
    """

    particle: NDArray[np.int32]
    reference: NDArray[np.int32]
    first_turn: NDArray[np.int32]
    n_turns: NDArray[np.int32]
    group: NDArray[np.int32]
    log_prior: Real
    group_starts: NDArray[np.int32]
    shifts: NDArray[np.int32]


def group_shifts(groups: list[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return ``group_starts`` and ``shifts`` of `PoseWindows` from the shifts of each group."""
    return np.cumsum([0, *map(len, groups)], dtype=np.int32), np.concatenate(groups).astype(np.int32)


def search_windows_2d(
    particles: PolarParticles, bank: Bank, windows: PoseWindows, *, negligible: float = NEGLIGIBLE_LOG, most: int = MOST_POSES
) -> Poses:
    """Return the significant poses of each image within its windows; other parameters as of `search_poses_2d`.

    Raises
    ------
    ValueError
        If an image has no window.
    """
    starts = np.searchsorted(windows.particle, np.arange(len(particles) + 1))
    if np.any(starts[1:] == starts[:-1]):
        raise ValueError(f"image {int(np.flatnonzero(starts[1:] == starts[:-1])[0])} has no window to be searched in")
    energy = to_numpy(bank.energy)
    row = (windows.reference, windows.first_turn, windows.n_turns, windows.group, windows.log_prior)
    phases = np.exp(
        (1j * np.pi / bank.level.grid.half) * np.outer(np.arange(bank.level.grid.n_angles), np.arange(len(bank.basis)))
    )
    parts = []
    for first in range(0, len(particles), _PARTICLES_AT_ONCE):
        some = slice(first, first + _PARTICLES_AT_ONCE)
        norm = particles.ctf_squared[some, : len(energy)] @ energy  # (b, k)
        coefficients = project_on_bank(particles.signal[some], bank)  # (b, h of all orders)
        own = starts[first : first + len(norm) + 1]
        sizes = (windows.n_turns * np.diff(windows.group_starts)[windows.group])[own[0] : own[-1]].astype(np.int64)
        scores = np.empty(int(sizes.sum()), np.float32)
        place = np.empty((len(scores), 4), np.int32)
        groups = (windows.group_starts, windows.shifts, bank.level.log_prior)
        _score(coefficients, bank.rows, bank.starts, phases.astype(np.complex64), norm, own, row, groups, scores, place)
        found, weights, gains = _pick(scores, place, norm.shape, negligible, most)
        found[:, 0] += first
        parts.append((found, weights, gains))
    return join_poses(parts, bank.n_references)


def project_on_bank(signal: Polar, bank: Bank) -> Polar:
    """Return the coefficients of images in the basis of a bank: ``(n, h of all orders)``."""
    rings = bank.level.grid.n_rings
    parts = [signal[:, q, :rings] @ to_numpy(basis).astype(np.complex64) for q, basis in enumerate(bank.basis)]
    return np.concatenate(parts, axis=1)


@njit(cache=True, fastmath=True)
def _score(  # noqa: PLR0917 - numba wants positions
    coefficients: Polar,
    bank_rows: Polar,
    order_starts: NDArray[np.int64],
    phases: Polar,
    norm: Real,
    own: NDArray[np.int64],
    row: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], Real],
    groups: tuple[NDArray[np.int32], NDArray[np.int32], Real],
    scores: Real,
    place: NDArray[np.int32],
) -> None:
    """Fill ``scores`` and their (particle, reference, turn, shift), both made by the caller."""
    reference, first_turn, n_turns, group, log_prior = row
    group_starts, shifts, shift_prior = groups
    n_angles, n_orders = phases.shape
    n_shifts = shift_prior.size
    product = np.empty(n_orders, np.complex64)
    at = 0
    for b in range(own.size - 1):
        for i in range(own[b], own[b + 1]):
            k = reference[i]
            for s in range(group_starts[group[i]], group_starts[group[i] + 1]):
                t = shifts[s]
                for q in range(n_orders):
                    total = np.complex64(0)
                    for h in range(order_starts[q], order_starts[q + 1]):
                        total += coefficients[b, h] * bank_rows[k * n_shifts + t, h]
                    product[q] = total
                offset = log_prior[i] + shift_prior[t] - norm[b, k]
                for j in range(n_turns[i]):
                    turn = (first_turn[i] + j) % n_angles
                    value = np.float32(0)
                    for q in range(n_orders):
                        value += product[q].real * phases[turn, q].real - product[q].imag * phases[turn, q].imag
                    scores[at] = value + offset
                    place[at, 0], place[at, 1], place[at, 2], place[at, 3] = b, k, turn, t
                    at += 1


@njit(cache=True)
def _pick(
    scores: Real, place: NDArray[np.int32], shape: tuple[int, int], negligible: float, most: int
) -> tuple[NDArray[np.int32], Real, Real]:
    """Return rows and weights of the poses that matter, and the best of each reference ``(n, k)``."""
    gains = np.full(shape, NOWHERE, np.float32)
    for i in range(scores.size):
        b, k = place[i, 0], place[i, 1]
        gains[b, k] = max(gains[b, k], scores[i])
    kept = np.zeros(scores.size, np.bool_)
    weights = np.empty(scores.size, np.float32)
    end = 0
    for b in range(shape[0]):
        begin = end
        while end < scores.size and place[end, 0] == b:
            end += 1
        best = gains[b].max()
        floor = best - negligible
        count = (scores[begin:end] > floor).sum()
        if count > most:
            floor = np.sort(scores[begin:end])[end - begin - most - 1]
        total = np.float32(0)
        for i in range(begin, end):
            if scores[i] > floor:
                kept[i] = True
                weights[i] = np.exp(scores[i] - best)
                total += weights[i]
        weights[begin:end] /= total
    return place[kept], weights[kept], gains
