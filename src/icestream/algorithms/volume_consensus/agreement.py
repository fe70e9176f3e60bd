"""Which of several volumes show the same: each pair aligned over rotation, shift and hand, and grouped by how far it agrees."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from icestream.algorithms.initial_volume import DETAIL_ANG, VolumeSetting
from icestream.algorithms.volumes import Alignment, align_volume_3d, apply_alignment_3d, fourier_shell_correlation_3d

Volume = NDArray[np.float32]
ALIKE = 0.6
"""Mean shell correlation to 25 Å at which volumes count as the same."""
_COMPARED_ANG = 25.0
_SHIFT_SHARE = 0.1


@dataclass(frozen=True)
class Agreement:
    """How far volumes agree.

    ``similarity`` ``(n, n)`` is the mean shell correlation to 25 Å of each pair, aligned; ``group`` ``(n,)`` numbers those that
    are alike.
    """

    similarity: NDArray[np.float64]
    group: NDArray[np.int64]


def compare_volumes(
    volumes: Sequence[Volume], *, setting: VolumeSetting, report: Callable[[float, str], None] | None = None
) -> Agreement:
    """Align every pair of volumes of the working box, and group them by average linkage."""
    n = len(volumes)
    similarity = np.eye(n)
    pairs = [(i, j) for j in range(n) for i in range(j)]
    for number, (i, j) in enumerate(pairs):
        if report is not None:
            report(number / len(pairs), f"aligning pair {number + 1} of {len(pairs)}")
        moved = apply_alignment_3d(volumes[i], align_to(volumes[i], volumes[j], setting=setting))
        similarity[i, j] = similarity[j, i] = similarity_of(moved, volumes[j], setting=setting)
    return Agreement(similarity, group_alike(similarity))


def align_to(volume: Volume, reference: Volume, *, setting: VolumeSetting) -> Alignment:
    """Return what brings a volume of the working box onto another."""
    ring = setting.ring_at(DETAIL_ANG)
    return align_volume_3d(volume, reference, max_ring=ring, max_shift_px=_SHIFT_SHARE * setting.grid.box_px)


def similarity_of(a: Volume, b: Volume, *, setting: VolumeSetting) -> float:
    """Return the mean shell correlation of two volumes to 25 Å."""
    return float(fourier_shell_correlation_3d(a, b)[1][1 : setting.ring_at(_COMPARED_ANG) + 1].mean())


def group_alike(similarity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the group of each volume, from 0, largest group first: ``(n,)``."""
    if len(similarity) < 2:
        return np.zeros(len(similarity), np.int64)
    apart = np.clip(1 - (similarity + similarity.T) / 2, 0, None)
    np.fill_diagonal(apart, 0)
    found = fcluster(linkage(squareform(apart, checks=False), method="average"), 1 - ALIKE, criterion="distance")
    sizes = np.bincount(found)
    order = sorted(np.unique(found).tolist(), key=lambda one: (-sizes[one], int(np.flatnonzero(found == one)[0])))
    return np.array([order.index(one) for one in found.tolist()], dtype=np.int64)
