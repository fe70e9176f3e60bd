"""What a program found of particles and volumes, published as our own steps publish theirs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.volumes import rescale_volume_3d, soft_sphere_3d
from icestream.flow import Context, FileFormatError, ItemError
from icestream.io.blocks import index_by_micrograph
from icestream.io.image import read_stack, write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import FileRef, Volume, parts_in_a_row

_WHOLE = ("class_id", "version")


def publish_table(named: NDArray[np.void], columns: Mapping[str, NDArray[Any]], ctx: Context) -> tuple[FileRef, FileRef]:
    """Publish who particles are (``named``) with what was found of them, and where those of each micrograph are."""
    fields = [(name, "<i4" if name in _WHOLE else "<f4") for name in columns]
    table = np.zeros(len(named), dtype=[*named.dtype.descr, *fields])
    for name in named.dtype.names or ():
        table[name] = named[name]
    for name, values in columns.items():
        table[name] = values
    table = table[np.argsort(table["micrograph"], kind="stable")]
    refs = []
    for suffix, array in (("_table.npy", table), ("_index.npy", index_by_micrograph(table))):
        with ctx.publish(suffix) as out, out.path.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)
        refs.append(out.ref)
    return refs[0], refs[1]


def stage_volume(volume: Volume, path: Path, *, box_px: int, pixel_size_ang: float, raw_pixel_ang: float, ctx: Context) -> None:
    """Write a map at ``path`` in the box and pixels of the particles that are compared with it.

    Raises
    ------
    ItemError
        It is no map, or no cube.
    """
    if volume.verdict == "none":
        raise ItemError(f"the volume is no map: {volume.reason or 'its verdict is none'}")
    stored = read_stack(ctx.path(volume.map))
    if len(set(stored.shape)) != 1:
        raise ItemError(f"{volume.map}: a map is a cube, this one is {' x '.join(map(str, stored.shape))} px")
    own = volume.pixel_size_ang or volume.bin * raw_pixel_ang
    write_mrc(path, rescale_volume_3d(stored, zoom=own / pixel_size_ang, new_size=box_px), pixel_size_ang=pixel_size_ang)


def read_images(path: Path, *, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return images or a map that a program wrote, of a known ``shape``.

    Raises
    ------
    FileFormatError
        They have another size, or values that are not finite.
    """
    found = read_stack(path)
    if found.shape != shape:
        sizes = (" x ".join(map(str, one)) for one in (found.shape, shape))
        raise FileFormatError(path, f"is {next(sizes)} px; expected are {next(sizes)}")
    if not np.isfinite(found).all():
        raise FileFormatError(path, "has values that are not finite")
    return found


def read_cube(path: Path, *, box_px: int) -> NDArray[np.float32]:
    """Return a map that a program wrote: ``(box, box, box)``.

    Raises
    ------
    FileFormatError
        As of `read_images`.
    """
    return read_images(path, shape=(box_px,) * 3)


def write_ball(path: Path, box_px: int, *, radius_px: float, pixel_size_ang: float) -> None:
    """Write a mask: a ball with a soft edge, no wider than the box."""
    ball = soft_sphere_3d(box_px, radius_px=min(radius_px, box_px / 2 - 3), edge_px=2.0)
    write_mrc(path, ball.astype(np.float32), pixel_size_ang=pixel_size_ang)


def make_bright(volume: NDArray[np.float32], *, radius_px: float) -> NDArray[np.float32]:
    """Return a map whose particle, which is within ``radius_px``, is brighter than what is around it."""
    inside = soft_sphere_3d(len(volume), radius_px=min(radius_px, len(volume) / 2 - 2), edge_px=2.0)
    within = float((volume * inside).sum() / inside.sum())
    around = float((volume * (1 - inside)).sum() / (1 - inside).sum())
    return volume if within >= around else -volume


def publish_map(volume: NDArray[np.float32], suffix: str, *, pixel_size_ang: float, ctx: Context) -> FileRef:
    """Publish a map."""
    with ctx.publish(suffix) as out:
        write_mrc(out.path, volume.astype(np.float32), pixel_size_ang=pixel_size_ang)
    return out.ref


def draw_maps(volumes: NDArray[np.float32], suffix: str, ctx: Context) -> FileRef:
    """Publish a picture of maps ``(k, n, n, n)``: for each three sections through the middle and three projections, in a row."""
    middle = volumes.shape[1] // 2
    tiles = [
        tile
        for one in volumes
        for tile in (one[middle], one[:, middle], one[:, :, middle], *(one.sum(axis=axis) for axis in range(3)))
    ]
    with ctx.publish(suffix) as picture:
        write_mosaic(picture.path, np.stack(tiles), columns=6 if len(volumes) > 1 else 3)
    return picture.ref


def draw_wall(images: NDArray[np.float32], suffix: str, ctx: Context) -> FileRef:
    """Publish a picture of class averages ``(k, n, n)``."""
    with ctx.publish(suffix) as picture:
        write_mosaic(picture.path, images, columns=parts_in_a_row(len(images)))
    return picture.ref
