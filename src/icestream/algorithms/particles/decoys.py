"""How many peaks are more than noise, judged by decoys: the peaks of the same response with inverted contrast.

Noise makes as many peaks of either sign, so the decoys above a level tell how many of the peaks above it are false (target-decoy
estimate of the false discovery rate: Elias & Gygi 2007, Nat. Methods 4, 207).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.spatial import cKDTree

_ENOUGH = 10
_LARGEST_SPREAD = 0.4
_FEWEST_PASSING = 5


def compete(
    yx_px: NDArray[np.float64],
    score: NDArray[np.float64],
    rival_yx_px: NDArray[np.float64],
    rival: NDArray[np.float64],
    *,
    reach_px: float,
) -> NDArray[np.bool_]:
    """Tell which peaks have no higher rival within ``reach_px``: ``(n,)``.

    A decoy beside a particle is the particle's own side lobe and says nothing about noise; in noise alone peaks and decoys lose
    as often.

    Parameters
    ----------
    yx_px, score, rival_yx_px, rival
        ``(n, 2)``, ``(n,)``, ``(m, 2)`` and ``(m,)``, heights descending.
    reach_px
        How far a rival is heard.
    """
    if not len(score) or not len(rival):
        return np.ones(len(score), dtype=bool)
    near = cKDTree(rival_yx_px).query_ball_point(yx_px, reach_px)
    strongest = np.array([rival[min(indices)] if indices else -np.inf for indices in near])
    return np.asarray(score >= strongest)


def choose_threshold(score: NDArray[np.float64], decoy: NDArray[np.float64], *, false_discovery_rate: float) -> float:
    """Return the lowest score above which peaks are more than noise; infinite where none is.

    Two rules, the milder one holds. With ``T(t)`` and ``D(t)`` the numbers of peaks and of decoys of at least ``t``: (1) many
    particles: ``(1 + D(t)) / T(t)`` is at most ``false_discovery_rate``; (2) few particles: ``t`` is above every decoy and above
    the height that noise reaches once in twenty micrographs, by a normal tail fitted to the upper half of the decoys. Where
    there is room for fewer than ten decoys, their spread is taken as at least 0.4 of their median, and five peaks must pass:
    that none of the five highest is a decoy happens in noise once in 32 micrographs.

    Parameters
    ----------
    score, decoy
        ``(n,)`` and ``(m,)``: heights of the peaks of either contrast.
    false_discovery_rate
        Accepted fraction of false peaks, for rule 1.
    """
    ranked = np.sort(score)[::-1]
    decoys_above = len(decoy) - np.searchsorted(np.sort(decoy), ranked, side="left")
    passing = np.flatnonzero(1 + decoys_above <= false_discovery_rate * np.arange(1, len(ranked) + 1))
    by_rate = float(ranked[passing[-1]]) if len(passing) else np.inf
    if not len(decoy):
        return by_rate
    median, upper = np.percentile(decoy, [50.0, 84.13])
    few = len(decoy) < _ENOUGH
    spread = max(upper - median, _LARGEST_SPREAD * abs(median)) if few else upper - median
    once_in_twenty = float(median + spread * special.ndtri(1 - 0.05 / max(len(decoy), _ENOUGH)))
    by_tail = max(once_in_twenty, float(np.nextafter(np.max(decoy), np.inf)))
    if few and np.count_nonzero(score >= by_tail) < _FEWEST_PASSING:
        return by_rate
    return min(by_rate, by_tail)
