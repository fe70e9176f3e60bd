"""How good each picker is, from how far pickers agree, and how likely each candidate is a particle (Dawid & Skene 1979).

Every candidate is a particle or none. Picker k sees a particle with probability ``recall[k]`` and a false place with probability
``false_rate[k]``; the scores that it gives to the two are distributed differently. Nobody knows what each candidate is, so both
are estimated in turn (expectation maximisation; A. P. Dawid and A. M. Skene, Applied Statistics 28, 20, 1979). Two things differ
from there. A place that no picker sees is no candidate, so the number of those is estimated too. And a candidate has a picker's
score beside its vote: its class among that picker's scores counts, and a better score never counts less.

Three pickers or fewer do not tell whether a place that one alone sees is a particle that is hard to see, or false. What decides
between the two is an assumption: pickers meet at a false place by chance only (`general_model`), and each picker has its own
number of false places.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ABSENT, UNKNOWN = -1, -2
"""Stand for the class of a score where the picker sees nothing, and where it was not asked."""

_MOST_ROUNDS = 200
_TOLERANCE = 1e-6
_LARGEST_RATIO = 20.0
"""How many times likelier a score may make a particle: tails of scores are never known well."""
_SMOOTHING = 4.0
"""Picks that are added to each class of scores, spread as all picks of the picker."""
_UNSEEN_PART = 0.9
"""How much it counts that a picker does not see a particle: particles that are hard to see are so for every picker."""
_SCORE_PART = 0.8
"""How much the score counts: the same holds for scores."""
_MOST_UNSEEN = (1.0, 8.0)
"""At most so many particles, and false places, that no picker sees, for each that one does."""
_SHARE_OF_TRUSTED = 0.2
_FALSE_SHARE = 0.3
"""How evenly false places are spread over the pickers beforehand, for each that is found."""


@dataclass(frozen=True)
class PickerModel:
    """What is known of the pickers.

    Attributes
    ----------
    recall, false_rate
        ``(n_pickers,)``, the probability that a picker sees a particle, and a false place.
    score_ratio
        ``(n_pickers, n_classes)``, how many times likelier a particle gets a score of this class than a false place.
    particles, false_places
        How many there are for each micrograph, those that no picker sees with them.
    weight
        How many candidates it was learnt from.
    share
        ``(n_pickers,)``, beforehand: how much of the false places that pickers see alone a picker gets, against the others.
    """

    recall: Array
    false_rate: Array
    score_ratio: Array
    particles: float
    false_places: float
    weight: float
    share: Array

    @property
    def n_classes(self) -> int:
        """Number of classes of scores."""
        return int(self.score_ratio.shape[1])


def general_model(n_pickers: int, *, n_classes: int, trusted: Sequence[int] = ()) -> PickerModel:
    """Return what is assumed of pickers of which nothing is known: they see most particles, and now and then something else.

    Of ``trusted`` ones it is known that they are better than the others: what they see alone is rather a particle.
    """
    share = np.ones(n_pickers)
    share[list(trusted)] = _SHARE_OF_TRUSTED
    return PickerModel(
        recall=np.full(n_pickers, 0.8),
        false_rate=np.full(n_pickers, 0.05),
        score_ratio=np.ones((n_pickers, n_classes)),
        particles=1.0,
        false_places=1.0,
        weight=8.0,
        share=share,
    )


def weigh_candidates(classes: NDArray[np.integer], model: PickerModel) -> Array:
    """Return the probability that each candidate is a particle ``(n,)``.

    ``classes`` ``(n, n_pickers)`` is the class of the score that each picker gives, `ABSENT` where it sees nothing, `UNKNOWN`
    where the picker is missing.
    """
    return _logistic(_evidence(classes, model) + np.log(model.particles / model.false_places))


def learn_model(
    classes: NDArray[np.integer],
    prior: PickerModel,
    *,
    count: Array | None = None,
    n_micrographs: float = 1.0,
    keep_scores: bool = False,
) -> PickerModel:
    """Learn how good the pickers are from candidates, beginning with what is known of them.

    Parameters
    ----------
    classes
        ``(n, n_pickers)``; equal rows may be given once.
    prior
        What is known before; it counts as ``prior.weight`` candidates.
    count
        ``(n,)``, how many candidates each row stands for; unset: one.
    n_micrographs
        From how many micrographs they are.
    keep_scores
        What scores say is left as it is known before.
    """
    if not len(classes):
        return prior
    weights = np.ones(len(classes)) if count is None else np.asarray(count, dtype=np.float64)
    votes = (classes >= 0).sum(axis=1)
    belief = np.where(votes > 1, 0.95, 0.5)
    model = prior
    for _ in range(_MOST_ROUNDS):
        model = _maximise(classes, weights, belief, prior, n_micrographs=n_micrographs, before=model)
        if keep_scores:
            model = replace(model, score_ratio=prior.score_ratio)
        last, belief = belief, weigh_candidates(classes, model)
        if float(np.abs(belief - last).max()) < _TOLERANCE:
            break
    return model


def best_threshold(probability: Array, model: PickerModel, *, n_micrographs: float = 1.0) -> float:
    """Return the smallest probability to accept for the largest expected F1, of particles that no picker sees too."""
    if not len(probability):
        return 0.5
    ordered = np.sort(probability)[::-1]
    missed = model.particles * n_micrographs * float(np.prod(1.0 - model.recall))
    hits = np.cumsum(ordered)
    f1 = 2.0 * hits / (np.arange(1, len(ordered) + 1) + ordered.sum() + missed)
    return float(ordered[int(np.argmax(f1))])


def expected_precision(classes: NDArray[np.integer], probability: Array, *, count: Array | None = None) -> Array:
    """Return the share of each picker's picks that are particles ``(n_pickers,)``; NaN of one that has none."""
    weights = np.ones(len(classes)) if count is None else count
    seen = (classes >= 0) * weights[:, None]  # (n, k)
    total = seen.sum(axis=0)
    precision = np.full(len(total), np.nan)
    np.divide((probability[:, None] * seen).sum(axis=0), total, out=precision, where=total > 0)
    return precision


