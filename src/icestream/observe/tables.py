"""The results of a step as plain columns: a row for each exposure, each version, or each particle."""

from collections.abc import Mapping, Sequence
from typing import Any

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
    return _columns([{**_version(one), **_flat(one.record or {})} for one in reversed(versions)])


def particle_columns(view: SessionView, step: str, *, output: str = "out") -> Columns:
    """Return the tables of a step's records, one below the other, with the exposure that each row belongs to.

    Raises
    ------
    SessionError
        The workflow has no such step, or its results have no tables.
    """
    columns: Columns = {"exposure": [], "exposure_id": []}
    n_rows, found = 0, False
    for record in view.records(step, output=output):
        block = record.block
        if block is None:
            continue
        found = True
        table = from_block(block)  # (n,)
        values = {"exposure": [record.name] * len(table), "exposure_id": [record.unit] * len(table)}
        values |= {name: table[name].tolist() for name in table.dtype.names or ()}
        _append(columns, values, n_before=n_rows, n_new=len(table))
        n_rows += len(table)
    if not found:
        raise SessionError(
            f"{step}: its results have no table of particles (yet); the table without --particles has a row for each"
        )
    return columns


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
