"""2D classification by RELION."""

import shutil

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.outliers import spread_of_members
from icestream.algorithms.classes.ranking import measure_classes, rank_classes
from icestream.external import Command
from icestream.external.particles import READS, StagedParticles, stage_particles
from icestream.external.published import draw_wall, publish_map, publish_table, read_images
from icestream.external.relion.refine import (
    REFINE,
    ROOT,
    FoundModel,
    FoundParticles,
    begin_folder,
    particle_options,
    read_model,
    read_particles_found,
    run_refine,
)
from icestream.flow import Angstrom, Context, Degree, Field, Params, Pixel, step
from icestream.records import POSE, SCHERES_2012, Acquisition, ClassAverages, ClassInfo, Method, Particles, Text


class RelionClass2DParams(Params):
    """How RELION classifies; names in brackets are RELION's."""

    n_classes: int = Field(50, ge=1, le=500, description="Number of classes (--K)")
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the round mask (--particle_diameter); unset: that of the picks, or 0.9 of the box"
    )
    iterations: int = Field(25, ge=1, le=200, description="Iterations (--iter)")
    regularisation: float = Field(2.0, gt=0, le=100, description="Weight of the prior against the data (--tau2_fudge)")
    angle_deg: Degree = Field(6.0, gt=0, le=60, description="In-plane sampling; RELION's finer step (half of --psi_step)")
    max_shift_px: Pixel = Field(5.0, ge=0, le=100, description="Largest shift, in pixels of the images (--offset_range)")
    shift_step_px: Pixel = Field(1.0, gt=0, le=10, description="Sampling of shifts; RELION's finer step (half of --offset_step)")
    limit_ang: Angstrom | None = Field(None, gt=0, description="Finest resolution used (--strict_highres_exp); unset: no limit")


@step.map(
    "relion_class2d",
    version=1,
    reads=READS,
    memory_gb=4,
    programs=(REFINE,),
    method=Method((Text("Particles were classified in 2D by RELION, in {n_classes} classes."),), (SCHERES_2012,)),
)
def classify_with_relion(
    particles: list[Particles], params: RelionClass2DParams, acquisition: Acquisition, ctx: Context
) -> ClassAverages:
    """Classify a closed set of particles in 2D with RELION, which is run as it is installed.

    Its classes are numbered from 1, as RELION numbers them, and judged as those of `classify2d` are; the score of a particle is
    RELION's log likelihood. An interrupted run goes on after the last iteration that was finished.

    Raises
    ------
    ItemError
        As of `stage_particles`, or RELION fails.
    """
    folder = begin_folder(ctx, "relion_class2d")
    staged = stage_particles(particles, acquisition, folder, ctx)
    begin = particle_options(staged, diameter_ang=params.diameter_ang, ctx=ctx)
    command = Command((*begin.arguments, *_options(params).arguments))
    last = run_refine(command, folder, ctx, n_particles=len(staged), iterations=params.iterations)
    found = read_particles_found(folder / f"{ROOT}_it{last:03d}_data.star", staged, in_3d=False)
    model = read_model(folder / f"{ROOT}_it{last:03d}_model.star")
    shape = (params.n_classes, staged.box_px, staged.box_px)
    images = read_images(folder / f"{ROOT}_it{last:03d}_classes.mrcs", shape=shape)
    averages = _publish(images, found, model, staged, params, ctx)
    shutil.rmtree(folder)
    return averages


def _options(params: RelionClass2DParams) -> Command:
    return (
        Command()
        .option("--K", params.n_classes)
        .option("--iter", params.iterations)
        .option("--tau2_fudge", params.regularisation)
        .option("--psi_step", 2 * params.angle_deg)
        .option("--offset_range", params.max_shift_px)
        .option("--offset_step", 2 * params.shift_step_px)
        .option("--strict_highres_exp", params.limit_ang)
    )


def _publish(
    images: NDArray[np.float32],
    found: FoundParticles,
    model: FoundModel,
    staged: StagedParticles,
    params: RelionClass2DParams,
    ctx: Context,
) -> ClassAverages:
    """Write the class averages, and which particle is in which."""
    place = found.class_number - 1
    counts = np.bincount(place, minlength=len(images))
    diameter_ang = params.diameter_ang or staged.diameter_ang or 0.9 * staged.box_ang
    radius_px = diameter_ang / 2 / staged.pixel_size_ang
    resolution_px = np.where(np.isnan(model.resolution_ang), np.inf, model.resolution_ang / staged.pixel_size_ang)
    members = spread_of_members(place, found.log_likelihood, n_classes=len(images))  # (k, 2)
    fit = np.searchsorted(np.sort(found.log_likelihood), np.nan_to_num(members[:, 0], nan=-np.inf)) / len(place)
    measures = measure_classes(images, counts, resolution_px=resolution_px, mask_radius_px=radius_px)
    score = rank_classes(measures, fit=fit, residual=np.ones(len(images)))  # RELION does not say what it leaves: no class differs
    stack = publish_map(images, "_classes.mrcs", pixel_size_ang=staged.pixel_size_ang, ctx=ctx)
    table, index = publish_table(staged.table, _columns(found, place), ctx)
    return ClassAverages(
        stack=stack,
        picture=draw_wall(images, "_classes.png", ctx),
        count=len(place),
        box_px=staged.box_px,
        bin=staged.bin,
        classes=[
            ClassInfo(
                id=k + 1,
                count=int(counts[k]),
                resolution_ang=None if np.isnan(model.resolution_ang[k]) or not counts[k] else float(model.resolution_ang[k]),
                score=round(float(score[k]), 4),
                fit_median=round(float(members[k, 0]), 4) if counts[k] else None,
                fit_spread=round(float(members[k, 1]), 4) if counts[k] else None,
            )
            for k in range(len(images))
        ],
        version=1,
        diameter_ang=diameter_ang,
        tables=[table],
        index=index,
    )


def _columns(found: FoundParticles, place: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    values = (place, found.psi_deg, *found.shift_yx_px.T, found.log_likelihood)
    return dict(zip((column.name for column in POSE), values, strict=True))
