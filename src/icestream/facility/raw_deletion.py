"""Deleting raw data: only with a verified copy of each file, by an administrator who types the session's name, and after a time.

Until that time nothing is touched, and the request can be withdrawn. Then each file is compared with its copy once more, byte for
byte, and deleted by its name in the very folder that was looked at: never through a link, never outside the session's roots.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from icestream.counting import counted
from icestream.errors import SessionError
from icestream.facility.deletion_requests import DeletionRequests, RawDeletion
from icestream.facility.raw_copies import (
    CopyCheck,
    CopyLedger,
    RawFile,
    copy_checks,
    is_one_file,
    is_plain_below,
    read_raw_files,
    stamp,
    stamp_of,
)
from icestream.facility.raw_needs import RawNeeds
from icestream.flow.commands.requests import NoteRawDeletion
from icestream.flow.runner.answering import submit
from icestream.flow.runner.fault_points import fault_point
from icestream.flow.storage import Session
from icestream.settings import Settings
from icestream.transfer.two_places import are_one_folder

SHORTEST_UNDO_HOURS = 1.0

NO_COPY = "there is no verified copy, or one of the two has changed since"
A_LINK = "it is missing, a link, or reached through a link"
CHANGED = "it has changed since"
UNKNOWN = "the session does not know it any more"
ITSELF = "its copy is the file itself, reached by another path"
WITHDRAWN = "waiting"
"""What becomes of a file while the request is withdrawn: nothing."""


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
    needs, checks = RawNeeds(session, rejected), copy_checks(session, state=state)
    copies = CopyLedger(session).places(files) if CopyLedger(session).path.is_file() else {}
    for one in files:
        if (reason := needs.why_kept(one)) is not None:
            found.kept[reason] += 1
        elif not is_plain_below(one.path, _home(session, one)):
            found.kept[A_LINK] += 1
        elif (place := copies.get(one.ref) or _find_copy(checks, one, reread=False)) is None:
            found.kept[NO_COPY] += 1
        else:
            found.files.append(one)
            found.same_disk += Path(place).stat().st_dev == one.path.stat().st_dev
    return found


def _home(session: Session, one: RawFile) -> Path:
    return Path(session.roots[one.ref.partition(":")[0]]).resolve()


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
        kept = "; ".join(f"{counted(count, 'file', 'stays/stay')}: {why}" for why, count in found.kept.most_common())
        raise SessionError(f"no raw file can be deleted ({kept or 'the session has none'})")
    asked = DeletionRequests(session, settings.state).add(
        author,
        reason,
        rejected=rejected,
        undo_hours=undo_hours,
        n_bytes=found.n_bytes,
        files=[(one.ref, stamp_of(one.path) or "") for one in found.files],
    )
    _tell(session, settings, asked, "asked", author=author)
    return asked


def withdraw_deletion(session: Session, settings: Settings, number: int, *, author: str) -> RawDeletion:
    """Withdraw a request to delete raw data, also while it is being carried out; return it, with what was deleted before.

    Raises
    ------
    SessionError
        There is none of this number that waits.
    """
    requests = DeletionRequests(session, settings.state)
    requests.withdraw(number, author)
    one = requests.find(number)
    _tell(session, settings, one, "withdrawn", author=author)
    return one


def read_deletions(session: Session, *, state: Path) -> list[RawDeletion]:
    """Return the requests to delete raw data, newest first; ``state`` is the state folder of the account."""
    return DeletionRequests(session, state).read()


def carry_out_due(session: Session, settings: Settings, *, now: float | None = None) -> list[RawDeletion]:
    """Delete what is due; one that began before and was interrupted goes on. Return the requests that are done now.

    While another process deletes raw data of this session, nothing is done.

    Raises
    ------
    SessionError
        The requests cannot be read.
    """
    requests, moment, done = DeletionRequests(session, settings.state), time.time() if now is None else now, []
    if not requests.path.is_file():
        return []
    with requests.held() as ours:
        for one in requests.read() if ours else []:
            if one.state == "deleting" or (one.state == "waiting" and one.goes_at <= moment):
                _delete(session, settings.state, requests, one)
                done.append(requests.find(one.id))
                if done[-1].state == "deleted":
                    _tell(session, settings, done[-1], "done", author=one.author)
    return done


def _delete(session: Session, state_folder: Path, requests: DeletionRequests, asked: RawDeletion) -> None:
    rows = requests.begin(asked.id)
    files = {one.ref: one for one in read_raw_files(session)}
    one_by_one = _Deleting(session, requests, asked, copy_checks(session, state=state_folder), RawNeeds(session, asked.rejected))
    for ref, noted in rows:
        if not requests.is_going_on(asked.id):
            return
        found = files.get(ref)
        became = UNKNOWN if found is None else one_by_one.delete(found, noted)
        fault_point("raw_file_deleted")
        requests.note(asked.id, ref, became)
    requests.end(asked.id)


@dataclass(frozen=True)
class _Deleting:
    """Deletes files of one request, one after the other."""

    session: Session
    requests: DeletionRequests
    asked: RawDeletion
    checks: list[CopyCheck]
    needs: RawNeeds

    def delete(self, one: RawFile, noted: str) -> str:
        """Delete one file if it and its copy are what they were; return what became of it: ``deleted``, or why it stays."""
        if not os.path.lexists(one.path):  # we deleted it before we were interrupted, or somebody else did
            return "deleted"
        if (reason := self.needs.why_kept(one)) is not None:
            return reason
        if stamp_of(one.path) != noted or not is_plain_below(one.path, _home(self.session, one)):
            return CHANGED
        place = _find_copy(self.checks, one, reread=True)
        if place is None:
            return NO_COPY
        try:
            return self._unlink(one, noted, Path(place))
        except OSError as error:
            return f"it or its copy cannot be reached, or it cannot be deleted: {error.strerror or type(error).__name__}"

    def _unlink(self, one: RawFile, noted: str, place: Path) -> str:
        """Ask everything once more, after the long reading of the copy, and delete the file."""
        if os.path.realpath(place) != str(place) or is_one_file(one.path, place):
            return ITSELF
        if are_one_folder(one.path.parent, place.parent):
            return ITSELF
        self.needs.look()
        if (reason := self.needs.why_kept(one)) is not None:
            return reason
        if not self.requests.is_going_on(self.asked.id):
            return WITHDRAWN
        folder = os.open(one.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if stamp(os.stat(one.path.name, dir_fd=folder, follow_symlinks=False)) != noted:
                return CHANGED
            os.unlink(one.path.name, dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)
        return "deleted"


def _tell(session: Session, settings: Settings, one: RawDeletion, stage: str, *, author: str) -> None:
    """Put it into the history of the session, under the name of who asked."""
    sums = {"files": one.n_files, "bytes": one.n_bytes, "goes_at": one.goes_at}
    told = {"number": one.id, "stage": stage, "reason": one.reason, "note": one.note or "", **sums}
    note = NoteRawDeletion.model_validate(told)
    submit(session, note, author=author, settings=settings)
