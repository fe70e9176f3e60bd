"""Picks that another program has made, from its files."""

from functools import partial
from typing import Literal

import numpy as np

from icestream.flow import Angstrom, Context, Field, ItemError, Pixel, step
from icestream.io.pick_files import SUFFIXES, place_picks, read_pick_file
from icestream.io.picks import make_picks, table_of_picks
from icestream.records import Acquisition, Micrograph, Picks
from icestream.steps.streams.foreign_files import ForeignFilesParams, find_rows


class ImportPicksParams(ForeignFilesParams):
    """Where the picks are, and how their positions are meant."""

    root: str = Field("picks", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session with the files")
    diameter_ang: Angstrom = Field(gt=0, description="Diameter of the particle")
    position: Literal["centre", "corner"] = Field(
        "centre", description="What the positions are, of a box for `corner`; .box files always give corners, with the box"
    )
    box_px: Pixel | None = Field(None, gt=0, description="Side of that box in pixels of the image that was picked, for `corner`")
    pixels_of: Literal["micrograph", "raw"] = Field(
        "micrograph",
        description="Whose pixels the positions are in: those of the micrograph that is connected, or raw movie pixels",
    )
    picked_pixel_ang: Angstrom | None = Field(
        None, gt=0, description="Pixel size of the image that was picked, if it was another; it counts instead of `pixels_of`"
    )
    flip_y: bool = Field(
        False,
        description="Rows are counted from the other end: pictures are read from the top, MRC files (RELION, EMAN, Topaz, "
        "cryoSPARC) from the first row of the file",
    )
    min_score: float | None = Field(None, description="Smallest score that is taken; unset: all, also those without a score")


@step.map("import_picks", version=1, reads=("pixel_size_ang",), memory_gb=0.5)
def import_picks(micrograph: Micrograph, params: ImportPicksParams, acquisition: Acquisition, ctx: Context) -> Picks:
    """Take the picks of a micrograph from a file of another program: STAR, BOX, CSV, or `.cs`.

    They are joined to the exposure by its name. Picks that are not there yet are waited for: a file for each micrograph until it
    is there, a growing file until it has the picks of this one and of another after it, or has rested. After ten minutes the
    exposure fails here, and `icestream retry` takes the picks when they have come. A complete file that does not name the
    micrograph has no picks of it, which is told. Positions outside the micrograph are removed and counted.

    Raises
    ------
    ItemError
        The file cannot be read, several files are called as the exposure, or `position`, `box_px` and the pixel sizes do not go
        together.
    NotYet
        There is no file yet, or a growing file does not have the picks of this micrograph yet.
    """
    if (params.position == "corner") != (params.box_px is not None):
        raise ItemError(f"position is {params.position!r} and box_px {params.box_px}: a corner needs box_px, a centre has none")
    found, chosen = find_rows(params, ctx, partial(read_pick_file, corner_box_px=params.box_px), suffixes=SUFFIXES, what="picks")
    shape = micrograph.height_px, micrograph.width_px
    scale = _scale(micrograph, params, acquisition)
    mine = np.zeros(0, dtype=np.int64) if chosen is None else chosen
    yx_px = place_picks(found.yx_px[mine], scale=scale, shape=shape, flip_y=params.flip_y)
    score = found.score[mine]
    order = np.lexsort((np.arange(len(score)), -np.where(np.isfinite(score), score, -np.inf)))
    yx_px, score = yx_px[order], score[order]
    outside = np.asarray(((yx_px < -0.5) | (yx_px > np.array(shape) - 0.5)).any(axis=1))
    low = np.zeros(len(score), dtype=bool) if params.min_score is None else ~(score >= params.min_score)
    picks = make_picks(
        table_of_picks(yx_px, score),
        diameter_ang=params.diameter_ang,
        removed={"outside the micrograph": outside, "score below the limit": low},
    )
    return picks if chosen is not None else picks.model_copy(update={"no_picks": "not in the file"})


def _scale(micrograph: Micrograph, params: ImportPicksParams, acquisition: Acquisition) -> float:
    if params.picked_pixel_ang is not None:
        return params.picked_pixel_ang / (acquisition.need("pixel_size_ang") * micrograph.bin)
    return 1.0 if params.pixels_of == "micrograph" else 1.0 / micrograph.bin
