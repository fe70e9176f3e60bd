"""The facility's database: shared links, what people did, and drafts, in one SQLite file that only this account may read."""

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from icestream.errors import SessionError
from icestream.files import publish

MOST_AUDITED = 200_000
MOST_REFUSED = 20_000
"""Of links that were opened, and of what was refused to who asked: strangers can cause these, and shall push out nothing else."""
_REFUSED = "(status IN (401, 403) OR action = 'open-share')"
_PRUNE_EVERY = 500
_APPLICATION = 0x1CE57
"""Marks a file as such a database."""
_PATIENCE_S = 5.0

_TABLES = (
    """
CREATE TABLE share (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, session TEXT NOT NULL, author TEXT NOT NULL, note TEXT NOT NULL,
    created_at REAL NOT NULL, expires_at REAL NOT NULL, withdrawn_at REAL
);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT, address TEXT, action TEXT NOT NULL, session TEXT,
    detail TEXT NOT NULL, status INTEGER NOT NULL
);
""",
    """
CREATE TABLE draft (
    id INTEGER PRIMARY KEY AUTOINCREMENT, version INTEGER NOT NULL, title TEXT NOT NULL, summary TEXT NOT NULL, session TEXT,
    document TEXT NOT NULL, base TEXT NOT NULL, trusted TEXT NOT NULL, told TEXT NOT NULL, author TEXT NOT NULL,
    changed_by TEXT NOT NULL, created_at REAL NOT NULL, changed_at REAL NOT NULL
);
""",
    """
CREATE TABLE account_name (name TEXT PRIMARY KEY, account TEXT NOT NULL);
ALTER TABLE draft ADD COLUMN origin TEXT;
""",
)
"""What each schema adds to the one before it."""

SCHEMA = len(_TABLES)


@dataclass(frozen=True)
class Share:
    """A link through which whoever has it may look at one session until it expires."""

    id: int
    session: str
    author: str
    note: str
    created_at: float
    expires_at: float
    withdrawn_at: float | None

    def valid(self, now: float) -> bool:
        """Tell whether the link still opens the session."""
        return self.withdrawn_at is None and now < self.expires_at


@dataclass(frozen=True)
class AuditRow:
    """One thing that somebody did through the web application, or tried to."""

    id: int
    at: float
    who: str | None
    """Unset for a stranger."""
    address: str | None
    action: str
    session: str | None
    detail: str
    status: int


