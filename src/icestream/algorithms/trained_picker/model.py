"""What a trained picker knows, and how it is trained on positive and unlabelled places.

Particles that survived 2D classification are positive; of most other places nothing is known. A logistic model of what carries
a label ranks places as one of what is a particle does (Elkan & Noto 2008, KDD 14, 213). Places closer to a particle than
another one can be, and picks that the classes refused, are known to be none. What may be a particle all the same is no example
of background: picks that nobody judged, and what looks more like a particle than many of those do.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from icestream.algorithms.particles.peaks import find_peaks_2d
from icestream.algorithms.trained_picker.features import WORKING_DIAMETER_PX, Prepared, compute_features_2d
from icestream.algorithms.trained_picker.filters import Filters, learn_filters, sample_polar

SAME = 0.3
"""Diameters within which a peak is a given particle."""

_REACH = 0.6  # diameters, radius of the filters
_BESIDE = (0.35, 0.5)
_APART = 0.5  # diameters from any pick, of places that stand for background
_MAY_BE = 0.2  # of the particles score lower than what may be one
_ROUNDS = 2
_RIDGE = 1e-3
_MOST_STEPS = 50


@dataclass(frozen=True)
class Model:
    """A trained picker.

    Attributes
    ----------
    filters
        The filters.
    mean, deviation, weights
        ``(k,)`` each: the logistic weights of the standardised features.
    threshold
        The lowest score of a pick.
    slope, offset
        The score times ``slope`` plus ``offset`` is the logarithmic odds of a particle.
    """

    filters: Filters
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    weights: NDArray[np.float64]
    threshold: float = 0.0
    slope: float = 1.0
    offset: float = 0.0

    def probability(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of a particle at scores, any shape."""
        probability: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(self.slope * score + self.offset, -60, 60)))
        return probability

    def score(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of places with these features ``(n, k)``: ``(n,)``."""
        score: NDArray[np.float64] = (features - self.mean) / self.deviation @ self.weights
        return score

    def score_2d(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return how much each place of a prepared micrograph looks like a particle: ``(h, w)``."""
        features = compute_features_2d(image, self.filters, diameter_px=WORKING_DIAMETER_PX)
        slope = (self.weights / self.deviation).astype(np.float32)
        offset = float(-(self.weights * self.mean / self.deviation).sum())
        score: NDArray[np.float32] = np.tensordot(slope, features, axes=1) + np.float32(offset)
        return score


@dataclass(frozen=True)
class Labelled:
    """A prepared micrograph with what is known of it, in its own pixels.

    Attributes
    ----------
    prepared
        The micrograph.
    good_yx_px, bad_yx_px, unknown_yx_px
        ``(n, 2)`` each: particles, picks that the classes refused, and picks that nobody judged.
    """

    prepared: Prepared
    good_yx_px: NDArray[np.float64]
    bad_yx_px: NDArray[np.float64]
    unknown_yx_px: NDArray[np.float64]

    @property
    def may_be_yx_px(self) -> NDArray[np.float64]:
        """Places that are or may be particles: ``(n, 2)``."""
        return np.concatenate([self.good_yx_px, self.unknown_yx_px])


def train_model(micrographs: list[Labelled], *, min_distance_px: float, seed: int) -> Model:
    """Train a picker.

    Parameters
    ----------
    micrographs
        At least one, with at least ten particles together.
    min_distance_px
        No two picks will be closer.
    seed
        Of the places that stand for background.

    Raises
    ------
    ValueError
        There are too few particles.
    """
    count = sum(len(one.good_yx_px) for one in micrographs)
    if count < 10:
        raise ValueError(f"a picker cannot be trained on {count} particles; at least 10 are needed")
    rng = np.random.default_rng(seed)
    radius_px = _REACH * WORKING_DIAMETER_PX
    anywhere = [_draw_places(one, rng) for one in micrographs]
    filters = learn_filters(
        np.concatenate([sample_polar(o.prepared.image, o.good_yx_px, radius_px=radius_px) for o in micrographs]),
        np.concatenate(
            [sample_polar(o.prepared.image, p, radius_px=radius_px) for o, p in zip(micrographs, anywhere, strict=True)]
        ),
    )
    fields = [compute_features_2d(one.prepared.image, filters, diameter_px=WORKING_DIAMETER_PX) for one in micrographs]
    good = np.concatenate([_at(f, o.good_yx_px) for f, o in zip(fields, micrographs, strict=True)])
    beside = np.concatenate([_at(f, _beside(o, rng)) for f, o in zip(fields, micrographs, strict=True)])
    refused = np.concatenate([_at(f, o.bad_yx_px) for f, o in zip(fields, micrographs, strict=True)])
    model = _fit(filters, good, np.concatenate([beside, *(_at(f, p) for f, p in zip(fields, anywhere, strict=True))]))
    for _ in range(_ROUNDS):
        parts = [_split_peaks(model, f, o, min_distance_px) for f, o in zip(fields, micrographs, strict=True)]
        good, peaks = np.concatenate([g for g, _ in parts]), np.concatenate([u for _, u in parts])
        level = model.score(good)
        others = [
            beside,
            refused[model.score(refused) < np.median(level)],
            peaks[model.score(peaks) < np.quantile(level, _MAY_BE)],
        ]
        model = _fit(filters, good, np.concatenate(others))
    return model


def _fit(filters: Filters, good: NDArray[np.float64], others: NDArray[np.float64]) -> Model:
    """Fit weights by Newton steps (iteratively reweighted least squares) with a ridge, both sides counting alike."""
    every = np.concatenate([good, others])
    mean, deviation = every.mean(axis=0), np.maximum(every.std(axis=0), 1e-6)
    mean[-1], deviation[-1] = 0.0, 1.0  # the constant
    x = (every - mean) / deviation
    label = np.r_[np.ones(len(good)), np.zeros(len(others))]
    share = np.r_[np.full(len(good), 0.5 / len(good)), np.full(len(others), 0.5 / max(len(others), 1))]
    weights = np.zeros(x.shape[1])
    for _ in range(_MOST_STEPS):
        odds = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (share * (odds - label)) + _RIDGE * weights
        curvature = (x * (share * odds * (1 - odds))[:, None]).T @ x + _RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights -= step * min(1.0, 2.0 / (np.abs(step).max() + 1e-12))
        if np.abs(step).max() < 1e-5:
            break
    return Model(filters, mean, deviation, weights)


def _split_peaks(
    model: Model, features: NDArray[np.float32], one: Labelled, min_distance_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the features of the peaks that are given particles, and of those that no pick is near to: ``(n, k)`` each."""
    peaks = _peaks(model, features, one, min_distance_px)
    same = _nearest(peaks, one.good_yx_px) <= SAME * WORKING_DIAMETER_PX
    picked = _nearest(peaks, np.concatenate([one.may_be_yx_px, one.bad_yx_px])) <= SAME * WORKING_DIAMETER_PX
    lost = _nearest(one.good_yx_px, peaks) > SAME * WORKING_DIAMETER_PX
    return np.concatenate([_at(features, peaks[same]), _at(features, one.good_yx_px[lost])]), _at(features, peaks[~picked])


def _peaks(model: Model, features: NDArray[np.float32], one: Labelled, min_distance_px: float) -> NDArray[np.float64]:
    slope = (model.weights / model.deviation).astype(np.float32)
    score = np.tensordot(slope, features, axes=1)
    return find_peaks_2d(score, min_distance_px=min_distance_px, allowed=one.prepared.allowed)[0]


def _at(features: NDArray[np.float32], yx_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the features at the nearest pixels: ``(n, k)``."""
    place = np.clip(np.round(yx_px), 0, np.array(features.shape[1:]) - 1).astype(np.int64)
    values: NDArray[np.float64] = features[:, place[:, 0], place[:, 1]].T.astype(np.float64)
    return values


def _beside(one: Labelled, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a place beside each particle that may be none of the others: ``(m, 2)``."""
    count = len(one.good_yx_px)
    length = rng.uniform(*_BESIDE, count) * WORKING_DIAMETER_PX
    angle = rng.uniform(0, 2 * np.pi, count)
    places: NDArray[np.float64] = one.good_yx_px + length[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return places[_nearest(places, one.may_be_yx_px) > _BESIDE[0] * WORKING_DIAMETER_PX]


def _draw_places(one: Labelled, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw allowed places at random, thrice as many as a crowded micrograph has particles: ``(n, 2)``."""
    allowed = np.argwhere(one.prepared.allowed)
    count = min(len(allowed), int(3 * one.prepared.image.size / WORKING_DIAMETER_PX**2))
    places = allowed[rng.choice(len(allowed), count, replace=False)].astype(np.float64)
    return places[_nearest(places, one.may_be_yx_px) > _APART * WORKING_DIAMETER_PX]


def _nearest(yx_px: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cKDTree(others).query(yx_px)[0]) if len(others) and len(yx_px) else np.full(len(yx_px), np.inf)
