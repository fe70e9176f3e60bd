"""What stays the same during the search for an initial volume: the working box, its rings, the ball of the particle, symmetry."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from icestream.algorithms.scoring import Level, PolarGrid, PolarParticles, Real, make_level, prepare_images_2d
from icestream.algorithms.volumes import Rotations, symmetry_group

_EDGE_PX = 2.0
_LEAST_TURNS = 24


@dataclass(frozen=True)
class VolumeSetting:
    """The working box and how it is searched; lengths in pixels of that box.

    ``radius_px`` is that of the ball that holds the particle, ``start_ring`` where the search begins, ``middle_ring`` where the
    quick part ends; the last ring is that of ``grid``. ``group`` ``(g, 3, 3)`` is the symmetry.
    """

    grid: PolarGrid
    pixel_size_ang: float
    radius_px: float
    max_shift_px: float
    start_ring: int
    middle_ring: int
    symmetry: str = "C1"
    edge_px: float = _EDGE_PX

    @property
    def group(self) -> Rotations:
        """The rotations of the symmetry ``(g, 3, 3)``."""
        return symmetry_group(self.symmetry)

    @property
    def mask_radius_px(self) -> float:
        """The radius within which images are looked at: the particle wherever it may have moved to."""
        return min(self.radius_px + self.max_shift_px, self.grid.box_px / 2 - self.edge_px)

    @property
    def overlap(self) -> float:
        """The fraction of the box within that radius, with half the edge."""
        return float(np.pi * (self.mask_radius_px + self.edge_px / 2) ** 2 / self.grid.box_px**2)

    def ring_at(self, resolution_ang: float) -> int:
        """Return the ring of a resolution, at least 3 and at most the last one."""
        return int(np.clip(round(self.grid.box_px * self.pixel_size_ang / resolution_ang), 3, self.grid.n_rings))


def plan_volume(
    *,
    box_px: int,
    pixel_size_ang: float,
    diameter_ang: float,
    limit_ang: float = 20.0,
    max_shift_ang: float = 15.0,
    symmetry: str = "C1",
) -> VolumeSetting:
    """Return the working size, rings and radii for boxes of ``box_px`` whose particle is ``diameter_ang`` wide.

    The search begins at 45 Å, or where five waves fit across the particle if that is finer, and its quick part ends at 28 Å.

    Raises
    ------
    ValueError
        The particle is as wide as the box, or the limit is finer than the images.
    """
    box_ang = box_px * pixel_size_ang
    if not 0 < diameter_ang < box_ang:
        raise ValueError(f"a particle of {diameter_ang:g} Å does not fit in a box of {box_ang:g} Å")
    if limit_ang < 2 * pixel_size_ang:
        raise ValueError(f"{limit_ang:g} Å is finer than pixels of {pixel_size_ang:g} Å can show")
    largest = 2 * (box_px // 2)
    n_rings = max(4, min(int(box_ang / limit_ang), largest // 2 - 1))
    size = min(2 * next_fast_len(int(np.ceil(1.25 * n_rings)) + 1), largest)
    pixel_ang = box_ang / size
    radius = min(1.05 * diameter_ang / 2 / pixel_ang, size / 2 - _EDGE_PX - 1)
    turns = 24 * int(np.ceil(2 * np.pi * n_rings * 2 * (radius + _EDGE_PX) / size / 24))
    start = min(n_rings, max(4, round(max(box_ang / 45.0, 2.5 * box_ang / diameter_ang))))
    middle = min(n_rings, max(start, round(box_ang / 28.0)))
    return VolumeSetting(
        PolarGrid(size, n_rings, max(turns, _LEAST_TURNS)), pixel_ang, radius, max_shift_ang / pixel_ang, start, middle, symmetry
    )


def prepare_volume_particles(
    images: NDArray[Any], ctf: Real, *, setting: VolumeSetting, half_set: NDArray[np.int8]
) -> PolarParticles:
    """Crop, mask and sample particle images ``(n, box, box)`` and apply their CTF ``(n, n_rings, half)``, bright positive."""
    return prepare_images_2d(
        images, ctf, grid=setting.grid, mask_radius_px=setting.mask_radius_px, edge_px=setting.edge_px, half_set=half_set
    )


def level_at(setting: VolumeSetting, ring: int, *, max_shift_px: float | None = None) -> Level:
    """Return a search as fine as rings up to ``ring`` allow: turns of one Fourier pixel at the rim, quarter-wave shifts."""
    size = setting.grid.box_px
    turns = 4 * int(np.ceil(2 * np.pi * ring * 2 * setting.radius_px / size / 4))
    reach = setting.max_shift_px if max_shift_px is None else max_shift_px
    return make_level(
        setting.grid,
        n_rings=ring,
        n_turns=max(turns, _LEAST_TURNS),
        shift_step_px=max(1.0, size / ring / 4),
        max_shift_px=reach,
    )
