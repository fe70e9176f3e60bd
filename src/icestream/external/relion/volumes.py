"""Initial models, 3D classification and refinement by RELION."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, run_program
from icestream.external.particles import READS, StagedParticles, stage_particles
from icestream.external.published import draw_maps, publish_map, publish_table, read_cube, stage_volume
from icestream.external.relion.refine import (
    MPIRUN,
    REFINE,
    REFINE_MPI,
    ROOT,
    FoundParticles,
    begin_folder,
    computing_options,
    particle_options,
    read_model,
    read_particles_found,
    run_refine,
)
from icestream.flow import Angstrom, Context, Degree, Field, FileFormatError, Params, Pixel, step
from icestream.records import (
    POSE_3D,
    SCHERES_2012,
    Acquisition,
    Method,
    Particles,
    Text,
    Volume,
    VolumeClass,
    VolumeClasses,
)

_START = "start.mrc"
_SAMPLINGS_DEG = (30.0, 15.0, 7.5, 3.7, 1.8, 0.9)
"""RELION's angular samplings after oversampling, of its orders 0 to 5."""


class RelionSearchParams(Params):
    """What the particle is, and how finely poses are searched; names in brackets are RELION's."""

    symmetry: str = Field("C1", pattern=r"^([CD][1-9]\d?|T|O|I[1-4]?)$", description="Point group (--sym)")
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the round mask (--particle_diameter); unset: that of the picks, or 0.9 of the box"
    )
    angle_deg: Degree = Field(
        7.5,
        gt=0.5,
        le=30,
        description="Angular sampling; the nearest of RELION's 30, 15, 7.5, 3.7, 1.8 and 0.9° (--healpix_order)",
    )
    max_shift_px: Pixel = Field(6.0, ge=0, le=100, description="Largest shift, in pixels of the images (--offset_range)")
    shift_step_px: Pixel = Field(1.0, gt=0, le=10, description="Sampling of shifts; RELION's finer step (half of --offset_step)")
    padding: int = Field(1, ge=1, le=2, description="Padding of the references (--pad)")

    def command(self, staged: StagedParticles, ctx: Context) -> Command:
        """Return the arguments that they are."""
        order = int(np.argmin(np.abs(np.log(np.array(_SAMPLINGS_DEG) / self.angle_deg))))
        begin = particle_options(staged, diameter_ang=self.diameter_ang, ctx=ctx)
        return (
            begin.option("--sym", self.symmetry)
            .option("--healpix_order", order)
            .option("--offset_range", self.max_shift_px)
            .option("--offset_step", 2 * self.shift_step_px)
            .option("--pad", self.padding)
        )


class RelionInitialModelParams(RelionSearchParams):
    """How RELION finds an initial model by stochastic gradient descent."""

    angle_deg: Degree = Field(15.0, gt=0.5, le=30, description="Angular sampling, as for the other steps (--healpix_order)")
    first_iterations: int = Field(50, ge=1, description="Iterations at the first resolution (--sgd_ini_iter)")
    iterations: int = Field(200, ge=1, description="Iterations from the first to the last resolution (--sgd_inbetween_iter)")
    last_iterations: int = Field(50, ge=1, description="Iterations at the last resolution (--sgd_fin_iter)")
    first_ang: Angstrom = Field(35.0, gt=0, description="First resolution (--sgd_ini_resol)")
    last_ang: Angstrom = Field(15.0, gt=0, description="Last resolution (--sgd_fin_resol)")
    first_particles: int = Field(100, ge=1, description="Particles of an iteration at first (--sgd_ini_subset)")
    last_particles: int = Field(500, ge=1, description="Particles of an iteration at last (--sgd_fin_subset)")