class FacilityDatabase:
    """The file; it is made when something is first written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def share(self, session: str, *, author: str, note: str, hours: float, now: float | None = None) -> tuple[str, Share]:
        """Return a new link's secret, which is kept as a hash and cannot be shown again, and what it stands for."""
        secret, at = secrets.token_urlsafe(32), time.time() if now is None else now
        values = (_digest(secret), session, author, note, at, at + 3600.0 * hours)
        with self.writing() as connection:
            cursor = connection.execute(
                "INSERT INTO share (digest, session, author, note, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)", values
            )
        return secret, Share(cursor.lastrowid or 0, session, author, note, at, at + 3600.0 * hours, None)

    def shares(self, session: str) -> list[Share]:
        """Return the links to a session, the newest first."""
        return [Share(**row) for row in self.read(f"{_SHARES} WHERE session = ? ORDER BY id DESC", (session,))]

    def share_behind(self, secret: str, *, now: float | None = None) -> Share | None:
        """Return what a secret stands for; nothing once it has expired."""
        return self._valid(f"{_SHARES} WHERE digest = ?", (_digest(secret),), now)

    def valid_share(self, number: int, *, now: float | None = None) -> Share | None:
        """Return a link by its number; nothing once it has expired."""
        return self._valid(f"{_SHARES} WHERE id = ?", (number,), now)

    def _valid(self, query: str, values: tuple[object, ...], now: float | None) -> Share | None:
        found = [Share(**row) for row in self.read(query, values)]
        return found[0] if found and found[0].valid(time.time() if now is None else now) else None

    def withdraw_share(self, session: str, number: int) -> bool:
        """End a link at once; tell whether there was one."""
        with self.writing() as connection:
            ended = connection.execute(
                "UPDATE share SET withdrawn_at = ? WHERE id = ? AND session = ? AND withdrawn_at IS NULL",
                (time.time(), number, session),
            )
        return ended.rowcount > 0

    def note(self, *, who: str | None, address: str | None, action: str, session: str | None, detail: str, status: int) -> None:
        """Write down what somebody did; the oldest rows go where there are too many of their kind."""
        values = (time.time(), who, address, action, session, detail, status)
        with self.writing() as connection:
            cursor = connection.execute(
                "INSERT INTO audit (at, who, address, action, session, detail, status) VALUES (?, ?, ?, ?, ?, ?, ?)", values
            )
            number = cursor.lastrowid or 0
            if number % _PRUNE_EVERY == 0:
                for kind, most in ((f"NOT {_REFUSED}", MOST_AUDITED), (_REFUSED, MOST_REFUSED)):
                    last = f"SELECT id FROM audit WHERE {kind} ORDER BY id DESC LIMIT 1 OFFSET ?"  # noqa: S608 - our own texts
                    connection.execute(f"DELETE FROM audit WHERE {kind} AND id <= ({last})", (most,))  # noqa: S608

    def audit(self, *, limit: int, before: int | None = None) -> list[AuditRow]:
        """Return what people did, the newest first; ``before`` the row with a number."""
        where = "" if before is None else "WHERE id < ?"
        query = f"SELECT id, at, who, address, action, session, detail, status FROM audit {where} ORDER BY id DESC LIMIT ?"  # noqa: S608
        values = (limit,) if before is None else (before, limit)
        return [AuditRow(**row) for row in self.read(query, values)]

    def name_of_account(self, account: str, name: str) -> str:
        """Return the name under which an account at a provider is known here: its own, unless another account has had that.

        Such a one has some digits behind it, the same each time.
        """
        digest = _digest(account)
        with self.writing() as connection:
            for known in (name, *(f"{name} #{digest[:length]}" for length in (8, 16, 64))):
                connection.execute("INSERT OR IGNORE INTO account_name (name, account) VALUES (?, ?)", (known, digest))
                (whose,) = connection.execute("SELECT account FROM account_name WHERE name = ?", (known,)).fetchone()
                if whose == digest:
                    return known
        raise SessionError(f"{name}: this name, and those made of it, belong to other accounts")

    def back_up(self, target: Path, files: Mapping[str, Path]) -> None:
        """Write a copy of everything into one file, with some ``files`` by name; a server may be running.

        Raises
        ------
        SessionError
            The target exists, or the copy cannot be written or is damaged.
        """
        if target.exists():
            raise SessionError(f"{target}: already exists; a backup never replaces another")
        with self.writing():  # so that there is something to copy
            pass
        with publish(target) as temporary, _explained(target):
            with closing(self._connect()) as connection:
                connection.execute("VACUUM INTO ?", (str(temporary),))
            with closing(sqlite3.connect(temporary)) as copy, copy:
                copy.execute("CREATE TABLE kept_file (name TEXT PRIMARY KEY, content BLOB NOT NULL)")
                present = [(name, path.read_bytes()) for name, path in files.items() if path.is_file()]
                copy.executemany("INSERT INTO kept_file VALUES (?, ?)", present)
                _check(copy, target)
            temporary.chmod(0o600)

    def restore(self, source: Path, files: Mapping[str, Path]) -> list[Path]:
        """Put a backup in the place of what there is, which is kept beside it; return what was written.

        Raises
        ------
        SessionError
            The file is no such backup, is damaged, or was written by a newer version; nothing has changed then.
        """
        if not source.is_file():
            raise SessionError(f"{source}: is no file")
        with _explained(source), closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as backup:
            _check(backup, source)
            names = {row[0] for row in backup.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "kept_file" not in names:
                raise SessionError(f"{source}: is no backup; make one with `icestream backup`")
            kept = dict(backup.execute("SELECT name, content FROM kept_file"))
            contents = {path: kept[name] for name, path in files.items() if name in kept}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for path in (self.path, *contents):
                _set_aside(path)
            with publish(self.path) as temporary, closing(_private(temporary)) as copy:
                backup.backup(copy)
                copy.execute("DROP TABLE kept_file")
                copy.commit()
        for path, content in contents.items():
            with publish(path) as temporary:
                temporary.touch(mode=0o600)
                temporary.write_bytes(content)
        return [self.path, *contents]

    def read(self, query: str, values: tuple[object, ...]) -> list[dict[str, Any]]:
        """Return the rows of a query; none where there is no file yet."""
        if not self.path.is_file():
            return []
        with _explained(self.path), closing(self._connect()) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Give a connection in a transaction that is committed at the end, unless something is raised."""
        with _explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(self._connect()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                with connection:
                    yield connection

    def _connect(self) -> sqlite3.Connection:
        connection = _private(self.path)
        if self.path.stat().st_mode & 0o077:
            connection.close()
            raise SessionError(f"{self.path}: other accounts may read it; it tells what people did: `chmod 600 {self.path}`")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < SCHEMA:
            connection.execute("BEGIN EXCLUSIVE")
            with connection:
                present = connection.execute("PRAGMA user_version").fetchone()[0]  # another process may have been first
                for statement in (one for tables in _TABLES[present:] for one in tables.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {max(present, SCHEMA)}")
        elif version > SCHEMA:
            connection.close()
            raise SessionError(f"{self.path}: has schema {version}, this version reads up to {SCHEMA}; use a newer icestream")
        return connection


_SHARES = "SELECT id, session, author, note, created_at, expires_at, withdrawn_at FROM share"


def _private(path: Path) -> sqlite3.Connection:
    """Open a database that no other account can read, from its first byte on."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    return sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise SessionError(f"{path}: is no database of a facility")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA:
        raise SessionError(f"{path}: has schema {version}, this version reads up to {SCHEMA}; use a newer icestream")
    told = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if told != "ok":
        raise SessionError(f"{path}: is damaged: {str(told)[:200]}")


def _set_aside(path: Path) -> None:
    """Keep what a restore replaces."""
    if path.exists():
        kept = path.with_name(f"{path.name}.before-restore")
        with publish(kept) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_bytes(path.read_bytes())


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise SessionError(f"{path}: cannot be used as the database of the facility: {error}") from error


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
