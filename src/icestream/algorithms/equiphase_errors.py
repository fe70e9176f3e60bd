"""How far a CTF may be from the optimum of the equi-phase curve: errors from the likelihood at a distance, not at the top alone.

Where rings are faint the top of the agreement is narrow, for noise bends it too, and its foot is wide, for the amplitude of the
rings is measured anew for each CTF. So a standard error is a third of the distance at which the likelihood has fallen as it does
at three standard errors, wherever that is more than the curvature of the top says (profile likelihood; Venzon & Moolgavkar 1988,
Appl. Stat. 37, 87).
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.equiphase import equiphase_curve, ring_amplitude
from icestream.algorithms.equiphase_climb import EquiphaseObjective

_DISTANCES = (1.0, 2.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0)
_FAR = 3.0


def widen_covariance(
    objective: EquiphaseObjective, at: NDArray[np.float64], covariance: NDArray[np.float64], *, variance: float
) -> NDArray[np.float64]:
    """Return the covariance of an optimum, wider in every direction in which the likelihood falls more slowly than it says.

    Parameters
    ----------
    objective
        Of which it is an optimum.
    at
        ``(4,)``: its parameters.
    covariance
        ``(4, 4)`` from its curvature; zero for what was not fitted, and everywhere if there are no rings.
    variance
        Of a sample, as smooth sums of samples see it.
    """
    free = np.flatnonzero(np.diag(covariance) > 0)
    if free.size == 0:  # no rings at all
        return covariance
    scale = np.sqrt(np.diag(covariance)[free])
    size, axes = np.linalg.eigh(covariance[np.ix_(free, free)] / np.outer(scale, scale))
    half = scale[:, None] * axes * np.sqrt(np.maximum(size, 0.0))  # (n_free, n_free): one standard error along each axis
    directions = _directions(free.size)
    moves = np.zeros((directions.shape[0], 2, len(_DISTANCES), 4))
    steps = np.outer([1.0, -1.0], _DISTANCES)
    moves[..., free] = steps[None, :, :, None] * (directions @ half.T)[:, None, None, :]
    values = np.array([_value(objective, at + move) for move in moves.reshape(-1, 4)]).reshape(moves.shape[:3])
    best = max(float(np.max(values)), _value(objective, at))
    near = (best - values) / variance <= 0.5 * _FAR**2  # (n_directions, 2, n_distances)
    stretches = np.max(np.where(near, _DISTANCES, 0.0), axis=(1, 2)) / _FAR  # (n_directions,)
    shape = np.eye(free.size)
    for i in np.argsort(-stretches, kind="stable").tolist():
        missing = stretches[i] ** 2 - directions[i] @ shape @ directions[i]
        shape += max(missing, 0.0) * np.outer(directions[i], directions[i])
    wide = np.zeros((4, 4))
    wide[np.ix_(free, free)] = half @ shape @ half.T
    return wide


def _value(objective: EquiphaseObjective, parameters: NDArray[np.float64]) -> float:
    """Return the agreement of a CTF with the amplitude of the rings that it gives."""
    inside = objective.limits.confine(parameters)
    constant_rad = objective.constant_rad(inside)
    curve = equiphase_curve(objective.cells, inside, optics=objective.optics)
    model = curve.model(constant_rad, ring_amplitude(curve, constant_rad))
    return float(np.sum(curve.count * model * (curve.measured - 0.5 * model)))


def _directions(n: int) -> NDArray[np.float64]:
    """Return the axes, and between each two of them both diagonals: ``(n_directions, n)``."""
    axes = np.eye(n)
    diagonals = [(axes[i] + sign * axes[j]) / np.sqrt(2.0) for i, j in combinations(range(n), 2) for sign in (1.0, -1.0)]
    return np.array([*axes, *diagonals])
