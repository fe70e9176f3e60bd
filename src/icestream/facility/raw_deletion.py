"""Deleting raw data: only with a verified copy of each file, by an administrator who types the session's name, and after a time.

Until that time nothing is touched, and the request can be withdrawn. Then each file is compared with its copy once more, byte for
byte, and deleted by its name in the very folder that was looked at: never through a link, never outside the session's roots.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from icestream.errors import SessionError
from icestream.facility.raw_copies import CopyCheck, CopyLedger, RawFile, copy_checks, is_plain_below, read_raw_files, stamp_of
from icestream.flow.commands.rejected import find_rejected
from icestream.flow.commands.removable import settled_units
from icestream.flow.commands.requests import NoteRawDeletion
from icestream.flow.runner.answering import submit
from icestream.flow.runner.fault_points import fault_point
from icestream.flow.storage import Session, reading, schema
from icestream.settings import Settings

SHORTEST_UNDO_HOURS = 1.0

NO_COPY = "there is no verified copy, or one of the two has changed since"
A_LINK = "it is missing, a link, or reached through a link"
PROCESSED = "its exposure is still being processed"
NOT_REJECTED = "its exposure was not rejected"


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
    done_by: str | None
    note: str | None


@dataclass
class Deletable:
    """The raw files that could be deleted, and why others stay."""

    files: list[RawFile] = field(default_factory=list)
    same_disk: int = 0
    """Copies that are on the same file system as the file, and are lost with it."""
    kept: Counter[str] = field(default_factory=Counter)

    @property
    def n_bytes(self) -> int:
        """How much disk would be freed."""
        return sum(one.size_bytes for one in self.files)


def plan_raw_deletion(session: Session, *, state: Path, rejected: bool = False) -> Deletable:
    """Return the raw files that have a verified copy now and that no step will read again in the present workflow.

    Raises
    ------
    SessionError
        The store, or the ledger of copies, cannot be read.
    """
    files, found = read_raw_files(session), Deletable()
    settled, chosen = _units(session, rejected=rejected)
    checks = copy_checks(session, state=state)
    copies = CopyLedger(session).places(files) if CopyLedger(session).path.is_file() else {}
    for one in files:
        home = Path(session.roots[one.ref.partition(":")[0]]).resolve()
        if chosen is not None and one.unit not in chosen:
            found.kept[NOT_REJECTED] += 1
        elif one.unit not in settled:
            found.kept[PROCESSED] += 1
        elif not is_plain_below(one.path, home):
            found.kept[A_LINK] += 1
        elif (place := copies.get(one.ref) or _find_copy(checks, one, reread=False)) is None:
            found.kept[NO_COPY] += 1
        else:
            found.files.append(one)
            found.same_disk += Path(place).stat().st_dev == one.path.stat().st_dev
    return found


def _find_copy(checks: list[CopyCheck], one: RawFile, *, reread: bool) -> str | None:
    return next((place for check in checks if (place := check.find(one.ref, one.path, reread=reread)) is not None), None)


def ask_for_deletion(
    session: Session,
    settings: Settings,
    *,
    typed_name: str,
    author: str,
    undo_hours: float,
    rejected: bool = False,
    reason: str = "",
) -> RawDeletion:
    """Note that raw data are to be deleted once ``undo_hours`` have passed; until then nothing is touched.

    Raises
    ------
    SessionError
        The name is not that of the session, the time too short, or no file has a verified copy.
    """
    if typed_name != session.document.name:
        raise SessionError(f"{typed_name!r}: is not the name of this session; nothing is deleted")
    if undo_hours < SHORTEST_UNDO_HOURS:
        raise SessionError(f"raw data can be kept for {SHORTEST_UNDO_HOURS:g} hours or longer after this, not {undo_hours:g}")
    found = plan_raw_deletion(session, state=settings.state, rejected=rejected)
    if not found.files:
        kept = "; ".join(f"{count} files stay: {why}" for why, count in found.kept.most_common())
        raise SessionError(f"no raw file can be deleted ({kept or 'the session has none'})")
    ledger, now = CopyLedger(session), time.time()
    with ledger.open() as connection, connection:
        values = (author, reason, "waiting", now, now + 3600 * undo_hours, len(found.files), found.n_bytes)
        added = connection.execute(
            "INSERT INTO deletion (author, reason, state, at, goes_at, n_files, n_bytes) VALUES (?, ?, ?, ?, ?, ?, ?)", values
        )
        number = int(added.lastrowid or 0)
        rows = [(number, one.ref, stamp_of(one.path) or "", "waiting") for one in found.files]
        connection.executemany("INSERT INTO deleted VALUES (?, ?, ?, ?)", rows)
    one = next(one for one in read_deletions(session) if one.id == number)
    _tell(session, settings, one, "asked", author=author)
    return one


def withdraw_deletion(session: Session, settings: Settings, number: int, *, author: str) -> None:
    """Withdraw a request to delete raw data.

    Raises
    ------
    SessionError
        There is none of this number that waits.
    """
    with CopyLedger(session).open() as connection, connection:
        done = connection.execute(
            "UPDATE deletion SET state = 'withdrawn', done_by = ? WHERE id = ? AND state = 'waiting'", (author, number)
        )
    if not done.rowcount:
        raise SessionError(f"deletion {number} of raw data: is unknown, or does not wait any more")
    one = next(one for one in read_deletions(session) if one.id == number)
    _tell(session, settings, one, "withdrawn", author=author)


def read_deletions(session: Session) -> list[RawDeletion]:
    """Return the requests to delete raw data, newest first."""
    ledger = CopyLedger(session)
    if not ledger.path.is_file():
        return []
    with ledger.open() as connection:
        return [RawDeletion(**dict(row)) for row in connection.execute("SELECT * FROM deletion ORDER BY id DESC")]


def carry_out_due(session: Session, settings: Settings, *, now: float | None = None) -> list[RawDeletion]:
    """Delete what is due; one that began before and was interrupted goes on. Return the requests that are done now.

    Raises
    ------
    SessionError
        The ledger cannot be used.
    """
    moment, done = time.time() if now is None else now, []
    for one in read_deletions(session):
        if one.state == "deleting" or (one.state == "waiting" and one.goes_at <= moment):
            _delete(session, settings.state, one.id)
            done.append(next(again for again in read_deletions(session) if again.id == one.id))
            _tell(session, settings, done[-1], "done", author=one.author)
    return done


def _delete(session: Session, state_folder: Path, number: int) -> None:
    ledger, checks = CopyLedger(session), copy_checks(session, state=state_folder)
    with ledger.open() as connection, connection:
        begun = "UPDATE deletion SET state = 'deleting' WHERE id = ? AND state IN ('waiting', 'deleting')"
        if not connection.execute(begun, (number,)).rowcount:  # it was withdrawn just now
            return
        rows = connection.execute("SELECT ref, stamp FROM deleted WHERE deletion = ? AND state = 'waiting'", (number,)).fetchall()
    files = {one.ref: one for one in read_raw_files(session)}
    free = {one.ref for one in plan_raw_deletion(session, state=state_folder).files}
    for row in rows:
        one = files.get(row["ref"])
        needed = row["ref"] not in free and one is not None and os.path.lexists(one.path)
        state = "needed" if needed else _delete_one(session, checks, one, row["stamp"])
        fault_point("raw_file_deleted")
        with ledger.open() as connection, connection:
            connection.execute("UPDATE deleted SET state = ? WHERE deletion = ? AND ref = ?", (state, number, row["ref"]))
    with ledger.open() as connection, connection:
        mine = "FROM deleted WHERE deletion = ? AND state NOT IN ('deleted', 'waiting')"
        kept = connection.execute(f"SELECT count(*) {mine}", (number,)).fetchone()[0]
        note = f"{kept} files stay: they, or their copies, have changed, or a step needs them again" if kept else None
        connection.execute("UPDATE deletion SET state = 'deleted', note = ? WHERE id = ?", (note, number))


def _delete_one(session: Session, checks: list[CopyCheck], one: RawFile | None, stamp: str) -> str:
    """Delete one file if it and its copy are what they were; return what became of it."""
    if one is None:
        return "unknown"
    home = Path(session.roots[one.ref.partition(":")[0]]).resolve()
    if not os.path.lexists(one.path):  # we deleted it before we were interrupted, or somebody else did
        return "deleted"
    if stamp_of(one.path) != stamp or not is_plain_below(one.path, home):
        return "changed"
    if _find_copy(checks, one, reread=True) is None:
        return "no copy"
    folder = os.open(one.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        seen = os.stat(one.path.name, dir_fd=folder, follow_symlinks=False)
        if f"{seen.st_dev}:{seen.st_ino}:{seen.st_size}:{seen.st_mtime_ns}" != stamp:
            return "changed"
        os.unlink(one.path.name, dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)
    return "deleted"


def _units(session: Session, *, rejected: bool) -> tuple[set[str], set[str] | None]:
    """Return the exposures that every step has decided about, and those that are meant (None: all)."""
    graph, revision = session.graph(), schema.revision
    with reading(session) as connection:
        if connection is None:
            return set(), set()
        rows = connection.execute(select(revision.c.step, revision.c.id).where(revision.c.state == "active"))
        active = {row.step: row.id for row in rows if row.step in graph.nodes}
        return settled_units(connection, active), find_rejected(connection, graph, active) if rejected else None


def _tell(session: Session, settings: Settings, one: RawDeletion, stage: str, *, author: str) -> None:
    """Put it into the history of the session, under the name of who asked."""
    sums = {"files": one.n_files, "bytes": one.n_bytes, "goes_at": one.goes_at}
    told = {"number": one.id, "stage": stage, "reason": one.reason, "note": one.note or "", **sums}
    note = NoteRawDeletion.model_validate(told)
    submit(session, note, author=author, settings=settings)
