"""Picks that another program has made, from its files."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.flow import Context, Field, FileFormatError, ItemError, NotYet, Params, step
from icestream.io.pick_files import SUFFIXES, PickFile, is_of, place_picks, read_pick_file, stem_of
from icestream.io.picks import make_picks, table_of_picks
from icestream.records import Acquisition, FileRef, Micrograph, Picks
from icestream.units import Angstrom, Pixel

_REST_S = 3.0
"""How long a growing file must have rested before the last micrograph in it is taken to be complete."""


class ImportPicksParams(Params):
    """Where the picks are, and how their positions are meant."""

    root: str = Field("picks", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session with the files")
    file: FileRef | None = Field(
        None,
        description="One file with the picks of all micrographs that is complete, as root:path; a micrograph that it does not "
        "name has none. It counts by its content: another content makes other picks of all. Unset: see `growing_file`",
    )
    growing_file: str | None = Field(
        None,
        min_length=1,
        description="One file with the picks of all micrographs to which a program still appends, relative to the root; unset: a "
        "file for each micrograph, called as the exposure, or as that with something after it, such as _autopick.star",
    )
    wait: bool = Field(
        True,
        description="Picks that are not there yet are looked for again for ten minutes; off: the exposure fails at once here",
        json_schema_extra={"operational": True},
    )
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

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if self.file is not None and self.growing_file is not None:
            raise ValueError("file is complete and growing_file is not; give one of them")
        return self


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
    try:
        found, chosen = _find(params, ctx)
    except NotYet as error:
        if params.wait:
            raise
        raise ItemError(str(error)) from error
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


def _find(params: ImportPicksParams, ctx: Context) -> tuple[PickFile, NDArray[np.int64] | None]:
    """Return a file, and which of its picks are of the exposure; None where a complete file does not name it."""
    path, exposure = _the_file(params, ctx), ctx.exposure.name
    try:
        found = read_pick_file(path, corner_box_px=params.box_px)
    except FileFormatError as error:
        if params.growing_file is None:
            raise
        raise NotYet(f"{error} (yet)") from error
    chosen = _rows_of(found, exposure, path)
    if params.growing_file is not None:
        if chosen is None:
            raise NotYet(f"{path}: has no picks of {exposure} (yet); {_names_in(found)}")
        rested_s = time.time() - path.stat().st_mtime
        if int(chosen.max()) == len(found.score) - 1 and rested_s < _REST_S:
            raise NotYet(f"{path}: is still being written, and may have more picks of {exposure}")
    return found, chosen


def _names_in(found: PickFile) -> str:
    """Say which micrographs a file names: a name that is spelt otherwise never comes."""
    names = list(found.rows or ())
    if not names:
        return "it names no micrograph so far"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"it names {', '.join(names[:3])}{more}. If this micrograph has another name there, it will never come"


def _scale(micrograph: Micrograph, params: ImportPicksParams, acquisition: Acquisition) -> float:
    if params.picked_pixel_ang is not None:
        return params.picked_pixel_ang / (acquisition.need("pixel_size_ang") * micrograph.bin)
    return 1.0 if params.pixels_of == "micrograph" else 1.0 / micrograph.bin


def _the_file(params: ImportPicksParams, ctx: Context) -> Path:
    folder, exposure = ctx.path(f"{params.root}:."), ctx.exposure.name
    if params.file is not None:
        return ctx.path(params.file)
    if params.growing_file is not None:
        path = ctx.path(f"{params.root}:{params.growing_file}")
        if not path.is_file():
            raise NotYet(f"{path}: there is no such file (yet)")
        return path
    found = list(_files_of(folder, exposure))
    if not found:
        raise NotYet(f"{folder}: no file of picks is called {exposure}.star (or {', '.join(SUFFIXES[1:])}) (yet)")
    if len(found) > 1:
        raise ItemError(f"{folder}: several files may have the picks of {exposure}: {', '.join(path.name for path in found)}")
    return found[0]


def _files_of(folder: Path, exposure: str) -> Iterator[Path]:
    """Give the files of an exposure; those that are called exactly so, if there are any."""
    exact = [path for suffix in SUFFIXES if (path := folder / f"{exposure}{suffix}").is_file()]
    if exact or not folder.is_dir():
        yield from exact
        return
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and is_of(stem_of(path.name), exposure):
            yield path


def _rows_of(found: PickFile, exposure: str, path: Path) -> NDArray[np.int64] | None:
    """Return which picks of a file are of an exposure, None where it names only others.

    A file without names has those of one micrograph only.
    """
    if found.rows is None:
        if not is_of(stem_of(path.name), exposure):
            raise ItemError(f"{path}: it does not name the micrograph of each pick, so it cannot be a file for all of them")
        return np.arange(len(found.score))
    if exposure in found.rows:
        return found.rows[exposure]
    names = [name for name in found.rows if is_of(name, exposure)]
    if len(names) > 1:
        raise ItemError(f"{path}: several micrographs may be {exposure}: {', '.join(names[:5])}")
    return found.rows[names[0]] if names else None
