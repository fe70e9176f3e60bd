"""Removing files of results to free the disk, undoing it, deleting them for good, and computing them again.

A removal is rows first, in a commit that survives a power cut; then its files are moved into the trash, and can be put back until
its time for undoing has passed. What is computed from a removed file meanwhile has it put back, or computed again, first.
"""

import json
import time
from dataclasses import dataclass

from sqlalchemy import insert, select

from icestream.counting import counted
from icestream.errors import IcestreamError, SessionError, StoreUnavailable
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.removable import DERIVED, Removable, find_removable, keep_needed
from icestream.flow.commands.requests import BringBack, EmptyTrash, NoteRawDeletion, Remove, RestoreFiles
from icestream.flow.scheduling import NoticeCause, Notify
from icestream.flow.storage import (
    Removal,
    Session,
    find_exposure,
    kind_of_file,
    read_removals,
    reading,
    schema,
    set_state,
    want_again,
)

_CHUNK = 500


def plan_removal(session: Session, asked: Remove) -> Removable:
    """Return what a removal would take now; nothing is changed, and a runner may be at work.

    Raises
    ------
    SessionError
        There is no such step, or files of this kind cannot be removed.
    """
    _check(session, asked)
    with reading(session) as connection:
        return Removable() if connection is None else find_removable(connection, session, asked)


class Postponed(Exception):
    """A removal is noted in the next transaction: it has to be planned first, outside of this one."""


@dataclass
class PlannedRemoval:
    """A removal that is planned between two transactions of the runner: a look at every result and file takes long."""

    asked: Remove | None = None
    """What has to be planned, or is."""
    _session: Session | None = None
    _found: Removable | IcestreamError | None = None

    def take(self, asked: Remove, session: Session) -> Removable:
        """Return what was found in a session as it is, once.

        Raises
        ------
        Postponed
            It has to be planned first.
        IcestreamError
            It cannot be planned.
        """
        found = self._found if self.asked == asked and self._session is session else None
        self.asked, self._found = (asked if found is None else None), None
        if found is None:
            raise Postponed
        if isinstance(found, IcestreamError):
            raise found
        return found

    def look_up(self, session: Session) -> None:
        """Plan what was asked for, beside the runner's transactions.

        Raises
        ------
        StoreUnavailable
            The store cannot be read at this moment.
        """
        if self.asked is None or self._found is not None:
            return
        self._session = session
        try:
            self._found = plan_removal(session, self.asked)
        except StoreUnavailable:
            raise
        except IcestreamError as error:
            self._found = error


def remove(context: CommandContext, command: Remove, found: Removable) -> str:
    """Note which files go, of those that were found before; they are moved into the trash after the commit."""
    context.writing.flush()
    connection, now = context.writing.connection, time.time()
    active = {step: revision.id for step, revision in context.workflow.revisions.items()}
    keep_needed(connection, context.workflow.graph, active, found)
    if not found.files:
        kept = "; ".join(f"{counted(count, 'file', 'stays/stay')}: {reason}" for reason, count in found.kept.most_common())
        return f"nothing to remove{f' ({kept})' if kept else ''}"
    what = command.model_dump(mode="json", exclude={"reason"}, exclude_defaults=True)
    values = {"what": json.dumps(what), "author": context.author, "reason": command.reason, "state": "moving", "at": now}
    sums = {"n_files": len(found.files), "n_bytes": found.n_bytes, "goes_at": now + 3600 * command.undo_hours}
    inserted = connection.execute(insert(schema.removal).values(**values, **sums)).inserted_primary_key
    number = int(inserted[0]) if inserted else 0
    rows = [
        {"ref": one.ref, "key": one.key, "removal": number, "size_bytes": one.size_bytes, "wanted": False} for one in found.files
    ]
    for start in range(0, len(rows), _CHUNK):
        connection.execute(insert(schema.removed_file), rows[start : start + _CHUNK])
    context.controls.move_files()
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(sums["goes_at"]))
    said = f"{found.sentence} removed (no. {number}); this can be undone until {until}"
    by = f"the rule {command.rule} of {context.author}" if command.rule else context.author
    context.notify(NoticeCause.REMOVED, f"{said}, as {by} asked")
    return said


