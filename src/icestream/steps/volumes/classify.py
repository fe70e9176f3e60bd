"""3D classification of a set of particles by the poses of a refinement, and the volume of one class."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify3d import Classes3D, PosedParticles, Setting, classify_particles_3d, fold_of, prepare_centred
from icestream.algorithms.frc import resolution_at_threshold_ang
from icestream.algorithms.refine3d import Setting as Refining
from icestream.algorithms.scoring import join_particles
from icestream.algorithms.volumes import fourier_shell_correlation_3d, rotations_from_angles, symmetry_group
from icestream.flow import Context, Field, ItemError, Params, step
from icestream.io.blocks import INDEX
from icestream.io.image import write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import SCHERES_2012, Acquisition, Method, Particles, Text, Volume, VolumeClass, VolumeClasses
from icestream.steps.volumes.checkpoints import forget
from icestream.steps.volumes.gathered import Gathered, combine_seeds, gather_particles, need_map
from icestream.steps.volumes.refine import READS, Refine3DParams, plan_refinement
from icestream.units import Angstrom

CLASSIFIED = np.dtype(
    [("micrograph", "S32"), ("pid", "<i8"), ("class_id", "<i4"), ("class_probability", "<f4"), ("score", "<f4")]
)
"""One particle: the place of its class, how probable that is, and its log likelihood ratio against noise in it."""
_GOLD_STANDARD = 0.143


class Classify3DParams(Params):
    """How particles are sorted into 3D classes."""

    n_classes: int = Field(2, ge=2, le=20, description="Number of classes")
    limit_ang: Angstrom = Field(
        12.0, gt=0, description="Finest resolution used; sets the size of the working images and the time"
    )
    start_ang: Angstrom = Field(30.0, gt=0, description="Resolution up to which classes are compared before they differ")
    diameter_ang: Angstrom | None = Field(None, gt=0, description="Diameter of the particle; unset: that of the volume")
    passes: int = Field(
        16, ge=5, le=100, description="Over all particles; classes are held equally large in the first three fifths"
    )
    seed: int = Field(0, ge=0, description="Number that changes all that is random, to repeat the step and compare results")


@step.map(
    "classify3d",
    version=1,
    reads=READS,
    memory_gb=4,
    method=Method(
        (Text("Particles were sorted into {n_classes} 3D classes with the poses of a refinement."),),
        (SCHERES_2012,),
    ),
)
def classify_set_3d(
    particles: list[Particles], volume: Volume, params: Classify3DParams, acquisition: Acquisition, ctx: Context
) -> VolumeClasses:
    """Sort a closed set of particles into 3D classes; their poses are those that a refinement gave them.

    Particles are in four folds, by their names for good, and those of one are compared with volumes of the other three. Classes
    never differ in what contrast or errors of the poses alone would make of the volume of all. Class 0 is the largest. Particles
    without a pose are in no class.

    Raises
    ------
    ItemError
        The volume is no map or has no poses, none of them is of these particles, or an acquisition value is unset.
    """
    need_map(volume)
    some = [one for one in particles if one.count]
    boxes = {(one.box_px, one.bin) for one in some}
    if len(boxes) != 1:
        raise ItemError(f"{ctx.exposure.name}: particles must have one box and pixel size; got {sorted(boxes) or 'none'}")
    if not volume.tables:
        raise ItemError("the volume has no poses of particles; link a refinement")
    box_px, particle_bin = boxes.pop()
    plan = plan_refinement(
        Refine3DParams(limit_ang=params.limit_ang, diameter_ang=params.diameter_ang, initial_ang=params.start_ang),
        volume,
        box_px=box_px,
        pixel_size_ang=acquisition.need("pixel_size_ang") * particle_bin,
    )
    folder = ctx.checkpoint_dir / "classify3d"
    folder.mkdir(parents=True, exist_ok=True)
    gathered = gather_particles(some, acquisition, size=plan.grid.box_px, folder=folder, ctx=ctx)
    setting = _setting_of(plan, params, volume)
    rows, posed = _pose_particles(gathered, _poses_of(volume, ctx), plan, setting, scale=plan.grid.box_px / box_px)

    def report(fraction: float, message: str) -> None:
        if ctx.cancelled():
            raise ItemError("was cancelled")
        ctx.progress(fraction, message)

    seed = combine_seeds(ctx.seed, params.seed)
    found = classify_particles_3d(posed, setting=setting, passes=params.passes, seed=seed, report=report)
    published = _publish(found, gathered.table[rows], volume, plan, bin_=particle_bin * box_px / plan.grid.box_px, ctx=ctx)
    forget(folder)
    return published


def _setting_of(plan: Refining, params: Classify3DParams, volume: Volume) -> Setting:
    return Setting(
        grid=plan.grid,
        n_classes=params.n_classes,
        mask_radius_px=plan.mask_radius_px,
        edge_px=plan.edge_px,
        start_ring=plan.start_ring,
        symmetry=None if volume.symmetry == "C1" else symmetry_group(volume.symmetry),
    )


def _poses_of(volume: Volume, ctx: Context) -> NDArray[np.void]:
    tables = [np.load(ctx.path(table), allow_pickle=False) for table in volume.tables]
    return np.sort(np.concatenate(tables), order=("micrograph", "pid"))


def _pose_particles(
    gathered: Gathered, poses: NDArray[np.void], plan: Refining, setting: Setting, *, scale: float
) -> tuple[NDArray[np.int64], PosedParticles]:
    """Return which of the gathered particles have a pose, and these particles with it."""
    names = ["micrograph", "pid"]
    known = np.ascontiguousarray(poses[names]).view()
    wanted = np.empty(len(gathered), dtype=known.dtype)
    for name in names:
        wanted[name] = gathered.table[name]
    at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    rows = np.flatnonzero(known[at] == wanted)
    if not len(rows):
        raise ItemError("none of the particles has a pose in the volume; link the particles that were refined")
    own = poses[at]
    rotations = rotations_from_angles(np.column_stack([own[f"{name}_deg"] for name in ("rot", "tilt", "psi")]))
    shift = np.column_stack([own["shift_y_px"], own["shift_x_px"]]).astype(np.float64) * scale
    has = np.zeros(len(gathered), dtype=np.bool_)
    has[rows] = True
    images, contrast, polar = [], [], []
    for portion in gathered.portions(plan):
        kept = has[portion.rows]
        images.append(portion.images[kept])
        contrast.append(portion.contrast[kept])
        polar.append(
            prepare_centred(
                portion.images[kept],
                portion.polar_contrast[kept],
                shift_yx_px=shift[portion.rows[kept]],
                setting=setting,
                half_set=portion.half_set[kept],
            )
        )
    together = join_particles(polar)
    fold = fold_of(gathered.table["micrograph"], gathered.table["pid"])[rows]
    return rows, PosedParticles(np.concatenate(images), np.concatenate(contrast), together, rotations[rows], shift[rows], fold)


def _publish(
    found: Classes3D, table: NDArray[np.void], volume: Volume, plan: Refining, *, bin_: float, ctx: Context
) -> VolumeClasses:
    """Write the volumes of classes, largest first, and the class of every particle."""
    counts = np.bincount(found.class_id, minlength=found.share.shape[1])
    order = np.argsort(-counts, kind="stable")
    size, pixel_ang, classes, tiles = plan.grid.box_px, plan.pixel_size_ang, [], []
    for place, k in enumerate(order.tolist()):
        whole, halves = found.volumes.volumes[k], found.volumes.halves[:, k]
        refs = _write_maps([whole, *halves], place, pixel_size_ang=pixel_ang, ctx=ctx)
        frequency, correlation = fourier_shell_correlation_3d(*(halves * plan.ball))
        classes.append(
            VolumeClass(
                id=place,
                count=int(counts[k]),
                probability=round(float(found.share[found.class_id == k, k].mean()), 4) if counts[k] else None,
                resolution_ang=resolution_at_threshold_ang(
                    frequency, correlation, threshold=_GOLD_STANDARD, pixel_size_ang=pixel_ang
                ),
                map=refs[0],
                half_maps=refs[1:],
                frequency_per_ang=[round(float(one), 6) for one in frequency / pixel_ang],
                fsc=[round(float(one), 4) for one in correlation],
            )
        )
        middle = size // 2
        tiles += [whole[middle], whole[:, middle], whole[:, :, middle], *(whole.sum(axis=axis) for axis in range(3))]
    with ctx.publish("_classes.mrcs") as stack:
        write_mrc(stack.path, np.stack(tiles[3::6]).astype(np.float32), pixel_size_ang=pixel_ang)
    with ctx.publish("_classes.png") as picture:
        write_mosaic(picture.path, np.stack(tiles), columns=6)
    tables, index = _write_table(found, table, np.argsort(order), ctx)
    return VolumeClasses(
        stack=stack.ref,
        picture=picture.ref,
        count=len(table),
        box_px=size,
        bin=bin_,
        symmetry=volume.symmetry,
        diameter_ang=2 * plan.mask_radius_px * pixel_ang,
        tables=tables,
        index=index,
        classes=classes,
    )


def _write_maps(maps: list[NDArray[np.float32]], place: int, *, pixel_size_ang: float, ctx: Context) -> list[str]:
    """Publish the map of a class and its half maps."""
    refs = []
    for suffix, one in zip(("", "_half1", "_half2"), maps, strict=True):
        with ctx.publish(f"_class{place}{suffix}.mrc") as out:
            write_mrc(out.path, one.astype(np.float32), pixel_size_ang=pixel_size_ang)
        refs.append(out.ref)
    return refs


def _write_table(found: Classes3D, table: NDArray[np.void], place: NDArray[np.int64], ctx: Context) -> tuple[list[str], str]:
    rows = np.zeros(len(table), dtype=CLASSIFIED)
    every = np.arange(len(table))
    for name in ("micrograph", "pid"):
        rows[name] = table[name]
    rows["class_id"] = place[found.class_id]
    rows["class_probability"] = found.share[every, found.class_id]
    rows["score"] = found.log_likelihood[every, found.class_id]
    rows = rows[np.argsort(rows["micrograph"], kind="stable")]
    names, start, count = np.unique(rows["micrograph"], return_index=True, return_counts=True)
    index = np.zeros(len(names), dtype=INDEX)
    index["micrograph"], index["start"], index["count"] = names, start, count
    refs = []
    for suffix, array in (("_table.npy", rows), ("_index.npy", index)):
        with ctx.publish(suffix) as out, out.path.open("wb") as handle:
            np.save(handle, array, allow_pickle=False)
        refs.append(out.ref)
    return refs[:1], refs[1]


class ClassVolumeParams(Params):
    """Which class is taken."""

    class_id: int = Field(0, ge=0, description="Id of the class, as the report shows it; 0 is the largest")


@step.map("class_volume", version=1, memory_gb=0.2)
def take_class_volume(classes: VolumeClasses, params: ClassVolumeParams, ctx: Context) -> Volume:
    """Take the volume of one 3D class, to refine it further.

    Its resolution is not gold standard: particles of both halves were sorted against volumes of both. Where its halves agree
    nowhere it has the verdict ``none``.

    Raises
    ------
    ItemError
        There is no such class, or it has no particles.
    """
    one = next((info for info in classes.classes if info.id == params.class_id), None)
    if one is None or not one.count:
        known = [info.id for info in classes.classes if info.count]
        raise ItemError(f"{ctx.exposure.name}: there is no class {params.class_id} with particles; there are {known}")
    return Volume(
        map=one.map,
        half_maps=one.half_maps,
        count=one.count,
        box_px=classes.box_px,
        bin=classes.bin,
        symmetry=classes.symmetry,
        diameter_ang=classes.diameter_ang,
        frequency_per_ang=one.frequency_per_ang,
        fsc=one.fsc,
        resolution_ang=one.resolution_ang,
        verdict="none" if one.resolution_ang is None else "map",
        reason="its halves agree nowhere" if one.resolution_ang is None else None,
    )
