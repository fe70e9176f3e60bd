"""How large the files of a session's results are: an index beside the store, which only looks at what is new.

It belongs to whoever looks, not to the session: deleting it loses nothing, and where it cannot be written it is kept in memory.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, tuple_

from icestream.errors import SessionError
from icestream.flow.declaration import files_named_in, resolve_ref
from icestream.flow.storage import Session, kind_of_file, read_removals, reading, schema

SIZES_SUFFIX = ".sizes.db"
_VERSION = 1
_PAGE = 500
_TABLES = """
CREATE TABLE IF NOT EXISTS file (ref TEXT PRIMARY KEY, step TEXT, revision INTEGER, kind TEXT, unit TEXT, bytes INTEGER, at REAL);
CREATE TABLE IF NOT EXISTS note (name TEXT PRIMARY KEY, value TEXT);
"""
_DROPPED = ("clean", "remove", "bring_back", "empty_trash", "restore_files")
"""Commands after which files are not where they were."""


@dataclass
class FileSizes:
    """The index of one session; it may be used by one thread at a time."""

    session: Session
    _memory: sqlite3.Connection | None = field(default=None, repr=False)

    @property
    def path(self) -> Path:
        """Where the index is: beside the store where that is a file."""
        location = self.session.store_at
        path = location if isinstance(location, Path) else self.session.folder / "icestream.db"
        return path.with_name(path.stem + SIZES_SUFFIX)

    def refresh(self, *, seconds: float | None = None) -> bool:
        """Look at the files of new results, for about so long or to the end; tell whether all have been seen.

        Raises
        ------
        SessionError
            The store cannot be read.
        """
        until = None if seconds is None else time.monotonic() + seconds
        with self.open() as index, reading(self.session) as connection:
            if connection is None:
                return True
            self._begin_anew_if_changed(index, connection)
            folders = _folders(connection)
            whole = set(connection.execute(select(schema.snapshot.c.key)).scalars())
            while page := self._next_page(index, connection):
                rows = [row for one in page for row in self._files_of(one, folders, whole=one["key"] in whole)]
                index.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                _note(index, "after", f"{page[-1]['created_at']!r} {page[-1]['key']}")
                index.commit()
                if until is not None and time.monotonic() > until:
                    return False
            self._look_at_versions_again(index)
            _note(index, "seen_at", repr(time.time()))
            index.commit()
        return True

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Give the index itself."""
        if self._memory is not None:
            yield self._memory
            return
        try:
            index = self._connect(self.path)
        except sqlite3.Error:  # the folder may only be read, or what is there is no index
            self._memory = self._connect(":memory:")
            yield self._memory
            return
        with closing(index):
            yield index

    def _connect(self, path: Path | str) -> sqlite3.Connection:
        if isinstance(path, Path) and path.is_symlink():
            raise sqlite3.OperationalError("is a link")
        index = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
        try:
            index.executescript(_TABLES)
            if read_note(index, "version") != str(_VERSION):
                index.execute("DELETE FROM file")
                index.execute("DELETE FROM note")
                _note(index, "version", str(_VERSION))
            index.commit()
        except sqlite3.Error:
            index.close()
            raise
        return index

    def _begin_anew_if_changed(self, index: sqlite3.Connection, connection: Connection) -> None:
        """Forget everything once results were deleted, or files moved or put back: a person began that, so it is rare."""
        table = schema.command
        asked = (table.c.kind.in_(_DROPPED)) & (table.c.state == "done")
        count = connection.execute(select(func.count()).select_from(table).where(asked)).scalar_one()
        states = "".join(one.state + str(one.n_left) for one in read_removals(connection))
        if read_note(index, "dropped") != f"{count} {states}":
            index.execute("DELETE FROM file")
            index.execute("DELETE FROM note WHERE name IN ('after', 'seen_at')")
            _note(index, "dropped", f"{count} {states}")

    def _next_page(self, index: sqlite3.Connection, connection: Connection) -> list[dict[str, Any]]:
        table = schema.result
        at, _, key = (read_note(index, "after") or "0.0 ").partition(" ")
        columns = (table.c.key, table.c.revision, table.c.unit, table.c.record, table.c.created_at)
        new = tuple_(table.c.created_at, table.c.key) > (float(at), key)
        rows = select(*columns).where(new).order_by(table.c.created_at, table.c.key).limit(_PAGE)
        return [dict(row) for row in connection.execute(rows).mappings()]

    def _files_of(self, row: dict[str, Any], folders: dict[int, tuple[str, str]], *, whole: bool) -> Iterator[tuple[Any, ...]]:
        """Give the files that a result has brought; those that it names of others are counted there."""
        step, folder = folders[row["revision"]]
        for ref in files_named_in(row["record"]) if "session:steps/" in row["record"] else ():
            if ref.startswith(folder) and (size := self._size_of(ref)) is not None:
                kind = kind_of_file(ref, whole=whole)
                yield ref, step, row["revision"], kind, row["unit"], size, row["created_at"]

    def _size_of(self, ref: str) -> int | None:
        try:
            return os.lstat(resolve_ref(self.session.roots, ref)).st_size
        except (OSError, SessionError):
            return None

    def _look_at_versions_again(self, index: sqlite3.Connection) -> None:
        """Forget files of versions that their step has dropped since."""
        refs = [ref for (ref,) in index.execute("SELECT ref FROM file WHERE kind = 'averages'")]
        gone = [(ref,) for ref in refs if self._size_of(ref) is None]
        index.executemany("DELETE FROM file WHERE ref = ?", gone)


def _folders(connection: Connection) -> dict[int, tuple[str, str]]:
    table = schema.revision
    rows = connection.execute(select(table.c.id, table.c.step, table.c.number))
    return {row.id: (row.step, f"session:steps/{row.step}/{row.number}/") for row in rows}


def read_note(index: sqlite3.Connection, name: str) -> str | None:
    """Return what the index remembers of itself."""
    row = index.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def _note(index: sqlite3.Connection, name: str, value: str) -> None:
    index.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))


def mark_units(index: sqlite3.Connection, units: Iterable[str]) -> None:
    """Fill the temporary table ``marked`` with exposures, to sum over them."""
    index.execute("CREATE TEMPORARY TABLE IF NOT EXISTS marked (unit TEXT PRIMARY KEY)")
    index.execute("DELETE FROM marked")
    index.executemany("INSERT INTO marked VALUES (?)", ((unit,) for unit in units))
