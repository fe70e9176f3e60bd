"""Volumes as people and other steps get them: map, half maps, pictures, numbers, and the pose of every particle."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.refine3d import Maps, PoseTable, Progress, Setting, Verdict
from icestream.algorithms.volumes import angles_from_rotations
from icestream.flow import Context
from icestream.io.blocks import index_by_micrograph
from icestream.io.image import write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import POSE_3D, FileRef, Volume
from icestream.steps.volumes.gathered import Gathered

POSES = np.dtype(
    [
        ("micrograph", "S32"),
        ("exposure", "S32"),
        ("pid", "<i8"),
        ("slice", "<i4"),
        ("half", "i1"),
        *((column.name, f"<{column.dtype}") for column in POSE_3D),
    ]
)
"""One particle of a volume; ``micrograph`` and ``pid`` name it, as in classification."""


def publish_volume(
    gathered: Gathered,
    progress: Progress,
    maps: Maps,
    verdict: Verdict,
    *,
    setting: Setting,
    box_px: int,
    bin_: float,
    ctx: Context,
    star: Callable[[NDArray[np.void], NDArray[np.void]], FileRef | None] | None = None,
    version: int = 1,
) -> Volume:
    """Write what a refinement has come to.

    Half maps have the names by which RELION's programs find the second from the first. ``box_px`` and ``bin_`` are those of the
    particles; ``star`` publishes poses and optics for RELION.
    """
    size, pixel_ang = setting.grid.box_px, setting.pixel_size_ang
    names = ("_map.mrc", "_half1_class001_unfil.mrc", "_half2_class001_unfil.mrc", "_mask.mrc")
    refs = []
    for suffix, volume in zip(names, (maps.whole, *maps.halves, setting.ball), strict=True):
        with ctx.publish(suffix) as out:
            write_mrc(out.path, volume, pixel_size_ang=pixel_ang)
        refs.append(out.ref)
    with ctx.publish("_noise.npy") as noise, noise.path.open("wb") as handle:
        np.save(handle, progress.model.noise_power.mean(axis=0), allow_pickle=False)
    poses, order = _pose_table(gathered, progress.poses, stack_px=box_px / size)
    table, index = _write_poses(poses, ctx)
    shells = np.arange(size // 2) / (size * pixel_ang)
    resolution_ang = maps.resolution_ang(pixel_ang)
    is_map = verdict.kind == "map" and resolution_ang is not None
    return Volume(
        map=refs[0],
        half_maps=refs[1:3],
        mask=refs[3],
        picture=draw_volume(maps.whole * setting.ball, ctx),
        count=len(gathered),
        box_px=size,
        bin=bin_ * box_px / size,
        symmetry=setting.symmetry,
        diameter_ang=2 * setting.mask_radius_px * pixel_ang,
        frequency_per_ang=_rounded(shells, 6),
        fsc=_rounded(maps.correlation, 4),
        fsc_unmasked=_rounded(maps.unmasked, 4),
        resolution_ang=resolution_ang if is_map else None,
        verdict="map" if is_map else "none",
        reason=None if is_map else (verdict.reason or "its halves agree nowhere"),
        version=version,
        tables=[table],
        index=index,
        star=None if star is None else star(poses, gathered.table[order]),
        noise=noise.ref,
    )


def draw_volume(volume: NDArray[np.float32], ctx: Context) -> FileRef:
    """Publish a picture of a volume: three sections through the middle above three projections, along z, y and x."""
    middle = len(volume) // 2
    sections = [volume[middle], volume[:, middle], volume[:, :, middle]]
    projections = [volume.sum(axis=axis) for axis in range(3)]
    with ctx.publish("_volume.png") as picture:
        write_mosaic(picture.path, np.stack(sections + projections), columns=3)
    return picture.ref


def _pose_table(gathered: Gathered, poses: PoseTable | None, *, stack_px: float) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Return the poses of all particles, in pixels of their stacks, by micrograph, and which particle each row is of."""
    if poses is None:
        raise ValueError("a volume is published after an iteration")
    table = np.zeros(len(gathered), dtype=POSES)
    for name in ("micrograph", "exposure", "pid", "slice", "half"):
        table[name] = gathered.table[name]
    table["rot_deg"], table["tilt_deg"], table["psi_deg"] = angles_from_rotations(poses.rotations).T
    table["shift_y_px"], table["shift_x_px"] = (poses.shift_yx_px * stack_px).T
    table["score"], table["probability"] = poses.score, poses.probability
    order = np.argsort(table["micrograph"], kind="stable")
    return table[order], order


def _write_poses(table: NDArray[np.void], ctx: Context) -> tuple[FileRef, FileRef]:
    """Publish the poses of all particles, and where those of each micrograph are."""
    refs = []
    for suffix, array in (("_poses.npy", table), ("_index.npy", index_by_micrograph(table))):
        with ctx.publish(suffix) as out, out.path.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)
        refs.append(out.ref)
    return refs[0], refs[1]


def _rounded(values: NDArray[np.float64], digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
