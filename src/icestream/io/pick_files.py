"""Positions of particles in the files of other programs: STAR, BOX, CSV (and the text of Topaz), ``.cs``, and sets of Scipion.

Positions are returned as ``(y, x)`` of the centres, in the pixels of the image that was picked, counted as the file counts them.
What differs from file to file: BOX files give the corner of each box, the others the centre; ``.cs`` files give fractions of the
image. None of them says whether its row 0 is the first row of the MRC file (that of RELION, EMAN, Topaz and cryoSPARC is, that of
pictures that are read from the top is not): `place_picks` turns them over.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, SourceGone
from icestream.io.cryosparc import first_column, read_cs_job, texts_of
from icestream.io.scipion_sqlite import read_scipion_set
from icestream.io.star import read_star

SUFFIXES = (".star", ".box", ".csv", ".txt", ".tsv", ".cs", ".csg", ".sqlite")

_X = ("x", "x_px", "x_coord", "x-coordinate", "x_coordinate", "coordinate_x", "center_x", "centre_x")
_Y = tuple(name.replace("x", "y", 1) for name in _X)
_SCORE = ("score", "confidence", "figure_of_merit", "probability", "fom")
_NAME = ("image_name", "micrograph", "micrograph_name", "image", "filename", "name")
_CS = {"x": "location/center_x_frac", "y": "location/center_y_frac", "name": "location/micrograph_path"}
_CS_SCORES = ("pick_stats/ncc_score", "pick_stats/power")
_CORNERS = (".box",)
_WORD = re.compile(r"[._-][A-Za-z]")
_PREFIX = re.compile(r"^\d{15,}_(?=.)")


@dataclass(frozen=True)
class PickFile:
    """Picks of one file.

    Attributes
    ----------
    yx_px
        ``(n, 2)``, the centres; of a ``.cs`` file in pixels of the shape that it tells.
    score
        ``(n,)``; NaN where the file has none.
    rows
        Which picks are of which micrograph, by its name without folder and suffix; unset in files of one micrograph.
    """

    yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    rows: Mapping[str, NDArray[np.int64]] | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.score)


def read_pick_file(path: Path, *, corner_box_px: float | None = None) -> PickFile:
    """Read the picks in a file; its suffix says what it is.

    Parameters
    ----------
    corner_box_px
        Set: positions are corners of boxes of this side, and half of it is added. BOX files say the side themselves.

    Raises
    ------
    FileFormatError
        It is no such file, or has no positions.
    SourceGone
        It is not there.
    """
    if not path.is_file():
        raise SourceGone(f"{path}: there is no such file")
    said = path.stat()
    found = _read(path, said.st_mtime_ns, said.st_size)
    if corner_box_px is None or path.suffix.lower() in _CORNERS:
        return found
    return replace(found, yx_px=found.yx_px + 0.5 * corner_box_px)


@lru_cache(maxsize=2)
def _read(path: Path, _modified_ns: int, _size: int) -> PickFile:
    readers = {".star": _read_star, ".box": _read_box, ".cs": _read_cs, ".csg": _read_cs, ".sqlite": _read_scipion}
    reader = readers.get(path.suffix.lower(), _read_csv)
    if path.suffix.lower() not in SUFFIXES:
        raise FileFormatError(path, f"picks are read from files with {', '.join(SUFFIXES)}")
    try:
        return reader(path)
    except (KeyError, IndexError, ValueError, UnicodeDecodeError, EOFError) as error:
        raise FileFormatError(path, f"no file of picks: {error}") from error


def stem_of(name: str) -> str:
    """Return what a micrograph is called without folder, suffixes of images, and the number that cryoSPARC writes before it."""
    base = name.replace("\\", "/").rpartition("/")[2].partition("@")[2] or name.replace("\\", "/").rpartition("/")[2]
    for suffix in (".mrc", ".mrcs", ".tif", ".tiff", ".eer", ".png", ".jpg", *SUFFIXES):
        base = base.removesuffix(suffix)
    return _PREFIX.sub("", base)


def is_of(stem: str, exposure: str) -> bool:
    """Tell whether a micrograph's name is that of an exposure, or that with a word after it, such as ``_autopick``; no number."""
    return stem == exposure or (stem.startswith(exposure) and _WORD.match(stem[len(exposure) :]) is not None)


def place_picks(yx_px: NDArray[np.floating[Any]], *, scale: float, shape: tuple[int, int], flip_y: bool) -> NDArray[np.float64]:
    """Bring positions ``(n, 2)`` from the image that was picked to a micrograph of ``shape``.

    Pixel ``(0, 0)`` has its centre there, so a position p becomes ``(p + 0.5) scale - 0.5``; with ``flip_y`` rows are counted
    from the other end of the micrograph.
    """
    placed = (np.asarray(yx_px, dtype=np.float64) + 0.5) * scale - 0.5
    if flip_y:
        placed = np.stack([shape[0] - 1 - placed[:, 0], placed[:, 1]], axis=1)
    return placed


