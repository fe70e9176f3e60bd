"""Per-particle tables as bytes: NumPy structured arrays in ``.npy`` form, never pickled."""

from collections.abc import Sequence
from io import BytesIO
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.records import Column

INDEX = np.dtype([("micrograph", "S32"), ("table", "<i4"), ("start", "<i8"), ("count", "<i8")])
"""Where the particles of an exposure and its picks are: rows ``start`` to ``start + count`` of a table."""


def index_by_micrograph(table: NDArray[np.void], *, number: int = 0) -> NDArray[np.void]:
    """Return where the particles of each micrograph are in table ``number``, in which they stand together: `INDEX` ``(m,)``."""
    names, start, count = np.unique(table["micrograph"], return_index=True, return_counts=True)
    index = np.zeros(len(names), dtype=INDEX)
    index["micrograph"], index["table"], index["start"], index["count"] = names, number, start, count
    return index


def dtype_of(columns: Sequence[Column]) -> np.dtype[np.void]:
    """Return the type of the rows of a table with these columns, little-endian."""
    return np.dtype([(column.name, f"<{column.dtype}") for column in columns])


def to_block(table: NDArray[Any]) -> bytes:
    """Return the ``.npy`` bytes of a one-dimensional structured array.

    Raises
    ------
    ValueError
        The array is not a one-dimensional table, or has Python objects in it.
    """
    if table.ndim != 1 or table.dtype.names is None:
        raise ValueError(f"a block is a one-dimensional structured array, not {table.dtype} of shape {table.shape}")
    stream = BytesIO()
    np.save(stream, np.ascontiguousarray(table), allow_pickle=False)
    return stream.getvalue()


def from_block(block: bytes) -> NDArray[Any]:
    """Return the structured array (read-only) that `to_block` turned into bytes.

    Raises
    ------
    ValueError
        The bytes are not such a table, or their header declares another size than they have.
    """
    stream = BytesIO(block)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    except (ValueError, TypeError, KeyError, EOFError, SyntaxError, TokenError) as error:
        raise ValueError(f"not a block: {error}") from error
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a block has .npy version 1.0 or 2.0, not {version}")
    if dtype.hasobject or dtype.names is None or len(shape) != 1:
        raise ValueError(f"a block is a one-dimensional structured array, not {dtype} of shape {shape}")
    declared, present = shape[0] * dtype.itemsize, len(block) - stream.tell()
    if declared != present:
        raise ValueError(f"the block's header declares {declared} bytes of rows, it has {present}")
    return np.frombuffer(block, dtype=dtype, count=shape[0], offset=stream.tell())  # (n,)
