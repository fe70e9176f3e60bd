"""A portable copy of a session: its store as one file, its document, and the files that rows refer to. It may run meanwhile."""

import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from icestream.errors import SessionError
from icestream.files import SESSION_ALARMS, SESSION_STORAGE
from icestream.flow.declaration import resolve_ref
from icestream.flow.storage.archive import Add, open_archive
from icestream.flow.storage.copying import copy_store
from icestream.flow.storage.file_kinds import IMAGES
from icestream.flow.storage.session import DOCUMENT, STORE, Session, dump_document

_ROUNDS = 6
"""A running session may drop an old state between the copy of its store and that of its files: then both are copied again."""

_FILE = re.compile(r"^session:[^/].*$")


@dataclass(frozen=True)
class PackReport:
    """What was packed."""

    target: Path
    n_files: int
    n_bytes: int
    n_left_out: int
    missing: tuple[str, ...]
    """Files that rows refer to and that are not there."""


@dataclass(frozen=True)
class Wanted:
    """The files that the rows of a store refer to."""

    files: tuple[str, ...]
    left_out: tuple[str, ...]
    optional: tuple[str, ...]
    """Files named by parameters: packed if they are there."""


@dataclass
class _Packing:
    session: Session
    add: Add
    on_progress: Callable[[int, int], None] | None
    scratch: Path
    pinned: dict[str, Path] = field(default_factory=dict)
    packed: set[str] = field(default_factory=set)
    n_files: int = 0
    n_bytes: int = 0

    def add_missing(self, wanted: Wanted) -> tuple[str, ...]:
        """Add what is not packed yet; return what could not be found."""
        missing = []
        for ref in [*wanted.files, *wanted.optional]:
            if ref not in self.packed and not self._add(ref, wanted) and ref in wanted.files:
                missing.append(ref)
            if self.on_progress is not None:
                self.on_progress(len(self.packed), len(wanted.files))
        return tuple(missing)

    def pin(self, states: list[str]) -> None:
        """Put the files of states aside: a running accumulator drops them when it has absorbed two portions more."""
        refs = {ref for text in states for ref in _refs_in(json.loads(text))}
        with ExitStack() as stack:
            opened = {}
            for ref in sorted(refs - self.packed - set(self.pinned)):
                path = self._path(ref)
                if path.is_file():
                    with suppress(FileNotFoundError):  # dropped just now: the next round has newer states
                        opened[ref] = stack.enter_context(path.open("rb"))
            for ref, file in opened.items():  # an open file can be read to its end, dropped or not
                self.pinned[ref] = self.scratch / f"pinned-{len(self.pinned)}"
                with self.pinned[ref].open("wb") as copy:
                    shutil.copyfileobj(file, copy)

    def _path(self, ref: str) -> Path:
        return resolve_ref({"session": str(self.session.folder)}, ref)

    def _add(self, ref: str, wanted: Wanted) -> bool:
        source = self._path(ref)
        if ref in self.pinned:
            self.n_bytes += self.add(self.pinned[ref], os.path.relpath(source, self.session.folder))
            self.n_files += 1
            self.packed.add(ref)
            return True
        try:
            for path in _files_below(source, images=not wanted.left_out) if source.is_dir() else [source]:
                self.n_bytes += self.add(path, os.path.relpath(path, self.session.folder))
                self.n_files += 1
        except FileNotFoundError:
            return False
        self.packed.add(ref)
        return True