def rows_by_name(names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Return which rows are of which micrograph, by its name without folder and suffix.

    Raises
    ------
    ValueError
        Two micrographs in different folders are called the same.
    """
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    joined: dict[str, NDArray[np.int64]] = {}
    for name, found in rows.items():
        if stem_of(name) in joined:
            raise ValueError(f"two micrographs are called {stem_of(name)}, one of them {name}: it is not known which is meant")
        joined[stem_of(name)] = np.array(found, dtype=np.int64)
    return joined


def _read_star(path: Path) -> PickFile:
    tables = read_star(path)
    table = next((one for one in tables.values() if "rlnCoordinateX" in one), None)
    if table is None:
        if any(len(one) for one in tables.values()):
            raise FileFormatError(path, "no table has a column rlnCoordinateX")
        return PickFile(np.zeros((0, 2)), np.zeros(0))
    yx = np.stack([table.floats("rlnCoordinateY"), table.floats("rlnCoordinateX")], axis=1)
    merit = "rlnAutopickFigureOfMerit"
    score = table.floats(merit) if merit in table else np.full(len(yx), np.nan)
    names = table.texts("rlnMicrographName") if "rlnMicrographName" in table else None
    return PickFile(yx, score, None if names is None else rows_by_name(names))


def _read_box(path: Path) -> PickFile:
    rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if any(len(row) < 4 for row in rows):
        raise FileFormatError(
            path, "a line has fewer than four numbers: x and y of the corner, width, height, and perhaps a score"
        )
    table = np.array([[float(value) for value in row[:4]] for row in rows]).reshape(-1, 4)
    score = np.array([float(row[4]) if len(row) > 4 else np.nan for row in rows])
    return PickFile(np.stack([table[:, 1] + 0.5 * table[:, 3], table[:, 0] + 0.5 * table[:, 2]], axis=1), score)


def _read_csv(path: Path) -> PickFile:
    text = path.read_text(encoding="utf-8-sig")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        return PickFile(np.zeros((0, 2)), np.zeros(0))
    delimiter = next((one for one in (",", "\t", ";") if one in lines[0]), None)
    rows = [line.split() for line in lines] if delimiter is None else list(csv.reader(lines, delimiter=delimiter))
    labels = [cell.strip().lower() for cell in rows[0]]
    if _is_number(labels[0]):
        labels, rows = ["x", "y", "score"][: len(labels)], [[], *rows]
    x, y, score, name = (next((labels.index(one) for one in known if one in labels), None) for known in (_X, _Y, _SCORE, _NAME))
    if x is None or y is None:
        raise FileFormatError(path, f"no columns of x and y; it has {', '.join(labels)}, known are {', '.join(_X)}")
    body = rows[1:]
    yx = np.array([[float(row[y]), float(row[x])] for row in body]).reshape(-1, 2)
    scores = np.array([np.nan if score is None else float(row[score]) for row in body])
    return PickFile(yx, scores, None if name is None else rows_by_name([row[name] for row in body]))


def _read_cs(path: Path) -> PickFile:
    table = read_cs_job(path)
    known = table.dtype.names or ()
    missing = [column for column in (*_CS.values(), "location/micrograph_shape") if column not in known]
    if missing:
        raise FileFormatError(path, f"no column {missing[0]}: not the particles or picks of cryoSPARC")
    score = first_column(table, _CS_SCORES)
    return PickFile(
        cs_positions(table), np.full(len(table), np.nan) if score is None else score, rows_by_name(texts_of(table[_CS["name"]]))
    )


def cs_positions(table: NDArray[Any]) -> NDArray[np.float64]:
    """Return the centres ``(n, 2)`` in pixels of the micrograph, of which cryoSPARC writes them as fractions."""
    shape = table["location/micrograph_shape"].astype(np.float64)  # (n, 2): rows, columns
    return np.stack([table[_CS["y"]] * shape[:, 0], table[_CS["x"]] * shape[:, 1]], axis=1) - 0.5


def _read_scipion(path: Path) -> PickFile:
    """Read a set of coordinates, or of particles with theirs."""
    items = read_scipion_set(path)
    x, y = items.numbers("_x", "_coordinate._x"), items.numbers("_y", "_coordinate._y")
    if x is None or y is None:
        raise FileFormatError(path, "no columns _x and _y: not a set of coordinates of Scipion")
    names = items.texts("_micName", "_coordinate._micName")
    score = items.numbers("_cc", "_score", "_coordinate._score")
    scores = np.full(items.count, np.nan) if score is None else score
    return PickFile(np.stack([y, x], axis=1), scores, None if names is None else rows_by_name(names))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
