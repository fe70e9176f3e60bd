"""Verified copies of raw data: which files of a session are elsewhere, byte for byte.

That is known from a ledger beside the store, of files that were compared with a copy that somebody made, and from the ledgers of
verified transfers. A file counts as copied while both are what they were then: the same size and time of change.
"""

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import select

from icestream.errors import SessionError
from icestream.flow.declaration import resolve_ref
from icestream.flow.storage import Session, reading, schema
from icestream.transfer.copies import verified_copy
from icestream.transfer.ledger import Ledger, account_ledger, session_ledger
from icestream.transfer.two_places import are_one_folder, is_same_file

COPIES_SUFFIX = ".copies.db"
_BLOCK = 4 * 2**20
_TABLES = """
CREATE TABLE IF NOT EXISTS copy (
    ref TEXT PRIMARY KEY, stamp TEXT NOT NULL, place TEXT NOT NULL, place_stamp TEXT NOT NULL, digest TEXT NOT NULL,
    at REAL NOT NULL
);
"""


class CopyCheck(Protocol):
    """Knows verified copies of raw files."""

    def find(self, ref: str, path: Path, *, reread: bool) -> str | None:
        """Return where a verified copy of a file is now, or None; ``reread`` compares both byte for byte once more."""


@dataclass(frozen=True)
class RawFile:
    """A raw file that the session has taken."""

    ref: str
    unit: str
    path: Path
    size_bytes: int


@dataclass(frozen=True)
class Verified:
    """What came of comparing raw data with a copy."""

    verified: int
    known: int
    """Were verified before, and have not changed."""
    refused: dict[str, str]
    """Reference → why there is no verified copy."""


def read_raw_files(session: Session) -> list[RawFile]:
    """Return the raw files of a session, each once."""
    table = schema.source_file
    with reading(session) as connection:
        if connection is None:
            return []
        rows = connection.execute(select(table.c.ref, table.c.unit, table.c.size_bytes).order_by(table.c.modified_ns))
        newest = {row.ref: row for row in rows}
    known = [row for row in newest.values() if row.ref.partition(":")[0] in session.document.roots]
    return [RawFile(row.ref, row.unit, resolve_ref(session.roots, row.ref), row.size_bytes) for row in known]


@dataclass(frozen=True)
class TransferredCopies:
    """Copies that verified transfers have made: of the session, or of folders of this account."""

    ledger: Ledger

    def find(self, ref: str, path: Path, *, reread: bool) -> str | None:
        """Return where a verified copy of a file is now, or None; ``reread`` compares both byte for byte once more."""
        found = verified_copy(self.ledger, path, reread=reread)
        return None if found is None else str(found.path)


def copy_checks(session: Session, *, state: Path) -> list[CopyCheck]:
    """Return all who may know a verified copy of a raw file; ``state`` is the state folder of the account."""
    own = CopyLedger(session)
    ledgers = [ledger for ledger in (session_ledger(session), account_ledger(state)) if ledger.exists]
    return [*([own] if own.path.is_file() else []), *map(TransferredCopies, ledgers)]


def count_copies(session: Session, *, state: Path) -> int:
    """Return of how many raw files a copy was verified, without looking whether it is still there."""
    own, roots = CopyLedger(session), [Path(session.roots[name]) for name in session.document.roots]
    total = 0
    if own.path.is_file():
        with own.open() as connection:
            total = int(connection.execute("SELECT count(*) FROM copy").fetchone()[0])
    for ledger in [one for one in (session_ledger(session), account_ledger(state)) if one.exists]:
        for transfer in ledger.transfers():
            if any(root.is_relative_to(transfer.source) for root in roots):
                total += sum(one.files for one in ledger.counts(transfer.id) if one.state == "verified")
    return total


