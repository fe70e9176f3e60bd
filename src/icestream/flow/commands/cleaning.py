"""Deleting what nothing refers to.

Rows go first, in a commit that survives a power cut; then the files. A crash between the two leaves files without a row, which
the next cleaning finds, and never a row without its files.
"""

import shutil
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, select

from icestream.errors import SessionError
from icestream.flow.commands.garbage import Rubbish, find_rubbish
from icestream.flow.commands.requests import Clean
from icestream.flow.scheduling import instructions
from icestream.flow.storage import schema
from icestream.flow.storage.read_connection import reading
from icestream.flow.storage.session import Session, resolve_ref
from icestream.flow.storage.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner

_CHUNK = 500
_REFERRING = (
    schema.outcome,
    schema.binding,
    schema.snapshot,
    schema.gate_opening,
    schema.gate_clock,
    schema.batch,
    schema.accumulator_log,
    schema.stale,
)


def clean(runner: "Runner", writing: Writing, command: Clean, author: str) -> str:
    """Delete the rows now and the files after the commit; refused while a worker may be reading or writing one of them."""
    if runner.running:
        raise SessionError(
            f"{len(runner.running)} are running; pause the session (`icestream pause`), wait until they end, then clean"
        )
    writing.flush()
    connection = writing.connection
    rubbish = find_rubbish(connection, runner.session, old_revisions=command.old_revisions)
    if command.old_revisions:
        _drop_frozen(connection)
    keys = list(rubbish.results)
    for start in range(0, len(keys), _CHUNK):
        connection.execute(delete(schema.result).where(schema.result.c.key.in_(keys[start : start + _CHUNK])))
    for key in keys:
        runner.task_builder.records.drop(key)
    runner.files_to_drop += [f"session:{path}" for path in [*rubbish.files, *rubbish.checkpoints]]
    said = describe_rubbish(rubbish)
    writing.notify(instructions.Notify("info", f"cleaned up, as {author} asked: {said}"))
    return said


def describe_rubbish(rubbish: Rubbish) -> str:
    """Return in one line how much it is."""
    size = sum(rubbish.files.values()) + sum(rubbish.checkpoints.values())
    parts = [f"{len(rubbish.results)} results", f"{len(rubbish.files)} files"]
    parts += [f"{len(rubbish.checkpoints)} checkpoints"] if rubbish.checkpoints else []
    return f"{', '.join(parts)}, {size / 1e6:.1f} MB"


def _drop_frozen(connection: Connection) -> None:
    """Drop what frozen revisions refer to; the revisions themselves stay, for the history."""
    frozen = select(schema.revision.c.id).where(schema.revision.c.state == "frozen")
    for table in _REFERRING:
        connection.execute(delete(table).where(table.c.revision.in_(frozen)))


def drop_file(session: Session, ref: str) -> None:
    """Delete a file, or the folder of a checkpoint, that nothing refers to; what is gone already is fine."""
    path = resolve_ref(session.roots, ref)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def plan_cleaning(session: Session, *, old_revisions: bool) -> Rubbish:
    """Return what `clean` would delete now; nothing is changed, and a runner may be at work.

    Raises
    ------
    WorkflowError
        The workflow cannot run, so nobody can tell what it needs.
    """
    with reading(session) as connection:
        return Rubbish() if connection is None else find_rubbish(connection, session, old_revisions=old_revisions)
