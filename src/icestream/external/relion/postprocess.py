"""Post-processing of a map by RELION: masking, sharpening, and the resolution within the mask."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, run_program, stage_file
from icestream.external.published import draw_maps, publish_map, read_cube, write_ball
from icestream.flow import Angstrom, Context, Field, FileFormatError, ItemError, Params, Program, step
from icestream.io.star import read_star
from icestream.records import CHEN_2013, ROSENTHAL_2003, Acquisition, Method, Text, Volume

POSTPROCESS = Program("relion_postprocess", ("--version",), r"RELION version:\s*(\S+)", oldest="3.1", below="4")
_ROOT = "post"


class RelionPostprocessParams(Params):
    """How the map is masked and sharpened; names in brackets are RELION's."""

    sharpen: bool = Field(True, description="Sharpen the map")
    b_factor_ang2: float | None = Field(
        None, le=0, description="B factor of the sharpening (--adhoc_bfac); unset: found from the map (--auto_bfac)"
    )
    from_ang: Angstrom = Field(10.0, gt=0, description="Resolution from which the B factor is found (--autob_lowres)")


@step.map(
    "relion_postprocess",
    version=1,
    reads=("pixel_size_ang",),
    memory_gb=4,
    programs=(POSTPROCESS,),
    method=Method((Text("The map was masked and sharpened by RELION."),), (ROSENTHAL_2003, CHEN_2013)),
)
def postprocess_with_relion(volume: Volume, params: RelionPostprocessParams, acquisition: Acquisition, ctx: Context) -> Volume:
    """Mask and sharpen a map with RELION, and find its resolution within the mask, corrected for it; RELION is run as installed.

    The mask is that of the volume; where it has none, a soft ball. Poses and half maps are those of the volume.

    Raises
    ------
    ItemError
        The volume has no half maps, or RELION fails.
    """
    if len(volume.half_maps) != 2:
        raise ItemError("the volume has no half maps, of which the resolution could be found")
    pixel_ang = volume.pixel_size_ang or acquisition.need("pixel_size_ang") * volume.bin
    for number, half in enumerate(volume.half_maps, 1):
        stage_file(ctx.path(half), ctx.work_folder, f"half{number}.mrc")
    if volume.mask is not None:
        stage_file(ctx.path(volume.mask), ctx.work_folder, "mask.mrc")
    else:
        diameter_ang = volume.diameter_ang or 0.8 * volume.box_px * pixel_ang
        write_ball(ctx.work_folder / "mask.mrc", volume.box_px, radius_px=diameter_ang / 2 / pixel_ang, pixel_size_ang=pixel_ang)
    run_program(POSTPROCESS, _command(params, pixel_ang), ctx)
    found = read_postprocess(ctx.work_folder / f"{_ROOT}.star")
    sharp = read_cube(ctx.work_folder / f"{_ROOT}.mrc", box_px=volume.box_px)
    changes = {
        "map": publish_map(sharp, "_map.mrc", pixel_size_ang=pixel_ang, ctx=ctx),
        "picture": draw_maps(sharp[None], "_volume.png", ctx),
        "frequency_per_ang": [round(float(one), 6) for one in found.frequency_per_ang],
        "fsc": [round(float(one), 4) for one in found.corrected],
        "fsc_unmasked": [round(float(one), 4) for one in found.unmasked],
        "resolution_ang": found.resolution_ang,
    }
    return volume.model_copy(update=changes)


def _command(params: RelionPostprocessParams, pixel_size_ang: float) -> Command:
    automatic = params.sharpen and params.b_factor_ang2 is None
    return (
        Command()
        .option("--i", "half1.mrc")
        .option("--i2", "half2.mrc")
        .option("--o", f"./{_ROOT}")
        .option("--angpix", pixel_size_ang)
        .option("--mask", "mask.mrc")
        .flag("--auto_bfac", on=automatic)
        .option("--autob_lowres", params.from_ang if automatic else None)
        .option("--adhoc_bfac", params.b_factor_ang2 if params.sharpen else None)
    )


@dataclass(frozen=True)
class FoundResolution:
    """The final resolution, and shell by shell ``(n,)`` how far the halves agree: corrected for the mask, and without it."""

    resolution_ang: float
    frequency_per_ang: NDArray[np.float64]
    corrected: NDArray[np.float64]
    unmasked: NDArray[np.float64]


def read_postprocess(path: Path) -> FoundResolution:
    """Return what the STAR file of `relion_postprocess` says.

    Raises
    ------
    FileFormatError
        It is no such file, or lacks a value.
    """
    tables = read_star(path)
    if "general" not in tables or "fsc" not in tables:
        raise FileFormatError(path, f"not the result of relion_postprocess: it has the tables {', '.join(tables)}")
    try:
        resolution_ang = float(tables["general"].floats("rlnFinalResolution")[0])
        curves = [
            tables["fsc"].floats(label)
            for label in ("rlnResolution", "rlnFourierShellCorrelationCorrected", "rlnFourierShellCorrelationUnmaskedMaps")
        ]
    except (KeyError, ValueError) as error:
        raise FileFormatError(path, f"not the result of relion_postprocess: {error}") from error
    if not np.isfinite([resolution_ang, *np.concatenate(curves)]).all():
        raise FileFormatError(path, "has values that are not finite")
    return FoundResolution(resolution_ang, *curves)
