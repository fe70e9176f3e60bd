"""How good holes will be that nobody has exposed, learnt from those that were: squares and their neighbours, place in the square.

A hole's quality, from 0 to 1, is the sum of the mean of the grid, the effect of its square, a trend with the distance from the
centre of the square (the same in all squares), a smooth change within the square, and chance. The square's effect is correlated
between neighbouring squares. All variances and lengths are estimated from the data themselves (empirical Bayes: Efron & Morris
1973, JASA 68, 117), the rest is Gaussian-process regression (Rasmussen & Williams 2006, Gaussian Processes for Machine Learning,
ch. 2), once between the squares and once within each: its cost grows with the cube of the squares, and of the holes of one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

from icestream.algorithms.grid.squares import (
    LEAST_VARIANCE,
    PRIOR_VARIANCE,
    find_square_effects,
    log_likelihood,
    split_variance,
)

Array = NDArray[np.float64]

_SMOOTH = (0.0, 0.3, 0.6, 0.9)
_HOLE_LENGTHS = (2.0, 4.0, 8.0)
_MOST_IN_SQUARE = 300
_TREND_RIDGE, _LEAST_F = 4.0, 4.0
"""How much a trend is shrunk, and the least F statistic of one that is believed."""

_LEAST_KNOWN = 10
_CURVE_BINS, _CURVE_LENGTH = 60, 0.6
"""The curve against a covariate bends over so many of its standard deviations."""


@dataclass(frozen=True)
class Holes:
    """Some holes: positions ``(n, 2)``, the number of each one's square, and its distance from the centre, 0 to about 1."""

    yx_um: Array
    square: NDArray[np.int64]
    distance: Array


@dataclass(frozen=True)
class Promise:
    """What is expected of holes, ``(n,)`` each.

    Attributes
    ----------
    expected
        The mean of the quality, 0 to 1.
    sd
        Its standard deviation, chance from hole to hole left out.
    sd_square
        That part of it which is due to the square, and which an exposure there would teach.
    n_seen
        Holes that were seen in the square.
    """

    expected: Array
    sd: Array
    sd_square: Array
    n_seen: NDArray[np.int64]


def measure_distance(yx_um: Array, square: NDArray[np.int64], centres_yx_um: Array) -> Array:
    """Return how far holes are from the centre of their square, over the largest distance of any hole of all squares."""
    distance: Array = np.linalg.norm(yx_um - centres_yx_um[square], axis=1)
    largest = float(distance.max(initial=0.0))
    return distance / largest if largest > 0 else distance


def predict_quality(
    seen: Holes, quality: Array, wanted: Holes, *, centres_yx_um: Array, covariate: Array | None = None
) -> Promise:
    """Return what the quality of holes will be.

    Parameters
    ----------
    seen, quality
        The holes that were exposed, and how good each was, 0 to 1.
    wanted
        Those to predict.
    centres_yx_um
        The centre of each square ``(k, 2)``; one whose centre is not finite has no neighbours.
    covariate
        A number that was measured of each seen hole and goes with its quality, such as the logarithm of the thickness of the
        ice; NaN where it was not. It is predicted for the other holes by the same model, and the quality from it.
    """
    if len(quality) == 0:
        flat = np.full(len(wanted.square), 0.5)
        spread = np.full(len(flat), np.sqrt(PRIOR_VARIANCE))
        return Promise(flat, spread, spread.copy(), np.zeros(len(flat), np.int64))
    by_covariate = np.zeros(len(wanted.square))
    taught = np.zeros(len(wanted.square))
    rest = quality
    known = None if covariate is None else np.isfinite(covariate)
    if covariate is not None and known is not None and known.sum() >= _LEAST_KNOWN and float(covariate[known].std()) > 0:
        curve = _fit_curve(covariate[known], quality[known])
        field = _predict_field(_some(seen, known), covariate[known], wanted, centres_yx_um)
        by_covariate = curve.expect(field.mean, np.sqrt(field.variance + field.chance))[0]
        taught = curve.expect(field.mean, np.sqrt(field.square_variance))[1]
        mine = _predict_field(_some(seen, known), covariate[known], seen, centres_yx_um)
        filled = np.where(known, np.nan_to_num(covariate), mine.mean)
        rest = quality - curve.expect(filled, np.where(known, 0.0, np.sqrt(mine.variance + mine.chance)))[0]
    field = _predict_field(seen, rest, wanted, centres_yx_um)
    return Promise(
        expected=np.clip(by_covariate + field.mean, 0.0, 1.0),
        sd=np.sqrt(field.variance + taught**2),
        sd_square=np.sqrt(field.square_variance + taught**2),
        n_seen=np.bincount(seen.square, minlength=len(centres_yx_um))[wanted.square],
    )


