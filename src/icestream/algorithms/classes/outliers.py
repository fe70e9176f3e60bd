"""Particles that fit their class worse than the others in it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROBUST = 1.4826
"""Standard deviations of a normal distribution in a median absolute deviation."""


def spread_of_scores(class_id: NDArray[Any], score: NDArray[Any], *, n_classes: int) -> NDArray[np.float64]:
    """Return median and robust spread of the members' scores in each class: ``(k, 2)``, not a number for an empty one.

    The spread is of the lower half alone: a few that fit better than the others make nobody an outlier.
    """
    result = np.full((n_classes, 2), np.nan)
    for k in np.unique(class_id[class_id >= 0]):
        mine = np.asarray(score[class_id == k], float)
        median = float(np.median(mine))
        below = median - mine[mine <= median]
        result[k] = median, _ROBUST * float(np.median(below))
    return result


def find_outliers(
    class_id: NDArray[Any], score: NDArray[Any], members: Mapping[int, tuple[float, float]], *, limit: float
) -> NDArray[np.bool_]:
    """Tell which particles lie below the median of their class by more than ``limit`` spreads.

    Parameters
    ----------
    class_id, score
        ``(n,)``, of the particles.
    members
        Class → median and robust spread of the scores of all its members; particles of another class are none.
    """
    wrong = np.zeros(len(class_id), dtype=bool)
    for one, (median, spread) in members.items():
        wrong |= (class_id == one) & (score < median - limit * spread)
    return wrong
