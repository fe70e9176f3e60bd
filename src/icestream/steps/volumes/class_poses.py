"""Poses for streaming 3D classification: those that the newest volume has, in the frame of the first, and others by a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.refine3d import (
    Frame,
    Reference,
    find_frame,
    find_poses,
    into_frame,
    make_maps,
    make_reference,
    update_model,
)
from icestream.algorithms.refine3d import Setting as Refining
from icestream.algorithms.scoring import PolarParticles, prepare_images_2d
from icestream.algorithms.volumes import VolumeSums, angles_from_rotations
from icestream.steps.classify2d.segments import Prepared, polar_contrast
from icestream.steps.volumes.class_segments import Sums, shifts_of
from icestream.steps.volumes.poses import find_rows, rotations_of

References = tuple[Reference, Reference]
_MEASURED = 150
"""Particles of each half that the noise is measured on."""
_LEAST_NOISE = 0.05
_ANGLES = ("rot_deg", "tilt_deg", "psi_deg")
_LEAST_SHARED = 50
"""Particles that have to be in two volumes to compare their frames by."""
_FARTHEST_DEG = 15.0
"""By which poses in two volumes may differ, median, after the frames were brought together."""


@dataclass(frozen=True)
class KnownPoses:
    """The poses of a volume, sorted by what names the particles, and what takes them into the frame of the classes."""

    rows: NDArray[np.void]
    number: int
    frame: Frame

    @classmethod
    def of(cls, rows: NDArray[np.void], number: int, frame: Sequence[float]) -> "KnownPoses":
        """Return the poses of a volume, with the turn and the move that a state remembers."""
        values = np.array(frame, dtype=np.float64)
        return cls(rows, number, Frame(values[:9].reshape(3, 3), values[9:], 0.0))

    def give(self, table: NDArray[np.void]) -> bool:
        """Write poses into rows that have those of an earlier volume, or none; tell whether any row has changed."""
        at, found = find_rows(table, self.rows)
        new = np.flatnonzero(found & (table["posed"] < self.number))
        own = self.rows[at[new]]
        write_poses(table, new, *into_frame(rotations_of(own), shifts_of(own), self.frame), number=self.number)
        return bool(len(new))


def write_poses(
    table: NDArray[np.void], rows: NDArray[np.int64], rotations: NDArray[np.float64], shift: NDArray[np.float64], *, number: int
) -> None:
    """Write poses, with shifts in pixels of the stack, into rows of a table."""
    for name, values in zip(_ANGLES, angles_from_rotations(rotations).T, strict=True):
        table[name][rows] = values
    table["shift_y_px"][rows], table["shift_x_px"][rows] = shift.T
    table["posed"][rows] = number


def compare_frames(table: NDArray[np.void], poses: NDArray[np.void], *, plan: Refining) -> Frame | None:
    """Return what takes the poses of a volume into the frame of those that rows have; None where they do not agree in any.

    Where hardly any particle is in both, the frames are taken to be the same.
    """
    at, found = find_rows(table, poses)
    both = np.flatnonzero(found & (table["posed"] > 0))
    if len(both) < _LEAST_SHARED:
        return Frame(np.eye(3), np.zeros(3), 0.0)
    old, new = table[both], poses[at[both]]
    frame = find_frame(
        rotations_of(new), shifts_of(new), before=rotations_of(old), shift_before_yx_px=shifts_of(old), group=plan.group
    )
    return frame if frame.spread_deg <= _FARTHEST_DEG else None


def references_of(sums: Sums, noise: NDArray[np.float32], *, plan: Refining) -> References:
    """Return the volumes of both halves of all classes together, to look for poses in."""

    def half(number: int) -> VolumeSums:
        return reduce(add, (one for f, fold in enumerate(sums) if f % 2 == number for one in fold))

    pair = (half(0), half(1))
    model = update_model(pair, make_maps(pair, setting=plan), np.stack([noise, noise]), setting=plan)
    first, second = (make_reference(model, number, setting=plan, everywhere=True) for number in (0, 1))
    return first, second


def noise_left(part: Prepared, references: References, *, plan: Refining) -> NDArray[np.float32]:
    """Return the power ``(n_rings,)`` that the best poses of some particles leave unexplained: the noise alone."""
    left, power, count = np.zeros(plan.grid.n_rings), np.zeros(plan.grid.n_rings), 0
    for half in (0, 1):
        rows = np.flatnonzero(part.table["half"] == half)[:_MEASURED]
        if len(rows):
            particles = _prepare(part, rows, plan)
            left += find_poses(particles, references[half], setting=plan).unexplained
            power += particles.power.sum(axis=0)
            count += len(rows)
    noise: NDArray[np.float32] = (np.maximum(left, _LEAST_NOISE * power) / max(count, 1)).astype(np.float32)
    return noise


def search_poses(part: Prepared, references: References, *, plan: Refining, stack_px: float, number: int) -> None:
    """Find poses for the rows of a piece that have none, in the volume of their half set; the table gets them."""
    for half in (0, 1):
        rows = np.flatnonzero((part.table["posed"] == 0) & (part.table["half"] == half))
        if len(rows):
            found = find_poses(_prepare(part, rows, plan), references[half], setting=plan)
            write_poses(part.table, rows, found.rotations, found.shift_yx_px * stack_px, number=number)


def _prepare(part: Prepared, rows: NDArray[np.int64], plan: Refining) -> PolarParticles:
    table = part.table[rows]
    return prepare_images_2d(
        part.images[rows].astype(np.float32),
        polar_contrast(table, grid=plan.grid, box_ang=plan.grid.box_px * plan.pixel_size_ang),
        grid=plan.grid,
        mask_radius_px=plan.particle_radius_px,
        edge_px=plan.edge_px,
        half_set=table["half"].astype(np.int8),
    )
