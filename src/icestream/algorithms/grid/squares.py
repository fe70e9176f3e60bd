"""How much squares differ, and the effect of each, shrunk towards its neighbours and the grid: one-way layout and kriging."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial import cKDTree

Array = NDArray[np.float64]

PRIOR_VARIANCE = 0.05
_PRIOR_WEIGHT = 3.0
"""Before squares were seen, their effects vary by this much; the guess counts as much as so many squares."""

LEAST_VARIANCE = 1e-4
_SHARED = (0.0, 0.4, 0.8)
_SQUARE_LENGTHS = (1.0, 2.0, 4.0)


def split_variance(plain: Array, square: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the variance within squares and that of their effects, by the moments of a one-way layout, with a prior."""
    total = max(float(plain.var()), LEAST_VARIANCE)
    means = np.bincount(square, plain, len(counts)) / np.maximum(counts, 1)
    there = counts > 0
    n, k = len(plain), int(there.sum())
    inside = float(np.sum((plain - means[square]) ** 2))
    within = max((inside + _PRIOR_WEIGHT * total) / (n - k + _PRIOR_WEIGHT), LEAST_VARIANCE)
    if k < 2:
        return within, PRIOR_VARIANCE
    grand = float(plain.mean())
    spread = float(np.sum(counts[there] * (means[there] - grand) ** 2)) / (k - 1)
    size = (n - float(np.sum(counts[there] ** 2)) / n) / (k - 1)
    moment = max((spread - within) / max(size, 1e-9), 0.0)
    between = (_PRIOR_WEIGHT * PRIOR_VARIANCE + (k - 1) * moment) / (_PRIOR_WEIGHT + k - 1)
    return within, max(between, LEAST_VARIANCE)


def find_square_effects(
    plain: Array, square: NDArray[np.int64], counts: NDArray[np.int64], centres_yx_um: Array, *, within: float, between: float
) -> tuple[Array, Array]:
    """Return the mean of each square with its variance: what was seen in it, shrunk towards its neighbours and the grid."""
    there = np.flatnonzero(counts)
    means = np.bincount(square, plain, len(counts))[there] / counts[there]
    noise = within / counts[there]
    best, chosen = -np.inf, (0.0, 1.0)
    step_um = _neighbour_step_um(centres_yx_um)
    for shared in _SHARED:
        for length in _SQUARE_LENGTHS if shared else _SQUARE_LENGTHS[:1]:
            cover = _square_covariance(centres_yx_um, there, there, shared, length * step_um, between)
            likelihood = log_likelihood(means, cover + np.diag(noise))
            if likelihood > best + 1e-9:
                best, chosen = likelihood, (shared, length * step_um)
    known = _square_covariance(centres_yx_um, there, there, *chosen, between) + np.diag(noise)
    across = _square_covariance(centres_yx_um, np.arange(len(counts)), there, *chosen, between)  # (all, seen)
    factor = cho_factor(known)
    ones = cho_solve(factor, np.ones(len(there)))
    grand = float(ones @ means / ones.sum())
    effect = grand + across @ cho_solve(factor, means - grand)
    solved = cho_solve(factor, across.T)  # (seen, all)
    grand_doubt = (1 - across @ ones) ** 2 / ones.sum()
    variance = np.maximum(between - np.sum(across * solved.T, axis=1), 0.0) + grand_doubt
    return effect, variance


def _neighbour_step_um(centres_yx_um: Array) -> float:
    known = centres_yx_um[np.isfinite(centres_yx_um).all(axis=1)]
    if len(known) < 2:
        return 1.0
    return max(float(np.median(cKDTree(known).query(known, k=2)[0][:, 1])), 1e-6)


def _square_covariance(
    centres_yx_um: Array, one: NDArray[np.int64], other: NDArray[np.int64], shared: float, length_um: float, variance: float
) -> Array:
    difference = centres_yx_um[one][:, None, :] - centres_yx_um[other][None, :, :]  # (a, b, 2)
    near = np.nan_to_num(np.exp(-0.5 * np.sum(difference**2, axis=2) / length_um**2))
    cover: Array = np.where(one[:, None] == other[None, :], variance, variance * shared * near)
    return cover


def log_likelihood(values: Array, cover: Array) -> float:
    """Return the log likelihood of values with this covariance about their own generalised mean, without constants."""
    factor = cho_factor(cover)
    ones = cho_solve(factor, np.ones(len(values)))
    residual = values - float(ones @ values / ones.sum())
    return float(-0.5 * residual @ cho_solve(factor, residual) - np.log(np.diag(factor[0])).sum() - 0.5 * np.log(ones.sum()))
