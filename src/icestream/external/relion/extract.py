"""Extraction of particles by RELION."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, run_program
from icestream.external.relion.micrographs import IMAGE, LIST, READS, stage_micrograph
from icestream.flow import Angstrom, Context, Field, FileFormatError, ItemError, Params, Program, WholePixels, step
from icestream.io.blocks import dtype_of, from_block, to_block
from icestream.io.image import read_stack, write_mrc
from icestream.io.star import Table, read_star, write_star
from icestream.records import CTF_COLUMNS, ZIVANOV_2018, Acquisition, CtfFit, Method, Micrograph, Particles, Picks, Text

PREPROCESS = Program("relion_preprocess", ("--version",), r"RELION version:\s*(\S+)", oldest="3.1", below="4")
_SUFFIX, _FOUND = "_picks.star", "particles.star"
_HALF_PX = 0.01


class RelionExtractParams(Params):
    """How RELION cuts particles; names in brackets are RELION's."""

    box_px: WholePixels = Field(ge=16, multiple_of=2, description="Side of the box in pixels of the micrograph (--extract_size)")
    scaled_box_px: WholePixels | None = Field(
        None, ge=16, multiple_of=2, description="Side of the box after scaling (--scale); unset: not scaled"
    )
    invert: bool = Field(True, description="Make dark protein bright (--invert_contrast)")
    background_diameter_ang: Angstrom | None = Field(
        None,
        gt=0,
        description="Pixels outside this circle are background (--bg_radius); unset: 0.75 of the box, as RELION has it",
    )


@step.map(
    "relion_extract",
    version=1,
    reads=READS,
    memory_gb=2.0,
    programs=(PREPROCESS,),
    method=Method((Text("Particles were extracted by RELION in boxes of {box_px} pixels."),), (ZIVANOV_2018,)),
)
def extract_with_relion(
    micrograph: Micrograph, picks: Picks, ctf: CtfFit | None, params: RelionExtractParams, acquisition: Acquisition, ctx: Context
) -> Particles:
    """Cut the particles of one micrograph out with RELION, which is run as it is installed.

    Boxes are on whole pixels; where they leave the micrograph RELION fills them with its nearest pixels. Numbers of the particles
    are those of the picks.

    Raises
    ------
    ItemError
        An acquisition value is unset, the box is larger than the micrograph, or RELION fails.
    """
    if params.box_px > min(micrograph.height_px, micrograph.width_px):
        raise ItemError(
            f"a box of {params.box_px} px does not fit into the micrograph of {micrograph.height_px} x {micrograph.width_px} px"
        )
    table = _whole_pixels(picks, ctf)
    scaled_px = params.scaled_box_px or params.box_px
    record = Particles(
        stack=None,
        count=len(table),
        n_padded=_n_padded(table, micrograph, params.box_px),
        box_px=scaled_px,
        bin=micrograph.bin * params.box_px / scaled_px,
        inverted=params.invert,
        phase_flipped=False,
        diameter_ang=picks.diameter_ang,
        micrograph=micrograph.image,
        origin=ctx.exposure.id,
        picks_key=picks.numbered_by,
        block=to_block(table),
    )
    if not len(table):
        return record
    pixel_ang = stage_micrograph(micrograph, ctf, acquisition, ctx)
    columns = {f"rlnCoordinate{axis}": [f"{value:.1f}" for value in table[f"{axis.lower()}_px"].tolist()] for axis in "XY"}
    write_star(ctx.work_folder / f"{Path(IMAGE).stem}{_SUFFIX}", {"": Table(columns)})
    command = _command(params, pixel_ang * params.box_px / scaled_px, scaled_px)
    done = run_program(PREPROCESS, command, ctx)
    images = read_extracted(done.folder / _FOUND, table, box_px=scaled_px)
    with ctx.publish("_particles.mrcs") as out:
        write_mrc(out.path, images, pixel_size_ang=pixel_ang * params.box_px / scaled_px)
    return record.model_copy(update={"stack": out.ref})


def _command(params: RelionExtractParams, scaled_pixel_ang: float, scaled_px: int) -> Command:
    background_px = 0.375 * scaled_px
    if params.background_diameter_ang is not None:
        background_px = params.background_diameter_ang / 2 / scaled_pixel_ang
    return (
        Command()
        .option("--i", LIST)
        .option("--coord_dir", "./")
        .option("--coord_suffix", _SUFFIX)
        .option("--part_star", _FOUND)
        .option("--part_dir", "extracted/")
        .flag("--extract")
        .option("--extract_size", params.box_px)
        .option("--scale", params.scaled_box_px)
        .flag("--norm")
        .option("--bg_radius", round(background_px))
        .flag("--invert_contrast", on=params.invert)
    )


def _whole_pixels(picks: Picks, ctf: CtfFit | None) -> NDArray[Any]:
    """Return the table of the particles, at whole pixels: RELION cuts there, and so their places are true."""
    picked = from_block(picks.block)
    table = np.zeros(len(picked), dtype=dtype_of(Particles.block_columns))
    table["pid"], table["score"], table["slice"] = picked["pid"], picked["score"], np.arange(len(picked))
    for axis in ("y_px", "x_px"):
        table[axis] = np.rint(picked[axis])
    for column in CTF_COLUMNS:
        table[column.name] = np.nan if ctf is None else getattr(ctf, column.name)
    return table


def _n_padded(table: NDArray[Any], micrograph: Micrograph, box_px: int) -> int:
    first = np.stack([table["y_px"], table["x_px"]], axis=1) - box_px // 2  # (n, 2)
    outside = (first < 0) | (first + box_px > [micrograph.height_px, micrograph.width_px])
    return int(outside.any(axis=1).sum())


def read_extracted(path: Path, table: NDArray[Any], *, box_px: int) -> NDArray[np.float32]:
    """Return the images that the STAR file of an extraction names, in the order of the particles in ``table``.

    Raises
    ------
    FileFormatError
        It is no such file, has other particles, or its stack has another size.
    """
    tables = read_star(path)
    if "particles" not in tables:
        raise FileFormatError(path, f"has no table 'particles'; there are {', '.join(tables)}")
    try:
        names = tables["particles"].texts("rlnImageName")
        places = np.stack([tables["particles"].floats(f"rlnCoordinate{axis}") for axis in "YX"], axis=1)  # (n, 2)
        slices = np.array([int(name.partition("@")[0]) - 1 for name in names])
    except (KeyError, ValueError) as error:
        raise FileFormatError(path, f"not the particles of relion_preprocess: {error}") from error
    wanted = np.stack([table["y_px"], table["x_px"]], axis=1)
    if places.shape != wanted.shape or np.abs(places - wanted).max() > _HALF_PX:
        raise FileFormatError(path, f"has {len(places)} particles, or at other places than the {len(wanted)} that were given")
    stack = path.parent / names[0].partition("@")[2]
    images = read_stack(stack)
    if images.shape != (len(table), box_px, box_px) or sorted(slices.tolist()) != list(range(len(table))):
        raise FileFormatError(stack, f"holds images of {images.shape}; expected are {len(table)} of {box_px} px")
    ordered: NDArray[np.float32] = images[slices]
    return ordered
