"""How probable it is that a peak is more than noise, judged by decoys: peaks that are certainly no particles.

There are two kinds. Peaks of phase-randomised noise, which has the spectrum of what the particles leave over, say how high chance
alone gets; as many as are wanted can be drawn. Peaks of the micrograph with inverted contrast say whether there is more in it
than such noise: edges, crystals, thickness. Noise makes as many peaks of either sign (target-decoy estimate of the false
discovery rate: Elias & Gygi 2007, Nat. Methods 4, 207). Where they are stretched, so is the first kind, and where picking the
inverted micrograph from scratch finds more than the first kind, that counts instead; but no single decoy decides.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from icestream.algorithms.particles.noise import expected_above

Heights = NDArray[np.float64]

_BULK = (0.5, 0.75, 0.9, 0.97)
_FEWEST = 8
"""Inverted decoys above a quantile that is compared."""
_LEAST_FREE = 0.1
_NEIGHBOURS = 6
_CHANCE = 0.003
_DOUBT = 1.5
_CUTS, _FEWEST_TO_CUT, _STRAGGLING, _OF_THE_BEST = 5, 20, 3.5, 0.4


@dataclass(frozen=True)
class NoisePeaks:
    """What peaks of noise are like.

    Attributes
    ----------
    heights
        ``(m,)``, descending: peaks of phase-randomised noise.
    expected
        How many of them there are per micrograph.
    inverted
        ``(k,)``, descending: what picking finds in the inverted micrograph.
    stretch
        Real heights over those of ``heights``.
    """

    heights: Heights
    expected: float
    inverted: Heights
    stretch: float = 1.0

    def above(self, height: Heights) -> Heights:
        """Return how many peaks of a micrograph without particles are expected to be at least so high."""
        if not len(self.heights):
            return np.zeros(np.shape(height))
        chance = self.expected / len(self.heights) * expected_above(np.asarray(height) / self.stretch, self.heights)
        found = len(self.inverted) - np.searchsorted(self.inverted[::-1], height, side="left")
        above: Heights = np.maximum(chance, found - 1 - _DOUBT * np.sqrt(found))
        return above

    def stretched_by(self, inverted: Heights) -> "NoisePeaks":
        """Return the peaks stretched so that their bulk is not below that of the decoys of inverted contrast ``(k,)``."""
        stretch = 1.0
        for share in _BULK:
            if len(self.heights) and len(inverted) * (1 - share) >= _FEWEST:
                stretch = max(stretch, float(np.quantile(inverted, share) / np.quantile(self.heights, share)))
        return NoisePeaks(self.heights, self.expected, self.inverted, self.stretch * stretch)


@dataclass(frozen=True)
class Judgement:
    """The lowest accepted height, the share of the accepted that is expected to be false, and the probability of each peak."""

    height: float
    false_share: float
    probability: Heights


def judge_peaks(score: Heights, noise: NoisePeaks, *, false_discovery_rate: float, covered: float = 0.0) -> Judgement:
    """Decide which peaks are more than noise.

    Accepted are the highest peaks as long as the expected share of noise among them is at most ``false_discovery_rate``
    (Benjamini & Hochberg 1995, J. R. Stat. Soc. B 57, 289), and none at all where chance alone makes so many once in 300
    micrographs. The probability that one peak is a particle is one less the local false discovery rate (Efron 2005, Ann.
    Statist. 33, 1): the share of noise among the peaks of about its height, which falls with the height.
    Peaks far below the others, where there is a gap between them and the noise, are left out.

    Parameters
    ----------
    score
        ``(n,)``, descending.
    noise
        What peaks of noise are like.
    false_discovery_rate
        Accepted fraction of false peaks.
    covered
        Share of the area that one accepted peak keeps free of others.
    """
    rank = np.arange(1, len(score) + 1)
    expected = noise.above(score)  # (n,)
    free = np.maximum(1 - covered * rank, _LEAST_FREE)
    rate = np.minimum.accumulate((expected * free / rank)[::-1])[::-1] if len(score) else expected
    passing = np.flatnonzero((rate <= false_discovery_rate) & (special.gammainc(rank, np.maximum(expected, 1e-300)) <= _CHANCE))
    accepted = int(passing[-1]) + 1 if len(passing) else 0
    accepted = _cut_stragglers(score, accepted)
    left = free[accepted - 1] if accepted else 1.0
    probability = 1 - _local_rate(expected * left, len(score))
    return Judgement(
        height=float(score[accepted - 1]) if accepted else np.inf,
        false_share=float(rate[accepted - 1]) if accepted else 0.0,
        probability=probability if accepted else np.zeros(len(score)),
    )


def _cut_stragglers(score: Heights, accepted: int) -> int:
    """Return how many peaks are left without those that are far below the others, though above the noise.

    Gaps between particles, and what is left of the background, are no noise either. How much particles differ is taken from the
    upper half. Where the peaks are cut off by the noise, nothing can be said about that, and all are left.
    """
    if accepted < _FEWEST_TO_CUT:
        return accepted
    level = float(score[accepted - 1])
    left = int(np.count_nonzero(score >= max(level, _OF_THE_BEST * float(np.median(score[:10])))))
    for _ in range(_CUTS):
        middle, upper = np.quantile(score[:left], [0.5, 0.8])
        cut = float(middle - _STRAGGLING * (upper - middle) / special.ndtri(0.8))
        if cut <= level:
            return accepted
        left = int(np.count_nonzero(score >= cut))
    return left


def _local_rate(expected: Heights, count: int) -> Heights:
    """Return the share of noise among peaks of neighbouring ranks, which never falls from one rank to the next: ``(n,)``."""
    padded = np.concatenate([[0.0], expected])
    index = np.arange(count)
    reach = np.maximum(_NEIGHBOURS, index // 10)
    first, last = np.maximum(index - reach, 0), np.minimum(index + reach + 1, count)
    local = (padded[last] - padded[first]) / np.maximum(last - first, 1)
    rate: Heights = np.clip(np.maximum.accumulate(local), 0.0, 1.0) if count else local
    return rate
