"""Stored records and snapshots, page by page, in the order of the change sequence."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, select

from icestream.flow.storage import outcome_rowid, schema
from icestream.observe.answers import StoredRecord, StoredSnapshot
from icestream.observe.catalog import read_catalog
from icestream.observe.newest import read_newest
from icestream.observe.order import ActiveRevision, active_revisions

PAGE = 400
"""So many records are read in one transaction."""

Reading = Callable[[], AbstractContextManager[Connection | None]]


def read_records(
    reading: Reading,
    step: str,
    *,
    output: str,
    since_seq: int,
    limit: int | None,
    newest_first: bool,
) -> Iterator[StoredRecord]:
    """Give the records behind ``output`` of the active revision of ``step``; see `SessionView.records`."""
    given, border = 0, None if newest_first else since_seq
    while limit is None or given < limit:
        size = PAGE if limit is None else min(PAGE, limit - given)
        with reading() as connection:
            if connection is None:
                return
            revision = active_revisions(connection, [step]).get(step)
            if revision is None:
                return
            if newest_first and border is None and since_seq == 0:
                page = read_newest(connection, _columns(), revision.id, status=_status_of(output), limit=size)
            else:
                query = _page_of(revision, output, newest_first).limit(size)
                page = list(connection.execute(_between(connection, query, since_seq, border, newest_first)).mappings())
            found = _join_results(connection, page, output, reading)
        yield from found
        given += len(found)
        if len(page) < size:
            return
        border = page[-1]["seq"]


def read_records_of(
    connection: Connection, revision: ActiveRevision, units: Sequence[str], *, output: str, reading: Reading
) -> dict[str, StoredRecord]:
    """Return unit → record behind ``output``, for those of ``units`` that have one."""
    outcome, exposure = schema.outcome, schema.exposure
    rows = connection.execute(  # by unit alone: with the status, SQLite would read all that the revision has of it
        select(*_columns(), outcome.c.status)
        .select_from(outcome.outerjoin(exposure, exposure.c.unit == outcome.c.unit))
        .where((outcome.c.revision == revision.id) & outcome.c.unit.in_(units))
    ).mappings()
    page = [row for row in rows if row["status"] == _status_of(output)]
    return {record.unit: record for record in _join_results(connection, page, output, reading)}


def _page_of(revision: ActiveRevision, output: str, newest_first: bool) -> Select[Any]:
    outcome, exposure = schema.outcome, schema.exposure
    rowid = outcome_rowid()
    return (
        select(*_columns())
        .select_from(outcome.outerjoin(exposure, exposure.c.unit == outcome.c.unit))
        .where((outcome.c.revision == revision.id) & (outcome.c.status == _status_of(output)))
        .order_by(rowid.desc() if newest_first else rowid)
    )


def _columns() -> tuple[ColumnElement[Any], ...]:
    outcome, exposure = schema.outcome, schema.exposure
    return outcome.c.unit, outcome.c["keys"], outcome.c.seq, outcome.c.at, exposure.c.name, exposure.c.ordinal


def _status_of(output: str) -> str:
    return "rejected" if output.partition(".")[0] == "rejected" else "item"


def _between(connection: Connection, query: Select[Any], since_seq: int, border: int | None, newest_first: bool) -> Select[Any]:
    """Bound a page by row numbers, which the index holds, rather than by sequence numbers, which it does not."""
    table, rowid = schema.outcome, outcome_rowid()
    lower = since_seq if newest_first else border or 0
    if lower > 0:
        last_seen = select(rowid).select_from(table).where(table.c.seq <= lower).order_by(table.c.seq.desc()).limit(1)
        query = query.where(rowid > (connection.execute(last_seen).scalar() or 0))
    if newest_first and border is not None:
        first_seen = select(rowid).select_from(table).where(table.c.seq >= border).order_by(table.c.seq).limit(1)
        upper = connection.execute(first_seen).scalar()
        query = query if upper is None else query.where(rowid < upper)
    return query


def _join_results(connection: Connection, page: list[RowMapping], output: str, reading: Reading) -> list[StoredRecord]:
    table = schema.result
    keys = [json.loads(row["keys"]).get(output) for row in page]
    columns = (table.c.key, table.c.record_type, table.c.record_version, table.c.record)
    rows = connection.execute(select(*columns).where(table.c.key.in_([key for key in keys if key]))).mappings()
    results = {row["key"]: row for row in rows}
    catalog = read_catalog(connection)
    return [
        StoredRecord(
            unit=row["unit"],
            name=row["name"] or row["unit"],
            ordinal=row["ordinal"],
            seq=row["seq"],
            at=row["at"],
            key=key,
            record_type=catalog.name_of(results[key]["record_type"]),
            record=catalog.fields(results[key]),
            load_block=partial(load_tables, reading, key),
        )
        for row, key in zip(page, keys, strict=True)
        if key in results
    ]


def read_result(connection: Connection, key: str) -> tuple[str, dict[str, Any]] | None:
    """Return the type and the fields of the record that a key stands for."""
    table, catalog = schema.result, read_catalog(connection)
    columns = (table.c.record_type, table.c.record_version, table.c.record)
    row = connection.execute(select(*columns).where(table.c.key == key)).mappings().first()
    return None if row is None else (catalog.name_of(row["record_type"]), catalog.fields(row))


def load_tables(reading: Reading, key: str) -> bytes | None:
    """Return the tables of the record that a key stands for, as the store keeps them."""
    with reading() as connection:
        if connection is None:
            return None
        return connection.execute(select(schema.result.c.block).where(schema.result.c.key == key)).scalar()


def read_snapshots(connection: Connection, revisions: dict[str, ActiveRevision], *, limit: int | None) -> list[StoredSnapshot]:
    """Return the versions that steps have published, newest first."""
    snapshot, result = schema.snapshot, schema.result
    steps = {revision.id: name for name, revision in revisions.items()}
    rows = connection.execute(
        select(snapshot, result.c.record_type, result.c.record_version, result.c.record)
        .select_from(snapshot.outerjoin(result, result.c.key == snapshot.c.key))
        .where(snapshot.c.revision.in_(steps))
        .order_by(snapshot.c.seq.desc())
        .limit(limit)
    ).mappings()
    catalog = read_catalog(connection)
    return [
        StoredSnapshot(
            step=steps[row["revision"]],
            version=row["version"],
            key=row["key"],
            at=row["at"],
            pruned=row["pruned"],
            record_type=None if row["record_type"] is None else catalog.name_of(row["record_type"]),
            record=None if row["record"] is None else catalog.fields(row),
        )
        for row in rows
    ]
