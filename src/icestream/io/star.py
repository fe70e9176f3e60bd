"""STAR files: RELION's tables, read through gemmi, written whole or row by row.

RELION 3.1 and later (several named tables, optics groups) and 3.0 (one table, often without a name) are read alike: a file is a
dictionary from table name (without ``data_``; empty where there is none) to `Table`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import gemmi
import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, SourceGone

_BARE = re.compile(r"(?=[^\"'#_$\[\];])[!-~]+\Z")
_QUOTED = r"""(?<!\S)"[^\n]*?"(?!\S)|(?<!\S)'[^\n]*?'(?!\S)"""
_FOREIGN = re.compile(rf"""{_QUOTED}|(?<!\S)(?P<bare>[^\s"']*[^\x00-\x7f\s"'][^\s"']*)(?!\S)""")
_RESERVED = re.compile(r"(data_|loop_|save_|stop_|global_)", re.IGNORECASE)
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True)
class Table:
    """One table of a STAR file: columns of texts, by label without the leading underscore.

    ``is_list`` marks a table that is written as label-value pairs (one row).
    """

    columns: dict[str, list[str]]
    is_list: bool = False

    def __post_init__(self) -> None:
        if len({len(column) for column in self.columns.values()}) > 1:
            raise ValueError(f"columns of different lengths: { {name: len(column) for name, column in self.columns.items()} }")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __contains__(self, label: str) -> bool:
        return label in self.columns

    def texts(self, label: str) -> list[str]:
        """Return a column as texts; ``KeyError`` names what the table has."""
        if label not in self.columns:
            raise KeyError(f"no column {label!r} (there are {', '.join(self.columns)})")
        return self.columns[label]

    def floats(self, label: str) -> NDArray[np.float64]:
        """Return a column ``(n,)`` as numbers."""
        return np.array(self.texts(label), dtype=np.float64)

    def ints(self, label: str) -> NDArray[np.int64]:
        """Return a column ``(n,)`` as whole numbers (RELION sometimes writes them with decimals)."""
        return np.rint(self.floats(label)).astype(np.int64)


def read_star(path: Path, *, last_rows: int | None = None) -> dict[str, Table]:
    """Read all tables of a STAR file; of the last one only the first ``last_rows``, if set, as something may be appending to it.

    Raises
    ------
    FileFormatError
        Not a STAR file, or its last table has fewer rows.
    SourceGone
        There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceGone(f"{path}: the file is not there")
    try:
        text = path.read_text(encoding="utf-8") if last_rows is None else _cut_last_table(path, last_rows)
        if not text.isascii():
            text = _FOREIGN.sub(_quote_bare, text)  # RELION writes a path with an umlaut bare, gemmi wants quotes
        document = gemmi.cif.read_string(text)
    except (ValueError, RuntimeError) as error:
        raise FileFormatError(path, f"not a STAR file: {error}") from error
    if len(document) == 0:
        raise FileFormatError(path, "not a STAR file: it contains no 'data_'")
    try:
        return {block.name.strip(): _table(block) for block in document}
    except (UnicodeDecodeError, ValueError) as error:
        raise FileFormatError(path, f"not a STAR file of tables: {error}") from error


def _quote_bare(word: re.Match[str]) -> str:
    return word[0] if word["bare"] is None else f'"{word[0]}"'


def _cut_last_table(path: Path, n_rows: int) -> str:
    """Return the text of a file, which is read once, without the rows of its last table after the first ``n_rows``."""
    lines = path.read_bytes().splitlines(keepends=True)
    heads = [number for number, line in enumerate(lines) if line.startswith((b"data_", b"loop_", b"_"))]
    end = (heads[-1] + 1 if heads else 0) + n_rows
    if len(lines) < end or (n_rows and not lines[end - 1].endswith(b"\n")):
        raise FileFormatError(path, f"has fewer than the {n_rows} rows that were written to it")
    return b"".join(lines[:end]).decode("utf-8")


