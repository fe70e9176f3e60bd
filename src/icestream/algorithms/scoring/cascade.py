"""The search from coarse to fine: everywhere with few rings, then with all rings only where the coarse search saw anything.

The cells of the coarse search divide the poses of the fine one among them, so no pose is looked at twice. RELION's adaptive
oversampling (Scheres 2012, J. Struct. Biol. 180, 519) does the same with one resolution.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.scoring.bank import Bank, Level
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.scoring.polar import Real
from icestream.algorithms.scoring.search import NOWHERE, Poses, search_poses_2d
from icestream.algorithms.scoring.windows import PoseWindows, group_shifts, search_windows_2d


@dataclass(frozen=True)
class Cascade:
    """A coarse and a fine bank of the same references, and how generous the coarse search is.

    Cells less likely than the best by more than ``spared`` (a logarithm), or beyond the ``most`` best, are not looked into.
    """

    coarse: Bank
    fine: Bank
    spared: float = 9.0
    most: int = 60


def search_cascade_2d(particles: PolarParticles, cascade: Cascade, *, log_prior: Real | None = None) -> Poses:
    """Return the significant poses of each image at the fine level; ``log_prior`` as of `search_poses_2d`.

    The gain of a reference that was not looked into is that of the coarse search.

    Raises
    ------
    ValueError
        If the turns of the fine level are no multiple of those of the coarse one.
    """
    coarse, fine = cascade.coarse.level, cascade.fine.level
    if fine.grid.n_angles % coarse.grid.n_angles:
        raise ValueError(f"{fine.grid.n_angles} turns are no multiple of the {coarse.grid.n_angles} of the coarse search")
    seen = search_poses_2d(particles, cascade.coarse, log_prior=log_prior, negligible=cascade.spared, most=cascade.most)
    ratio = fine.grid.n_angles // coarse.grid.n_angles
    starts, shifts = group_shifts(_children(coarse, fine))
    whole = np.broadcast_to(np.float32(0) if log_prior is None else log_prior, (len(particles), cascade.fine.n_references))
    windows = PoseWindows(
        seen.particle,
        seen.class_id,
        ((seen.turn * ratio - ratio // 2) % fine.grid.n_angles).astype(np.int32),
        np.full(len(seen.particle), ratio, np.int32),
        seen.shift,
        whole[seen.particle, seen.class_id].astype(np.float32),
        starts,
        shifts,
    )
    found = search_windows_2d(particles, cascade.fine, windows)
    rough = np.minimum(seen.class_gain, found.gain[:, None])
    return replace(found, class_gain=np.where(found.class_gain > NOWHERE, found.class_gain, rough))


def _children(coarse: Level, fine: Level) -> list[NDArray[np.int32]]:
    """Return the fine shifts that are nearest to each coarse one."""
    apart = np.square(fine.shifts_yx_px[:, None] - coarse.shifts_yx_px).sum(axis=-1)  # (fine, coarse)
    nearest = apart.argmin(axis=1)
    return [np.flatnonzero(nearest == i).astype(np.int32) for i in range(len(coarse.shifts_yx_px))]
