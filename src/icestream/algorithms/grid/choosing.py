"""Which holes to expose next: what is expected of them, and what their square would teach."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.grid.quality import Array, Holes, Promise, predict_quality

_WORTH_LEARNING = 20.0
"""What a square teaches counts fully where it has at least so many holes left."""


@dataclass(frozen=True)
class Choice:
    """Holes in the order in which to expose them: ``order`` indexes the holes asked for, ``score`` and ``promise`` are theirs."""

    explore: ClassVar[float] = 0.5
    """How much a standard deviation of a square's effect is worth, in quality."""

    order: NDArray[np.int64]
    score: Array
    promise: Promise


def choose_holes(
    seen: Holes,
    quality: Array,
    wanted: Holes,
    *,
    centres_yx_um: Array,
    explore: float,
    most: int,
    covariate: Array | None = None,
) -> Choice:
    """Return the holes with the best score first: ``expected + explore * sd_square``, less for squares already in the list.

    An upper confidence bound (Auer, Cesa-Bianchi & Fischer 2002, Machine Learning 47, 235) on the square, since the square is
    what one exposure teaches about many. Where several holes of one square are in the list, the doubt about the square is
    that which will be left after the ones before it, so a list does not spend itself on one unknown square.

    Parameters
    ----------
    explore
        0 takes what is best by what is known.
    most
        So many holes are put in order with regard to each other; the rest follow by their score.
    covariate
        See `predict_quality`.
    """
    promise = predict_quality(seen, quality, wanted, centres_yx_um=centres_yx_um, covariate=covariate)
    left = np.bincount(wanted.square, minlength=len(centres_yx_um))[wanted.square]
    bonus = explore * promise.sd_square * np.sqrt(np.minimum(left / _WORTH_LEARNING, 1.0))
    score = promise.expected + bonus
    order = _in_turn(promise.expected, bonus, wanted.square, most)
    return Choice(order, score, promise)


def _in_turn(expected: Array, bonus: Array, square: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    taken: list[int] = []
    planned = np.zeros(int(square.max(initial=-1)) + 1)
    free = np.ones(len(expected), bool)
    for _ in range(min(most, len(expected))):
        now = expected + bonus / np.sqrt(1 + planned[square])
        best = int(np.argmax(np.where(free, now, -np.inf)))
        taken.append(best)
        free[best] = False
        planned[square[best]] += 1
    rest = np.flatnonzero(free)
    ordered = rest[np.argsort(-(expected + bonus)[rest], kind="stable")]
    return np.concatenate([np.array(taken, np.int64), ordered])
