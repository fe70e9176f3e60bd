"""The ledger of transfers: what was copied, verified and removed, in one SQLite file.

That of a session is beside its store, because locks work there; that of folders without a session is in the state folder of the
account. One process writes about a transfer at a time; any number may read.
"""

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from icestream.errors import SessionError
from icestream.flow.storage import STORE, Session
from icestream.transfer.anchored import FileStamp

SCHEMA = 1
LEDGER_SUFFIX = ".transfers.db"
_PATIENCE_S = 10.0
ALIVE_S = 30.0
"""A transfer that has not been heard of for so long is not running any more."""

FileState = Literal["copying", "verified", "removing", "removed", "failed", "refused"]
TransferState = Literal["running", "paused", "stopped"]
FILE_STATES: tuple[FileState, ...] = get_args(FileState)

_TABLES = """
CREATE TABLE transfer (
    id INTEGER PRIMARY KEY, source TEXT NOT NULL, target TEXT NOT NULL, marker TEXT, state TEXT NOT NULL, note TEXT,
    since REAL NOT NULL, seen_at REAL NOT NULL, waiting INTEGER NOT NULL, waiting_bytes INTEGER NOT NULL,
    growing INTEGER NOT NULL, bytes_per_s REAL, remove_after_s REAL, host TEXT, pid INTEGER, UNIQUE (source, target)
);
CREATE TABLE file (
    id INTEGER PRIMARY KEY AUTOINCREMENT, transfer INTEGER NOT NULL REFERENCES transfer (id), name TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, modified_ns INTEGER NOT NULL, state TEXT NOT NULL, at REAL NOT NULL, target_name TEXT,
    target_modified_ns INTEGER, digest TEXT, chunks TEXT, copied_at REAL, verified_at REAL, removed_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0, retry_at REAL, reason TEXT, UNIQUE (transfer, name, size_bytes, modified_ns)
);
CREATE INDEX file_by_state ON file (transfer, state, verified_at);
"""


@dataclass(frozen=True)
class TransferRow:
    """One transfer: from where to where, and what it is doing."""

    id: int
    source: str
    target: str
    marker: str | None
    """The mark by which the target is known again."""
    state: TransferState
    note: str | None
    """Why it is paused."""
    since: float
    """When it entered this state."""
    seen_at: float
    waiting: int
    waiting_bytes: int
    growing: int
    """Files that are still being written, or have not been still for long enough."""
    bytes_per_s: float | None
    remove_after_s: float | None
    """Files are removed at the source so long after they were verified; unset: never."""
    host: str | None
    pid: int | None

    def doing(self, now: float) -> Literal["running", "paused", "stopped", "interrupted"]:
        """Return what it is doing: a process that was killed could not say that it ended."""
        silent = self.state != "stopped" and now - self.seen_at > ALIVE_S
        return "interrupted" if silent else self.state


@dataclass(frozen=True)
class FileRow:
    """One version of one file; ``name`` is relative to the source, ``target_name`` to the target."""

    id: int
    transfer: int
    name: str
    size_bytes: int
    modified_ns: int
    state: FileState
    at: float
    target_name: str | None = None
    target_modified_ns: int | None = None
    digest: str | None = None
    """BLAKE2b of 256 bits, as `b2sum -l 256` prints it."""
    copied_at: float | None = None
    verified_at: float | None = None
    removed_at: float | None = None
    attempts: int = 0
    retry_at: float | None = None
    reason: str | None = None

    @property
    def stamp(self) -> FileStamp:
        """Size and time of the file at the source."""
        return FileStamp(self.size_bytes, self.modified_ns)


@dataclass(frozen=True)
class FileCounts:
    """How many files are in a state, and their bytes."""

    state: FileState
    files: int
    size_bytes: int


_TRANSFER = ", ".join(TransferRow.__annotations__)
_FILE = ", ".join(FileRow.__annotations__)


