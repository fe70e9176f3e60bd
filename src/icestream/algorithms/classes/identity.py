"""Who is who among classes: ids that survive updates, anneals and new starts.

Two sets of classes of the same particles are matched by an assignment problem (Kuhn 1955, Naval Research Logistics Quarterly 2,
83) on how many members they share and on how much their averages look alike. What is not matched was born or has died; where its
particles came from, or went to, says whether it split off, or was merged into another class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.optimize import linear_sum_assignment

from icestream.algorithms.fourier import crop_fourier_2d, frequency_radius_2d

Counts = NDArray[np.int64]
Likeness = NDArray[np.float64]

LEAST_LIKENESS = 0.3
"""Below this two classes are not the same one."""
_SIZE_PX = 32
_TURNS = 48


@dataclass(frozen=True)
class Change:
    """A class that appeared or disappeared, with the classes that its particles came from or went to, most important first."""

    kind: Literal["born", "split", "merged", "died"]
    class_id: int
    others: tuple[int, ...]
    share: float | None


@dataclass(frozen=True)
class Renamed:
    """New classes under lasting names.

    ``order`` ``(k,)`` is the new class that takes each place, ``ids`` ``(k,)`` the id of the class at each place, ``changes``
    what happened, and ``next_id`` the first id that was never given.
    """

    order: NDArray[np.int64]
    ids: tuple[int, ...]
    changes: tuple[Change, ...]
    next_id: int


def count_shared(old: NDArray[Any], new: NDArray[Any], *, n_old: int, n_new: int) -> Counts:
    """Count the particles in each old and new class: ``(n_old, n_new)``; a negative class of a particle does not count."""
    both = (old >= 0) & (new >= 0)
    flat = np.bincount(old[both].astype(np.int64) * n_new + new[both], minlength=n_old * n_new)
    shared: Counts = flat.reshape(n_old, n_new)
    return shared


def jaccard(shared: Counts) -> Likeness:
    """Return, of each old and new class, the particles in both over the particles in either; 0 where both are empty."""
    either = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    index: Likeness = np.divide(shared, either, out=np.zeros(shared.shape), where=either > 0)
    return index


def correlate_images_2d(old: NDArray[Any], new: NDArray[Any], *, old_frc: NDArray[Any], new_frc: NDArray[Any]) -> Likeness:
    """Return how much averages look alike in the best turn and shift: ``(n_old, n_new)``, 1 where they are the same.

    Parameters
    ----------
    old, new
        ``(n, box, box)``, masked.
    old_frc, new_frc
        ``(n, n_rings)``, Fourier ring correlation of their half sets from ring 1: rings count as far as both are reproducible.
    """
    size = min(_SIZE_PX, 2 * (old.shape[-1] // 2))
    weight_old, weight_new = (_ring_weights(frc, size) for frc in (old_frc, new_frc))  # (n, s, s // 2 + 1)
    small_old, small_new = (crop_fourier_2d(np.asarray(a, np.float32), new_shape=(size, size)) for a in (old, new))
    spectra = _unit(fft.rfft2(small_old) * weight_old)  # (n_old, s, s // 2 + 1)
    best = np.full((len(old), len(new)), -1.0)
    for angle in np.arange(_TURNS) * (360.0 / _TURNS):
        turned = ndimage.rotate(small_new, angle, axes=(1, 2), reshape=False, order=1)  # (n_new, s, s)
        others = np.conj(_unit(fft.rfft2(turned) * weight_new))
        for i, spectrum in enumerate(spectra):
            found = fft.irfft2(spectrum * others, s=(size, size)).max(axis=(1, 2)) * size * size  # (n_new,)
            best[i] = np.maximum(best[i], found)
    likeness: Likeness = np.clip(best, 0.0, 1.0)
    return likeness


def _ring_weights(frc: NDArray[Any], size: int) -> NDArray[np.float32]:
    """Return the square root of the correlation on the pixels of a half transform, 0 at the centre."""
    rings = np.zeros((len(frc), size))
    n = min(frc.shape[1], size - 1)
    rings[:, 1 : n + 1] = np.sqrt(np.clip(frc[:, :n], 0.0, 1.0))
    ring = np.minimum(np.rint(frequency_radius_2d(size, size) * size).astype(np.int64), size - 1)  # (s, s // 2 + 1)
    weights: NDArray[np.float32] = rings[:, ring].astype(np.float32)
    return weights


def _unit(spectra: NDArray[Any]) -> NDArray[np.complex64]:
    """Scale half transforms so that each image has norm 1."""
    size = spectra.shape[1]
    hermitian = np.full(spectra.shape[2], 2.0)
    hermitian[0] = 1.0
    if size % 2 == 0:
        hermitian[-1] = 1.0
    power = (np.abs(spectra) ** 2 * hermitian).sum(axis=(1, 2), keepdims=True)
    unit: NDArray[np.complex64] = (spectra / np.sqrt(np.maximum(power, 1e-30))).astype(np.complex64)
    return unit


def match_classes(shared: Counts, correlation: Likeness, *, least: float = LEAST_LIKENESS) -> NDArray[np.int64]:
    """Return the old class that each new one continues, ``(n_new,)``, or -1.

    The likeness of two classes is half the Jaccard index of their members and half the correlation of their averages; the whole
    assignment is the one with the largest sum.
    """
    likeness = 0.5 * jaccard(shared) + 0.5 * correlation
    rows, columns = linear_sum_assignment(likeness, maximize=True)
    partner = np.full(shared.shape[1], -1, dtype=np.int64)
    good = likeness[rows, columns] >= least
    partner[columns[good]] = rows[good]
    return partner


def rename_classes(
    ids: tuple[int, ...], shared: Counts, correlation: Likeness, *, next_id: int, least: float = LEAST_LIKENESS
) -> Renamed:
    """Give new classes the ids and places of the old ones that they continue; the others get ids that were never used.

    Parameters
    ----------
    ids
        ``(k,)``, of the old classes at their places; as many as there are new ones.
    shared, correlation
        ``(k, k)``, from `count_shared` and `correlate_images_2d`.
    next_id
        The first id that was never given.
    """
    partner = match_classes(shared, correlation, least=least)
    order = np.full(len(ids), -1, dtype=np.int64)
    order[partner[partner >= 0]] = np.flatnonzero(partner >= 0)
    newcomers = np.flatnonzero(partner < 0)
    empty = np.flatnonzero(order < 0)
    order[empty] = newcomers
    named = list(ids)
    for place in empty:
        named[place], next_id = next_id, next_id + 1
    changes = [_describe_newcomer(named[p], shared[:, order[p]], ids, partner) for p in empty]
    changes += [_describe_loss(ids[p], shared[p, order], shared[p].sum(), named) for p in empty]
    return Renamed(order, tuple(named), tuple(changes), next_id)


def carry_counts(
    counts: Sequence[int], ids: tuple[int, ...], renamed: Renamed, shared: Counts, correlation: Likeness
) -> list[int]:
    """Return how many particles that nobody can look at again are in the class at each place, after classes were renamed.

    Those of a class that lives on stay with it. Those of one that is gone are where most of its other members are now, or, if it
    had none, in the class that looks most like it. A new class has none of its own.

    Parameters
    ----------
    counts, ids
        ``(k,)``, of the old classes at their places.
    """
    carried = [0] * len(ids)
    for place, count in enumerate(counts):
        lives = renamed.ids[place] == ids[place]
        near = shared[place] if shared[place].any() else correlation[place]
        carried[place if lives else int(np.argmax(near[renamed.order]))] += count
    return carried


def _describe_newcomer(class_id: int, origin: Counts, ids: tuple[int, ...], partner: NDArray[np.int64]) -> Change:
    """Say where the particles of a new class were before: in a class that lives on (a split), or somewhere else."""
    sources = [int(i) for i in np.argsort(-origin, kind="stable")[:2] if origin[i] > 0]
    if not sources:
        return Change("born", class_id, (), None)
    kind: Literal["split", "born"] = "split" if sources[0] in partner else "born"
    return Change(kind, class_id, tuple(ids[i] for i in sources), float(origin[sources[0]] / origin.sum()))


def _describe_loss(class_id: int, goals: Counts, total: int, named: list[int]) -> Change:
    """Say where the particles of a class that is gone are now: most of them in one class (a merger), or scattered."""
    if not total:
        return Change("died", class_id, (), None)
    first = [int(p) for p in np.argsort(-goals, kind="stable")[:2] if goals[p] > 0]
    share = float(goals[first[0]] / total)
    return Change("merged" if share > 0.5 else "died", class_id, tuple(named[p] for p in first), share)
