"""Where exposures and pictures are on the stage, learnt from positions that are known twice."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

_LEAST = 6
_ROUNDS = 3
_FLATTEST = 0.02
"""Points whose spread across is less than this share of that along their line say nothing of the second direction."""


@dataclass(frozen=True)
class Placement:
    """An affine map to stage positions: ``stage = offset + matrix @ (y, x)``."""

    offset_yx_um: NDArray[np.float64]
    matrix: NDArray[np.float64]
    rms_um: float
    n_points: int

    def place(self, yx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the stage positions of points ``(n, 2)``."""
        placed: NDArray[np.float64] = self.offset_yx_um + yx @ self.matrix.T
        return placed


def fit_placement(yx: NDArray[np.float64], stage_yx_um: NDArray[np.float64], *, least: int = _LEAST) -> Placement | None:
    """Fit the affine map from points ``(n, 2)`` to their stage positions ``(n, 2)`` in µm, by least squares.

    Points farther off than three robust standard deviations are left out, at most half of them.

    Returns
    -------
    placement
        None where there are fewer than ``least`` points, or all are on one line.
    """
    kept = np.isfinite(yx).all(axis=1) & np.isfinite(stage_yx_um).all(axis=1)
    yx, stage_yx_um = yx[kept], stage_yx_um[kept]
    used = np.ones(len(yx), bool)
    found: Placement | None = None
    for _ in range(_ROUNDS):
        if used.sum() < max(least, 3) or _is_flat(yx[used]):
            return found
        found, distance_um = _least_squares(yx, stage_yx_um, used)
        limit_um = 3 * 1.4826 * float(np.median(distance_um[used])) + 1e-9
        next_used = distance_um <= limit_um
        if (next_used == used).all() or 2 * next_used.sum() < len(yx):
            break
        used = next_used
    return found


def _is_flat(yx: NDArray[np.float64]) -> bool:
    spread = np.linalg.svd(yx - yx.mean(axis=0), compute_uv=False)
    return bool(spread[1] <= _FLATTEST * spread[0])


def _least_squares(
    yx: NDArray[np.float64], stage_yx_um: NDArray[np.float64], used: NDArray[np.bool_]
) -> tuple[Placement, NDArray[np.float64]]:
    design = np.column_stack([np.ones(len(yx)), yx])  # (n, 3)
    solution = np.asarray(np.linalg.lstsq(design[used], stage_yx_um[used], rcond=None)[0], np.float64)  # (3, 2)
    distance_um = np.hypot(*(design @ solution - stage_yx_um).T)
    rms_um = float(np.sqrt(np.mean(distance_um[used] ** 2)))
    return Placement(solution[0], solution[1:].T.copy(), rms_um, int(used.sum())), distance_um


def fit_shift(
    shift_yx: NDArray[np.float64], stage_yx_um: NDArray[np.float64], hole_yx_um: NDArray[np.float64]
) -> Placement | None:
    """Fit what a shift of beam or image moves the exposure by on the specimen: ``hole - stage = offset + matrix @ shift``.

    Whatever the unit, the sign and the rotation of the shift are, they come out of the exposures of holes whose positions are
    known, ``(n, 2)`` each.

    Returns
    -------
    placement
        None where too few exposures, or too little shift, tell it.
    """
    return fit_placement(shift_yx, hole_yx_um - stage_yx_um)


def group_positions(yx_um: NDArray[np.float64], *, gap_um: float) -> NDArray[np.int64]:
    """Return a group for each position ``(n, 2)``: those that a chain of steps of at most ``gap_um`` connects are in one.

    Groups are numbered by the first position in each.
    """
    if len(yx_um) == 0:
        return np.zeros(0, np.int64)
    cells, member = np.unique(np.round(yx_um / (0.1 * gap_um)).astype(np.int64), axis=0, return_inverse=True)
    pairs = cKDTree(cells * 0.1 * gap_um).query_pairs(gap_um, output_type="ndarray")  # (p, 2)
    links = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))
    labels = connected_components(links, directed=False)[1][member.ravel()]
    _, first, group = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbered: NDArray[np.int64] = rank[group]
    return numbered


def fit_frame(offsets_yx_um: NDArray[np.float64], *, step_deg: float = 1.0) -> tuple[float, float]:
    """Return by how many degrees (x towards y, -45 to 45) squares are turned, and half their side in µm.

    The offsets are those of all holes from the centres of their squares, ``(n, 2)``: the smallest square that holds 98 % of them.
    """
    best = (np.inf, 0.0)
    for angle_deg in np.arange(-45.0, 45.0, step_deg).tolist():
        cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
        turned = offsets_yx_um @ np.array([[cos, sin], [-sin, cos]])  # back by the angle
        best = min(best, (float(np.quantile(np.abs(turned).max(axis=1), 0.98)), angle_deg), key=lambda one: (one[0], abs(one[1])))
    return best[1], best[0]
