"""The poses that a volume has of particles, found by what names these; and what a classification by poses asks of a plan."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify3d import Setting
from icestream.algorithms.refine3d import Setting as Refining
from icestream.algorithms.volumes import Rotations, rotations_from_angles, symmetry_group
from icestream.flow import Context
from icestream.records import Volume

_NAMES = ["micrograph", "pid"]


def read_poses(volume: Volume, ctx: Context) -> NDArray[np.void]:
    """Return the poses of all particles of a volume, sorted by what names them."""
    tables = [np.load(ctx.path(table), allow_pickle=False) for table in volume.tables]
    return np.sort(np.concatenate(tables), order=_NAMES)


def find_rows(table: NDArray[np.void], known: NDArray[np.void]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where each row of a table is in another one, sorted by what names its particles, and whether it is there."""
    names = np.ascontiguousarray(known[_NAMES]).view()
    wanted = np.empty(len(table), dtype=names.dtype)
    for name in _NAMES:
        wanted[name] = table[name]
    at = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return at, names[at] == wanted


def rotations_of(rows: NDArray[np.void]) -> Rotations:
    """Return the rotations ``(n, 3, 3)`` that rows say by their angles."""
    return rotations_from_angles(np.column_stack([rows[f"{name}_deg"] for name in ("rot", "tilt", "psi")]))


def setting_of(plan: Refining, *, n_classes: int) -> Setting:
    """Return the classification by a plan of a refinement."""
    return Setting(
        grid=plan.grid,
        n_classes=n_classes,
        mask_radius_px=plan.mask_radius_px,
        edge_px=plan.edge_px,
        start_ring=plan.start_ring,
        symmetry=None if plan.symmetry == "C1" else symmetry_group(plan.symmetry),
    )
