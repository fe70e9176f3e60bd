"""What several classifications of the same particles agree on.

Classes are compared by their members. A set of particles that every classification keeps in one class, and that makes up most of
that class in each, does not depend on how a classification happened to start: it is stable, in the sense of Yang, Fang,
Chittuluru, Asturias & Penczek (2012), Structure 20, 237.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Agreement:
    """Stable sets, largest first, and how each particle fared.

    ``set_of`` ``(n,)`` is the stable set of each particle or -1; ``agreement`` ``(n,)`` the share that its group (the particles
    that all classifications keep with it) has of its class, mean over the classifications; ``classes`` ``(sets, runs)`` the class
    of each set in each classification; ``rand_index`` the adjusted Rand index, mean over pairs of classifications.
    """

    set_of: NDArray[np.int32]
    agreement: NDArray[np.float32]
    classes: NDArray[np.int64]
    rand_index: float


def agree_on_classes(classes: NDArray[Any], *, least_share: float, least_size: int) -> Agreement:
    """Find the sets of particles that all classifications keep together.

    Parameters
    ----------
    classes
        ``(n, runs)``, the class of each particle in each of at least two classifications; negative where it has none.
    least_share
        A group is stable if it makes up at least this share of its class, mean over the classifications.
    least_size
        A group is stable if it has at least this many particles.
    """
    n_runs = classes.shape[1]
    if n_runs < 2:
        raise ValueError(f"an agreement is between at least two classifications; got {n_runs}")
    known = (classes >= 0).all(axis=1)
    groups, index, counts = np.unique(classes[known], axis=0, return_inverse=True, return_counts=True)
    sizes = [dict(zip(*np.unique(classes[known, run], return_counts=True), strict=True)) for run in range(n_runs)]
    share = np.array(
        [np.mean([count / sizes[r][c] for r, c in enumerate(row)]) for row, count in zip(groups, counts, strict=True)]
    )
    stable = np.flatnonzero((share >= least_share) & (counts >= least_size)) if len(groups) else np.empty(0, np.int64)
    stable = stable[np.argsort(-counts[stable], kind="stable")]
    number = np.full(len(groups), -1, dtype=np.int32)
    number[stable] = np.arange(len(stable))
    set_of, agreement = np.full(len(classes), -1, np.int32), np.zeros(len(classes), np.float32)
    flat = np.asarray(index).reshape(-1)
    if len(groups):
        set_of[known], agreement[known] = number[flat], share[flat]
    pairs = [rand_index(classes[known, a], classes[known, b]) for a, b in combinations(range(n_runs), 2)]
    return Agreement(set_of, agreement, groups[stable].astype(np.int64), float(np.mean(pairs)))


def rand_index(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Return the adjusted Rand index of two classifications: 1 where they are the same, about 0 where they are independent.

    Hubert & Arabie (1985), J. Classification 2, 193. It is 0 for fewer than two particles.
    """
    n = len(first)
    if n < 2:
        return 0.0
    a, b = (np.unique(labels, return_inverse=True)[1].reshape(-1) for labels in (first, second))
    table = np.bincount(a * (b.max() + 1) + b).astype(np.float64)
    together, of_first, of_second = (float((x * (x - 1) / 2).sum()) for x in (table, np.bincount(a) * 1.0, np.bincount(b) * 1.0))
    expected = of_first * of_second / (n * (n - 1) / 2)
    most = (of_first + of_second) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)