@dataclass(frozen=True)
class CopyLedger:
    """The ledger of one session."""

    session: Session

    @property
    def path(self) -> Path:
        """Where it is: beside the store where that is a file."""
        location = self.session.store_at
        path = location if isinstance(location, Path) else self.session.folder / "icestream.db"
        return path.with_name(path.stem + COPIES_SUFFIX)

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Give its database.

        Raises
        ------
        SessionError
            It cannot be written, or is none.
        """
        if self.path.is_symlink():
            raise SessionError(f"{self.path}: is a link, which is not followed; remove it")
        try:
            with closing(sqlite3.connect(self.path, timeout=10.0)) as connection:
                connection.row_factory = sqlite3.Row
                connection.executescript(_TABLES)
                yield connection
        except sqlite3.Error as error:
            raise SessionError(f"{self.path}: cannot be used as a ledger of copies: {error}") from error

    def find(self, ref: str, path: Path, *, reread: bool) -> str | None:
        """Return where a verified copy of a file is now, or None; ``reread`` compares both byte for byte once more."""
        with self.open() as connection:
            row = connection.execute("SELECT * FROM copy WHERE ref = ?", (ref,)).fetchone()
        if row is None or not _is_as_noted(row, path):
            return None
        try:
            if reread and {digest_of(path), digest_of(Path(row["place"]))} != {row["digest"]}:
                return None
        except OSError:  # what cannot be read is no copy to rely on
            return None
        return str(row["place"])

    def places(self, files: list[RawFile]) -> dict[str, str]:
        """Return reference → place of the copies that are there now, as far as sizes and times say."""
        with self.open() as connection:
            rows = {row["ref"]: row for row in connection.execute("SELECT * FROM copy")}
        found = {}
        for one in files:
            row = rows.get(one.ref)
            if row is not None and _is_as_noted(row, one.path):
                found[one.ref] = str(row["place"])
        return found

    def verify(self, root: str, folder: Path, *, on_progress: Callable[[int, int], None] | None = None) -> Verified:
        """Compare every raw file of a root with the file of the same name below ``folder``, and remember those that are equal.

        Raises
        ------
        SessionError
            There is no such root or folder, or one of the two is in the other.
        """
        copy, home = self._check(root, folder)
        files = [one for one in read_raw_files(self.session) if one.ref.startswith(f"{root}:")]
        known, verified, refused = self.places(files), 0, {}
        for number, one in enumerate(files):
            if on_progress is not None:
                on_progress(number, len(files))
            if one.ref in known and Path(known[one.ref]).is_relative_to(copy):
                continue
            place = copy / one.path.relative_to(home)
            reason = self._compare(one, home, place, copy)
            if reason is None:
                verified += 1
            else:
                refused[one.ref] = reason
        return Verified(verified, len(files) - verified - len(refused), refused)

    def _check(self, root: str, folder: Path) -> tuple[Path, Path]:
        if root not in self.session.document.roots:
            raise SessionError(f"{root!r}: is no root of raw data; there are {', '.join(self.session.document.roots) or 'none'}")
        home, copy = Path(self.session.roots[root]).resolve(), folder.resolve()
        if not copy.is_dir():
            raise SessionError(f"{folder}: is not a folder")
        if copy.is_relative_to(home) or home.is_relative_to(copy):
            raise SessionError(f"{copy}: is the folder of the raw data itself, or one is in the other; a copy is elsewhere")
        if _are_one(copy, home):
            raise SessionError(f"{copy}: is the folder of the raw data itself, by another path; a copy is elsewhere")
        return copy, home

    def _compare(self, one: RawFile, home: Path, place: Path, copy: Path) -> str | None:
        """Compare two files and note it if they are equal; return why they do not count as copies otherwise."""
        for path, below in ((one.path, home), (place, copy)):
            if not is_plain_below(path, below):
                return f"{path}: is missing, a link, or reached through a link"
        before, there = stamp_of(one.path), stamp_of(place)
        if before is None or there is None or is_one_file(one.path, place):
            return f"{place}: is the same file"
        try:
            digest = digest_of(one.path)
            if digest_of(place) != digest:
                return f"{place}: differs"
        except OSError as error:
            return f"{one.path} or {place}: cannot be read: {error.strerror or error}"
        if stamp_of(one.path) != before or stamp_of(place) != there:
            return f"{one.path}: changed while it was read"
        with self.open() as connection, connection:
            values = (one.ref, before, str(place), there, digest, time.time())
            connection.execute("INSERT OR REPLACE INTO copy VALUES (?, ?, ?, ?, ?, ?)", values)
        return None


def stamp_of(path: Path) -> str | None:
    """Return what tells a plain file from others and from what it was before; None where there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return stamp(found)


def stamp(found: os.stat_result) -> str:
    """Return a stamp from a status; without its device, whose number is another after a network disk was mounted again."""
    return f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def is_one_file(path: Path, other: Path) -> bool:
    """Tell whether two paths are of one file, also where they cannot be looked at."""
    try:
        return is_same_file(os.lstat(path), os.lstat(other))
    except OSError:
        return True


def _is_as_noted(row: sqlite3.Row, path: Path) -> bool:
    """Tell whether a file and its copy are what they were, by size and time, and are two files."""
    place = Path(row["place"])
    if stamp_of(path) != row["stamp"] or stamp_of(place) != row["place_stamp"]:
        return False
    return os.path.realpath(place) == str(place) and not is_one_file(path, place)


def _are_one(copy: Path, home: Path) -> bool:
    """Tell whether the two folders are one, by a file that is made in that of the two which can be written.

    Raises
    ------
    SessionError
        Neither can be written, so nobody can tell.
    """
    for made_in, looked_in in ((copy, home), (home, copy)):
        try:
            return are_one_folder(made_in, looked_in)
        except OSError as error:
            trouble = error.strerror or str(error)
    raise SessionError(f"{copy} and {home}: neither can be written ({trouble}), so nobody can tell whether they are one folder")


def is_plain_below(path: Path, folder: Path) -> bool:
    """Tell whether a path is a plain file, with no link on the way to it from ``folder``, which has none in it."""
    return stamp_of(path) is not None and Path(os.path.realpath(path)) == path and path.is_relative_to(folder)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a plain file as `sha256sum` prints it.

    Raises
    ------
    OSError
        It cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(handle, "rb", buffering=0) as content:  # noqa: PTH123 - an open descriptor
        found = hashlib.sha256()
        while block := content.read(_BLOCK):
            found.update(block)
    return found.hexdigest()
