"""Directions from which a particle is looked at: near-uniform grids on the sphere, each cell of which has four children.

The grid is HEALPix in its nested numbering (Górski et al. 2005, Astrophys. J. 622, 759), as in RELION: order 0 has 12 directions
about 59° apart, each further order four times as many at half the distance.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from icestream.algorithms.volumes.rotations import Rotations, rotations_from_angles

_FACE_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_FACE_LONGITUDE = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])
_GENERIC = np.array([0.28, 0.11, 0.954])
"""A direction on no axis and no mirror plane of any group; the asymmetric unit lies about it."""


@dataclass(frozen=True)
class Views:
    """Directions of one order: ``pixel`` ``(k,)`` their numbers on the sphere, ``rotations`` ``(k, 3, 3)`` with psi 0."""

    order: int
    pixel: NDArray[np.int64]
    rotations: Rotations

    def __len__(self) -> int:
        return len(self.pixel)

    @property
    def directions(self) -> NDArray[np.float64]:
        """The directions in the volume, ``(k, 3)`` of x, y, z: the last rows of the rotations."""
        return self.rotations[:, 2]

    @property
    def spacing_deg(self) -> float:
        """The mean distance of neighbours: the root of the area of a cell."""
        return view_spacing_deg(self.order)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Views":
        """Return some of the views, by their place here."""
        return Views(self.order, self.pixel[rows], self.rotations[rows])


def view_spacing_deg(order: int) -> float:
    """Return the mean distance of neighbouring views."""
    return float(np.rad2deg(np.sqrt(np.pi / 3)) / 2**order)


def order_for_spacing(spacing_deg: float) -> int:
    """Return the coarsest order whose views are at most ``spacing_deg`` apart."""
    return max(0, int(np.ceil(np.log2(view_spacing_deg(0) / spacing_deg) - 1e-9)))


@lru_cache(maxsize=16)
def all_views(order: int) -> Views:
    """Return the ``12 * 4**order`` views of the whole sphere; view ``i`` is pixel ``i``."""
    return _views_of(order, np.arange(12 * 4**order))


def asymmetric_views(order: int, *, group: Rotations) -> Views:
    """Return the views of one asymmetric unit of a group ``(g, 3, 3)``: of those that show the same, one."""
    whole = all_views(order)
    # A view of R shows the same as that of R @ g, whose direction is g.T @ direction.
    along = np.einsum("kj,gij,i->kg", whole.directions, group, _GENERIC)
    return whole.take(along[:, 0] >= along.max(axis=1) - 1e-9)


def child_views(views: Views) -> Views:
    """Return the four children of each view at the next order, ``(4 k,)``: children ``4 i`` to ``4 i + 3`` are those of ``i``."""
    return _views_of(views.order + 1, (4 * views.pixel[:, None] + np.arange(4)).ravel())


def views_within(views: Views, directions: NDArray[np.float64], *, radius_deg: float) -> list[NDArray[np.int64]]:
    """Return for each of ``(n, 3)`` directions the places of the views at most ``radius_deg`` away, or the nearest if none is."""
    tree = cKDTree(views.directions)
    near = tree.query_ball_point(directions, 2 * np.sin(np.deg2rad(min(radius_deg, 180.0)) / 2), return_sorted=True)
    nearest = tree.query(directions)[1]
    return [np.asarray(some or [one], dtype=np.int64) for some, one in zip(near, nearest, strict=True)]


def _views_of(order: int, pixel: NDArray[np.int64]) -> Views:
    rotations = rotations_from_angles(np.column_stack([_angles_of(order, pixel), np.zeros(len(pixel))]))
    rotations.flags.writeable = pixel.flags.writeable = False
    return Views(order, pixel, rotations)


def _angles_of(order: int, pixel: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return rot and tilt in degrees ``(n, 2)`` of nested HEALPix pixels."""
    side = 1 << order
    face, inside = pixel // side**2, pixel % side**2
    x, y = _every_other_bit(inside, order), _every_other_bit(inside >> 1, order)
    ring = _FACE_RING[face] * side - x - y - 1  # 1 … 4 side - 1, from the north
    in_ring = np.minimum(np.minimum(ring, 4 * side - ring), side)
    cap = 1 - in_ring**2 / (3.0 * side**2)
    height = np.where(ring < side, cap, np.where(ring > 3 * side, -cap, (2 * side - ring) * 2 / (3.0 * side)))
    moved = np.where((ring >= side) & (ring <= 3 * side), (ring - side) % 2, 0)
    place = (_FACE_LONGITUDE[face] * in_ring + x - y + 1 + moved) // 2
    longitude = (place - (moved + 1) / 2) * (np.pi / 2 / in_ring)
    angles: NDArray[np.float64] = np.rad2deg(np.stack([longitude, np.arccos(np.clip(height, -1, 1))], axis=1))
    return angles


def _every_other_bit(number: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the number made of the bits 0, 2, 4 … of another."""
    out = np.zeros_like(number)
    for bit in range(count):
        out |= ((number >> (2 * bit)) & 1) << bit
    return out
