"""cryoSPARC's ``.cs`` files that grow at their end: the head has one length, and says how many rows there are last."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError

_MAGIC = b"\x93NUMPY\x02\x00"
_DIGITS = 12
_TAIL = _DIGITS + len(",)}\n")
_TEXT_BYTES = 240

Columns = Sequence[tuple[str, NDArray[Any]]]


def rows_of_columns(columns: Columns) -> NDArray[Any]:
    """Return columns ``(n, …)`` as rows whose type does not depend on the values: texts have one length.

    Raises
    ------
    ValueError
        A text is longer than 240 bytes.
    """
    plain = [(name, np.char.encode(one, "utf-8") if one.dtype.kind == "U" else one) for name, one in columns]
    long = next((name for name, one in plain if one.dtype.kind == "S" and one.dtype.itemsize > _TEXT_BYTES), None)
    if long is not None:
        raise ValueError(f"{long}: has more than {_TEXT_BYTES} bytes")
    dtype = [
        (name, f"S{_TEXT_BYTES}" if one.dtype.kind == "S" else one.dtype.newbyteorder("<"), one.shape[1:]) for name, one in plain
    ]
    rows = np.zeros(len(plain[0][1]), dtype=dtype)
    for name, one in plain:
        rows[name] = one
    return rows


def append_cs_rows(path: Path, rows: NDArray[Any], *, before: int) -> int:
    """Append rows to a file, after cutting it to the first ``before``, which are known to be right; return how many it has now.

    Raises
    ------
    FileFormatError
        It has fewer rows, or other columns.
    """
    head = _head(rows.dtype, before + len(rows))
    if before == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    elif not path.is_file() or path.stat().st_size < len(head) + before * rows.dtype.itemsize:
        raise FileFormatError(path, f"has fewer than the {before} rows that were written to it")
    else:
        with path.open("rb") as old:
            if old.read(len(head))[:-_TAIL] != head[:-_TAIL]:
                raise FileFormatError(path, "has other columns than the rows that are to be added")
    with path.open("r+b") as handle:
        handle.seek(len(head) + before * rows.dtype.itemsize)
        handle.write(rows.tobytes())
        handle.truncate()
        handle.flush()
        os.fsync(handle.fileno())
        handle.seek(0)
        handle.write(head)
        handle.flush()
        os.fsync(handle.fileno())
    return before + len(rows)


def open_cs(path: Path) -> "np.memmap[Any, Any]":
    """Return the rows of a file that `append_cs_rows` wrote, to be changed in place."""
    rows: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r+")
    return rows


def _head(dtype: np.dtype[Any], n_rows: int) -> bytes:
    said = (
        f"{{'descr': {np.lib.format.dtype_to_descr(dtype)!r}, 'fortran_order': False, 'shape': ({n_rows:{_DIGITS}d},)}}".encode()
    )
    padding = -(len(_MAGIC) + 4 + len(said) + 1) % 64
    # the number stands at a fixed distance from the end: padding goes before the brace that closes the whole
    body = said[:1] + b" " * padding + said[1:] + b"\n"
    return _MAGIC + len(body).to_bytes(4, "little") + body
