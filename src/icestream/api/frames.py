"""Tables as the library of the reader's choice has them: pandas, polars, or plain NumPy arrays."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.errors import SessionError

FrameKind = Literal["pandas", "polars", "numpy"]
"""What a table is given as; a dict of arrays, by the names of the columns, for ``numpy``."""

_LARGEST = 2**63


def installed_kind() -> FrameKind:
    """Return ``pandas`` where it is installed, else ``polars`` where that is, else ``numpy``."""
    if find_spec("pandas") is not None:
        return "pandas"
    return "numpy" if find_spec("polars") is None else "polars"


def to_arrays(columns: Mapping[str, Sequence[Any]]) -> dict[str, NDArray[Any]]:
    """Return columns of values as arrays ``(n,)``.

    Numbers become float64 where one is unset (NaN there), else int64 or float64; yes or no stays what it is; texts, lists, and
    what is mixed are arrays of objects with None where a value is unset. A column without any value is NaN.
    """
    return {name: _array(values) for name, values in columns.items()}


def _array(values: Sequence[Any]) -> NDArray[Any]:
    kinds = {type(value) for value in values if value is not None}
    complete = all(value is not None for value in values)
    if kinds <= {int, float} and not (kinds == {int} and any(value is not None and abs(value) >= _LARGEST for value in values)):
        whole = complete and kinds == {int}
        return np.array([np.nan if value is None else value for value in values], dtype=np.int64 if whole else np.float64)
    if complete and kinds == {bool}:
        return np.array(values)
    objects = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        objects[row] = value
    return objects


def make_frame(arrays: Mapping[str, NDArray[Any]], kind: FrameKind | None) -> Any:
    """Return arrays as a frame of pandas or polars, or as a dict.

    Parameters
    ----------
    kind
        Unset: that of `installed_kind`.

    Raises
    ------
    SessionError
        The library is not installed, or is none of these.
    """
    wanted = kind or installed_kind()
    if wanted == "numpy":
        return dict(arrays)
    if wanted not in ("pandas", "polars"):
        raise SessionError(f"frame is {wanted!r}; it must be pandas, polars or numpy")
    try:
        library = import_module(wanted)
    except ImportError as error:
        raise SessionError(f"{wanted} is not installed: pip install 'icestream-em[{wanted}]', or ask for numpy") from error
    plain = {name: values.tolist() if values.dtype.kind in "OU" else values for name, values in arrays.items()}
    return library.DataFrame(plain) if wanted == "pandas" else library.DataFrame(plain, strict=False)
