"""Particles that are not what their class shows: they fit it worse than the others, or have something beside it.

The score of a particle says how much of it its class explains; two particles in one box, or one on a bright edge, have all of
that. What is left after the class was taken away tells them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify2d import Assignment
from icestream.algorithms.scoring import PolarGrid, PolarParticles, polar_from_orders, sample_polar_2d, shift_ramps

_ROBUST = 1.4826
"""Standard deviations of a normal distribution in a median absolute deviation."""


def spread_of_members(class_id: NDArray[Any], values: NDArray[Any], *, n_classes: int) -> NDArray[np.float64]:
    """Return median and robust spread of a value over the members of each class: ``(k, 2)``, not a number for an empty one.

    The spread is that of the lower half: what lies far above the median, as the residual of junk, does not widen it.
    """
    result = np.full((n_classes, 2), np.nan)
    for k in np.unique(class_id[class_id >= 0]):
        mine = np.asarray(values[class_id == k], float)
        median = float(np.median(mine))
        result[k] = median, _ROBUST * float(np.median(median - mine[mine <= median]))
    return result


def find_outliers(
    class_id: NDArray[Any], values: NDArray[Any], members: Mapping[int, tuple[float, float]], *, limit: float, above: bool
) -> NDArray[np.bool_]:
    """Tell which particles lie farther from the median of their class than ``limit`` spreads, above it or below.

    Parameters
    ----------
    class_id, values
        ``(n,)``, of the particles.
    members
        Class → median and robust spread of all its members; particles of another class are none.
    """
    wrong = np.zeros(len(class_id), dtype=bool)
    sign = 1.0 if above else -1.0
    for one, (median, spread) in members.items():
        wrong |= (class_id == one) & (sign * (values - median) > limit * max(spread, 1e-9))
    return wrong


def measure_match(
    particles: PolarParticles,
    images: NDArray[np.float32],
    found: Assignment,
    *,
    noise_power: NDArray[np.float32],
    grid: PolarGrid,
    n_rings: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how much of its class each particle has, and what it has beside it: ``(n,)`` each.

    The first is 1 for a whole particle, about a half for half of one. The second is the power that is left when the class is
    taken away, over that of noise: 1 if there is noise alone. Only the first ``n_rings`` rings count, where particles, ice and
    edges have most of their power.

    Parameters
    ----------
    particles
        On ``grid``.
    images
        ``(k, box, box)``, class averages.
    found
        Class and pose of each particle.
    noise_power
        At least ``(n_rings,)``.
    """
    angles = np.arange(grid.half)
    low = PolarGrid(grid.box_px, n_rings, grid.n_angles)
    references = sample_polar_2d(images, grid=low)  # (k, n_rings, half)
    circle = np.concatenate([references, np.conj(references)], axis=-1)  # (k, n_rings, n_angles)
    turn = np.rint(found.psi_deg * (grid.n_angles / 360.0)).astype(np.int64)  # (n,)
    at = (angles[None, :] - turn[:, None]) % grid.n_angles  # (n, half)
    turned = np.take_along_axis(circle[found.class_id], at[:, None, :], axis=-1)  # (n, n_rings, half)
    turned = turned * shift_ramps(found.shift_yx_px.astype(np.float64), grid=low)
    orders = particles.signal[:, :, :n_rings].transpose(0, 2, 1)  # (n, n_rings, n_orders)
    signal, ctf_squared = polar_from_orders(orders, grid=low), particles.ctf_squared[:, :n_rings]
    cross = np.real(np.conj(turned) * signal).mean(axis=-1)  # (n, n_rings)
    own = ctf_squared * (np.abs(turned) ** 2).mean(axis=-1)
    weight = low.radii() / low.radii().sum() / noise_power[:n_rings]
    amplitude = (cross * weight).sum(axis=1) / np.maximum((own * weight).sum(axis=1), 1e-9)
    residual = ((particles.power[:, :n_rings] - 2 * cross + own) * weight).sum(axis=1)
    return amplitude.astype(np.float32), residual.astype(np.float32)