@step.map(
    "relion_initial_model",
    version=1,
    reads=READS,
    memory_gb=4,
    programs=(REFINE,),
    method=Method((Text("An initial volume was found by RELION, by stochastic gradient descent."),), (SCHERES_2012,)),
)
def find_initial_model(
    particles: list[Particles], params: RelionInitialModelParams, acquisition: Acquisition, ctx: Context
) -> Volume:
    """Find an initial volume of a closed set of particles with RELION, which is run as it is installed.

    RELION does not judge it; `consensus_volumes` does. An interrupted run goes on after the last iteration that was finished.

    Raises
    ------
    ItemError
        As of `stage_particles`, or RELION fails.
    """
    folder = begin_folder(ctx, "relion_initial_model")
    staged = stage_particles(particles, acquisition, folder, ctx)
    iterations = params.first_iterations + params.iterations + params.last_iterations
    descent = (
        params.command(staged, ctx)
        .flag("--denovo_3dref")
        .flag("--sgd")
        .flag("--skip_gridding")
        .option("--K", 1)
        .option("--sgd_ini_iter", params.first_iterations)
        .option("--sgd_inbetween_iter", params.iterations)
        .option("--sgd_fin_iter", params.last_iterations)
        .option("--sgd_ini_resol", params.first_ang)
        .option("--sgd_fin_resol", params.last_ang)
        .option("--sgd_ini_subset", min(params.first_particles, len(staged)))
        .option("--sgd_fin_subset", min(params.last_particles, len(staged)))
        .option("--sgd_write_iter", max(1, iterations // 10))
    )
    last = run_refine(descent, folder, ctx, n_particles=len(staged), iterations=iterations)
    found = read_cube(folder / f"{ROOT}_it{last:03d}_class001.mrc", box_px=staged.box_px)
    record = Volume(
        map=publish_map(found, "_map.mrc", pixel_size_ang=staged.pixel_size_ang, ctx=ctx),
        picture=draw_maps(found[None], "_volume.png", ctx),
        count=len(staged),
        version=1,
        **_of_box(staged, params),
    )
    shutil.rmtree(folder)
    return record


class RelionClass3DParams(RelionSearchParams):
    """How RELION classifies in 3D."""

    n_classes: int = Field(4, ge=1, le=50, description="Number of classes (--K)")
    iterations: int = Field(25, ge=1, le=200, description="Iterations (--iter)")
    regularisation: float = Field(4.0, gt=0, le=100, description="Weight of the prior against the data (--tau2_fudge)")
    initial_ang: Angstrom = Field(40.0, gt=0, description="Resolution to which the initial volume is trusted (--ini_high)")
    limit_ang: Angstrom | None = Field(None, gt=0, description="Finest resolution used (--strict_highres_exp); unset: no limit")


@step.map(
    "relion_class3d",
    version=1,
    reads=READS,
    memory_gb=6,
    programs=(REFINE,),
    method=Method((Text("Particles were classified in 3D by RELION, in {n_classes} classes."),), (SCHERES_2012,)),
)
def classify_3d_with_relion(
    particles: list[Particles], volume: Volume, params: RelionClass3DParams, acquisition: Acquisition, ctx: Context
) -> VolumeClasses:
    """Classify a closed set of particles in 3D with RELION, which searches their poses too and is run as it is installed.

    Its classes have no half maps: their resolution is RELION's own estimate, from the power of the signal, and there is no shell
    correlation. An interrupted run goes on after the last iteration that was finished.

    Raises
    ------
    ItemError
        The volume is no map, as of `stage_particles`, or RELION fails.
    """
    folder = begin_folder(ctx, "relion_class3d")
    staged = _stage(particles, volume, folder, acquisition, ctx)
    command = (
        _from_volume(params.command(staged, ctx), params.initial_ang)
        .option("--K", params.n_classes)
        .option("--iter", params.iterations)
        .option("--tau2_fudge", params.regularisation)
        .option("--strict_highres_exp", params.limit_ang)
    )
    last = run_refine(command, folder, ctx, n_particles=len(staged), iterations=params.iterations)
    record = _publish_classes(f"{ROOT}_it{last:03d}", folder, staged, params, ctx)
    shutil.rmtree(folder)
    return record


def _publish_classes(
    root: str, folder: Path, staged: StagedParticles, params: RelionClass3DParams, ctx: Context
) -> VolumeClasses:
    """Write the volumes of classes, largest first, and which particle is in which."""
    found = read_particles_found(folder / f"{root}_data.star", staged, in_3d=True)
    model = read_model(folder / f"{root}_model.star")
    counts = np.bincount(found.class_number - 1, minlength=params.n_classes)
    order = np.argsort(-counts, kind="stable")
    maps = np.stack([read_cube(folder / f"{root}_class{k + 1:03d}.mrc", box_px=staged.box_px) for k in order.tolist()])
    resolution_ang = model.resolution_ang[order]
    stack = publish_map(maps.sum(axis=1), "_classes.mrcs", pixel_size_ang=staged.pixel_size_ang, ctx=ctx)
    columns = {"class_id": np.argsort(order)[found.class_number - 1], **_poses(found)}
    table, index = publish_table(staged.table, columns, ctx)
    return VolumeClasses(
        stack=stack,
        picture=draw_maps(maps, "_classes.png", ctx),
        count=len(staged),
        tables=[table],
        index=index,
        classes=[
            VolumeClass(
                id=place,
                count=int(counts[k]),
                resolution_ang=None if np.isnan(resolution_ang[place]) else float(resolution_ang[place]),
                map=publish_map(maps[place], f"_class{place}.mrc", pixel_size_ang=staged.pixel_size_ang, ctx=ctx),
                half_maps=[],
                frequency_per_ang=[],
                fsc=[],
            )
            for place, k in enumerate(order.tolist())
        ],
        **_of_box(staged, params),
    )


class RelionRefine3DParams(RelionSearchParams):
    """How RELION refines."""

    initial_ang: Angstrom = Field(40.0, gt=0, description="Resolution to which the initial volume is trusted (--ini_high)")
    local_angle_deg: Degree = Field(
        1.8, gt=0.5, le=30, description="Angular sampling from which only nearby poses are searched (--auto_local_healpix_order)"
    )


@step.map(
    "relion_refine3d",
    version=1,
    reads=READS,
    cores=3,
    memory_gb=8,
    programs=(REFINE_MPI, MPIRUN),
    method=Method((Text("Particles were refined in 3D by RELION, in two half sets."),), (SCHERES_2012,)),
)
def refine_with_relion(
    particles: list[Particles], volume: Volume, params: RelionRefine3DParams, acquisition: Acquisition, ctx: Context
) -> Volume:
    """Refine a closed set of particles from an initial volume with RELION's gold standard, which is run as it is installed.

    RELION wants three processes for that: one that leads, and one for each half set. The half sets are icestream's. Its map is
    neither masked nor sharpened; `map_quality` or `relion_postprocess` does that. An interrupted run begins again.

    Raises
    ------
    ItemError
        The volume is no map, as of `stage_particles`, or RELION fails.
    """
    folder = begin_folder(ctx, "relion_refine3d")
    staged = _stage(particles, volume, folder, acquisition, ctx)
    local = int(np.argmin(np.abs(np.log(np.array(_SAMPLINGS_DEG) / params.local_angle_deg))))
    words = (
        _from_volume(params.command(staged, ctx), params.initial_ang)
        .flag("--auto_refine")
        .flag("--split_random_halves")
        .option("--low_resol_join_halves", params.initial_ang)
        .option("--auto_local_healpix_order", local)
    )
    start = Command().option("-n", 3).flag("--oversubscribe").word(ctx.program(REFINE_MPI).path)
    computing = computing_options(ctx)
    run_program(MPIRUN, Command((*start.arguments, *words.arguments, *computing.arguments)), ctx, folder=folder)
    record = _publish_refined(folder, staged, params, ctx)
    shutil.rmtree(folder)
    return record


def _publish_refined(folder: Path, staged: StagedParticles, params: RelionRefine3DParams, ctx: Context) -> Volume:
    """Write the map, its half maps, and the poses."""
    found = read_particles_found(folder / f"{ROOT}_data.star", staged, in_3d=True)
    model = read_model(folder / f"{ROOT}_model.star")
    names = {
        "_map.mrc": f"{ROOT}_class001.mrc",
        "_half1_class001_unfil.mrc": f"{ROOT}_half1_class001_unfil.mrc",
        "_half2_class001_unfil.mrc": f"{ROOT}_half2_class001_unfil.mrc",
    }
    maps = [read_cube(folder / name, box_px=staged.box_px) for name in names.values()]
    refs = [
        publish_map(one, suffix, pixel_size_ang=staged.pixel_size_ang, ctx=ctx) for suffix, one in zip(names, maps, strict=True)
    ]
    table, index = publish_table(staged.table, _poses(found), ctx)
    if not np.isfinite(model.gold_standard_fsc).all():
        raise FileFormatError(folder / f"{ROOT}_model.star", "has a shell correlation that is not finite")
    coarsest_ang = staged.box_ang
    agrees = model.current_resolution_ang < coarsest_ang
    return Volume(
        map=refs[0],
        half_maps=refs[1:],
        picture=draw_maps(maps[0][None], "_volume.png", ctx),
        count=len(staged),
        frequency_per_ang=[round(float(one), 6) for one in model.frequency_per_ang],
        fsc_unmasked=[round(float(one), 4) for one in model.gold_standard_fsc],
        fsc=[round(float(one), 4) for one in model.gold_standard_fsc],
        resolution_ang=model.current_resolution_ang if agrees else None,
        verdict="map" if agrees else "none",
        reason=None if agrees else "its halves agree nowhere",
        version=1,
        tables=[table],
        index=index,
        **_of_box(staged, params),
    )


def _stage(particles: list[Particles], volume: Volume, folder: Path, acquisition: Acquisition, ctx: Context) -> StagedParticles:
    staged = stage_particles(particles, acquisition, folder, ctx)
    raw_ang = acquisition.need("pixel_size_ang")
    pixel_ang = staged.pixel_size_ang
    stage_volume(volume, folder / _START, box_px=staged.box_px, pixel_size_ang=pixel_ang, raw_pixel_ang=raw_ang, ctx=ctx)
    return staged


def _from_volume(command: Command, initial_ang: float) -> Command:
    """Return the arguments to begin with a volume whose grey values are of no known scale."""
    return command.option("--ref", _START).flag("--firstiter_cc").option("--ini_high", initial_ang)


def _of_box(staged: StagedParticles, params: RelionSearchParams) -> Mapping[str, Any]:
    """Return what a volume in the box of the particles says of itself."""
    diameter_ang = params.diameter_ang or staged.diameter_ang or 0.9 * staged.box_ang
    return {"box_px": staged.box_px, "bin": staged.bin, "symmetry": params.symmetry, "diameter_ang": diameter_ang}


def _poses(found: FoundParticles) -> dict[str, NDArray[np.float64]]:
    values = (found.rot_deg, found.tilt_deg, found.psi_deg, *found.shift_yx_px.T, found.log_likelihood, found.probability)
    return dict(zip((column.name for column in POSE_3D), values, strict=True))
