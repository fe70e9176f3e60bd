"""A copy of a store as it is at one moment, as a SQLite file; the store may be written meanwhile."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Table, inspect, select, tuple_
from sqlalchemy.exc import DBAPIError

from icestream.errors import SessionError, StoreUnavailable
from icestream.files import publish
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.location import Location, Server
from icestream.flow.storage.store_trouble import explain

_SPARE_BYTES = 16 * 2**20
"""Room that is left beside a copy."""

_PAGE = 500


Pin = Callable[[list[str]], None]
"""Takes the stored states of accumulators at the moment of the copy, before the rest is copied."""


def copy_store(location: Location, target: Path, *, pin: Pin | None = None) -> None:
    """Copy a store into the new SQLite file ``target``; ``pin`` may put files aside that will soon be dropped.

    Raises
    ------
    StoreUnavailable
        The store cannot be reached, or there is no room for the copy.
    SessionError
        There is no store yet, or it cannot be read.
    """
    if isinstance(location, Server):
        _copy_rows(location, target, pin)
    else:
        copy_file(location, target, pin=pin)


def copy_file(path: Path, target: Path, *, pin: Pin | None = None) -> None:
    """Copy a SQLite store with the database's own means.

    Raises
    ------
    StoreUnavailable
        There is no room for the copy.
    SessionError
        There is no store.
    """
    if not path.is_file():
        raise SessionError(f"{path}: not found; the session has not been run yet")
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as source:
            _check_room(source, target)
            if pin is not None:  # the transaction is still open when the copy is made, so both see the same moment
                source.execute("BEGIN")
                pin([row[0] for row in source.execute("SELECT state FROM accumulator_log WHERE state IS NOT NULL")])
            with publish(target) as temporary, closing(sqlite3.connect(temporary)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, which can be read from where nothing can be written
    except sqlite3.Error as error:
        raise explain(path, error, f"cannot be copied to {target}") from error


def _check_room(source: sqlite3.Connection, target: Path) -> None:
    pages, page_bytes = (source.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    needed, free = pages * page_bytes + _SPARE_BYTES, shutil.disk_usage(target.parent).free
    if free < needed:
        raise StoreUnavailable(
            f"{target}: a copy of the store needs {needed / 2**20:.0f} MiB, and {free / 2**20:.0f} MiB are free there"
        )


def _copy_rows(server: Server, target: Path, pin: Pin | None) -> None:
    source = engine_for(server, read_only=True)
    copy = engine_for(target, create=True)
    try:
        with source.begin() as theirs, copy.begin() as ours:
            if not inspect(theirs).has_table("runner"):
                raise SessionError(f"{server}: not found; the session has not been run yet")
            if pin is not None:
                log = schema.accumulator_log
                pin(list(theirs.execute(select(log.c.state).where(log.c.state.is_not(None))).scalars()))
            schema.metadata.create_all(ours)
            for table in schema.metadata.sorted_tables:
                _copy_table(theirs, ours, table)
    except DBAPIError as error:
        raise explain(server, error, "cannot be copied") from error
    finally:
        source.dispose()
        copy.dispose()
    with closing(sqlite3.connect(target)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def _copy_table(theirs: Connection, ours: Connection, table: Table) -> None:
    """Copy page by page along the change sequence (so that row numbers grow with it), else along the primary key."""
    along = [table.c.seq] if "seq" in table.c and table.c.seq.unique else list(table.primary_key.columns)
    query = select(table).order_by(*along).limit(_PAGE)
    page = theirs.execute(query).mappings().all()
    while page:
        ours.execute(table.insert(), [dict(row) for row in page])
        last = [page[-1][column.name] for column in along]
        after = along[0] > last[0] if len(along) == 1 else tuple_(*along) > tuple_(*last)
        page = theirs.execute(query.where(after)).mappings().all()
