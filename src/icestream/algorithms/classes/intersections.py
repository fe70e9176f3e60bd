"""The consensus of classes as Scipion makes it: intersections of classes, merged step by step, stopped at an elbow.

The rule is that of the protocol "consensus classes" of scipion-em-xmipp (Xmipp; de la Rosa-Trevín et al. 2013, J. Struct. Biol.
184, 321). Every intersection of one class of each classification is described by its Jaccard indices with all input classes; the
two nearest are merged until one is left; four rules find the number at which the distances begin to grow. Its "p-value" of a size
is one less the percentile among the sizes that all combinations of classes are expected to have if they are independent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import norm

Array = NDArray[np.float64]
Metric = Literal["cosine", "euclidean", "cityblock", "correlation"]
Elbow = Literal["profile_likelihood", "origin", "distance_line", "slope"]


@dataclass(frozen=True)
class Intersections:
    """Non-empty intersections of one class of each classification, in the order of their classes.

    Attributes
    ----------
    classes, counts
        ``(m, runs)`` and ``(m,)``, the classes and the particles of each intersection.
    of_particle
        ``(n,)``, the intersection that each particle is in; -1 where a classification lacks it, or where it was too small.
    runs
        For each classification its classes and their particles.
    """

    classes: NDArray[np.int64]
    counts: NDArray[np.int64]
    of_particle: NDArray[np.int64]
    runs: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]


def intersect_classes(classes: NDArray[Any], *, least_size: int = 0) -> Intersections:
    """Find the intersections of classes that have at least ``least_size`` particles.

    ``classes`` ``(n, runs)`` is the class of each particle in each classification; negative where it has none.
    """
    known = (classes >= 0).all(axis=1)
    rows, index, counts = np.unique(classes[known], axis=0, return_inverse=True, return_counts=True)
    large = counts >= least_size
    number = np.where(large, np.cumsum(large) - 1, -1)
    of_particle = np.full(len(classes), -1, dtype=np.int64)
    of_particle[known] = number[np.asarray(index).reshape(-1)]
    runs = tuple(_sizes(classes[:, run]) for run in range(classes.shape[1]))
    return Intersections(rows[large].astype(np.int64), counts[large].astype(np.int64), of_particle, runs)


def _sizes(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids, counts = np.unique(labels[labels >= 0], return_counts=True)
    return ids.astype(np.int64), counts.astype(np.int64)


def size_percentiles(found: Intersections, members: NDArray[np.int64]) -> tuple[Array, Array]:
    """Return one less the percentile of the size of each group, and of its share of the class that it is most like: ``(g,)``.

    ``members`` ``(m,)`` is the group of each intersection. The percentiles are among the expected sizes of all combinations of
    classes, and among those over the size of the smallest class of each.
    """
    shares = [counts / counts.sum() for _, counts in found.runs]
    combinations = np.array(list(product(*shares)))  # (combinations, runs)
    expected = np.sort(combinations.prod(axis=1))
    relative = np.sort(combinations.prod(axis=1) / combinations.min(axis=1))
    sizes = np.bincount(members, found.counts)  # (g,)
    alike, class_sizes = _likeness(found, members)
    share = sizes / class_sizes[alike.argmax(axis=1)]
    of_size = np.searchsorted(expected * found.runs[0][1].sum(), sizes) / len(expected)
    return 1.0 - of_size, 1.0 - np.searchsorted(relative, share) / len(relative)


def most_similar_class(found: Intersections, members: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return, of each group, the classification and the class with the largest Jaccard index."""
    places = [(run, int(class_id)) for run, (ids, _) in enumerate(found.runs) for class_id in ids]
    return [places[int(place)] for place in _likeness(found, members)[0].argmax(axis=1)]


def _likeness(found: Intersections, members: NDArray[np.int64]) -> tuple[Array, NDArray[np.int64]]:
    """Return the Jaccard index of each group with every class of every run ``(g, classes)``, and the sizes of these classes."""
    sizes = np.bincount(members, found.counts)  # (g,)
    shared = []
    for run, (ids, _) in enumerate(found.runs):
        table = np.zeros((len(sizes), len(ids)))
        np.add.at(table, (members, np.searchsorted(ids, found.classes[:, run])), found.counts)
        shared.append(table)
    both = np.concatenate(shared, axis=1)
    class_sizes = np.concatenate([counts for _, counts in found.runs])
    return both / (sizes[:, None] + class_sizes[None] - both), class_sizes