def bring_back(context: CommandContext, command: BringBack) -> str:
    """Undo a removal whose files are still in the trash."""
    one = _find(context, command.removal)
    if not one.may_be_undone:
        raise SessionError(f"removal {one.id}: {_STATES[one.state]}; what can be computed again is restored by `--restore`")
    set_state(context.writing.connection, one.id, "undoing", by=context.author)
    context.controls.move_files()
    context.notify(NoticeCause.REMOVED, f"removal {one.id}, {counted(one.n_left, 'file')}, is undone, as {context.author} asked")
    return f"{counted(one.n_left, 'file', 'is/are')} put back"


def empty_trash(context: CommandContext, command: EmptyTrash) -> str:
    """Delete one removal for good at once, or all whose time for undoing has passed."""
    if command.removal is not None:
        chosen = [_find(context, command.removal)]
        if chosen[0].state != "trash":
            raise SessionError(f"removal {chosen[0].id}: {_STATES[chosen[0].state]}, so there is nothing to delete")
    else:
        chosen = [one for one in read_removals(context.writing.connection) if one.state == "trash" and one.goes_at <= time.time()]
    for one in chosen:
        set_state(context.writing.connection, one.id, "emptying", by=context.author)
    if not chosen:
        return "nothing in the trash has reached its time"
    context.controls.move_files()
    size = sum(one.bytes_left for one in chosen) / 1e6
    said = f"{sum(one.n_left for one in chosen)} files, {size:.1f} MB, are deleted for good"
    context.notify(NoticeCause.REMOVED, f"{said}, as {context.author} asked")
    return said


def restore_files(context: CommandContext, command: RestoreFiles) -> str:
    """Note which removed files are wanted; the runner puts them back, or computes them again."""
    context.writing.flush()
    connection = context.writing.connection
    for step in command.steps:
        context.node(step)
    unit = None if command.unit is None else find_exposure(connection, command.unit)[0]
    table, result, revision = schema.removed_file, schema.result, schema.revision
    joined = table.join(result, result.c.key == table.c.key).join(revision, revision.c.id == result.c.revision)
    rows = connection.execute(select(table.c.ref, result.c.unit, revision.c.step).select_from(joined)).all()
    refs = [
        row.ref
        for row in rows
        if (not command.steps or row.step in command.steps)
        and (not command.kinds or kind_of_file(row.ref, whole=False) in command.kinds)
        and unit in (None, row.unit)
    ]
    if not refs:
        return "no file of this kind was removed"
    want_again(connection, refs, wanted=True)
    context.controls.compute_removed()
    context.notify(
        NoticeCause.REMOVED,
        f"{counted(len(refs), 'removed file', 'is/are')} restored, as {context.author} asked",
    )
    told = f"{counted(len(refs), 'file', 'is/are')} put back while the session is running"
    return f"{told}: from the trash, or computed again"


def note_raw_deletion(context: CommandContext, command: NoteRawDeletion) -> str:
    """Tell people what becomes of raw data."""
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(command.goes_at))
    size = f"{command.files} raw files, {command.bytes / 1e6:.1f} MB"
    said = {
        "asked": f"{size}, are deleted after {until}, unless that is withdrawn (no. {command.number})",
        "withdrawn": f"{size}, stay: their deletion (no. {command.number}) was withdrawn",
        "done": f"{size}, were deleted (no. {command.number})",
    }[command.stage] + (f"; {command.note}" if command.note else "")
    asked = f"{said}, as {context.author} asked" + (f": {command.reason}" if command.reason else "")
    context.writing.notify(Notify("warning", asked, cause=NoticeCause.REMOVED, by=context.author))
    return said


_STATES = {
    "moving": "is being moved to the trash",
    "trash": "is in the trash",
    "undoing": "is being undone",
    "undone": "was undone",
    "emptying": "is being deleted for good",
    "gone": "was deleted for good",
}


def _find(context: CommandContext, number: int) -> Removal:
    known = read_removals(context.writing.connection)
    found = next((one for one in known if one.id == number), None)
    if found is None:
        raise SessionError(f"removal {number}: is unknown; there are {', '.join(str(one.id) for one in known) or 'none'}")
    return found


def _check(session: Session, asked: Remove) -> None:
    unknown = [step for step in asked.steps if step not in session.document.steps]
    if unknown:
        raise SessionError(f"no step is called {unknown[0]!r}; known: {', '.join(session.document.steps)}")
    others = [kind for kind in asked.kinds if kind not in DERIVED]
    if others:
        how = "raw data are deleted by `--delete-raw`" if others[0] == "raw" else "their steps prune old versions by themselves"
        raise SessionError(f"{others[0]}: cannot be removed ({how}); it must be one of {', '.join(DERIVED)}")