@dataclass(frozen=True)
class _Field:
    """A number at some holes: its mean, the variance of that, the part due to squares, and the variance of chance (one value)."""

    mean: Array
    variance: Array
    square_variance: Array
    chance: float


def _some(holes: Holes, which: NDArray[np.bool_]) -> Holes:
    return Holes(holes.yx_um[which], holes.square[which], holes.distance[which])


def _predict_field(seen: Holes, values: Array, wanted: Holes, centres_yx_um: Array) -> _Field:
    """Predict a number by grid, square, distance from the centre and neighbours."""
    counts = np.bincount(seen.square, minlength=len(centres_yx_um))
    trend = _fit_trend(seen, values, counts)
    plain = values - _trend_at(trend, seen.distance)
    within, between = split_variance(plain, seen.square, counts)
    effect, effect_variance = find_square_effects(plain, seen.square, counts, centres_yx_um, within=within, between=between)
    local, local_variance, chance = _within_squares(seen, plain - effect[seen.square], wanted, within=within)
    mean = effect[wanted.square] + _trend_at(trend, wanted.distance) + local
    return _Field(mean, effect_variance[wanted.square] + local_variance, effect_variance[wanted.square], chance)


@dataclass(frozen=True)
class _Curve:
    """A smooth curve of the quality against a covariate, by Gaussian-process regression on at most some hundred points."""

    middle: float
    scale: float
    at: Array
    weights: Array
    level: float

    def __call__(self, covariate: Array) -> Array:
        """Return the quality at values of any shape."""
        scaled = (covariate - self.middle) / self.scale
        near = np.exp(-0.5 * ((scaled[..., None] - self.at) / _CURVE_LENGTH) ** 2)
        found: Array = self.level + near @ self.weights
        return found

    def expect(self, mean: Array, sd: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation of the quality where the covariate is normal: by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(7)
        weights = weights / weights.sum()
        at = self(mean[:, None] + np.broadcast_to(sd, mean.shape)[:, None] * nodes)  # (n, 7)
        middle = at @ weights
        return middle, np.sqrt(np.maximum((at - middle[:, None]) ** 2 @ weights, 0.0))


def _fit_curve(covariate: Array, quality: Array) -> _Curve:
    """Fit the curve to bins of equal counts."""
    middle, scale = float(np.median(covariate)), max(float(covariate.std()), 1e-9)
    order = np.argsort(covariate, kind="stable")
    bins = np.array_split(order, min(_CURVE_BINS, len(order)))
    at = np.array([(covariate[one].mean() - middle) / scale for one in bins])
    mean = np.array([quality[one].mean() for one in bins])
    level, variance = float(quality.mean()), max(float(quality.var()), LEAST_VARIANCE)
    cover = variance * np.exp(-0.5 * ((at[:, None] - at[None, :]) / _CURVE_LENGTH) ** 2)
    noise = np.diag(variance / np.array([len(one) for one in bins]))
    weights = variance * np.linalg.solve(cover + noise, mean - level)
    return _Curve(middle, scale, at, weights, level)


def _features(distance: Array) -> Array:
    return np.column_stack([distance - 0.6, distance**2 - 0.45])  # (n, 2)


def _fit_trend(seen: Holes, quality: Array, counts: NDArray[np.int64]) -> Array:
    """Regress the quality on the distance within squares, shrunk towards no trend; none where it explains too little."""
    features = _features(seen.distance)
    means = [np.bincount(seen.square, column, len(counts)) / np.maximum(counts, 1) for column in (*features.T, quality)]
    centred = features - np.column_stack(means[:2])[seen.square]
    residual = quality - means[2][seen.square]
    slope = np.asarray(np.linalg.solve(centred.T @ centred + _TREND_RIDGE * np.eye(2), centred.T @ residual), np.float64)
    left = float(np.sum((residual - centred @ slope) ** 2))
    free = len(residual) - int((counts > 0).sum()) - len(slope)
    gained = (float(residual @ residual) - left) / len(slope)
    return slope if free > 0 and gained > _LEAST_F * left / free else np.zeros(len(slope))


def _trend_at(slope: Array, distance: Array) -> Array:
    trend: Array = _features(distance) @ slope
    return trend


def _within_squares(seen: Holes, residual: Array, wanted: Holes, *, within: float) -> tuple[Array, Array, float]:
    """Return the smooth change within squares at the wanted holes, its variance, and the variance of chance."""
    squares = {number: np.flatnonzero(seen.square == number)[-_MOST_IN_SQUARE:] for number in np.unique(seen.square).tolist()}
    smooth, length_um = _choose_smoothness(seen, residual, list(squares.values()), within)
    mean, variance = np.zeros(len(wanted.square)), np.full(len(wanted.square), smooth * within)
    if smooth == 0:
        return mean, variance, within
    for number, mine in squares.items():
        asked = np.flatnonzero(wanted.square == number)
        if len(asked) == 0:
            continue
        cover = _hole_covariance(seen.yx_um[mine], seen.yx_um[mine], smooth, length_um, within) + np.eye(len(mine)) * (
            (1 - smooth) * within
        )
        across = _hole_covariance(wanted.yx_um[asked], seen.yx_um[mine], smooth, length_um, within)
        factor = cho_factor(cover)
        mean[asked] = across @ cho_solve(factor, residual[mine])
        variance[asked] -= np.sum(across * cho_solve(factor, across.T).T, axis=1)
    return mean, np.maximum(variance, 0.0), (1 - smooth) * within


def _choose_smoothness(seen: Holes, residual: Array, squares: list[NDArray[np.int64]], within: float) -> tuple[float, float]:
    large = sorted((mine for mine in squares if len(mine) >= 4), key=len)[-12:]
    if not large:
        return 0.0, 1.0
    step_um = float(np.median([np.median(cKDTree(seen.yx_um[mine]).query(seen.yx_um[mine], k=2)[0][:, 1]) for mine in large]))
    best, chosen = -np.inf, (0.0, 1.0)
    for smooth in _SMOOTH:
        for length in _HOLE_LENGTHS if smooth else _HOLE_LENGTHS[:1]:
            length_um = max(length * step_um, 1e-6)
            likelihood = 0.0
            for mine in large:
                cover = _hole_covariance(seen.yx_um[mine], seen.yx_um[mine], smooth, length_um, within)
                likelihood += log_likelihood(residual[mine], cover + np.eye(len(mine)) * ((1 - smooth) * within + 1e-9))
            if likelihood > best + 1e-9:
                best, chosen = likelihood, (smooth, length_um)
    return chosen


def _hole_covariance(one: Array, other: Array, smooth: float, length_um: float, variance: float) -> Array:
    squared = np.sum((one[:, None, :] - other[None, :, :]) ** 2, axis=2)  # (a, b)
    cover: Array = smooth * variance * np.exp(-0.5 * squared / length_um**2)
    return cover