class Ledger:
    """Reads and writes one ledger; each call is one short transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Tell whether anything was ever transferred."""
        return self.path.is_file()

    def open_transfer(self, source: Path, target: Path) -> TransferRow:
        """Return the transfer between two folders, which is made if it is new."""
        now = time.time()
        with self._writing() as database:
            database.execute(
                "INSERT OR IGNORE INTO transfer (source, target, state, since, seen_at, waiting, waiting_bytes, growing) "
                "VALUES (?, ?, 'stopped', ?, ?, 0, 0, 0)",
                (str(source), str(target), now, now),
            )
            query = f"SELECT {_TRANSFER} FROM transfer WHERE source = ? AND target = ?"  # noqa: S608 - our own texts
            return TransferRow(*database.execute(query, (str(source), str(target))).fetchone())

    def transfers(self) -> list[TransferRow]:
        """Return all transfers, the newest first."""
        return [TransferRow(**row) for row in self._read(f"SELECT {_TRANSFER} FROM transfer ORDER BY id DESC")]  # noqa: S608

    def set_marker(self, transfer: int, marker: str) -> None:
        """Remember by which mark the target is known again."""
        self._change("UPDATE transfer SET marker = ? WHERE id = ?", (marker, transfer))

    def tell(
        self,
        transfer: int,
        state: TransferState,
        note: str | None = None,
        *,
        waiting: tuple[int, int] = (0, 0),
        growing: int = 0,
        bytes_per_s: float | None = None,
        remove_after_s: float | None = None,
    ) -> None:
        """Note what a transfer is doing; ``waiting`` are files and bytes that are to be copied."""
        now = time.time()
        process = (socket.gethostname(), os.getpid())
        self._change(
            "UPDATE transfer SET since = CASE WHEN state = ? THEN since ELSE ? END, state = ?, note = ?, seen_at = ?, "
            "waiting = ?, waiting_bytes = ?, growing = ?, bytes_per_s = ?, remove_after_s = ?, host = ?, pid = ? WHERE id = ?",
            (state, now, state, note, now, *waiting, growing, bytes_per_s, remove_after_s, *process, transfer),
        )

    def put(self, transfer: int, name: str, stamp: FileStamp, state: FileState, **values: Any) -> None:
        """Write what is known of a version of a file; ``values`` are columns, and columns that are not named keep theirs."""
        columns = {"state": state, "at": time.time(), **values}
        names, changes = ", ".join(columns), ", ".join(f"{one} = excluded.{one}" for one in columns)
        marks = ", ".join("?" * (4 + len(columns)))
        self._change(
            f"INSERT INTO file (transfer, name, size_bytes, modified_ns, {names}) VALUES ({marks}) "  # noqa: S608
            f"ON CONFLICT (transfer, name, size_bytes, modified_ns) DO UPDATE SET {changes}",
            (transfer, name, stamp.size_bytes, stamp.modified_ns, *columns.values()),
        )

    def forget_unfinished(self, transfer: int, name: str, *, but: FileStamp) -> list[FileStamp]:
        """Forget versions of a file that never were copied whole, now that a later one was; return which."""
        where = "transfer = ? AND name = ? AND state IN ('copying', 'failed') AND NOT (size_bytes = ? AND modified_ns = ?)"
        values = (transfer, name, but.size_bytes, but.modified_ns)
        rows = self._read(f"SELECT size_bytes, modified_ns FROM file WHERE {where}", values)  # noqa: S608 - our own texts
        if rows:
            self._change(f"DELETE FROM file WHERE {where}", values)  # noqa: S608
        return [FileStamp(**row) for row in rows]

    def chunks(self, transfer: int, name: str, stamp: FileStamp) -> list[str]:
        """Return the digests of the pieces of a file that were copied before."""
        query = "SELECT chunks FROM file WHERE transfer = ? AND name = ? AND size_bytes = ? AND modified_ns = ?"
        rows = self._read(query, (transfer, name, stamp.size_bytes, stamp.modified_ns))
        return json.loads(rows[0]["chunks"] or "[]") if rows else []

    def files(
        self, transfer: int, states: Sequence[FileState] = FILE_STATES, *, limit: int = -1, offset: int = 0, text: str = ""
    ) -> list[FileRow]:
        """Return files in some states, what changed last first; ``text`` must be in their names."""
        marks = ", ".join("?" * len(states))
        query = (
            f"SELECT {_FILE} FROM file WHERE transfer = ? AND state IN ({marks}) AND instr(name, ?) "  # noqa: S608
            "ORDER BY at DESC, id DESC LIMIT ? OFFSET ?"
        )
        return [FileRow(**row) for row in self._read(query, (transfer, *states, text, limit, offset))]

    def verified_until(self, transfer: int, moment: float) -> list[FileRow]:
        """Return the files that were verified before a moment, or whose removal was interrupted, the oldest first."""
        query = (
            f"SELECT {_FILE} FROM file WHERE transfer = ? AND state IN ('verified', 'removing') AND verified_at <= ? "  # noqa: S608
            "ORDER BY verified_at, id"
        )
        return [FileRow(**row) for row in self._read(query, (transfer, moment))]

    def versions(self, transfer: int, name: str) -> list[FileRow]:
        """Return all versions of a file, the newest first."""
        query = f"SELECT {_FILE} FROM file WHERE transfer = ? AND name = ? ORDER BY id DESC"  # noqa: S608
        return [FileRow(**row) for row in self._read(query, (transfer, name))]

    def counts(self, transfer: int) -> list[FileCounts]:
        """Return how many files are in which state."""
        query = (
            "SELECT state, count(*) AS files, total(size_bytes) AS size_bytes FROM file WHERE transfer = ? "
            "GROUP BY state ORDER BY state"
        )
        return [FileCounts(row["state"], row["files"], int(row["size_bytes"])) for row in self._read(query, (transfer,))]

    def _read(self, query: str, values: tuple[object, ...] = ()) -> list[dict[str, Any]]:
        if not self.exists:
            return []
        with _explained(self.path), closing(self._connect()) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]

    def _change(self, statement: str, values: tuple[object, ...]) -> None:
        with self._writing() as database:
            database.execute(statement, values)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as database:
                database.execute("BEGIN IMMEDIATE")
                with database:
                    yield database

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.execute("BEGIN EXCLUSIVE")
            with database:
                if database.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _TABLES.split(";"):
                        database.execute(statement)
                    database.execute(f"PRAGMA user_version = {SCHEMA}")
        elif version > SCHEMA:
            database.close()
            raise SessionError(f"{self.path}: has schema {version}, this version reads up to {SCHEMA}; use a newer icestream")
        return database


def session_ledger(session: Session) -> Ledger:
    """Return the ledger of a session: beside its store where that is a file, otherwise in its folder."""
    location = session.store_at
    path = location if isinstance(location, Path) else session.folder / STORE
    return Ledger(path.with_name(path.stem + LEDGER_SUFFIX))


def account_ledger(state_folder: Path) -> Ledger:
    """Return the ledger of transfers between folders that belong to no session."""
    return Ledger(state_folder / "transfers.db")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise SessionError(f"{path}: cannot be used as the ledger of transfers: {error}") from error
