"""Optics groups by beam shift: exposures that were taken with nearly the same shift share the beam tilt that it brings."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

_CELLS = 256
"""Shifts are told apart to this part of their extent."""

_MOST_CELLS = 1500
_LEAST_RATIO = 2.0
"""By what a step between groups is longer than the longest within one, at least."""

_LEAST_MEMBERS = 2
"""Of a group, in the mean: fewer exposures do not tell groups from chance."""

_JITTER = 1 / 512


def group_beam_shifts_2d(shifts_yx: NDArray[Any]) -> NDArray[np.int64]:
    """Return the group of each beam shift ``(n, 2)``: ``(n,)``, numbered from 0 in the order in which groups first occur.

    Groups are what is left of the minimum spanning tree of the shifts when its longest edges are cut: at the edge that is longest
    against the next shorter one, if that is by 2 or more, and if groups have two members or more in the mean. Shifts that are
    spread evenly are one group; the unit of the shifts does not matter. What is not a number is a group of its own.
    """
    shifts = np.asarray(shifts_yx, dtype=np.float64)
    labels = np.full(len(shifts), -1, dtype=np.int64)
    known = np.isfinite(shifts).all(axis=1)
    if known.any():
        labels[known] = _group(shifts[known])
    return _by_first(labels)


def _group(shifts: NDArray[np.float64]) -> NDArray[np.int64]:
    extent = float(np.ptp(shifts, axis=0).max())
    if extent == 0:
        return np.zeros(len(shifts), dtype=np.int64)
    cells, cell_of = np.unique(np.rint((shifts - shifts.min(axis=0)) / extent * _CELLS), axis=0, return_inverse=True)  # (m, 2)
    if not 1 < len(cells) <= _MOST_CELLS:
        return np.zeros(len(shifts), dtype=np.int64)
    distances = squareform(pdist(cells / _CELLS))  # (m, m)
    tree = minimum_spanning_tree(distances)
    edges = np.sort(tree.data)
    steps = np.maximum(np.concatenate([[0.0], edges]), _JITTER)  # (m,): exposures in one cell are that near
    ratios = steps[1:] / steps[:-1]  # (m - 1,): of a cut below each edge
    first = max(0, len(edges) - (len(shifts) // _LEAST_MEMBERS - 1))
    if first >= len(edges) or ratios[first:].max() < _LEAST_RATIO:
        return np.zeros(len(shifts), dtype=np.int64)
    tree.data[tree.data >= edges[first + int(ratios[first:].argmax())]] = 0
    tree.eliminate_zeros()
    _, groups = connected_components(tree, directed=False)
    return np.asarray(groups, dtype=np.int64)[cell_of.reshape(-1)]


def _by_first(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    if not len(labels):
        return labels
    kinds, first, places = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[places.reshape(-1)].astype(np.int64) if len(kinds) else labels
