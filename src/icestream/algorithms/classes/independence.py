"""What classifications that know nothing of each other would have in common, and how far two agree beyond that.

The sizes of classes are held as they are and the particles are dealt out at random. Then the number of particles in one class of
each of two classifications is hypergeometric; with a third, what it takes of those is hypergeometric again, and so on. Mutual
information is adjusted for its expectation under the same null (Vinh, Epps & Bailey 2010, J. Machine Learning Research 11, 2837).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import hypergeom

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

_LEFT_OUT = 1e-13
"""Probability of the sizes of an intersection that are left out at either end; it is added to the result."""


def count_together(first: NDArray[Any], second: NDArray[Any]) -> Counts:
    """Count the particles in each class of one and each of another classification, ``(k1, k2)``, classes in rising order.

    Particles that either lacks (a negative class) do not count.
    """
    both = (first >= 0) & (second >= 0)
    ids_1, a = np.unique(first[both], return_inverse=True)
    ids_2, b = np.unique(second[both], return_inverse=True)
    flat = np.bincount(a.reshape(-1) * len(ids_2) + b.reshape(-1), minlength=len(ids_1) * len(ids_2))
    table: Counts = flat.reshape(len(ids_1), len(ids_2)).astype(np.int64)
    return table


def adjusted_mutual_information(table: Counts) -> float:
    """Return how much two classifications say about each other: 1 where they are the same, about 0 where independent.

    It is the mutual information less its expectation by chance, over the mean of both entropies less the same.

    Parameters
    ----------
    table
        ``(k1, k2)``, from `count_together`. With fewer than two particles, or where neither has two classes, it is 0.
    """
    n = int(table.sum())
    rows, columns = (_filled(table.sum(axis=axis)) for axis in (1, 0))
    if n < 2 or (len(rows) < 2 and len(columns) < 2):
        return 0.0
    filled = table[table > 0] / n
    outer = np.outer(table.sum(axis=1), table.sum(axis=0))[table > 0] / n**2
    information = float((filled * np.log(filled / outer)).sum())
    expected = _expected_information(rows, columns, n)
    most = 0.5 * (_entropy(rows / n) + _entropy(columns / n))
    return (information - expected) / (most - expected) if most - expected > 1e-12 else 0.0


def _filled(counts: Counts) -> Counts:
    filled: Counts = counts[counts > 0]
    return filled


def _entropy(shares: Array) -> float:
    return float(-(shares * np.log(shares)).sum())


def _expected_information(rows: Counts, columns: Counts, n: int) -> float:
    """Return the mutual information that chance gives to classes of these sizes, in nats."""
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    total = 0.0
    for a in rows.tolist():
        for b in columns.tolist():
            size = np.arange(max(1, a + b - n), min(a, b) + 1)
            log_probability = (
                log_factorial[a] + log_factorial[b] + log_factorial[n - a] + log_factorial[n - b] - log_factorial[n]
            ) - (log_factorial[size] + log_factorial[a - size] + log_factorial[b - size] + log_factorial[n - a - b + size])
            total += float((size / n * np.log(n * size / (a * b)) * np.exp(log_probability)).sum())
    return total


def chance_of_intersection(size: int, class_sizes: Sequence[int], *, n: int) -> float:
    """Return the probability that chance alone makes an intersection of classes at least this large.

    Parameters
    ----------
    size
        Particles that are in all of the classes.
    class_sizes
        Particles of each class, one class of each of at least two classifications of the same ``n`` particles.

    Raises
    ------
    ValueError
        There is one class, or one has more than ``n`` particles.
    """
    if len(class_sizes) < 2 or max(class_sizes) > n:
        raise ValueError(f"an intersection is of two or more classes of at most {n} particles; got {list(class_sizes)}")
    sizes, mass, left_out = np.array([class_sizes[0]]), np.ones(1), 0.0  # of the intersection so far, and their probability
    for other in class_sizes[1:-1]:
        low = int(hypergeom.ppf(_LEFT_OUT, n, sizes.min(), other))
        high = int(hypergeom.isf(_LEFT_OUT, n, sizes.max(), other))
        further = np.arange(low, high + 1)
        spread = mass @ hypergeom.pmf(further[None], n, sizes[:, None], other)  # (further,)
        kept = np.cumsum(spread) > _LEFT_OUT
        kept &= np.cumsum(spread[::-1])[::-1] > _LEFT_OUT
        left_out += float(mass.sum() - spread[kept].sum())
        sizes, mass = further[kept], spread[kept]
    chance = float(mass @ hypergeom.sf(size - 1, n, sizes, class_sizes[-1]))
    return min(1.0, chance + max(left_out, 0.0))


def correct_for_many(chances: Array) -> Array:
    """Return the probabilities of several tests ``(n,)``, corrected for how many they are (Holm 1979, Scand. J. Stat. 6, 65)."""
    n = len(chances)
    order = np.argsort(chances, kind="stable")
    corrected = np.empty(n)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(chances[order] * (n - np.arange(n)))) if n else chances
    return corrected
