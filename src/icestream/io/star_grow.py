"""STAR files that grow at their end while their head may change: optics groups come before the rows that name them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from icestream.errors import FileFormatError
from icestream.files import publish
from icestream.io.star import Table, format_star_head

_HEAD_BYTES = 4 << 20


def settle_star_table(path: Path, name: str, *, labels: Sequence[str], before: Mapping[str, Table], rows_bytes: int) -> int:
    """Bring a growing file to this head and the first ``rows_bytes`` of its rows; return its size.

    A later head or later rows, of an attempt that was interrupted, vanish. A file with another head is written again and
    replaced whole.

    Parameters
    ----------
    name, labels
        The last table, and its columns.
    before
        Tables above it.
    rows_bytes
        How long the rows are that are known to be right.

    Raises
    ------
    FileFormatError
        The file has fewer rows, or does not end in this table.
    """
    path = Path(path)
    head = format_star_head(name, labels, before=before)
    if not path.exists():
        if rows_bytes:
            raise FileFormatError(path, "the file is not there, and had rows")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        return 0
    with path.open("rb") as handle:
        present = handle.read(_HEAD_BYTES)
    size = path.stat().st_size
    if not rows_bytes:
        os.truncate(path, 0)
        return 0
    mark = format_star_head(name, labels, before={})
    start = present.find(mark)
    if start < 0 or size < start + len(mark) + rows_bytes:
        raise FileFormatError(path, f"has {size} bytes instead of the {rows_bytes} bytes of rows that were written to it")
    start += len(mark)
    if present.startswith(head) and start == len(head):
        if size > start + rows_bytes:
            os.truncate(path, start + rows_bytes)
    else:
        with publish(path) as temporary, temporary.open("wb") as new, path.open("rb") as old:
            new.write(head)
            old.seek(start)
            new.write(old.read(rows_bytes))
    return len(head) + rows_bytes
