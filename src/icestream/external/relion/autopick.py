"""``relion_autopick``: its version, its arguments for the Laplacian-of-Gaussian filter, and the picks it writes.

Zivanov et al. (2018), eLife 7:e42166, describe the filter. Positions are in pixels of the micrograph with (0, 0) at the centre of
the first pixel in the file; RELION's y counts rows in the order of the MRC file, as ours do.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.external import Command
from icestream.flow import FileFormatError, Program
from icestream.io.picks import make_picks, table_of_picks
from icestream.io.star import read_star
from icestream.records import Micrograph, Picks

AUTOPICK = Program("relion_autopick", ("--version",), r"RELION version:\s*(\S+)", oldest="3.1", below="6")

OUTPUT_FOLDER = "picked/"
_ROOT = "picks"
_NO_PARTICLES = "Total number of particles from 1 micrographs is 0"
_X, _Y, _MERIT = "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"


@dataclass(frozen=True)
class FoundPicks:
    """Positions ``(n, 2)`` in pixels, y and x, and the figure of merit of each ``(n,)``, the best first."""

    yx_px: NDArray[np.float64]
    merit: NDArray[np.float64]

    @classmethod
    def none(cls) -> "FoundPicks":
        """Return no picks."""
        return cls(np.empty((0, 2)), np.empty(0))


def log_command(
    micrograph: str,
    *,
    pixel_size_ang: float,
    diameter_ang: tuple[float, float],
    threshold: float,
    upper_threshold: float | None,
    white: bool,
    lowpass_ang: float,
    shrink: float,
) -> Command:
    """Return the arguments that pick one micrograph, a file in the working folder, with the LoG filter."""
    return (
        Command()
        .option("--i", micrograph)
        .option("--odir", OUTPUT_FOLDER)
        .option("--pickname", _ROOT)
        .option("--angpix", pixel_size_ang)
        .flag("--LoG")
        .option("--LoG_diam_min", diameter_ang[0])
        .option("--LoG_diam_max", diameter_ang[1])
        .option("--LoG_adjust_threshold", threshold)
        .option("--LoG_upper_threshold", upper_threshold)
        .flag("--Log_invert", on=white)
        .option("--lowpass", lowpass_ang)
        .option("--shrink", shrink)
    )


def picks_path(folder: Path, micrograph: str) -> Path:
    """Return where ``relion_autopick`` writes the picks of a micrograph in its working folder."""
    return folder / OUTPUT_FOLDER / f"{Path(micrograph).stem}_{_ROOT}.star"


def ended_well(status: int, tail: str) -> bool:
    """Tell whether it has picked: RELION 3.1 dies of its own plots, after its work, where a micrograph has no particle."""
    return status == 0 or (status < 0 and found_nothing(tail))


def found_nothing(tail: str) -> bool:
    """Tell from the last lines that it printed whether it found no particle at all."""
    return _NO_PARTICLES in tail


def read_picks(path: Path) -> FoundPicks:
    """Return the picks in a STAR file of ``relion_autopick``, of RELION 3.1 or later, the best first.

    Raises
    ------
    FileFormatError
        It is no such file.
    """
    tables = read_star(path)
    table = next((table for table in tables.values() if _X in table), None)
    if table is None:
        if any(len(found) for found in tables.values()):
            raise FileFormatError(path, f"has no column {_X}: not the picks of relion_autopick")
        return FoundPicks.none()
    try:
        yx_px = np.stack([table.floats(_Y), table.floats(_X)], axis=1)  # (n, 2)
        merit = table.floats(_MERIT)  # (n,)
    except (KeyError, ValueError) as error:
        raise FileFormatError(path, f"not the picks of relion_autopick: {error}") from error
    order = np.argsort(-merit, kind="stable")
    return FoundPicks(yx_px[order], merit[order])


def record_picks(found: FoundPicks, micrograph: Micrograph, *, diameter_ang: float, max_picks: int | None) -> Picks:
    """Check that picks are on the micrograph, and number them.

    Raises
    ------
    FileFormatError
        They are not.
    """
    shape = np.array([micrograph.height_px, micrograph.width_px])
    if not ((found.yx_px >= -0.5) & (found.yx_px <= shape - 0.5)).all():
        raise FileFormatError(
            Path("micrograph.mrc"), f"relion_autopick placed particles outside of its {shape[0]} x {shape[1]} px"
        )
    count = len(found.merit) if max_picks is None else min(len(found.merit), max_picks)
    return make_picks(table_of_picks(found.yx_px[:count], found.merit[:count]), diameter_ang=diameter_ang)
