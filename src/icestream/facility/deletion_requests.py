"""Requests to delete raw data, kept in the state folder of the account and not in the session, which others may write or copy.

They are bound to the very folder of the session, by its real path and its inode: a copy of a session carries none with it.
"""

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from icestream.counting import counted
from icestream.errors import SessionError
from icestream.files import open_unlinked
from icestream.flow.storage import Session

REQUESTS_FOLDER = "raw-deletions"
_TABLES = """
CREATE TABLE IF NOT EXISTS deletion (
    id INTEGER PRIMARY KEY, author TEXT NOT NULL, reason TEXT NOT NULL, state TEXT NOT NULL, at REAL NOT NULL,
    goes_at REAL NOT NULL, n_files INTEGER NOT NULL, n_bytes INTEGER NOT NULL, rejected INTEGER NOT NULL, done_by TEXT, note TEXT
);
CREATE TABLE IF NOT EXISTS deleted (deletion INTEGER NOT NULL, ref TEXT NOT NULL, stamp TEXT NOT NULL, state TEXT NOT NULL,
    PRIMARY KEY (deletion, ref));
"""
_KEPT = "FROM deleted WHERE deletion = ? AND state NOT IN ('deleted', 'waiting')"


@dataclass(frozen=True)
class RawDeletion:
    """A request to delete raw data."""

    id: int
    author: str
    reason: str
    state: str
    """``waiting``, ``deleting``, ``deleted`` or ``withdrawn``."""
    at: float
    goes_at: float
    n_files: int
    n_bytes: int
    rejected: bool
    """Only raw data of exposures that were rejected, and still are when they are deleted."""
    done_by: str | None
    note: str | None


@dataclass(frozen=True)
class DeletionRequests:
    """The requests of one session; ``state`` is the state folder of the account."""

    session: Session
    state: Path

    @property
    def path(self) -> Path:
        """Where they are: a file whose name comes from the real path and the inode of the session's folder."""
        real = self.session.folder.resolve()
        told = os.fsencode(real) + b"|%d" % real.stat().st_ino
        return self.state / REQUESTS_FOLDER / f"{hashlib.blake2b(told, digest_size=12).hexdigest()}.db"

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Give the database, in one transaction.

        Raises
        ------
        SessionError
            It cannot be written, or is none.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=10.0)) as connection:
                connection.row_factory = sqlite3.Row
                connection.executescript(_TABLES)
                with connection:
                    yield connection
        except (sqlite3.Error, OSError) as error:
            raise SessionError(f"{self.path}: cannot be used for requests to delete raw data: {error}") from error

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the requests for this process, as long as files are deleted; False where another process holds them."""
        handle = open_unlinked(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)

    def read(self) -> list[RawDeletion]:
        """Return the requests, newest first."""
        if not self.path.is_file():
            return []
        with self.open() as connection:
            rows = [dict(row) for row in connection.execute("SELECT * FROM deletion ORDER BY id DESC")]
        return [RawDeletion(**{**row, "rejected": bool(row["rejected"])}) for row in rows]

    def find(self, number: int) -> RawDeletion:
        """Return one request.

        Raises
        ------
        SessionError
            There is none of this number.
        """
        found = next((one for one in self.read() if one.id == number), None)
        if found is None:
            raise SessionError(f"deletion {number} of raw data: is unknown")
        return found

    def add(
        self, author: str, reason: str, *, rejected: bool, undo_hours: float, n_bytes: int, files: Sequence[tuple[str, str]]
    ) -> RawDeletion:
        """Note a request; ``files`` are references and stamps."""
        now = time.time()
        values = (author, reason, "waiting", now, now + 3600 * undo_hours, len(files), n_bytes, rejected)
        columns = "author, reason, state, at, goes_at, n_files, n_bytes, rejected"
        with self.open() as connection:
            added = connection.execute(f"INSERT INTO deletion ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608
            number = int(added.lastrowid or 0)
            connection.executemany("INSERT INTO deleted VALUES (?, ?, ?, 'waiting')", [(number, *one) for one in files])
        return self.find(number)

    def withdraw(self, number: int, author: str) -> None:
        """Withdraw a request that waits, or that is being carried out; what was deleted before is told in its note.

        Raises
        ------
        SessionError
            There is none of this number that waits or is being carried out.
        """
        with self.open() as connection:
            gone = connection.execute(
                "SELECT count(*) FROM deleted WHERE deletion = ? AND state = 'deleted'", (number,)
            ).fetchone()[0]
            note = f"{counted(gone, 'file')} had been deleted before" if gone else None
            change = (
                "UPDATE deletion SET state = 'withdrawn', done_by = ?, note = ? WHERE id = ? AND state IN ('waiting', 'deleting')"
            )
            done = connection.execute(change, (author, note, number))
        if not done.rowcount:
            raise SessionError(f"deletion {number} of raw data: is unknown, or does not wait any more")

    def begin(self, number: int) -> list[tuple[str, str]]:
        """Begin to delete, or go on; return references and stamps of what is left. There is none if it was withdrawn just now."""
        begun = "UPDATE deletion SET state = 'deleting' WHERE id = ? AND state IN ('waiting', 'deleting')"
        with self.open() as connection:
            if not connection.execute(begun, (number,)).rowcount:
                return []
            rows = connection.execute("SELECT ref, stamp FROM deleted WHERE deletion = ? AND state = 'waiting'", (number,))
            return [(row["ref"], row["stamp"]) for row in rows]

    def is_going_on(self, number: int) -> bool:
        """Tell whether nobody has withdrawn it meanwhile."""
        return self.find(number).state == "deleting"

    def note(self, number: int, ref: str, state: str) -> None:
        """Note what became of a file."""
        with self.open() as connection:
            connection.execute("UPDATE deleted SET state = ? WHERE deletion = ? AND ref = ?", (state, number, ref))

    def end(self, number: int) -> None:
        """Note that all files were looked at, and how many stay for which reason."""
        with self.open() as connection:
            rows = connection.execute(f"SELECT state, count(*) AS files {_KEPT} GROUP BY state ORDER BY state", (number,))
            note = "; ".join(f"{counted(row['files'], 'file', 'stays/stay')}: {row['state']}" for row in rows) or None
            done = "UPDATE deletion SET state = 'deleted', note = ? WHERE id = ? AND state = 'deleting'"
            connection.execute(done, (note, number))
