"""Picks of several pickers matched with each other, whatever the order of the pickers, and what they agree on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Positions = NDArray[np.floating]


@dataclass(frozen=True)
class Candidates:
    """Places where at least one picker sees a particle.

    Attributes
    ----------
    yx_px
        ``(n, 2)``, the mean of the picks there.
    pick
        ``(n, n_pickers)``: which pick of each picker it is, -1 where that picker has none there.
    """

    yx_px: NDArray[np.float64]
    pick: NDArray[np.int64]

    @property
    def found(self) -> NDArray[np.bool_]:
        """``(n, n_pickers)``: which pickers see it."""
        return np.asarray(self.pick >= 0)

    @property
    def votes(self) -> NDArray[np.int64]:
        """``(n,)``: how many pickers see it."""
        return np.asarray(self.found.sum(axis=1), dtype=np.int64)

    @property
    def jaccard(self) -> float:
        """The part of all candidates that every picker sees; 1 where there are none."""
        return float((self.votes == self.pick.shape[1]).mean()) if len(self.pick) else 1.0


def match_picks(positions: Sequence[Positions], *, radius_px: float) -> Candidates:
    """Join the picks of several pickers that are of one particle: at most one of each picker.

    The nearest two come first. A pick, or what was joined before, joins another if their means are within the radius and no
    picker is in both. Unlike a rule that begins with the first picker's picks (that of Scipion), the result does not depend on
    the order of pickers or picks: ties are broken by position. Candidates are sorted by position.

    Parameters
    ----------
    positions
        One array ``(n, 2)`` for each picker.
    radius_px
        Largest distance of the means of what is joined.
    """
    picker = np.concatenate([np.full(len(one), number) for number, one in enumerate(positions)] or [np.zeros(0, dtype=int)])
    number = np.concatenate([np.arange(len(one)) for one in positions] or [np.zeros(0, dtype=int)])
    yx = np.concatenate([np.asarray(one, dtype=np.float64).reshape(-1, 2) for one in positions] or [np.zeros((0, 2))])  # (m, 2)
    order = np.lexsort((picker, yx[:, 1], yx[:, 0]))
    picker, number, yx = picker[order], number[order], yx[order]
    groups = _join(yx, picker, _near_pairs(yx, picker, radius_px), radius_px)
    pick = np.full((len(groups), len(positions)), -1, dtype=np.int64)
    centre = np.zeros((len(groups), 2))
    for row, members in enumerate(groups):
        pick[row, picker[members]] = number[members]
        centre[row] = yx[members].mean(axis=0)
    by_place = np.lexsort((centre[:, 1], centre[:, 0]))
    return Candidates(centre[by_place], pick[by_place])


def _near_pairs(yx: NDArray[np.float64], picker: NDArray[np.int64], radius_px: float) -> NDArray[np.int64]:
    """Return the pairs ``(p, 2)`` of picks of different pickers within the radius, nearest first; the picks are in order."""
    if len(yx) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    pairs = np.asarray(cKDTree(yx).query_pairs(radius_px, output_type="ndarray"), dtype=np.int64).reshape(-1, 2)
    pairs = np.sort(pairs[picker[pairs[:, 0]] != picker[pairs[:, 1]]], axis=1)
    square = ((yx[pairs[:, 0]] - yx[pairs[:, 1]]) ** 2).sum(axis=1)
    first, second = yx[pairs[:, 0]], yx[pairs[:, 1]]
    return pairs[np.lexsort((second[:, 1], second[:, 0], first[:, 1], first[:, 0], square))]


def _join(
    yx: NDArray[np.float64], picker: NDArray[np.int64], pairs: NDArray[np.int64], radius_px: float
) -> list[NDArray[np.int64]]:
    group_of = list(range(len(yx)))
    members = [[index] for index in range(len(yx))]
    pickers = [{int(one)} for one in picker]
    mean = [(float(y), float(x)) for y, x in yx]
    for one, other in pairs.tolist():
        a, b = sorted((group_of[one], group_of[other]))
        if a == b or pickers[a] & pickers[b]:
            continue
        if (mean[a][0] - mean[b][0]) ** 2 + (mean[a][1] - mean[b][1]) ** 2 > radius_px**2:
            continue
        members[a] = sorted(members[a] + members[b])
        pickers[a] |= pickers[b]
        for index in members[b]:
            group_of[index] = a
        mean[a] = tuple(yx[members[a]].mean(axis=0).tolist())
        members[b] = []
    return [np.array(group) for group in members if group]


def rank_scores(score: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the rank of each score among all ``(n,)``, from 0 (lowest) to 1; equal scores share the middle of their ranks.

    Scores that are not finite count as the lowest; where all are equal they say nothing, and every rank is 0.5.
    """
    if not len(score):
        return np.zeros(0)
    values = np.where(np.isfinite(score), score, -np.inf)
    ordered = np.sort(values)
    below, up_to = np.searchsorted(ordered, values, side="left"), np.searchsorted(ordered, values, side="right")
    return 0.5 * (below + up_to) / len(score)


def thin_out(yx_px: Positions, score: NDArray[np.floating], *, min_distance_px: float) -> NDArray[np.bool_]:
    """Return which of the points ``(n, 2)`` are kept, so that none is closer than the distance to a kept one with a better score.

    Equal scores are taken in the order of position, so the result does not depend on the order of the points.
    """
    kept = np.zeros(len(yx_px), dtype=bool)
    if not len(yx_px):
        return kept
    best_first = np.lexsort((yx_px[:, 1], yx_px[:, 0], -np.where(np.isfinite(score), score, -np.inf)))
    tree = cKDTree(yx_px)
    hidden = np.zeros(len(yx_px), dtype=bool)
    for index in best_first.tolist():
        if hidden[index]:
            continue
        kept[index] = True
        near = np.array(tree.query_ball_point(yx_px[index], min_distance_px), dtype=np.int64)
        distance = np.hypot(*(yx_px[near] - yx_px[index]).T)
        hidden[near[distance < min_distance_px]] = True
    return kept
