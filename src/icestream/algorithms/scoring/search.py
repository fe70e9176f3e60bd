"""The search everywhere: how likely each image shows each reference at each turn and shift.

Three products of matrices: images onto the basis of each angular order, coefficients against those of the shifted references,
and orders into turns. A turn and the one half a circle away share the last: even orders agree there, odd orders change sign.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.namespaces import Array, to_numpy
from icestream.algorithms.scoring.bank import Bank
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.scoring.polar import Real

NEGLIGIBLE_LOG = 7.0
"""Poses less likely than the best by this factor (as a logarithm) count as impossible."""
MOST_POSES = 400
NOWHERE = np.float32(-1e30)
"""The gain of a reference that an image was not compared with."""
_BYTES_AT_ONCE = 6e6


@dataclass(frozen=True)
class Poses:
    """Significant poses of a run of images; row ``i`` of the list belongs to ``particle[i]``, in rising order.

    ``class_id`` (the reference), ``turn`` (steps of the level's grid) and ``shift`` (row of the level's table) with their
    ``weight``, which sums to 1 over each image. ``gain`` ``(n,)`` is the log likelihood ratio of the best pose against noise
    alone, priors included, ``class_gain`` ``(n, k)`` that of the best pose of each reference.
    """

    particle: NDArray[np.int32]
    class_id: NDArray[np.int32]
    turn: NDArray[np.int32]
    shift: NDArray[np.int32]
    weight: Real
    gain: Real
    class_gain: Real

    def best(self) -> NDArray[np.int64]:
        """Return the row of the most likely pose of each image."""
        order = np.lexsort((-self.weight, self.particle))
        rows: NDArray[np.int64] = order[np.searchsorted(self.particle[order], np.arange(len(self.gain)))]
        return rows


def search_poses_2d(
    particles: PolarParticles,
    bank: Bank,
    *,
    log_prior: Real | None = None,
    negligible: float = NEGLIGIBLE_LOG,
    most: int = MOST_POSES,
) -> Poses:
    """Return the significant poses of each image among all references, turns and shifts of a bank.

    Parameters
    ----------
    particles
        On the full grid.
    bank
        The references.
    log_prior
        ``(k,)`` or ``(n, k)``, of each reference; flat when unset.
    negligible, most
        Poses less likely than the best by more than ``negligible`` (a logarithm) are left out, and if there are more than
        ``most`` for an image, the least likely of them.
    """
    columns = bank.n_references * bank.n_shifts
    at_once = int(np.clip(_BYTES_AT_ONCE / (8 * len(bank.basis) * columns), 1, 64))
    parts: list[tuple[NDArray[np.int32], Real, Real]] = []
    for start in range(0, len(particles), at_once):
        rows = slice(start, start + at_once)
        prior = None if log_prior is None else log_prior if log_prior.ndim == 1 else log_prior[rows]
        even, odd = score_turns(particles.take(np.arange(len(particles))[rows]), bank, log_prior=prior)
        found, weights, class_gain = pick_significant(even, odd, bank.n_shifts, negligible, most)
        found[:, 0] += start
        parts.append((found, weights, class_gain))
    return join_poses(parts, bank.n_references)


def search_halves_2d(
    particles: PolarParticles, banks: tuple[Bank, Bank], search: Callable[[PolarParticles, Bank], Poses]
) -> tuple[Poses, Poses]:
    """Search each half set against references of its own, so that the halves share nothing but the grid.

    The particles of the poses are numbered within their half.
    """
    first, second = (search(particles.take(particles.half_set == half), banks[half]) for half in (0, 1))
    return first, second


def join_poses(parts: list[tuple[NDArray[np.int32], Real, Real]], n_references: int) -> Poses:
    """Return one list from tables of (particle, reference, turn, shift), weights and gains of each reference."""
    table = np.concatenate([part[0] for part in parts]) if parts else np.empty((0, 4), np.int32)
    weights = np.concatenate([part[1] for part in parts]) if parts else np.empty(0, np.float32)
    class_gain = np.concatenate([part[2] for part in parts]) if parts else np.empty((0, n_references), np.float32)
    return Poses(table[:, 0], table[:, 1], table[:, 2], table[:, 3], weights, class_gain.max(axis=1), class_gain)


def score_turns(particles: PolarParticles, bank: Bank, *, log_prior: Real | None = None) -> tuple[Array, Array]:
    """Return what even and odd angular orders give to the log likelihood ratio: each ``(half, n, k * n_shifts)``.

    Their sum is the score, priors included, of the first half of the turns, their difference that of the second half.
    """
    place, xp, n, half = bank.place, bank.place.xp, len(particles), bank.level.grid.half
    n_columns = bank.n_references * bank.n_shifts
    signal = place.put(particles.signal)
    ctf_squared = place.put(particles.ctf_squared[:, : bank.level.grid.n_rings])
    parts = []
    for parity in (0, 1):
        orders = range(parity, len(bank.basis), 2)
        planes = _room(bank, (len(orders), 2 * n, n_columns))
        for i, q in enumerate(orders):
            pairs = coefficient_pairs(signal, bank, q)  # (2 n, 2 h)
            _multiply(pairs, xp.reshape(bank.columns[q], (-1, n_columns)), planes[i, ...], bank)
        if parity == 0:
            own = place.put(_prior(bank, n, log_prior))  # (n, k, n_shifts)
            offset = own - xp.matmul(ctf_squared, bank.energy)[:, :, None]
            planes[0, :n, :] += xp.reshape(offset, (n, n_columns))
        turns = place.put(_turn_table(half, orders))  # (half, 2 * len(orders))
        product = _room(bank, (half, n * n_columns))
        _multiply(turns, xp.reshape(planes, (2 * len(orders), -1)), product, bank)
        parts.append(xp.reshape(product, (half, n, n_columns)))
    return parts[0], parts[1]


def coefficient_pairs(signal: Array, bank: Bank, q: int) -> Array:
    """Return the coefficients of images at one order, laid out so that they give the real, then the imaginary part of a product.

    Rows ``0 … n`` are (real, imaginary), rows ``n … 2 n`` (imaginary, -real): ``(2 n, 2 h)``.
    """
    xp = bank.place.xp
    some = signal[:, q, : bank.level.grid.n_rings]  # (n, n_rings)
    real, imaginary = xp.matmul(xp.real(some), bank.basis[q]), xp.matmul(xp.imag(some), bank.basis[q])  # (n, h)
    return xp.concat([xp.concat([real, imaginary], axis=1), xp.concat([imaginary, -real], axis=1)])


def _multiply(a: Array, b: Array, out: Array, bank: Bank) -> None:
    """Write a product of matrices into ``out``, without a copy where the library can."""
    if bank.place.on_cores:
        np.matmul(a, b, out=out)
    else:
        out[...] = bank.place.xp.matmul(a, b)


def _room(bank: Bank, shape: tuple[int, ...]) -> Array:
    """Return an array to be overwritten."""
    return np.empty(shape, np.float32) if bank.place.on_cores else bank.place.zeros(shape, "float32")


def _prior(bank: Bank, n: int, log_prior: Real | None) -> Real:
    prior = np.zeros((n, bank.n_references, bank.n_shifts), dtype=np.float32) + bank.level.log_prior
    return prior if log_prior is None else (prior + log_prior[..., None]).astype(np.float32)


@lru_cache(maxsize=64)
def _turn_table(half: int, orders: range) -> Real:
    """Return what takes orders, real parts then imaginary parts of each, to the first ``half`` turns: ``(half, 2 * orders)``."""
    phase = (np.pi / half) * np.outer(np.arange(half), np.array(orders))  # (half, orders)
    table = np.stack([np.cos(phase), -np.sin(phase)], axis=-1)  # (half, orders, 2)
    return table.reshape(half, -1).astype(np.float32)


def pick_significant(
    even: Array, odd: Array, n_shifts: int, negligible: float, most: int
) -> tuple[NDArray[np.int32], Real, Real]:
    """Return rows (particle, reference, turn, shift) and weights of the poses that matter, and the best of each reference.

    Parameters
    ----------
    even, odd
        ``(half, n, k * n_shifts)``, as of `score_turns`.
    n_shifts, negligible, most
        As in `search_poses_2d`.
    """
    if isinstance(even, np.ndarray):
        return _pick(even, odd, n_shifts, negligible, most)
    return _pick_elsewhere(even, odd, n_shifts, negligible, most)


@njit(cache=True, fastmath=True)
def _best_of_rows(even: Real, odd: Real, n_shifts: int, gains: Real, tops: Real) -> None:
    """Fill the best of each reference ``gains`` ``(n, k)`` and of each turn ``tops`` ``(n, half)``, made by the caller."""
    half, n, n_columns = even.shape
    for b in range(n):
        best = np.full(n_columns, NOWHERE, np.float32)
        for g in range(half):
            top = NOWHERE
            for c in range(n_columns):
                value = even[g, b, c] + abs(odd[g, b, c])
                best[c] = max(best[c], value)
                top = max(top, value)
            tops[b, g] = top
        for c in range(n_columns):
            gains[b, c // n_shifts] = max(gains[b, c // n_shifts], best[c])


@njit(cache=True)
def _pick(even: Real, odd: Real, n_shifts: int, negligible: float, most: int) -> tuple[NDArray[np.int32], Real, Real]:
    half, n, n_columns = even.shape
    gains = np.full((n, n_columns // n_shifts), NOWHERE, np.float32)
    tops = np.empty((n, half), np.float32)
    _best_of_rows(even, odd, n_shifts, gains, tops)
    table = np.empty((n * most, 4), np.int32)
    weights = np.empty(n * most, np.float32)
    filled = 0
    for b in range(n):
        best = tops[b].max()
        counts = np.zeros(57, np.int64)
        for depth_known in (False, True):
            floor = best - (_depth_within(counts, most, negligible) if depth_known else negligible)
            begin = filled
            for g in range(half):
                if tops[b, g] <= floor:
                    continue
                for c in range(n_columns):
                    for sign in (1, -1):
                        value = even[g, b, c] + sign * odd[g, b, c]
                        if value <= floor:
                            continue
                        if not depth_known:
                            counts[int((best - value) * 56.0 / negligible)] += 1
                        elif filled < begin + most:
                            turn = g if sign > 0 else g + half
                            table[filled, 0], table[filled, 1], table[filled, 2] = b, c // n_shifts, turn
                            table[filled, 3], weights[filled] = c % n_shifts, np.exp(value - best)
                            filled += 1
            if depth_known:
                weights[begin:filled] /= weights[begin:filled].sum()
    return table[:filled].copy(), weights[:filled].copy(), gains


@njit(cache=True)
def _depth_within(counts: NDArray[np.int64], most: int, negligible: float) -> float:
    """Return how far below the best to go so that at most ``most`` poses are taken."""
    total = 0
    for i in range(counts.size):
        total += counts[i]
        if total > most:
            return max(i, 1) * negligible / (counts.size - 1)
    return negligible


def _pick_elsewhere(even: Array, odd: Array, n_shifts: int, negligible: float, most: int) -> tuple[NDArray[np.int32], Real, Real]:
    """Do what `_pick` does in words of the array standard; only what matters comes to the host."""
    xp = even.__array_namespace__()
    half, n, n_columns = even.shape
    scores = xp.permute_dims(xp.concat([even + odd, even - odd]), (1, 0, 2))  # (n, 2 half, k * n_shifts)
    gains = xp.max(xp.reshape(scores, (n, 2 * half, -1, n_shifts)), axis=(1, 3))  # (n, k)
    best = xp.max(gains, axis=1)  # (n,)
    where = xp.nonzero(scores > best[:, None, None] - negligible)
    chosen = xp.reshape(scores, (-1,))[(where[0] * (2 * half) + where[1]) * n_columns + where[2]]
    below = to_numpy(chosen) - to_numpy(best)[to_numpy(where[0])]
    row, turn, column = (to_numpy(index) for index in where)
    kept = np.ones(len(row), dtype=bool)
    for b in np.flatnonzero(np.bincount(row, minlength=n) > most):
        own = np.flatnonzero(row == b)
        kept[own[np.argsort(-below[own], kind="stable")[most:]]] = False
    row, turn, column, below = row[kept], turn[kept], column[kept], below[kept]
    weights = np.exp(below)
    weights /= np.bincount(row, weights=weights, minlength=n)[row]
    table = np.stack([row, column // n_shifts, turn, column % n_shifts], axis=1).astype(np.int32)
    return table, weights.astype(np.float32), to_numpy(gains)
