"""The particles of a set, small and on disk, for steps that look at them again and again; and what these ask of volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from icestream.algorithms.refine3d import Portion, Setting
from icestream.algorithms.scoring import half_sets_of
from icestream.algorithms.volumes import is_symmetry, rescale_volume_3d
from icestream.flow import Context, ItemError
from icestream.io.image import read_stack
from icestream.records import Acquisition, Particles, Volume
from icestream.steps.classify2d.segments import AT_ONCE, join, pixel_contrast, polar_contrast, prepare
from icestream.steps.volumes.checkpoints import keep_array, read_kept

_LARGEST_FILE = 5000
_TABLE = "table.npy"


def _check_symmetry(name: str) -> str:
    if not is_symmetry(name):
        raise ValueError(f"{name!r} is no point group; allowed: C1 to C400, D1 to D200, T, O, I, I1 and I2")
    return name.strip().upper()


Symmetry = Annotated[str, AfterValidator(_check_symmetry)]
"""A point group in RELION's setting, as a parameter: in capital letters."""


@dataclass(frozen=True)
class Gathered:
    """Particles in a folder: their ``table`` ``(n,)``, as of classification, and where the images of a run of rows are."""

    table: NDArray[np.void]
    files: tuple[tuple[int, Path], ...]

    def __len__(self) -> int:
        return len(self.table)

    def portions(self, setting: Setting) -> Iterator[Portion]:
        """Give all particles in portions, ready to be refined."""
        box_ang = setting.grid.box_px * setting.pixel_size_ang
        for first, path in self.files:
            images = np.load(path, mmap_mode="r", allow_pickle=False)
            for start in range(0, len(images), AT_ONCE):
                rows = np.arange(first + start, first + min(start + AT_ONCE, len(images)))
                table = self.table[rows]
                yield Portion(
                    rows,
                    np.asarray(images[start : start + AT_ONCE], dtype=np.float32),
                    polar_contrast(table, grid=setting.grid, box_ang=box_ang),
                    pixel_contrast(table, size=setting.grid.box_px, box_ang=box_ang),
                    table["half"].astype(np.int8),
                )


def gather_particles(
    particles: Sequence[Particles], acquisition: Acquisition, *, size: int, folder: Path, ctx: Context
) -> Gathered:
    """Bring all particles to ``size`` and keep them in a folder, from which a later attempt takes them if it is all there.

    The half set of a particle follows from what names it, for good.

    Raises
    ------
    ItemError
        An acquisition value is unset, or there are particles without images.
    """
    kept = read_kept(folder, _read_gathered)
    if kept is not None:
        return kept
    for _, path in _image_files(folder):
        path.unlink()
    tables, parts, count = [], [], 0
    for number, some in enumerate(particles, 1):
        if not some.count:
            continue
        name = f"{ctx.exposure.name}, micrograph {number}"
        origin = some.origin or ""
        parts.append(prepare(some, acquisition, size=size, name=name, exposure_id=origin, ordinal=0, ctx=ctx))
        if sum(map(len, parts)) >= _LARGEST_FILE:
            count += _write(folder, count, [one.images for one in parts])
            tables += [one.table for one in parts]
            parts = []
        if ctx.cancelled():
            raise ItemError("was cancelled")
    if parts:
        _write(folder, count, [one.images for one in parts])
        tables.append(join(parts).table)
    table = np.concatenate(tables)
    table["half"] = half_sets(table)
    keep_array(folder / _TABLE, table)
    return Gathered(table, _image_files(folder))


def _image_files(folder: Path) -> tuple[tuple[int, Path], ...]:
    return tuple(sorted((int(path.stem.removeprefix("images_")), path) for path in folder.glob("images_*.npy")))


def _read_gathered(folder: Path) -> Gathered:
    """Return the particles in a folder.

    Raises
    ------
    ValueError
        Images of some of them are missing.
    """
    found = Gathered(np.load(folder / _TABLE, allow_pickle=False), _image_files(folder))
    count = 0
    for first, path in found.files:
        if first != count:
            raise ValueError(f"{path}: images from row {count} on are missing")
        count += len(np.load(path, mmap_mode="r", allow_pickle=False))
    if count != len(found):
        raise ValueError(f"{folder}: has images of {count} particles, and {len(found)} in its table")
    return found


def half_sets(table: NDArray[np.void]) -> NDArray[np.int8]:
    """Return the half set of each particle, 0 or 1, from its exposure, picks and number alone."""
    return half_sets_of(table["micrograph"], table["pid"])


def combine_seeds(key: int, given: int) -> int:
    """Return the seed of a call, of the one that follows from its key and the one that a person gave; 0 leaves the first."""
    return key + (given << 64)


def need_map(volume: Volume) -> None:
    """Refuse a volume that was found to be no map.

    Raises
    ------
    ItemError
        Its verdict is ``none``; the message says why.
    """
    if volume.verdict == "none":
        raise ItemError(f"the volume is no map: {volume.reason or 'its verdict is none'}")


def read_map(volume: Volume, ctx: Context, *, size: int, pixel_size_ang: float, raw_pixel_ang: float) -> NDArray[np.float32]:
    """Return a map in a box of ``size`` voxels of ``pixel_size_ang``.

    Raises
    ------
    ItemError
        The file is no cube.
    """
    stored = read_stack(ctx.path(volume.map))
    if len(set(stored.shape)) != 1:
        raise ItemError(f"{volume.map}: a map is a cube, this one is {' x '.join(map(str, stored.shape))} px")
    own = volume.pixel_size_ang or volume.bin * raw_pixel_ang
    return rescale_volume_3d(stored, zoom=own / pixel_size_ang, new_size=size)


def _write(folder: Path, first: int, images: list[NDArray[np.float16]]) -> int:
    """Write images whose first row is ``first``; return how many they are."""
    whole = np.concatenate(images)
    keep_array(folder / f"images_{first:09d}.npy", whole)
    return len(whole)
