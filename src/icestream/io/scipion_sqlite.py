"""Scipion's sets (``particles.sqlite``, ``ctfs.sqlite``, …): SQLite tables whose columns a second table names."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, SourceGone


class ScipionSet:
    """The enabled items of a set, in their order; columns by the names of their properties, such as ``_ctfModel._defocusU``."""

    def __init__(self, path: Path, columns: dict[str, list[Any]], count: int) -> None:
        self.path = path
        self.columns = columns
        self.count = count

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def numbers(self, *names: str) -> NDArray[np.float64] | None:
        """Return the first of some columns that the set has as numbers; what is unset is NaN."""
        column = next((self.columns[name] for name in names if name in self.columns), None)
        if column is None:
            return None
        return np.array([np.nan if value is None else float(value) for value in column], dtype=np.float64)

    def texts(self, *names: str) -> list[str] | None:
        """Return the first of some columns that the set has as texts."""
        column = next((self.columns[name] for name in names if name in self.columns), None)
        return None if column is None else ["" if value is None else str(value) for value in column]


def read_scipion_set(path: Path) -> ScipionSet:
    """Read a set of Scipion, which may be growing: what has been committed by now.

    Raises
    ------
    FileFormatError
        It is no such database, or is damaged.
    SourceGone
        It is not there.
    """
    if not path.is_file():
        raise SourceGone(f"{path}: there is no such file")
    if path.stat().st_size == 0:
        raise FileFormatError(path, "is empty: not a set of Scipion (yet)")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            return _read(path, connection)
    except sqlite3.Error as error:
        raise FileFormatError(path, f"not a set of Scipion: {error}") from error


def _read(path: Path, connection: sqlite3.Connection) -> ScipionSet:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not {"Classes", "Objects"} <= tables:
        raise FileFormatError(path, f"not a set of Scipion: it has no table Classes and Objects, but {', '.join(sorted(tables))}")
    declared = connection.execute("SELECT label_property, column_name FROM Classes").fetchall()
    names = {str(column): str(label) for label, column in declared}
    cursor = connection.execute("SELECT * FROM Objects ORDER BY id")
    heads = [description[0] for description in cursor.description]
    rows = [row for row in cursor if _is_enabled(heads, row)]
    columns = {names.get(head, head): [row[place] for row in rows] for place, head in enumerate(heads)}
    return ScipionSet(path, columns, len(rows))


def _is_enabled(heads: Sequence[str], row: Sequence[Any]) -> bool:
    return "enabled" not in heads or str(row[heads.index("enabled")]) not in ("0", "False")
