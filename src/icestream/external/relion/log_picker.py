"""Picking with RELION's Laplacian-of-Gaussian filter."""

import numpy as np

from icestream.external import run_program, stage_image
from icestream.external.relion.autopick import (
    AUTOPICK,
    FoundPicks,
    ended_well,
    found_nothing,
    log_command,
    picks_path,
    read_picks,
    record_picks,
)
from icestream.flow import Angstrom, Context, Field, ItemError, Params, step
from icestream.records import ZIVANOV_2018, Acquisition, Method, Micrograph, Picks, Text

_MICROGRAPH = "micrograph.mrc"


class RelionLogPickerParams(Params):
    """What the particles look like and how many of the peaks are taken; as `relion_autopick` takes it."""

    diameter_ang: tuple[Angstrom, Angstrom] = Field(
        description="Smallest and largest diameter of the particle", json_schema_extra={"unit": "Å"}
    )
    threshold: float = Field(
        0.0, allow_inf_nan=False, description="Adjusts the threshold, in standard deviations: fewer picks above 0, more below"
    )
    upper_threshold: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Leave out what scores more, in standard deviations, as ice; unset: keep all"
    )
    white: bool = Field(False, description="Particles are brighter than the ice")
    lowpass_ang: Angstrom = Field(20.0, gt=0, description="Resolution to which the micrograph is filtered")
    shrink: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Size to which the micrograph is shrunk, as a fraction; 0: as far as lowpass_ang allows, which is fast, "
        "but rounds positions down to whole shrunken pixels (about lowpass_ang / 2)",
    )
    max_picks: int | None = Field(None, ge=1, description="Keep at most this many, the best; unset: all")


@step.map(
    "relion_log_picker",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=2.0,
    programs=(AUTOPICK,),
    method=Method((Text("Particles were picked with the Laplacian-of-Gaussian picker of RELION."),), (ZIVANOV_2018,)),
)
def pick_with_relion_log(micrograph: Micrograph, params: RelionLogPickerParams, acquisition: Acquisition, ctx: Context) -> Picks:
    """Find particles of a given size with the Laplacian-of-Gaussian filter of RELION, which is run as it is installed.

    Picks are numbered from the best figure of merit down, which is their score.

    Raises
    ------
    ItemError
        If the pixel size is unset, the diameters are no range, or RELION fails.
    """
    smallest_ang, largest_ang = params.diameter_ang
    if not 0 < smallest_ang <= largest_ang:
        raise ItemError(f"diameter_ang {smallest_ang:g} to {largest_ang:g} is not a range of positive diameters")
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    stage_image(ctx.path(micrograph.image), ctx.work_folder, _MICROGRAPH, pixel_size_ang=pixel_ang)
    command = log_command(
        _MICROGRAPH,
        pixel_size_ang=pixel_ang,
        diameter_ang=params.diameter_ang,
        threshold=params.threshold,
        upper_threshold=params.upper_threshold,
        white=params.white,
        lowpass_ang=params.lowpass_ang,
        shrink=params.shrink,
    )
    done = run_program(AUTOPICK, command, ctx, ended_well=ended_well)
    found = FoundPicks.none() if found_nothing(done.tail) else read_picks(picks_path(done.folder, _MICROGRAPH))
    diameter_ang = float(np.sqrt(np.prod(params.diameter_ang)))
    return record_picks(found, micrograph, diameter_ang=diameter_ang, max_picks=params.max_picks)
