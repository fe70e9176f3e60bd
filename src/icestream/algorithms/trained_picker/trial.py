"""Making the score of a trained picker a probability, and trying a picker beside another.

A trial needs no full truth. On micrographs that were neither trained nor calibrated on, particles are the picks that survived 2D
classification, and those that it refused are none; picks that nobody judged count for nothing. What a picker finds elsewhere may
be a particle that was missed, or dirt. Particles are missed whatever their score is, so among the best scores, where hardly
anything else is, the picks elsewhere tell how many were missed for each that is known; of worse scores so many are expected, and
no more (Elkan & Noto 2008, KDD, 213: labels at random among the positive). With ``T`` particles so expected in all, a picker with
``n`` picks of which ``t`` are expected to be particles has an F1 of ``2 t / (n + T)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

from icestream.algorithms.particles.noise import draw_noise_2d, lowest_score, probability_by_decoys
from icestream.algorithms.particles.peaks import find_peaks_2d
from icestream.algorithms.trained_picker.features import WORKING_DIAMETER_PX, Prepared
from icestream.algorithms.trained_picker.model import SAME, Labelled, Model

_STEPS = 30
_FEWEST_FOR_ERROR = 3
_QUANTILES = (0.25, 0.5, 0.75)
"""Of the scores of known particles: between these, picks elsewhere are compared with them."""


@dataclass(frozen=True)
class ModelPicks:
    """Picks of a model, the best first.

    Attributes
    ----------
    yx_px
        ``(n, 2)``, pixels of the prepared micrograph.
    score
        ``(n,)``, logarithmic odds.
    probability
        ``(n,)``, that it is a particle: by the model, and that it is more than noise; the smaller of the two.
    more_than_noise
        ``(n,)``, the second alone.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    more_than_noise: NDArray[np.float64]


def pick_with_model_2d(
    prepared: Prepared,
    model: Model,
    *,
    min_distance_px: float,
    seed: int,
    false_discovery_rate: float = 0.05,
    threshold: float | None = None,
) -> ModelPicks:
    """Find particles with a trained model.

    A pick reaches the threshold of the model, and the level above which at most ``false_discovery_rate`` of the picks are found
    in noise of the same spectrum.

    Parameters
    ----------
    prepared
        The micrograph.
    model
        Filters and weights.
    min_distance_px
        No two picks are closer.
    seed
        Of the noise.
    false_discovery_rate
        Accepted fraction of picks that are noise.
    threshold
        Least probability; unset: decided by the model and the noise.
    """
    yx_px, score = find_peaks_2d(model.score_2d(prepared.image), min_distance_px=min_distance_px, allowed=prepared.allowed)
    noise = draw_noise_2d(prepared.image * prepared.allowed, seed=seed)
    decoys = find_peaks_2d(model.score_2d(noise), min_distance_px=min_distance_px, allowed=prepared.allowed)[1]
    more = probability_by_decoys(score, decoys)
    probability = np.minimum(more, model.probability(score))
    if threshold is None:
        level = lowest_score(score, decoys, false_discovery_rate=false_discovery_rate, gaussian=False)
        kept = score >= max(level, model.threshold)
    else:
        kept = probability >= threshold
    return ModelPicks(yx_px[kept], score[kept], probability[kept], more[kept])


