"""Gautomatch, a picker with templates by K. Zhang that needs a GPU."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, stage_file
from icestream.external.picker_form import IMAGE, PickerForm, pick_with_program, read_columns
from icestream.flow import Angstrom, Context, Field, Params, Program, step
from icestream.records import ROSEMAN_2003, Acquisition, Method, Micrograph, Picks, PickTemplates, Text

GAUTOMATCH = Program("Gautomatch", (), r"Gautomatch[_ ]?v?(\d+\.\d+)", oldest="0.53", never_run=True)
_TEMPLATES, _ANSWER = "templates.mrcs", "micrograph_automatch.star"
_COLUMNS = ("rlnCoordinateY", "rlnCoordinateX", "rlnAutopickFigureOfMerit")


class GautomatchParams(Params):
    """How Gautomatch picks; names in brackets are its own."""

    diameter_ang: Angstrom = Field(gt=0, description="Diameter of the particle (--diameter)")
    threshold: float = Field(0.1, ge=0, le=1, description="Least cross-correlation (--cc_cutoff)")
    lowpass_ang: Angstrom = Field(30.0, gt=0, description="Finest detail that is looked at (--lp)")
    highpass_ang: Angstrom = Field(1000.0, gt=0, description="Coarsest detail that is looked at (--hp)")
    dark: bool = Field(True, description="Particles are darker than the ice; templates are bright")
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, the best; unset: all")


@step.map(
    "gautomatch",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=2,
    gpu_gb=2,
    programs=(GAUTOMATCH,),
    method=Method((Text("Particles were picked with Gautomatch."),), (ROSEMAN_2003,)),
)
def pick_with_gautomatch(
    micrograph: Micrograph, templates: PickTemplates | None, params: GautomatchParams, acquisition: Acquisition, ctx: Context
) -> Picks:
    """Find particles with Gautomatch, with templates or with those that it makes itself; it is run as it is installed.

    Raises
    ------
    ItemError
        The pixel size is unset, or Gautomatch fails.
    """
    if templates is not None:
        stage_file(ctx.path(templates.stack), ctx.work_folder, _TEMPLATES)

    def make(pixel_ang: float) -> PickerForm:
        return PickerForm(GAUTOMATCH, gautomatch_command(params, pixel_ang, templates), _ANSWER, read_gautomatch)

    return pick_with_program(micrograph, acquisition, ctx, make, diameter_ang=params.diameter_ang, max_picks=params.max_picks)


def gautomatch_command(params: GautomatchParams, pixel_ang: float, templates: PickTemplates | None) -> Command:
    """Return the arguments of Gautomatch."""
    return (
        Command()
        .option("--apixM", pixel_ang)
        .option("--diameter", params.diameter_ang)
        .option("--T", None if templates is None else _TEMPLATES)
        .option("--apixT", None if templates is None else templates.pixel_size_ang)
        .flag("--dont_invertT", on=templates is not None and not params.dark)
        .option("--cc_cutoff", params.threshold)
        .option("--lp", params.lowpass_ang)
        .option("--hp", params.highpass_ang)
        .option("--gid", 0)
        .word(IMAGE)
    )


def read_gautomatch(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the picks in a STAR file of Gautomatch.

    Raises
    ------
    FileFormatError
        It is no such file, or lacks a column.
    """
    y, x, score = read_columns(path, _COLUMNS, what="the picks of Gautomatch")
    return np.stack([y, x], axis=1), score
