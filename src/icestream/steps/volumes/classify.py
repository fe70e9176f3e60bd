"""3D classification of a set of particles by the poses of a refinement, and the volume of one class."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify3d import Classes3D, PosedParticles, Setting, classify_particles_3d, fold_of, prepare_centred
from icestream.algorithms.refine3d import Setting as Refining
from icestream.algorithms.scoring import join_particles
from icestream.flow import Angstrom, Context, Field, ItemError, Params, before, step
from icestream.records import SCHERES_2012, Acquisition, Method, Particles, Text, Volume, VolumeClasses
from icestream.steps.volumes.checkpoints import forget
from icestream.steps.volumes.gathered import Gathered, combine_seeds, gather_particles, need_map
from icestream.steps.volumes.poses import find_rows, read_poses, rotations_of, setting_of
from icestream.steps.volumes.published_classes import CLASSIFIED, NamedClass, publish_classes
from icestream.steps.volumes.refine import READS, Refine3DParams, plan_refinement


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
    starts: int = Field(
        4,
        ge=1,
        le=32,
        description="Random starts; particles that are no part of the volumes say after a few passes which one goes on",
        json_schema_extra=before(2, 1),
    )
    seed: int = Field(0, ge=0, description="Number that changes all that is random, to repeat the step and compare results")


@step.map(
    "classify3d",
    version=2,
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
    setting = setting_of(plan, n_classes=params.n_classes)
    rows, posed = _pose_particles(gathered, read_poses(volume, ctx), plan, setting, scale=plan.grid.box_px / box_px)

    def report(fraction: float, message: str) -> None:
        if ctx.cancelled():
            raise ItemError("was cancelled")
        ctx.progress(fraction, message)

    seed = combine_seeds(ctx.seed, params.seed)
    found = classify_particles_3d(posed, setting=setting, passes=params.passes, starts=params.starts, seed=seed, report=report)
    published = _publish(found, gathered.table[rows], plan, bin_=particle_bin * box_px / plan.grid.box_px, ctx=ctx)
    forget(folder)
    return published


def _pose_particles(
    gathered: Gathered, poses: NDArray[np.void], plan: Refining, setting: Setting, *, scale: float
) -> tuple[NDArray[np.int64], PosedParticles]:
    """Return which of the gathered particles have a pose, and these particles with it."""
    at, has = find_rows(gathered.table, poses)
    rows = np.flatnonzero(has)
    if not len(rows):
        raise ItemError("none of the particles has a pose in the volume; link the particles that were refined")
    own = poses[at]
    shift = np.column_stack([own["shift_y_px"], own["shift_x_px"]]).astype(np.float64) * scale
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
    rotations = rotations_of(own[rows])
    return rows, PosedParticles(np.concatenate(images), np.concatenate(contrast), together, rotations, shift[rows], fold)


def _publish(found: Classes3D, table: NDArray[np.void], plan: Refining, *, bin_: float, ctx: Context) -> VolumeClasses:
    """Write the volumes of classes, largest first, and the class of every particle."""
    n_classes = found.share.shape[1]
    order = np.argsort(-np.bincount(found.class_id, minlength=n_classes), kind="stable")
    rows, every = np.zeros(len(table), dtype=CLASSIFIED), np.arange(len(table))
    for name in ("micrograph", "pid"):
        rows[name] = table[name]
    rows["class_id"] = np.argsort(order)[found.class_id]
    rows["class_probability"] = found.share[every, found.class_id]
    rows["score"] = found.log_likelihood[every, found.class_id]
    named = [NamedClass(place) for place in range(n_classes)]
    return publish_classes(found.volumes.ordered(order), rows, named, plan=plan, bin_=bin_, ctx=ctx)


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