@dataclass(frozen=True)
class Elsewhere:
    """How probably a pick at a new place is a particle: ``share[i]`` for scores from ``edges[i - 1]`` to ``edges[i]``."""

    edges: NDArray[np.float64]
    share: NDArray[np.float64]

    def at(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability at each score."""
        return self.share[np.searchsorted(self.edges, score)]


def learn_elsewhere(found: Sequence[ModelPicks], micrographs: Sequence[Labelled]) -> Elsewhere:
    """Learn from the scores at known particles, and elsewhere, how many of the picks elsewhere are particles."""
    known, new, weight = [], [], []
    for picks, one in zip(found, micrographs, strict=True):
        good = _is_near(picks.yx_px, one.good_yx_px)
        other = ~good & ~_is_near(picks.yx_px, np.concatenate([one.bad_yx_px, one.unknown_yx_px]))
        known.append(picks.score[good])
        new.append(picks.score[other])
        weight.append(picks.more_than_noise[other])
    good_scores, new_scores, new_weight = np.concatenate(known), np.concatenate(new), np.concatenate(weight)
    if not len(good_scores):
        return Elsewhere(np.empty(0), np.zeros(1))
    edges = np.quantile(good_scores, _QUANTILES)
    n_good = np.bincount(np.searchsorted(edges, good_scores), minlength=len(edges) + 1)
    n_new = np.bincount(np.searchsorted(edges, new_scores), weights=new_weight, minlength=len(edges) + 1)
    best = slice(len(edges) // 2 + 1, None)  # scores above the median of known particles
    missed = n_new[best].sum() / max(n_good[best].sum(), 1)
    return Elsewhere(edges, np.minimum(1.0, missed * n_good / np.maximum(n_new, 1e-9)))


def calibrate(model: Model, micrographs: list[Labelled], *, min_distance_px: float, seed: int) -> Model:
    """Set the threshold of a model, and how its score becomes a probability, on micrographs with known particles.

    The threshold gives the best expected F1; the probability is a logistic function of the score (Platt 1999, Advances in Large
    Margin Classifiers, 61).
    """
    picked = [
        pick_with_model_2d(one.prepared, model, min_distance_px=min_distance_px, seed=seed, threshold=0.0) for one in micrographs
    ]
    scores, particles, missed = [], [], 0
    for found, one, told in zip(picked, micrographs, _expect_all(picked, micrographs), strict=True):
        scores.append(found.score[told.counts])
        particles.append(told.particle[told.counts])
        missed += len(one.good_yx_px) - int(np.count_nonzero(_is_near(found.yx_px, one.good_yx_px)))
    score, particle = np.concatenate(scores), np.concatenate(particles)
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(particle[order])
    if not len(score) or not hits[-1]:
        return model
    f1 = 2 * hits / (np.arange(1, len(score) + 1) + hits[-1] + missed)
    slope, offset = _fit_logistic(score, particle)
    return replace(model, threshold=float(score[order][int(np.argmax(f1))]), slope=slope, offset=offset)


@dataclass(frozen=True)
class Trial:
    """Two pickers on the same micrographs.

    Attributes
    ----------
    f1, rival_f1
        Expected F1 of the new picker and of the old one, all micrographs together.
    error
        Standard error of their difference, from how it changes when one micrograph is left out; None of fewer than three.
    n_micrographs
        How many there were.
    """

    f1: float
    rival_f1: float
    error: float | None
    n_micrographs: int

    def judge(self, *, least_gain: float, confidence: float) -> Literal["better", "not better", "undecided"]:
        """Tell whether the new picker is better by ``least_gain``, is not, or whether that needs more micrographs.

        The difference is surer than chance if it is as many standard errors away as Student's distribution says for so few
        micrographs.
        """
        if self.error is None:
            return "undecided"
        gain = self.f1 - self.rival_f1 - least_gain
        reach = float(stats.t.ppf(confidence, self.n_micrographs - 1)) * self.error
        return "better" if gain > reach else "not better" if gain + reach <= 0 else "undecided"


def try_model(new: Model, old: Model | None, micrographs: list[Labelled], *, min_distance_px: float, seed: int) -> Trial:
    """Try a new model beside an old one, or, where there is none, beside the picks that were given.

    Both are judged on the same micrographs, and most of what differs from one micrograph to the next is common to both. So the
    error is that of the difference, by the jackknife over micrographs (Efron & Stein 1981, Ann. Statist. 9, 586).
    """
    picked = _pick_all(new, micrographs, min_distance_px=min_distance_px, seed=seed)
    before = None if old is None else _pick_all(old, micrographs, min_distance_px=min_distance_px, seed=seed)
    expected = _expect_all(picked, micrographs)
    if before is None:
        counted = [_count_beside_given(one, told) for one, told in zip(micrographs, expected, strict=True)]
    else:
        both = zip(micrographs, picked, before, expected, _expect_all(before, micrographs), strict=True)
        counted = [_count_both(one, (new_picks, old_picks), told) for one, new_picks, old_picks, *told in both]
    found, total = np.stack([one for one, _ in counted]), np.array([expected for _, expected in counted])  # (n, 2, 2), (n,)
    f1, n = _f1(found.sum(axis=0), float(total.sum())), len(micrographs)
    error = None
    if n >= _FEWEST_FOR_ERROR:
        without = [_f1(found.sum(axis=0) - found[i], float(total.sum() - total[i])) for i in range(n)]
        error = float(np.sqrt((n - 1) ** 2 / n * np.var([one[0] - one[1] for one in without], ddof=1)))
    return Trial(float(f1[0]), float(f1[1]), error, n)


def _f1(found: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """Return the expected F1 of each picker ``(2,)`` from its picks and those expected to be particles, ``(2, 2)``."""
    f1: NDArray[np.float64] = 2 * found[:, 1] / np.maximum(found[:, 0] + total, 1e-9)
    return f1


def _pick_all(model: Model, micrographs: Sequence[Labelled], *, min_distance_px: float, seed: int) -> list[ModelPicks]:
    return [pick_with_model_2d(one.prepared, model, min_distance_px=min_distance_px, seed=seed) for one in micrographs]


@dataclass(frozen=True)
class _Expected:
    """Of the picks of one micrograph ``(n,)``: how probably each is a particle, which count, and which were not known before."""

    particle: NDArray[np.float64]
    counts: NDArray[np.bool_]
    new: NDArray[np.bool_]


def _expect_all(found: Sequence[ModelPicks], micrographs: Sequence[Labelled]) -> list[_Expected]:
    elsewhere = learn_elsewhere(found, micrographs)
    return [_expect(picks, one, elsewhere) for picks, one in zip(found, micrographs, strict=True)]


def _expect(found: ModelPicks, one: Labelled, elsewhere: Elsewhere) -> _Expected:
    good, bad = _is_near(found.yx_px, one.good_yx_px), _is_near(found.yx_px, one.bad_yx_px)
    new = ~(good | bad | _is_near(found.yx_px, one.unknown_yx_px))
    particle = np.where(good, 1.0, np.where(new, elsewhere.at(found.score) * found.more_than_noise, 0.0))
    return _Expected(particle, good | bad | new, new)


def _count_beside_given(one: Labelled, told: _Expected) -> tuple[NDArray[np.float64], float]:
    """Count, on one micrograph, picks and those expected to be particles, of a picker and of the given picks ``(2, 2)``.

    Also returns how many particles are expected in all.
    """
    given = len(one.good_yx_px) + len(one.bad_yx_px), len(one.good_yx_px)
    total = len(one.good_yx_px) + float(told.particle[told.new].sum())
    return np.array([(np.count_nonzero(told.counts), told.particle[told.counts].sum()), given], dtype=np.float64), total


def _count_both(
    one: Labelled, picks: tuple[ModelPicks, ModelPicks], told: Sequence[_Expected]
) -> tuple[NDArray[np.float64], float]:
    """Count the same of two models; what both find where nobody looked before is as probable as both say in the mean."""
    ours, theirs = (np.nonzero(of.new)[0] for of in told)
    particle = [of.particle.copy() for of in told]
    shared = np.zeros(len(theirs), dtype=bool)
    if len(ours) and len(theirs):
        distance, index = cKDTree(picks[1].yx_px[theirs]).query(
            picks[0].yx_px[ours], distance_upper_bound=SAME * WORKING_DIAMETER_PX
        )
        for place, near in zip(ours[np.isfinite(distance)], index[np.isfinite(distance)], strict=True):
            if not shared[near]:
                shared[near] = True
                mean = (particle[0][place] + particle[1][theirs[near]]) / 2
                particle[0][place] = particle[1][theirs[near]] = mean
    found = [(np.count_nonzero(of.counts), mine[of.counts].sum()) for of, mine in zip(told, particle, strict=True)]
    total = len(one.good_yx_px) + float(particle[0][ours].sum() + particle[1][theirs[~shared]].sum())
    return np.array(found, dtype=np.float64), total


def _is_near(yx_px: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which points are the nearest to one of ``places`` within 0.3 diameters: ``(n,)``, true once for each place at most."""
    near = np.zeros(len(yx_px), dtype=bool)
    if len(yx_px) and len(places):
        distance, index = cKDTree(yx_px).query(places, distance_upper_bound=SAME * WORKING_DIAMETER_PX)
        near[index[np.isfinite(distance)]] = True
    return near


def _fit_logistic(score: NDArray[np.float64], label: NDArray[np.float64]) -> tuple[float, float]:
    """Fit ``1 / (1 + exp(-(slope score + offset)))`` to labels by Newton steps."""
    x = np.stack([score, np.ones(len(score))], axis=1)
    at = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(x @ at, -30, 30)))
        curvature = (x * (odds * (1 - odds))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, x.T @ (odds - label) + 1e-6 * at)
        at = at - step * min(1.0, 1.0 / (np.abs(step).max() + 1e-12))
    return float(at[0]), float(at[1])
