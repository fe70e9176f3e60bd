"""The common form of steps that run a picker on one micrograph: staging, running, and the record."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, run_program, stage_image
from icestream.flow import Context, FileFormatError, Program
from icestream.io.picks import make_picks, table_of_picks
from icestream.io.star import read_star
from icestream.records import Acquisition, Micrograph, Picks

IMAGE = "micrograph.mrc"
ReadPicks = Callable[[Path], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Returns centres ``(n, 2)``, y and x in pixels of the image, and scores ``(n,)`` from a file that a program wrote."""


@dataclass(frozen=True)
class PickerForm:
    """How a picker is called for the staged image, and where and how its answer is read; without picks it may write none."""

    program: Program
    command: Command
    answer: str
    read: ReadPicks


def pick_with_program(
    micrograph: Micrograph,
    acquisition: Acquisition,
    ctx: Context,
    make: Callable[[float], PickerForm],
    *,
    diameter_ang: float,
    image: str = IMAGE,
    max_picks: int | None = None,
) -> Picks:
    """Let a program pick a micrograph, staged as ``image``; ``make`` is given the pixel size in Å.

    Picks are numbered from the best score down.

    Raises
    ------
    ItemError
        The pixel size is unset, or the program fails.
    FileFormatError
        Its answer lacks something, or has picks outside of the micrograph.
    """
    pixel_ang = acquisition.need("pixel_size_ang") * micrograph.bin
    (ctx.work_folder / image).parent.mkdir(parents=True, exist_ok=True)
    stage_image(ctx.path(micrograph.image), (ctx.work_folder / image).parent, Path(image).name, pixel_size_ang=pixel_ang)
    form = make(pixel_ang)
    run_program(form.program, form.command, ctx)
    path = ctx.work_folder / form.answer
    yx_px, score = form.read(path)
    if not (np.isfinite(yx_px).all() and np.isfinite(score).all()):
        raise FileFormatError(path, "has picks without a place or a score")
    shape = np.array([micrograph.height_px, micrograph.width_px])
    if not ((yx_px >= -0.5) & (yx_px <= shape - 0.5)).all():
        raise FileFormatError(path, f"has picks outside of the micrograph of {shape[0]} x {shape[1]} px")
    order = np.argsort(-score, kind="stable")[:max_picks]
    return make_picks(table_of_picks(yx_px[order], score[order]), diameter_ang=diameter_ang)


def read_columns(path: Path, columns: tuple[str, ...], *, what: str) -> list[NDArray[np.float64]]:
    """Return columns ``(n,)`` of the table of a STAR file that has the first of them.

    Raises
    ------
    FileFormatError
        It is no such file, or lacks a column; ``what`` says what it should have been.
    """
    table = next((one for one in read_star(path).values() if columns[0] in one), None)
    if table is None:
        raise FileFormatError(path, f"has no column {columns[0]}: not {what}")
    try:
        return [table.floats(name) for name in columns]
    except (KeyError, ValueError) as error:
        raise FileFormatError(path, f"not {what}: {error}") from error