def _evidence(classes: NDArray[np.integer], model: PickerModel) -> Array:
    seen = classes >= 0  # (n, k)
    ratio = np.log(model.score_ratio)[np.arange(classes.shape[1])[None], np.maximum(classes, 0)]  # (n, k)
    for_seen = np.log(model.recall / model.false_rate) + _SCORE_PART * ratio
    for_unseen = _UNSEEN_PART * np.log((1.0 - model.recall) / (1.0 - model.false_rate))
    evidence = np.where(seen, for_seen, for_unseen) * (classes != UNKNOWN)  # (n, k)
    return np.asarray(evidence.sum(axis=1), dtype=np.float64)


def _maximise(
    classes: NDArray[np.integer],
    weights: Array,
    belief: Array,
    prior: PickerModel,
    *,
    n_micrographs: float,
    before: PickerModel,
) -> PickerModel:
    seen = classes >= 0  # (n, k)
    true, false = weights * belief, weights * (1.0 - belief)  # (n,)
    more_true = 1.0 + _unseen(before.recall, most=_MOST_UNSEEN[0])
    more_false = 1.0 + _unseen(before.false_rate, most=_MOST_UNSEEN[1])
    asked = classes != UNKNOWN  # (n, k)
    n_true, n_false = more_true * (true @ asked), more_false * (false @ asked)  # (k,)
    share = prior.particles / (prior.particles + prior.false_places)
    known_true, known_false = prior.weight * share, prior.weight * (1.0 - share)
    recall = (true @ seen + known_true * prior.recall) / (n_true + known_true)
    spread = false @ seen + _FALSE_SHARE * (weights @ seen) * false.sum() / weights.sum() + known_false * prior.false_rate  # (k,)
    spread *= prior.share
    expected = prior.false_rate.sum() * spread / max(spread.sum(), 1e-12)
    false_rate = (prior.share * (false @ seen) + n_false * expected) / (2.0 * n_false + 1e-12)
    return PickerModel(
        recall=np.clip(recall, 0.01, 0.99),
        false_rate=np.clip(false_rate, 0.002, 0.99),
        score_ratio=_score_ratio(classes, true, false, prior),
        particles=(more_true * true.sum() + known_true) / n_micrographs,
        false_places=(more_false * false.sum() + known_false) / n_micrographs,
        weight=float(weights.sum()),
        share=prior.share,
    )


def _unseen(rate: Array, *, most: float) -> float:
    """Return how many there are that no picker sees, for each that one does."""
    missed = float(np.prod(1.0 - rate))
    return min(missed / max(1.0 - missed, 1e-12), most)


def _score_ratio(classes: NDArray[np.integer], true: Array, false: Array, prior: PickerModel) -> Array:
    ratio = np.ones_like(prior.score_ratio)
    for picker in range(classes.shape[1]):
        seen = classes[:, picker] >= 0
        of_true = np.bincount(classes[seen, picker], true[seen], minlength=prior.n_classes)
        of_false = np.bincount(classes[seen, picker], false[seen], minlength=prior.n_classes)
        total = of_true + of_false
        if not total.sum():
            continue
        known = prior.score_ratio[picker]
        spread = _SMOOTHING * prior.n_classes * total / total.sum()
        pseudo_true, pseudo_false = spread * known / (1.0 + known), spread / (1.0 + known)
        part = (of_true + pseudo_true + 1e-9) / (total + spread + 2e-9)
        rising = _rise(part, total + spread)
        odds = rising / (1.0 - rising)
        base = (of_true + pseudo_true).sum() / (of_false + pseudo_false).sum()
        ratio[picker] = np.clip(odds / base, 1.0 / _LARGEST_RATIO, _LARGEST_RATIO)
    return ratio


def _rise(values: Array, weights: Array) -> Array:
    """Return the rising sequence that is nearest to ``values`` (pooling of adjacent violators)."""
    blocks: list[list[float]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            last, before = blocks.pop(), blocks.pop()
            both = last[1] + before[1]
            mean = (last[0] * last[1] + before[0] * before[1]) / both if both else 0.5 * (last[0] + before[0])
            blocks.append([mean, both, last[2] + before[2]])
    return np.repeat([block[0] for block in blocks], [int(block[2]) for block in blocks])


def _logistic(value: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * value)), dtype=np.float64)
