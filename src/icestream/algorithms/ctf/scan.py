"""How far a CTF may be from the best one: errors from the likelihood at a distance, not from its top alone.

Where rings are faint the top of the likelihood is narrow, for noise bends it too, and its foot is wide, for the amplitude of the
rings is measured again for each CTF. So a standard error is a third of the distance at which the likelihood has fallen as it does
at three standard errors, wherever that is more than the curvature of the top says (profile likelihood; Venzon & Moolgavkar 1988,
Appl. Stat. 37, 87).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

_DISTANCES = (3.5, 4.0, 4.5, 5.0, 6.5, 8.5, 11.0)
_FAR = 3.0
_WIDEST = 3.0


@dataclass(frozen=True)
class LikelihoodScan:
    """What is about an optimum.

    ``covariance`` ``(4, 4)`` is that of the curvature, wider in every direction in which the likelihood falls more slowly than
    it says; ``highest`` ``(4,)`` the most likely CTF of all that were seen, by ``gain`` more than the optimum, in units of the
    log-likelihood.
    """

    covariance: NDArray[np.float64]
    highest: NDArray[np.float64]
    gain: float


def scan_likelihood(
    log_likelihood: Callable[[NDArray[np.float64]], float], at: NDArray[np.float64], covariance: NDArray[np.float64]
) -> LikelihoodScan:
    """Look at the likelihood along the axes of the curvature, and along the diagonals between each two of them.

    Parameters
    ----------
    log_likelihood
        Of a CTF ``(4,)``, up to a constant.
    at
        ``(4,)``: the optimum, or what was taken for it.
    covariance
        ``(4, 4)`` from its curvature; zero for what was not fitted, and everywhere if there are no rings.
    """
    free = np.flatnonzero(np.diag(covariance) > 0)
    if free.size == 0:  # no rings at all
        return LikelihoodScan(covariance, at, 0.0)
    scale = np.sqrt(np.diag(covariance)[free])
    size, axes = np.linalg.eigh(covariance[np.ix_(free, free)] / np.outer(scale, scale))
    half = scale[:, None] * axes * np.sqrt(np.maximum(size, 0.0))  # (n_free, n_free): one standard error along each axis
    directions = _directions(free.size)
    moves = np.zeros((directions.shape[0], 2, len(_DISTANCES), 4))
    steps = np.outer([1.0, -1.0], _DISTANCES)
    moves[..., free] = steps[None, :, :, None] * (directions @ half.T)[:, None, None, :]
    points = at + moves.reshape(-1, 4)
    values, start = np.array([log_likelihood(each) for each in points]), log_likelihood(at)
    best = int(np.argmax(values))
    highest, top = (points[best], float(values[best])) if values[best] > start else (at, start)
    near = (top - values).reshape(moves.shape[:3]) <= 0.5 * _FAR**2  # (n_directions, 2, n_distances)
    stretches = np.max(np.where(near, _DISTANCES, 0.0), axis=(1, 2)) / _FAR  # (n_directions,)
    shape = np.eye(free.size)
    for i in np.argsort(-stretches, kind="stable").tolist():
        missing = stretches[i] ** 2 - directions[i] @ shape @ directions[i]
        shape += max(missing, 0.0) * np.outer(directions[i], directions[i])
    wide = np.zeros((4, 4))
    wide[np.ix_(free, free)] = half @ shape @ half.T
    return LikelihoodScan(wide, highest, top - start)


def bound_covariance(covariance: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a covariance of which no direction is more than three times as uncertain as in the usual one.

    Noise may bend the top of the agreement until it is flat, though its sides are not; there, the scan goes far enough.
    """
    free = np.flatnonzero((np.diag(covariance) > 0) & (np.diag(usual) > 0))
    if free.size == 0:
        return covariance
    scale = np.sqrt(np.diag(usual)[free])
    size, axes = np.linalg.eigh(usual[np.ix_(free, free)] / np.outer(scale, scale))
    factor = scale[:, None] * axes * np.sqrt(np.maximum(size, 1e-9))
    inverse = np.linalg.inv(factor)
    size, axes = np.linalg.eigh(inverse @ covariance[np.ix_(free, free)] @ inverse.T)
    bounded = factor @ ((axes * np.minimum(size, _WIDEST**2)) @ axes.T) @ factor.T
    found = np.zeros((4, 4))
    found[np.ix_(free, free)] = bounded
    return found


def _directions(n: int) -> NDArray[np.float64]:
    """Return the axes, all diagonals between two of them and, of three, between all: ``(n_directions, n)``."""
    signs = [each for each in product((0.0, 1.0, -1.0), repeat=n) if np.count_nonzero(each) in {1, 2, 3 if n == 3 else 2}]
    halves = np.array([each for each in signs if next(filter(None, each)) > 0])  # one of each two that are opposite
    directions: NDArray[np.float64] = halves / np.linalg.norm(halves, axis=1, keepdims=True)
    return directions
