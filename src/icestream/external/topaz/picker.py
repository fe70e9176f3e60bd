"""Picking with a model of Topaz: one that comes with it, or one that was trained in the session."""

import numpy as np

from icestream.external import Command, run_program, stage_file
from icestream.external.topaz.program import TOPAZ, device_words, make_small, read_coordinates
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.io.picks import make_picks, table_of_picks
from icestream.records import BEPLER_2019, Acquisition, Method, Micrograph, Picks, Text, TopazModel

_COORDINATES, _MODEL = "picks.txt", "model.sav"
PARTICLE_PX = 32
"""How wide a particle is in the pixels of Topaz, about, where nobody says how far micrographs are reduced."""


class TopazScaleParams(Params):
    """How large particles are, and how far micrographs are reduced for Topaz."""

    diameter_ang: Angstrom = Field(gt=0, description="Diameter of the particle")
    reduce_by: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Whole factor by which micrographs are reduced; unset: particles become about 32 pixels wide",
    )

    def factor(self, pixel_size_ang: float) -> int:
        """Return by how much a micrograph is reduced."""
        return self.reduce_by or max(1, round(self.diameter_ang / pixel_size_ang / PARTICLE_PX))


class TopazPickParams(TopazScaleParams):
    """Which model picks, and what counts."""

    model: str = Field(
        "resnet16",
        pattern=r"^resnet(8|16)(_u(32|64))?$",
        description="Model that comes with Topaz, where none is connected: resnet16 or resnet8, with 64 or 32 units",
    )
    threshold: float = Field(0.0, allow_inf_nan=False, description="Least score of a pick, a log-likelihood ratio")
    radius_diameters: float = Field(0.25, gt=0, le=1, description="No two picks are nearer than twice this part of the diameter")
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, the best; unset: all")


@step.map(
    "topaz_picker",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=4.0,
    programs=(TOPAZ,),
    method=Method((Text("Particles were picked with Topaz."),), (BEPLER_2019,)),
)
def pick_with_topaz(
    micrograph: Micrograph, model: TopazModel | None, params: TopazPickParams, acquisition: Acquisition, ctx: Context
) -> Picks:
    """Find particles with a model of Topaz, which is run in the environment that it is installed in.

    Picks are numbered from the best score down.

    Raises
    ------
    ItemError
        The pixel size is unset, the model was trained on particles of another width in pixels, or Topaz fails.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    factor = params.factor(pixel_ang)
    small_ang = factor * pixel_ang
    if model is not None and abs(np.log(small_ang / model.pixel_size_ang)) > 0.1:
        raise ItemError(
            f"the model was trained at {model.pixel_size_ang:.2f} Å per pixel, this micrograph is reduced to {small_ang:.2f} Å; "
            "set reduce_by"
        )
    small = make_small(micrograph, factor=factor, pixel_size_ang=pixel_ang, name="micrograph", ctx=ctx)
    if model is not None:
        stage_file(ctx.path(model.file), ctx.work_folder, _MODEL)
    command = (
        Command()
        .word("extract")
        .option("-m", params.model if model is None else _MODEL)
        .option("-r", max(1, int(params.radius_diameters * params.diameter_ang / small_ang)))
        .option("-t", params.threshold)
        .option("-o", _COORDINATES)
    )
    words = (*command.arguments, *device_words(ctx).arguments, str(small.path.relative_to(ctx.work_folder)))
    run_program(TOPAZ, Command(words), ctx)
    yx_px, score = read_coordinates(ctx.work_folder / _COORDINATES, small.path.stem)
    yx_px = np.clip(yx_px * small.scale_yx, 0, [micrograph.height_px - 1, micrograph.width_px - 1])
    count = len(score) if params.max_picks is None else min(len(score), params.max_picks)
    picks = make_picks(table_of_picks(yx_px[:count], score[:count]), diameter_ang=params.diameter_ang)
    return picks.model_copy(update={"threshold": params.threshold, "reference": None if model is None else model.file})
