"""Tables for other programs: named columns written as CSV, JSON or Parquet."""

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

from icestream.errors import SessionError
from icestream.files import publish

TableFormat = Literal["csv", "json", "parquet"]
FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)

Columns = Mapping[str, Sequence[Any]]
"""Columns of one length: numbers, texts, yes or no, lists of these, and None where there is no value."""


def write_columns(columns: Columns, path: Path, *, form: TableFormat) -> None:
    """Write a table to a file, which appears when it is whole.

    Raises
    ------
    SessionError
        It is to be a Parquet file, and pyarrow is not installed.
    """
    if form == "parquet":
        _write_parquet(columns, path)
        return
    with publish(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        print_columns(columns, handle, form=form)


def print_columns(columns: Columns, handle: TextIO, *, form: TableFormat) -> None:
    """Write a table as text, row by row.

    CSV has a line of names; a missing value and a number that is none are empty, a list is JSON. JSON is an array of objects, one
    a row, and null for both.

    Raises
    ------
    ValueError
        The format is no text.
    """
    if form == "csv":
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_field(value) for value in row] for row in _rows(columns))
    elif form == "json":
        handle.write("[")
        for index, row in enumerate(_rows(columns)):
            told = {name: _finite(value) for name, value in zip(columns, row, strict=True)}
            handle.write(("," if index else "") + "\n" + json.dumps(told, ensure_ascii=False, allow_nan=False))
        handle.write("\n]\n")
    else:
        raise ValueError(f"{form} is not text")


def _rows(columns: Columns) -> Iterator[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _field(value: Any) -> Any:
    value = _finite(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else "" if value is None else value


def _finite(value: Any) -> Any:
    """Return a value with None for numbers that are none, also within lists."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_parquet(columns: Columns, path: Path) -> None:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise SessionError(
            "a Parquet file needs pyarrow, which is not installed: pip install 'icestream-em[parquet]', or write CSV or JSON"
        ) from error
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = arrow.array(list(values))
        except (arrow.ArrowInvalid, arrow.ArrowTypeError):  # values of several kinds in one column
            arrays[name] = arrow.array([None if value is None else json.dumps(_finite(value)) for value in values])
    with publish(path) as temporary:
        parquet.write_table(arrow.table(arrays), temporary)
