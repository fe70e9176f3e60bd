"""The results of a step as plain columns: a row for each exposure, each version, or each particle."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import SessionError
from icestream.io.blocks import from_block
from icestream.observe.queries import SessionView, StoredRecord, StoredSnapshot

Columns = dict[str, list[Any]]

_TABLE = "block"


def result_columns(view: SessionView, step: str, *, output: str = "out") -> Columns:
    """Return the records of a step, or of a step that publishes versions, those, as columns.

    Fields within fields have names such as ``motion.total_px``; lists stay lists.

    Parameters
    ----------
    output
        Which output of the step: ``out``, ``rejected``, or a name that its documentation gives.

    Raises
    ------
    SessionError
        The workflow has no such step.
    """
    records = list(view.records(step, output=output))
    if records:
        return _columns([{**_exposure(one), **_flat(one.record)} for one in records])
    versions = view.snapshots(step) if output == "out" else []
    rows = [(_version(one), _flat(one.record or {})) for one in reversed(versions)]
    return _columns([{**ours, **record, **ours} for ours, record in rows])  # a record may have a version that it does not know


def particle_columns(view: SessionView, step: str, *, output: str = "out") -> Columns:
    """Return the tables of a step's records, one below the other, with the exposure that each row belongs to.

    Raises
    ------
    SessionError
        The workflow has no such step, or its results have no tables.
    """
    columns: Columns = {"exposure": [], "exposure_id": []}
    n_rows = 0
    for record, table in _tables(view, step, output, _TABLE):
        values = {"exposure": [record.name] * len(table), "exposure_id": [record.unit] * len(table)}
        values |= {name: table[name].tolist() for name in table.dtype.names or ()}
        _append(columns, values, n_before=n_rows, n_new=len(table))
        n_rows += len(table)
    return columns


def particle_arrays(view: SessionView, step: str, *, output: str = "out", table: str = _TABLE) -> dict[str, NDArray[Any]]:
    """Return the same as arrays ``(n,)``, for millions of rows; a column that some tables lack is NaN there.

    Parameters
    ----------
    table
        Which table of the records: ``block``, or another one that they have, such as ``rejected``.

    Raises
    ------
    SessionError
        The workflow has no such step, or its results have no such tables.
    """
    parts = list(_tables(view, step, output, table))
    sizes = [len(rows) for _, rows in parts]
    arrays = {
        "exposure": np.repeat(np.array([record.name for record, _ in parts]), sizes),
        "exposure_id": np.repeat(np.array([record.unit for record, _ in parts]), sizes),
    }
    for name in dict.fromkeys(name for _, rows in parts for name in rows.dtype.names or ()):
        pieces = [rows[name] if name in (rows.dtype.names or ()) else np.full(len(rows), np.nan) for _, rows in parts]
        arrays[name] = np.concatenate(pieces)
    return arrays


def _tables(view: SessionView, step: str, output: str, table: str) -> Iterator[tuple[StoredRecord, NDArray[Any]]]:
    """Give the records of a step that have a table, with it."""
    found = False
    for record in view.records(step, output=output):
        block = record.tables.get(table)
        if block is not None:
            found = True
            yield record, from_block(block)  # (n,)
    if not found:
        what = "particles" if table == _TABLE else f"what was removed ({table})"
        raise SessionError(f"{step}: its results have no table of {what} (yet); a table of results has a row for each")


def _append(columns: Columns, values: Mapping[str, Sequence[Any]], *, n_before: int, n_new: int) -> None:
    """Append rows; a column that some tables lack is None there."""
    for name in dict.fromkeys((*columns, *values)):
        columns.setdefault(name, [None] * n_before).extend(values.get(name, [None] * n_new))


def _columns(rows: list[dict[str, Any]]) -> Columns:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _exposure(record: StoredRecord) -> dict[str, Any]:
    return {"exposure": record.name, "exposure_id": record.unit, "ordinal": record.ordinal, "key": record.key}


def _version(snapshot: StoredSnapshot) -> dict[str, Any]:
    return {"version": snapshot.version, "published_s": snapshot.at, "key": snapshot.key}


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the fields of a record, and of records within it, by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name == _TABLE and not prefix:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
