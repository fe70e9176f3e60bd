"""Local maxima of a response image, thinned so that no two are closer than a particle."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from icestream.algorithms.fourier import Image


def find_peaks_2d(
    response: Image, *, min_distance_px: float, allowed: NDArray[np.bool_] | None = None, above: float = -np.inf
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the local maxima of ``response``, the highest first, none closer than ``min_distance_px`` to a higher one.

    Peaks of equal height are taken in row-major order, so the result does not depend on chance.

    Parameters
    ----------
    response
        ``(h, w)``.
    min_distance_px
        The smallest distance that two peaks may have.
    allowed
        ``(h, w)``; a maximum where it is false is no peak, nor does it hide others. Everywhere when unset.
    above
        Lower maxima are no peaks.

    Returns
    -------
    yx_px, height
        ``(n, 2)``, refined to a fraction of a pixel by a parabola along each axis, and ``(n,)``.
    """
    rows, columns = _local_maxima(response, response > above if allowed is None else allowed & (response > above))
    order = np.argsort(-response[rows, columns], kind="stable")
    whole = np.stack([rows[order], columns[order]], axis=1)  # (m, 2)
    kept = whole[suppress_neighbours(whole, min_distance_px=min_distance_px)]  # (n, 2)
    height = np.asarray(response, dtype=np.float64)[kept[:, 0], kept[:, 1]]  # (n,)
    return kept + _parabola_offset(response, kept), height


def _local_maxima(response: Image, candidates: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the candidates ``(h, w)`` that no neighbour is above, and at least one below."""
    rows, columns = np.nonzero(candidates)
    padded = np.pad(response, 1, mode="edge")
    is_higher = np.zeros(len(rows), dtype=bool)
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            near, middle = padded[rows + down, columns + right], response[rows, columns]
            highest = near <= middle
            is_higher = (is_higher | (near < middle))[highest]
            rows, columns = rows[highest], columns[highest]
    return rows[is_higher], columns[is_higher]  # a plateau has no peak


def climb_2d(response: Image, yx_px: NDArray[np.float64], *, reach_px: float) -> NDArray[np.float64]:
    """Move points to the top of the hill of ``response`` on which each is: ``(n, 2)``, refined as the peaks are.

    A point whose top is further away than ``reach_px``, or outside the image, stays where it is.

    Parameters
    ----------
    response
        ``(h, w)``.
    yx_px
        ``(n, 2)``.
    reach_px
        How far a point may go.
    """
    size = np.array(response.shape)
    start = np.asarray(yx_px, dtype=np.float64).reshape(-1, 2)
    place = np.clip(np.round(start), 0, size - 1).astype(np.int64)  # (n, 2)
    steps = np.stack(np.meshgrid((0, -1, 1), (0, -1, 1), indexing="ij"), axis=-1).reshape(-1, 2)  # (9, 2), the first stays
    padded = np.pad(np.asarray(response, dtype=np.float64), 1, constant_values=-np.inf)
    for _ in range(int(np.ceil(reach_px)) + 1):
        around = place[:, None] + steps  # (n, 9, 2)
        best = np.argmax(padded[around[..., 0] + 1, around[..., 1] + 1], axis=1)
        if not best.any():
            break
        place = around[np.arange(len(place)), best]
    top = place + _parabola_offset(response, place)
    near = np.hypot(*(top - start).T) <= reach_px
    return np.where(near[:, None], top, start)


def suppress_neighbours(yx_px: NDArray[Any], *, min_distance_px: float) -> NDArray[np.bool_]:
    """Tell which points have no earlier kept point nearer than ``min_distance_px``: ``(n,)``."""
    keep = np.ones(len(yx_px), dtype=bool)
    if len(yx_px) < 2 or min_distance_px <= 0:
        return keep
    pairs = cKDTree(yx_px).query_pairs(min_distance_px * (1 - 1e-9), output_type="ndarray")  # (m, 2), the earlier first
    undecided = np.ones(len(yx_px), dtype=bool)
    keep[:] = False
    while undecided.any():
        first = undecided.copy()
        first[pairs[:, 1]] = False
        keep |= first
        undecided &= ~first
        undecided[pairs[first[pairs[:, 0]], 1]] = False
        pairs = pairs[undecided[pairs].all(axis=1)]
    return keep


def _parabola_offset(response: Image, yx_px: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how far the top of the parabola through a maximum and its two neighbours is from it, per axis: ``(n, 2)``."""
    offset = np.zeros((len(yx_px), 2))
    rows, columns = yx_px[:, 0], yx_px[:, 1]
    middle = np.asarray(response, dtype=np.float64)[rows, columns]
    for axis, size in enumerate(response.shape):
        along = yx_px[:, axis]
        inside = (along > 0) & (along < size - 1)
        step = np.eye(2, dtype=np.int64)[axis]
        before = yx_px - step * inside[:, None]
        after = yx_px + step * inside[:, None]
        low = np.asarray(response[before[:, 0], before[:, 1]], dtype=np.float64)
        high = np.asarray(response[after[:, 0], after[:, 1]], dtype=np.float64)
        curvature = low - 2 * middle + high
        bent = inside & (curvature < 0)
        offset[bent, axis] = 0.5 * (low - high)[bent] / curvature[bent]
    return np.clip(offset, -0.5, 0.5)
