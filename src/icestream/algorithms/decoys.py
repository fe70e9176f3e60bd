"""How many peaks are more than noise, judged by decoys: the peaks of the same response with inverted contrast.

Noise makes as many peaks of either sign, so the decoys above a level tell how many of the peaks above it are false (target-decoy
estimate of the false discovery rate: Elias & Gygi 2007, Nat. Methods 4, 207).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.spatial import cKDTree

_FEWEST = 10


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

    Two rules, the milder one holds: that of `level_by_rate`, for many particles, and for few particles a level above every decoy
    and above the height that decoys reach once in twenty micrographs, by a normal tail fitted to their upper half. The second
    rule takes peaks and decoys of noise to be alike, which they are not where a template was learned from the peaks: there it
    serves to learn on, and `level_above_noise` to decide.

    Parameters
    ----------
    score, decoy
        ``(n,)`` and ``(m,)``: heights of the peaks of either contrast.
    false_discovery_rate
        Accepted fraction of false peaks, for rule 1.
    """
    by_rate = level_by_rate(score, decoy, false_discovery_rate=false_discovery_rate)
    if len(decoy) < _FEWEST:
        return by_rate
    median, upper = np.percentile(decoy, [50.0, 84.13])
    once_in_twenty = float(median + (upper - median) * special.ndtri(1 - 0.05 / len(decoy)))
    return min(by_rate, max(once_in_twenty, float(np.nextafter(np.max(decoy), np.inf))))


def level_by_rate(score: NDArray[np.float64], decoy: NDArray[np.float64], *, false_discovery_rate: float) -> float:
    """Return the lowest score from which on ``(1 + decoys) / peaks`` is at most the accepted rate; infinite where none is.

    Parameters
    ----------
    score, decoy
        ``(n,)`` and ``(m,)``: heights of the peaks of either contrast.
    false_discovery_rate
        Accepted fraction of false peaks.
    """
    ranked = np.sort(score)[::-1]
    decoys_above = len(decoy) - np.searchsorted(np.sort(decoy), ranked, side="left")
    passing = np.flatnonzero(1 + decoys_above <= false_discovery_rate * np.arange(1, len(ranked) + 1))
    return float(ranked[passing[-1]]) if len(passing) else np.inf


def level_above_noise(noise: Sequence[NDArray[np.float64]], *, false_image_rate: float) -> float:
    """Return the height that the highest of the peaks of pure noise exceeds in a fraction ``false_image_rate`` of images.

    The squares of the heights of a Gaussian field have an exponential tail. Its scale is learned from the upper quarter of all
    peaks, and that it is learned from ``k`` of them is counted in: with their mean excess ``b`` over the square ``u``, one image
    is expected to have ``(k / images) (1 + e / (k b))^-k`` squares above ``u + e`` (Pickands 1975, Ann. Stat. 3, 119, on tails).

    Parameters
    ----------
    noise
        ``(n,)`` for each image of noise: heights of its peaks, as many as the micrograph would have.
    false_image_rate
        Accepted fraction of images of noise with any peak above the level.
    """
    heights = np.concatenate([np.zeros(0), *noise])  # (m,)
    if len(heights) < _FEWEST:
        return np.inf
    power = np.sort(np.maximum(heights, 0.0) ** 2)[::-1]
    above = max(len(power) // 4, _FEWEST // 2)
    scale = float(np.mean(power[:above] - power[above]))
    expected = above / len(noise)
    excess = above * scale * float(np.expm1(np.log(max(expected / false_image_rate, 1.0)) / above))
    return float(np.sqrt(power[above] + excess))
