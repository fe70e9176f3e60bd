"""3D classes as people and other steps get them: maps and half maps, a picture, numbers, and the class of each particle."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify3d import ClassVolumes
from icestream.algorithms.frc import resolution_at_threshold_ang
from icestream.algorithms.refine3d import Setting
from icestream.algorithms.volumes import fourier_shell_correlation_3d
from icestream.flow import Context
from icestream.io.blocks import index_by_micrograph
from icestream.io.image import write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import FileRef, VolumeClass, VolumeClasses

CLASSIFIED = np.dtype(
    [("micrograph", "S32"), ("pid", "<i8"), ("class_id", "<i4"), ("class_probability", "<f4"), ("score", "<f4")]
)
"""One particle: the place of its class, how probable that is, and its log likelihood ratio against noise in it."""
_GOLD_STANDARD = 0.143
_TILES = 6


@dataclass(frozen=True)
class NamedClass:
    """What the class at a place is called, and what else is known of it where classes last."""

    id: int
    born: int | None = None
    parents: tuple[int, ...] = ()
    effective_count: float | None = None


def publish_classes(
    volumes: ClassVolumes,
    rows: NDArray[np.void],
    named: Sequence[NamedClass],
    *,
    plan: Setting,
    bin_: float,
    ctx: Context,
) -> VolumeClasses:
    """Write the volumes of classes at their places, and the class of every particle.

    Parameters
    ----------
    volumes
        In the order of places.
    rows
        ``(n,)`` of `CLASSIFIED`.
    named
        The class at each place.
    plan
        Of the working images.
    bin_
        Of these, relative to the movie.
    """
    size, pixel_ang = plan.grid.box_px, plan.pixel_size_ang
    classes, tiles, middle = list[VolumeClass](), list[NDArray[np.float32]](), size // 2
    for place, one in enumerate(named):
        whole, halves = volumes.volumes[place], volumes.halves[:, place]
        probability = rows["class_probability"][rows["class_id"] == place]
        classes.append(_describe_class(one, whole, halves, probability, plan, ctx))
        tiles += [whole[middle], whole[:, middle], whole[:, :, middle], *(whole.sum(axis=axis) for axis in range(3))]
    with ctx.publish("_classes.mrcs") as stack:
        write_mrc(stack.path, np.stack(tiles[3::_TILES]).astype(np.float32), pixel_size_ang=pixel_ang)
    with ctx.publish("_classes.png") as picture:
        write_mosaic(picture.path, np.stack(tiles), columns=_TILES)
    table, index = _write_table(rows, ctx)
    return VolumeClasses(
        stack=stack.ref,
        picture=picture.ref,
        count=len(rows),
        box_px=size,
        bin=bin_,
        symmetry=plan.symmetry,
        diameter_ang=2 * plan.mask_radius_px * pixel_ang,
        tables=[table],
        index=index,
        classes=classes,
    )


def _describe_class(
    named: NamedClass,
    whole: NDArray[np.float32],
    halves: NDArray[np.float32],
    probability: NDArray[np.floating],
    plan: Setting,
    ctx: Context,
) -> VolumeClass:
    """Publish the maps of a class, and return its record; ``probability`` is that of its particles."""
    pixel_ang = plan.pixel_size_ang
    refs = _write_maps([whole, *halves], named.id, pixel_size_ang=pixel_ang, ctx=ctx)
    frequency, correlation = fourier_shell_correlation_3d(*(halves * plan.ball))
    return VolumeClass(
        id=named.id,
        count=len(probability),
        probability=round(float(probability.mean()), 4) if len(probability) else None,
        resolution_ang=resolution_at_threshold_ang(frequency, correlation, threshold=_GOLD_STANDARD, pixel_size_ang=pixel_ang),
        map=refs[0],
        half_maps=refs[1:],
        frequency_per_ang=[round(float(value), 6) for value in frequency / pixel_ang],
        fsc=[round(float(value), 4) for value in correlation],
        born=named.born,
        parents=list(named.parents),
        effective_count=named.effective_count,
    )


def _write_maps(maps: list[NDArray[np.float32]], class_id: int, *, pixel_size_ang: float, ctx: Context) -> list[FileRef]:
    """Publish the map of a class and its half maps."""
    refs = []
    for suffix, one in zip(("", "_half1", "_half2"), maps, strict=True):
        with ctx.publish(f"_class{class_id}{suffix}.mrc") as out:
            write_mrc(out.path, one.astype(np.float32), pixel_size_ang=pixel_size_ang)
        refs.append(out.ref)
    return refs


def _write_table(rows: NDArray[np.void], ctx: Context) -> tuple[FileRef, FileRef]:
    """Publish the class of every particle, and where those of each micrograph are."""
    rows = rows[np.argsort(rows["micrograph"], kind="stable")]
    refs = []
    for suffix, array in (("_table.npy", rows), ("_index.npy", index_by_micrograph(rows))):
        with ctx.publish(suffix) as out, out.path.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)
        refs.append(out.ref)
    return refs[0], refs[1]