def merge_intersections(found: Intersections, *, metric: Metric) -> tuple[NDArray[np.int64], Array]:
    """Merge the two nearest groups until one is left.

    Returns
    -------
    pairs, distance
        ``(m - 1, 2)`` and ``(m - 1,)``: what was merged, and how far apart it was. Intersection i is number i; what the first
        step made is number m, the second m + 1, and so on. Of equal distances the first in the order of the groups counts; a
        group that was made is last.
    """
    m = len(found.counts)
    vectors = list(_likeness(found, np.arange(m))[0])
    members = [[i] for i in range(m)]
    numbers = list(range(m))
    pairs, distances = np.zeros((max(m - 1, 0), 2), dtype=np.int64), np.zeros(max(m - 1, 0))
    for step in range(m - 1):
        apart = np.nan_to_num(squareform(pdist(np.stack(vectors), metric=metric)), nan=np.inf)  # (g, g)
        apart[np.tril_indices(len(vectors))] = np.inf
        first, second = (int(i) for i in np.unravel_index(np.argmin(apart), apart.shape))
        pairs[step], distances[step] = (numbers[second], numbers[first]), apart[first, second]
        both = members[first] + members[second]
        group = np.zeros(m, dtype=np.int64)
        group[both] = 1
        for place in (second, first):
            del vectors[place], members[place], numbers[place]
        vectors.append(_likeness(found, group)[0][1])
        members.append(both)
        numbers.append(m + step)
    return pairs, distances


def cut_merging(pairs: NDArray[np.int64], n_groups: int) -> NDArray[np.int64]:
    """Return the group of each intersection ``(m,)`` when ``n_groups`` are left, in the order of intersections."""
    m = len(pairs) + 1
    group = {i: [i] for i in range(m)}
    for step, (one, other) in enumerate(pairs[: max(m - n_groups, 0)].tolist()):
        group[m + step] = group.pop(one) + group.pop(other)
    members = np.zeros(m, dtype=np.int64)
    for number, places in enumerate(sorted(group.values(), key=min)):
        members[places] = number
    return members


def find_elbow(distance: Array, *, rule: Elbow) -> int:
    """Return how many groups are left where merging begins to cost: ``distance`` ``(m - 1,)``, of each step.

    Four rules: where two normal distributions, before and after, are most likely (`profile_likelihood`); the point nearest to the
    origin, with both axes from 0 to 1 (`origin`); the point farthest from the chord (`distance_line`); where the slope is nearest
    to that of the chord (`slope`). Two departures: two intersections are not merged into one, and equal distances, which have no
    elbow, merge by half.
    """
    n = len(distance)
    if n < 2:
        return n + 1
    if float(np.ptp(distance)) == 0.0:
        return n - n // 2
    return n - _ELBOWS[rule](distance)


def _profile_likelihood(distance: Array) -> int:
    if len(distance) <= 4:
        return len(distance) // 2

    def log_likelihood(at: int) -> float:
        parts = (distance[:at], distance[at:])
        spreads = [max(float(part.std(ddof=1)), 1e-12) for part in parts]
        return float(sum(norm.logpdf(part, part.mean(), spread).sum() for part, spread in zip(parts, spreads, strict=True)))

    return max(range(2, len(distance) - 1), key=log_likelihood)


def _nearest_to_origin(distance: Array) -> int:
    height = (distance - distance.min()) / np.ptp(distance)
    return int((np.linspace(1.0, 0.0, len(distance)) ** 2 + height**2).argmin())


def _farthest_from_chord(distance: Array) -> int:
    chord = np.linspace(0.0, distance[-1] - distance[0], len(distance))
    return int(np.abs(distance - distance[0] - chord).argmax())


def _slope_of_chord(distance: Array) -> int:
    slope = (distance[-1] - distance[0]) / (len(distance) - 1)
    return int(np.abs(np.diff(distance) - slope).argmin()) + 1


_ELBOWS: dict[str, Callable[[Array], int]] = {
    "profile_likelihood": _profile_likelihood,
    "origin": _nearest_to_origin,
    "distance_line": _farthest_from_chord,
    "slope": _slope_of_chord,
}