def _table(block: "gemmi.cif.Block") -> Table:
    pairs: dict[str, list[str]] = {}
    columns: dict[str, list[str]] = {}
    for item in block:
        pair = cast("tuple[str, str] | None", item.pair)
        if pair is not None:
            pairs[pair[0].lstrip("_")] = [_plain(pair[1])]
        elif item.loop is not None:
            values, width = item.loop.values, item.loop.width()
            columns.update({tag.lstrip("_"): [_plain(v) for v in values[k::width]] for k, tag in enumerate(item.loop.tags)})
    if pairs and columns:
        raise ValueError(f"table {block.name!r} mixes pairs and a loop")
    return Table(columns, is_list=False) if columns else Table(pairs, is_list=True)


def _plain(value: str) -> str:
    return str(gemmi.cif.as_string(value)) if value[:1] in ("'", '"', ";") else value


def write_star(path: Path, tables: Mapping[str, Table]) -> None:
    """Write tables, RELION 3.1 style; publishing the file is the caller's business."""
    Path(path).write_text("".join(_format(name, table) for name, table in tables.items()), encoding="utf-8")


def _format(name: str, table: Table) -> str:
    heading = f"\ndata_{name}\n\n"
    if table.is_list:
        return heading + "".join(f"_{label} {quote(column[0])}\n" for label, column in table.columns.items()) + "\n"
    return heading + _loop_head(list(table.columns)) + _rows(table)


def format_star_head(name: str, labels: Sequence[str], *, before: Mapping[str, Table]) -> bytes:
    """Return what stands before the rows of table ``name``, the last of a file, with the tables ``before`` above it."""
    text = "".join(_format(key, table) for key, table in before.items()) + f"\ndata_{name}\n\n" + _loop_head(list(labels))
    return text.encode()


def _loop_head(labels: Sequence[str]) -> str:
    return "loop_\n" + "".join(f"_{label} #{index}\n" for index, label in enumerate(labels, start=1))


def _rows(table: Table) -> str:
    return "".join(" ".join(map(quote, row)) + "\n" for row in zip(*table.columns.values(), strict=True))


def quote(value: str) -> str:
    """Return ``value`` as it stands in a STAR file; quoted where it is empty, has blanks or would mean something else.

    Raises
    ------
    ValueError
        A line break, or both kinds of quotes: RELION could not read it.
    """
    if _BARE.match(value) and not _RESERVED.match(value):
        return value
    mark = "'" if '"' in value else '"'
    if "\n" in value or "\r" in value or mark in value:
        raise ValueError(f"{value!r} cannot be written to a STAR file")
    return f"{mark}{value}{mark}"


def append_star_rows(path: Path, name: str, rows: Table, *, before: Mapping[str, Table] | None = None) -> int:
    """Append ``rows`` to table ``name``, the last of the file, which is begun (after the tables ``before``) if need be.

    A row that a crash left unfinished is removed first; rows are synced to disk before this returns. One process may append
    at a time.

    Returns
    -------
    size_bytes
        The new size of the file.

    Raises
    ------
    FileFormatError
        The file's last table is another one or has other columns.
    ValueError
        The rows have no column, or a value that cannot be written.
    """
    path = Path(path)
    if rows.is_list or not rows.columns:
        raise ValueError(f"{path}: rows to append need columns")
    text = _rows(rows)
    with path.open("ab+") as handle:
        size = _drop_unfinished(handle)
        head = _read_head(handle)
        expected = f"\ndata_{name}\n\n" + _loop_head(list(rows.columns))
        if expected.encode() not in head:
            start = "".join(_format(key, table) for key, table in (before or {}).items()) + expected
            if size and not start.encode().startswith(head):
                raise FileFormatError(path, f"does not end in a table {name!r} with the columns {', '.join(rows.columns)}")
            handle.truncate(0)  # empty, or a beginning that was never finished
            text = start + text
        handle.write(text.encode())
        handle.flush()
        os.fsync(handle.fileno())
        return handle.tell()


def _read_head(handle: BinaryIO) -> bytes:
    handle.seek(0)
    head = handle.read(_HEAD_BYTES)
    handle.seek(0, os.SEEK_END)
    return head


def _drop_unfinished(handle: BinaryIO) -> int:
    """Cut the file after its last line break; return the size."""
    size = handle.seek(0, os.SEEK_END)
    position = size
    while position > 0:
        start = max(0, position - 65536)
        handle.seek(start)
        found = handle.read(position - start).rfind(b"\n")
        if found >= 0:
            position = start + found + 1
            break
        position = start
    if position != size:
        handle.truncate(position)
    return position
