"""``topaz``: its version, how it brings a micrograph to its own pixels, and the picks that it prints.

Bepler et al. (2019), Nat. Methods 16:1153-1160. Its coordinates count pixels of the image as stored, x first.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command, run_program, stage_image
from icestream.flow import Context, FileFormatError, Program
from icestream.io.image import image_header
from icestream.records import Micrograph

TOPAZ = Program("topaz", ("--version",), r"(\d+\.\d+\.\d+\S*)", oldest="0.2.4", below="0.4")

_IMAGE, _SMALL = "micrograph.mrc", "small"
_COLUMNS = ["image_name", "x_coord", "y_coord", "score"]


def device_words(ctx: Context) -> Command:
    """Return the arguments that say where it computes: on the granted GPU, or on the granted cores."""
    return Command().option("-d", -1 if ctx.gpu is None else 0).option("-j", ctx.cores)


@dataclass(frozen=True)
class SmallMicrograph:
    """A micrograph as Topaz sees it, and how many pixels of ours one of its pixels is along y and x."""

    path: Path
    scale_yx: tuple[float, float]


def make_small(micrograph: Micrograph, *, factor: int, pixel_size_ang: float, name: str, ctx: Context) -> SmallMicrograph:
    """Let Topaz reduce a micrograph by a whole factor and normalise it; it is then ``small/<name>.mrc`` of the working folder.

    Raises
    ------
    FileFormatError
        Topaz wrote no such image.
    """
    staged = stage_image(ctx.path(micrograph.image), ctx.work_folder, f"{name}.mrc", pixel_size_ang=pixel_size_ang)
    command = Command().word("preprocess").option("-s", factor).option("-o", _SMALL)
    run_program(TOPAZ, Command((*command.arguments, *device_words(ctx).arguments, staged.name)), ctx)
    path = ctx.work_folder / _SMALL / staged.name
    if not path.is_file():
        raise FileFormatError(path, "topaz preprocess did not write it")
    header = image_header(path)
    return SmallMicrograph(path, (micrograph.height_px / header.height_px, micrograph.width_px / header.width_px))


def read_coordinates(path: Path, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return positions ``(n, 2)``, y and x in pixels of the image ``name``, and scores ``(n,)``, the best first.

    Raises
    ------
    FileFormatError
        It is no such file, or is of another image.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if not lines or lines[0].split("\t") != _COLUMNS:
        raise FileFormatError(path, f"not the coordinates of topaz extract: expected are the columns {', '.join(_COLUMNS)}")
    rows = [line.split("\t") for line in lines[1:] if line.strip()]
    if any(len(row) != len(_COLUMNS) or row[0] != name for row in rows):
        raise FileFormatError(path, f"has rows that are not of {name}, or lack a column")
    try:
        values = np.array([[float(word) for word in row[1:]] for row in rows], dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise FileFormatError(path, f"not the coordinates of topaz extract: {error}") from error
    if not np.isfinite(values).all():
        raise FileFormatError(path, "has values that are not finite")
    order = np.argsort(-values[:, 2], kind="stable")
    return values[order][:, 1::-1], values[order, 2]
