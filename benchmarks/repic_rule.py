"""REPIC's consensus rule, exactly: the best cliques of one box of every picker, by an integer program.

Cameron et al. 2024, Communications Biology: boxes of different pickers are joined by an edge where their Jaccard index is above
0.3; a clique has one box of each picker; its weight is the median of its scores times the median of its Jaccard indices; the
cliques of the largest total weight are chosen so that no box is in two; the centre is that of the member with the largest sum of
indices. REPIC leaves a micrograph out on which one picker found nothing. Scores of different pickers are not on one scale: here
they are replaced by their ranks on the micrograph, from 0 to 1.
"""

from itertools import combinations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_matrix
from scipy.spatial import cKDTree

from icestream.algorithms.particles.consensus import rank_scores

LEAST_JACCARD = 0.3


def box_jaccard(one: np.ndarray, other: np.ndarray, *, box_px: float) -> np.ndarray:
    """Jaccard index of square boxes of one size with centres ``(…, 2)``."""
    overlap = np.clip(box_px - np.abs(one - other), 0, None).prod(axis=-1)
    return np.asarray(overlap / (2 * box_px**2 - overlap))


def choose_cliques(positions: list[np.ndarray], scores: list[np.ndarray], *, box_px: float) -> np.ndarray:
    """Return the centres ``(n, 2)`` that REPIC's rule chooses."""
    if any(not len(one) for one in positions):
        return np.zeros((0, 2))
    cliques = _all_cliques(positions, box_px=box_px)  # (m, k)
    if not len(cliques):
        return np.zeros((0, 2))
    members = np.stack([one[cliques[:, number]] for number, one in enumerate(positions)], axis=1)  # (m, k, 2)
    pairs = list(combinations(range(len(positions)), 2))
    jaccard = np.stack([box_jaccard(members[:, a], members[:, b], box_px=box_px) for a, b in pairs], axis=1)  # (m, pairs)
    score = np.stack([rank_scores(one)[cliques[:, number]] for number, one in enumerate(scores)], axis=1)  # (m, k)
    weight = np.median(score, axis=1) * np.median(jaccard, axis=1)
    offsets = np.cumsum([0, *(len(one) for one in positions)])
    rows = (cliques + offsets[:-1]).ravel()
    columns = np.repeat(np.arange(len(cliques)), len(positions))
    used = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(offsets[-1], len(cliques))).tocsr()
    solved = milp(-weight, constraints=LinearConstraint(used, ub=1), integrality=np.ones(len(cliques)), bounds=Bounds(0, 1))
    if solved.x is None:
        raise RuntimeError(f"the integer program of {len(cliques)} cliques has no solution: {solved.message}")
    chosen = np.flatnonzero(solved.x > 0.5)
    edges = np.zeros((len(cliques), len(positions)))
    for index, (a, b) in enumerate(pairs):
        edges[:, a] += jaccard[:, index]
        edges[:, b] += jaccard[:, index]
    return np.asarray(members[chosen, edges[chosen].argmax(axis=1)])


def _all_cliques(positions: list[np.ndarray], *, box_px: float) -> np.ndarray:
    """All cliques ``(m, k)`` of one pick of each picker."""
    cliques = np.arange(len(positions[0]))[:, None]
    for number in range(1, len(positions)):
        near = cKDTree(positions[number]).query_ball_point(positions[0][cliques[:, 0]], box_px, p=np.inf)
        counts = np.array([len(one) for one in near])
        added = np.concatenate([np.array(one, dtype=int) for one in near] or [np.zeros(0, dtype=int)]).astype(int)
        cliques = np.column_stack([np.repeat(cliques, counts, axis=0), added])
        new = positions[number][cliques[:, -1]]
        joined = [box_jaccard(positions[one][cliques[:, one]], new, box_px=box_px) > LEAST_JACCARD for one in range(number)]
        cliques = cliques[np.all(joined, axis=0)]
    return cliques