def pack_session(
    session: Session, target: Path, *, with_images: bool = True, on_progress: Callable[[int, int], None] | None = None
) -> PackReport:
    """Make a portable copy of a session in a new folder or ``.tar.zst`` file; ``on_progress`` is told files done and to do.

    Without images, those of single exposures stay behind: the copy can be looked at, but steps that need them cannot go on.

    Raises
    ------
    StoreUnavailable
        The store cannot be reached, or there is no room.
    SessionError
        The target is there already, or the session has not been run yet.
    """
    target = target.absolute()
    if target.is_relative_to(session.folder):
        raise SessionError(f"{target}: is inside the session that is to be packed; choose a place outside it")
    with open_archive(target, name=session.folder.name) as add, TemporaryDirectory(dir=target.parent) as scratch:
        packing = _Packing(session, add, on_progress, Path(scratch))
        store = Path(scratch) / STORE
        missing: tuple[str, ...] | None = None
        for _ in range(_ROUNDS):
            store.unlink(missing_ok=True)
            copy_store(session.store_at, store, pin=packing.pin)
            wanted = read_wanted(store, with_images=with_images)
            before, missing = missing, packing.add_missing(wanted)
            if not missing or missing == before:
                break
        _settle(store)
        document = Path(scratch) / DOCUMENT
        document.write_text(dump_document(_portable(session).document), encoding="utf-8")
        rules = [path for name in (SESSION_ALARMS, SESSION_STORAGE) if (path := session.folder / name).is_file()]
        for path in (store, document, *rules):
            packing.n_bytes += add(path, path.name)
        return PackReport(target, packing.n_files + 2 + len(rules), packing.n_bytes, len(wanted.left_out), missing or ())


def read_wanted(store: Path, *, with_images: bool) -> Wanted:
    """Return the session's own files that the rows of a copied store refer to, those of the newest states first."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        states = connection.execute("SELECT state FROM accumulator_log WHERE state IS NOT NULL ORDER BY position DESC")
        first = {ref for (text,) in states for ref in _refs_in(json.loads(text))}
        whole = set(_records(connection, "IN (SELECT key FROM snapshot WHERE NOT pruned)"))
        single = set(_records(connection, "NOT IN (SELECT key FROM snapshot)"))
        params = connection.execute("SELECT params FROM revision WHERE state = 'active'")
        optional = {ref for (text,) in params for ref in _refs_in(json.loads(text))}
        removed = _removed(connection)
    kept, single = first | whole, single - removed
    left_out = set() if with_images else {ref for ref in single - kept if Path(ref).suffix.lower() in IMAGES}
    files = [*sorted(first), *sorted((whole | single) - first - left_out)]
    return Wanted(tuple(files), tuple(sorted(left_out)), tuple(sorted(optional - kept - single)))


def _removed(connection: sqlite3.Connection) -> set[str]:
    """Return the files that were removed to free the disk; a copy can compute them again, too."""
    there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'removed_file'").fetchone()
    return set() if there is None else {ref for (ref,) in connection.execute("SELECT ref FROM removed_file")}


def _records(connection: sqlite3.Connection, which: str) -> Iterator[str]:
    query = f"SELECT record FROM result WHERE record LIKE '%session:%' AND key {which}"  # noqa: S608 - both texts are ours
    for (text,) in connection.execute(query):
        yield from _refs_in(json.loads(text))


def _refs_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if _FILE.match(value):
            yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _refs_in(part)


def _files_below(folder: Path, *, images: bool) -> list[Path]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
    return [path for path in found if images or path.suffix.lower() not in IMAGES]


def _settle(store: Path) -> None:
    """Give the copy to nobody: the runner that writes the original does not write it."""
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("DELETE FROM lease")
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'removal'").fetchone() is not None:  # the trash stays
            connection.execute("UPDATE removal SET state = 'gone' WHERE state NOT IN ('undone', 'gone')")
        note = f"packed at {time.strftime('%Y-%m-%d %H:%M:%S %z')}"
        connection.execute("UPDATE runner SET state = 'stopped', note = ?, host = NULL, pid = NULL", (note,))


def _portable(session: Session) -> Session:
    """Return the session with its store in its folder, and the roots of raw data by their full paths unless they are in it."""
    roots = {}
    for name, path in session.document.roots.items():
        whole = (session.folder / path).resolve()
        inside = whole.is_relative_to(session.folder.resolve())
        roots[name] = os.path.relpath(whole, session.folder.resolve()) if inside else str(whole)
    return Session(session.folder, session.document.model_copy(update={"store": None, "roots": roots}))
