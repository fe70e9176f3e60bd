"""Which matches are particles, judged by decoys: how probable each is, and how many of them to take."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

_TAIL = 20  # so many of the highest decoys are replaced by the tail of Gaussian noise
_CHANCE = 0.003
_PARTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the decoys, the highest
_LEAST_STRETCH, _SURE_OF_STRETCH = 0.75, 10.0


@dataclass(frozen=True)
class Decoys:
    """Scores of what is certainly no particle.

    Attributes
    ----------
    score
        ``(n,)``, descending.
    share
        How many of them there would be on a micrograph, for each that was found.
    """

    score: NDArray[np.float64]
    share: float

    def above(self, level: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how many decoys are expected on a micrograph that reach each level: ``(m,)``.

        Above the 20 highest their number falls as ``z exp(-z² / 2)``, as that of the maxima of Gaussian noise does (Adler 1981,
        The Geometry of Random Fields, ch. 6), so that no single decoy decides.
        """
        if not len(self.score):
            return np.zeros(len(level))
        tail = min(_TAIL, len(self.score))
        anchor = max(float(self.score[tail - 1]), 1.0)
        beyond = np.maximum(level, anchor)
        falling = tail * beyond / anchor * np.exp(-0.5 * (beyond**2 - anchor**2))
        counted = len(self.score) - np.searchsorted(self.score[::-1], level, side="left")
        return self.share * np.where(level > anchor, falling, counted)

    def stretched_by(self, inverted: NDArray[np.float64], *, n_expected: float) -> "Decoys":
        """Stretch them as far as matches of inverted contrast, away from particles, are higher or lower than they.

        The noise of a micrograph is not as random as it is drawn: crystals and edges reach higher, and where the spectrum still
        has particles in it, what is between these reaches less high.

        Parameters
        ----------
        inverted
            ``(m,)``, descending.
        n_expected
            How many decoys there are in as large an area.
        """
        ranks = np.array(_PARTS) * n_expected
        ranks = ranks[(ranks >= 1) & (ranks < len(inverted))]
        if not len(ranks) or not len(self.score):
            return self
        seen = np.interp(ranks, np.arange(len(inverted)), inverted)
        drawn = np.interp(ranks / n_expected * len(self.score), np.arange(len(self.score)), self.score)
        n_sure = float(ranks.max())
        stretch = (float(np.median(seen / drawn)) * n_sure + _SURE_OF_STRETCH) / (n_sure + _SURE_OF_STRETCH)
        return Decoys(self.score * max(stretch, _LEAST_STRETCH), self.share)


def find_probability(score: NDArray[np.float64], decoys: Decoys) -> NDArray[np.float64]:
    """Return how probably each score is more than noise: one minus the ratio of decoys to scores about it: ``(n,)``.

    The ratio never rises with the score: it is the slope of the greatest convex minorant of how many decoys are expected above
    the first, second, … score (Grenander 1956, Skand. Aktuarietidskr. 39, 125).

    Parameters
    ----------
    score
        ``(n,)``, descending.
    decoys
        What noise gives.
    """
    if not len(score):
        return np.empty(0)
    expected = np.concatenate([[0.0], decoys.above(score)])  # at 0, 1, … n scores
    slopes: list[tuple[float, int]] = []  # of blocks, and their lengths
    for step in np.diff(expected):
        block = (float(step), 1)
        while slopes and slopes[-1][0] >= block[0]:
            before = slopes.pop()
            length = before[1] + block[1]
            block = ((before[0] * before[1] + block[0] * block[1]) / length, length)
        slopes.append(block)
    false = np.concatenate([np.full(length, slope) for slope, length in slopes])
    return np.clip(1.0 - false, 0.0, 1.0)


def count_accepted(
    score: NDArray[np.float64],
    probability: NDArray[np.float64],
    decoys: Decoys,
    *,
    false_discovery_rate: float | None,
) -> int:
    """Return how many of the best scores are taken.

    Unset, the rate is chosen so that the expected F1 is best: with ``T`` particles expected in all, that of the first ``n`` is
    ``2 sum(probability[:n]) / (n + T)``. None is taken where chance makes as many scores once in 300 micrographs.
    """
    if not len(score):
        return 0
    ranks = np.arange(1, len(score) + 1)
    particles = np.cumsum(probability)
    if false_discovery_rate is None:
        count = int(np.argmax(2 * particles / (ranks + particles[-1]))) + 1
    else:
        passing = np.flatnonzero(ranks - particles <= false_discovery_rate * ranks)
        count = int(passing[-1]) + 1 if len(passing) else 0
    return 0 if may_be_chance(score, decoys, count) else count


def may_be_chance(score: NDArray[np.float64], decoys: Decoys, count: int) -> bool:
    """Tell whether noise alone gives as many scores as the first ``count`` once in 300 micrographs, or there are none."""
    return not count or float(special.pdtrc(count - 1, float(decoys.above(score[count - 1 : count])[0]))) > _CHANCE
