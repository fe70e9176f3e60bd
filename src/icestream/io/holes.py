"""Squares and holes as files list them, whatever software wrote the files; and the plainest of these, a table."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError
from icestream.io.blocks import dtype_of
from icestream.io.xmltree import finite, read_small
from icestream.records import HOLE_COLUMNS, GridSquare

MOST_HOLES = 200_000
_NAME_LENGTH = 32
_POSITION = ("y_um", "x_um")


@dataclass(frozen=True)
class ListedHole:
    """One hole; ``wanted`` is unset where the software does not say whether it means to expose it."""

    name: str
    y_um: float
    x_um: float
    wanted: bool | None = None


@dataclass(frozen=True)
class ListedSquare:
    """One square with the holes in it; its centre is unset where only its holes have positions."""

    name: str
    y_um: float | None = None
    x_um: float | None = None
    holes: tuple[ListedHole, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class HoleTable:
    """Squares by name, and the holes in them, put together from several files."""

    squares: list[ListedSquare] = field(default_factory=list)
    loose: list[ListedHole] = field(default_factory=list)
    """Holes that are in no square."""

    def rows(self) -> NDArray[np.void]:
        """Return the holes as the table of a `GridMap`, those of each square together."""
        listed = [(number, hole) for number, square in enumerate(self.squares) for hole in square.holes]
        listed += [(-1, hole) for hole in self.loose]
        rows = [
            (number, hole.name[:_NAME_LENGTH], hole.y_um, hole.x_um, -1 if hole.wanted is None else int(hole.wanted))
            for number, hole in listed[:MOST_HOLES]
        ]
        return np.array(rows, dtype=dtype_of(HOLE_COLUMNS))

    def places(self) -> list[GridSquare]:
        """Return the squares; the centre of one that has none of its own is that of its holes."""
        return [GridSquare(name=one.name, y_um=_centre(one, "y_um"), x_um=_centre(one, "x_um")) for one in self.squares]


def _centre(square: ListedSquare, axis: str) -> float | None:
    own: float | None = getattr(square, axis)
    if own is not None or not square.holes:
        return own
    values: list[float] = [getattr(hole, axis) for hole in square.holes]
    return (min(values) + max(values)) / 2


def read_hole_table(path: Path) -> list[ListedSquare]:
    """Return squares and holes of a table: CSV with a line of names, or JSON with a list of objects.

    The columns are ``hole``, ``y_um``, ``x_um``, and optionally ``square`` and ``wanted`` (1 or 0); others are left alone. Holes
    without a square are in one that has no name.

    Raises
    ------
    FileFormatError
        It is neither, or a hole has no name or no position.
    """
    text = read_small(path).decode("utf-8-sig", errors="replace")
    rows = _read_json(path, text) if path.suffix.lower() == ".json" else list(csv.DictReader(io.StringIO(text)))
    found: dict[str, list[ListedHole]] = {}
    for number, row in enumerate(rows, 1):
        place = [finite(str(row.get(name))) for name in _POSITION]
        if not row.get("hole") or place[0] is None or place[1] is None:
            raise FileFormatError(path, f"row {number}: needs hole, y_um and x_um, has {_short(row)}")
        wanted = finite(str(row.get("wanted")))
        hole = ListedHole(str(row["hole"]), place[0], place[1], None if wanted is None else wanted > 0)
        found.setdefault(str(row.get("square") or ""), []).append(hole)
    return [ListedSquare(name, holes=tuple(holes)) for name, holes in found.items()]


def _read_json(path: Path, text: str) -> Sequence[Mapping[str, Any]]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise FileFormatError(path, f"not JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FileFormatError(path, "must be a list of objects with hole, y_um and x_um")
    return [{**row, "wanted": int(row["wanted"])} if isinstance(row.get("wanted"), bool) else row for row in rows]


def _short(row: Mapping[Any, Any]) -> str:
    return json.dumps({str(name): value for name, value in list(row.items())[:6]}, default=str)[:200]


def gather(squares: Iterable[ListedSquare]) -> HoleTable:
    """Put the squares of several files together; of two of one name the later counts, holes of a nameless one are loose."""
    named: dict[str, ListedSquare] = {}
    loose: list[ListedHole] = []
    for square in squares:
        if square.name:
            named[square.name] = square
        else:
            loose += square.holes
    return HoleTable(list(named.values()), loose)
