"""The frame of a volume: what turns and moves the poses of one refinement into the frame of an earlier one.

Two refinements of the same particles may differ by a turn and a move of the whole volume, which the poses of the particles that
both have show far better than the volumes do. Poses that are brought into the earlier frame make a volume in it, without any
interpolation of maps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.volumes import Rotations, mean_rotation, nearest_equivalent, rotation_distance_deg

_TRIED = 24
_JUDGES = 500
_ROUNDS = 6
_LEAST_DEG = 0.5
"""Poses that agree better than this are never left out as outliers."""


@dataclass(frozen=True)
class Frame:
    """What takes poses of one refinement into the frame of another.

    A point at ``v`` there is at ``rotation @ v + move_xyz_px`` here. ``spread_deg`` is the median angle by which poses differ
    afterwards.
    """

    rotation: Rotations
    move_xyz_px: NDArray[np.float64]
    spread_deg: float

    @property
    def turn_deg(self) -> float:
        """The angle of the turn."""
        return float(rotation_distance_deg(self.rotation[None], np.eye(3)[None])[0])


def find_frame(
    rotations: Rotations,
    shift_yx_px: NDArray[np.float64],
    *,
    before: Rotations,
    shift_before_yx_px: NDArray[np.float64],
    group: Rotations,
) -> Frame:
    """Find the turn and the move between two refinements of the same particles; outliers hardly count.

    Parameters
    ----------
    rotations, shift_yx_px
        ``(n, 3, 3)`` and ``(n, 2)``, the poses in one refinement.
    before, shift_before_yx_px
        The same of the refinement whose frame is looked for.
    group
        ``(g, 3, 3)``, of the particle; turns that it does not show are not told apart, and the least of them is found.
    """
    some = np.linspace(0, len(rotations) - 1, min(len(rotations), _JUDGES)).astype(np.int64)
    tried = np.linspace(0, len(some) - 1, min(len(some), _TRIED)).astype(np.int64)
    candidates = np.concatenate([np.eye(3)[None], np.swapaxes(rotations[some[tried]], -1, -2) @ before[some[tried]]])
    apart = [np.median(rotation_distance_deg(rotations[some] @ one, before[some], group=group)) for one in candidates]
    apart[0] = min(apart[0] - _LEAST_DEG, apart[0])  # no turn at all, unless another one is clearly better
    turn = candidates[int(np.argmin(apart))]
    kept = np.ones(len(rotations), dtype=np.bool_)
    for _ in range(_ROUNDS):
        relative = np.swapaxes(rotations, -1, -2) @ nearest_equivalent(before, rotations @ turn, group=group)
        turn = mean_rotation(relative[kept])
        differ = rotation_distance_deg(relative, np.broadcast_to(turn, relative.shape))
        kept = differ <= max(2 * float(np.median(differ)), _LEAST_DEG)
    move = _find_move(rotations[kept], shift_before_yx_px[kept] - shift_yx_px[kept], group, turn)
    return Frame(turn, move, float(np.median(differ)))


def _find_move(rotations: Rotations, by_yx_px: NDArray[np.float64], group: Rotations, turn: Rotations) -> NDArray[np.float64]:
    """Return the move along x, y and z by which shifts differ (least squares), along axes that the symmetry leaves in place."""
    rows = rotations[:, 1::-1].reshape(-1, 3)  # y then x of each view
    fixed = (turn @ group @ turn.T).mean(axis=0)  # projects onto what the symmetry leaves in place
    values, axes = np.linalg.eigh((fixed + fixed.T) / 2)
    free = axes[:, values > 0.5]  # (3, d)
    if not free.shape[1]:
        return np.zeros(3)
    along = np.linalg.lstsq(rows @ free, by_yx_px.ravel(), rcond=None)[0]
    move: NDArray[np.float64] = free @ along
    return move


def into_frame(rotations: Rotations, shift_yx_px: NDArray[np.float64], frame: Frame) -> tuple[Rotations, NDArray[np.float64]]:
    """Return poses ``(n, 3, 3)`` and ``(n, 2)`` in the frame that `find_frame` found."""
    return rotations @ frame.rotation, shift_yx_px + (rotations @ frame.move_xyz_px)[:, 1::-1]
