"""What nothing refers to: results, files, checkpoints; finding it, and deleting it.

Rows go first, in a commit that survives a power cut; then the files. A crash between the two leaves files without a row, which
the next cleaning finds, and never a row without its files.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, select

from icestream.counting import counted
from icestream.errors import SessionError
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.requests import Clean
from icestream.flow.declaration import files_named_in, resolve_ref
from icestream.flow.planning.dry_run import DryRun
from icestream.flow.planning.planned_revisions import plan_revisions
from icestream.flow.scheduling import NoticeCause
from icestream.flow.storage import TRASH, Session, forget_removed, load_replaced, reading, schema

STEPS, CHECKPOINTS = "steps", "checkpoints"
_FILE = re.compile(r'"session:(steps/[^"\\]*)"')
_CHUNK = 500
_ESCAPED = re.compile(r'"session:steps/[^"\\]*\\')

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


@dataclass
class Garbage:
    """What can go."""

    results: dict[str, str] = field(default_factory=dict)
    """Key → the step that made it."""
    files: dict[str, int] = field(default_factory=dict)
    """Path relative to the session → bytes."""
    checkpoints: dict[str, int] = field(default_factory=dict)
    """Folder relative to the session → bytes."""

    @property
    def sentence(self) -> str:
        """How much it is, in one line."""
        size = sum(self.files.values()) + sum(self.checkpoints.values())
        parts = [counted(len(self.results), "result"), counted(len(self.files), "file")]
        parts += [counted(len(self.checkpoints), "checkpoint")] if self.checkpoints else []
        return f"{', '.join(parts)}, {size / 1e6:.1f} MB"

    def by_step(self) -> "list[StepGarbage]":
        """Return how much of it belongs to which step."""
        results = Counter(self.results.values())
        files: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for path, size in self.files.items():
            step = path.split("/")[1]
            files[step] += 1
            sizes[step] += size
        found = [StepGarbage(step, results[step], files[step], sizes[step]) for step in sorted({*results, *files})]
        if self.checkpoints:
            found.append(StepGarbage(CHECKPOINTS, 0, len(self.checkpoints), sum(self.checkpoints.values())))
        return found


@dataclass(frozen=True)
class StepGarbage:
    """What can go of one step: results in the store, files on the disk, their bytes."""

    step: str
    results: int
    files: int
    bytes: int


def find_garbage(connection: Connection, session: Session, *, old_revisions: bool) -> Garbage:
    """Return the results, files and checkpoints that nothing needs.

    A result is needed while an outcome, a version, a binding, a batch or an accumulator's log names it, or, among the results of
    frozen revisions that are to go, while the present workflow would take it over. Unless those are to go, a result whose place
    one with parameters of its own has taken is needed, too.
    """
    needed = _named_keys(connection, active_only=old_revisions)
    if old_revisions:
        needed |= _wanted_keys(connection, session)
    table, revision = schema.result, schema.revision
    made_by: dict[int, str] = {row.id: row.step for row in connection.execute(select(revision.c.id, revision.c.step))}
    rows = connection.execute(select(table.c.key, table.c.revision))
    found = Garbage(results={key: made_by[made] for key, made in rows if key not in needed})
    named = _named_files(connection, found.results, active_only=old_revisions)
    found.files = {path: size for path, size in _walk(session.folder, STEPS) if path not in named}
    found.checkpoints = dict(_finished_checkpoints(connection, session.folder))
    return found


def _named_keys(connection: Connection, *, active_only: bool) -> set[str]:
    """Return every key that some row names."""
    outcome, batch, log = schema.outcome, schema.batch, schema.accumulator_log
    keys: set[str] = set() if active_only else load_replaced(connection)
    for (text,) in connection.execute(_of(outcome, select(outcome.c["keys"]), active_only)):
        keys.update(json.loads(text).values())
    for table in (schema.snapshot, schema.binding):
        keys.update(connection.execute(_of(table, select(table.c.key), active_only)).scalars())
    for table in (batch, log):
        for (text,) in connection.execute(_of(table, select(table.c.members), active_only)):
            keys.update(key for _, named in json.loads(text) for key in named.values())
    return keys


def _of(table: Table, query: Select[Any], active_only: bool) -> Select[Any]:
    active = select(schema.revision.c.id).where(schema.revision.c.state == "active")
    return query.where(table.c.revision.in_(active)) if active_only else query


def _wanted_keys(connection: Connection, session: Session) -> set[str]:
    """Return the results that exposures which are not settled yet would take over from frozen revisions."""
    graph, acquisition = session.graph(), session.document.acquisition.model_dump(exclude_none=True)
    steps = plan_revisions(connection, graph, acquisition)
    tallies = DryRun(connection, graph, steps, acquisition).look(unsettled_only=True)
    return {key for tally in tallies.values() for key in tally.reused_keys}


def _named_files(connection: Connection, dropped: dict[str, str], *, active_only: bool) -> set[str]:
    """Return the files that the results which stay and the states of accumulators name; a pruned version's files are gone."""
    table, snapshot, log = schema.result, schema.snapshot, schema.accumulator_log
    pruned = set(connection.execute(select(snapshot.c.key).where(snapshot.c.pruned)).scalars())
    pruned -= set(connection.execute(select(snapshot.c.key).where(~snapshot.c.pruned)).scalars())
    named: set[str] = set()
    with_files = select(table.c.key, table.c.record).where(table.c.record.contains("session:steps/"))
    for key, record in connection.execute(with_files):
        if key not in dropped and key not in pruned:
            named.update(_files_in(record))
    for (state,) in connection.execute(_of(log, select(log.c.state).where(log.c.state.is_not(None)), active_only)):
        named.update(_files_in(state))
    return named


def _files_in(record: str) -> list[str]:
    if _ESCAPED.search(record):
        return [ref.removeprefix("session:") for ref in files_named_in(record)]
    return _FILE.findall(record)


def _walk(folder: Path, below: str) -> Iterator[tuple[str, int]]:
    """Give every regular file below a folder of the session, with its size; links are not followed and not touched."""
    for where, folders, names in os.walk(folder / below):
        folders[:] = [name for name in folders if name != TRASH]
        for name in names:
            path = Path(where, name)
            if path.is_file() and not path.is_symlink():
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def _finished_checkpoints(connection: Connection, folder: Path) -> Iterator[tuple[str, int]]:
    """Give the checkpoint folders of results that are there: nobody will go on from them."""
    table = schema.result
    place = folder / CHECKPOINTS
    for one in sorted(place.iterdir()) if place.is_dir() else ():
        there = connection.execute(select(table.c.key).where(table.c.key == one.name)).first()
        if there is not None and one.is_dir() and not one.is_symlink():
            relative = one.relative_to(folder).as_posix()
            yield relative, sum(size for _, size in _walk(folder, relative))


def clean(context: CommandContext, command: Clean) -> str:
    """Delete the rows now and the files after the commit; refused while a worker may be reading or writing one of them."""
    running = context.controls.running()
    if running:
        raise SessionError(
            f"{counted(len(running), 'call', 'is/are')} running; pause the session (`icestream pause`), wait until nothing is "
            "running, then clean up"
        )
    context.writing.flush()
    connection = context.writing.connection
    garbage = find_garbage(connection, context.workflow.session, old_revisions=command.old_revisions)
    if command.old_revisions:
        _drop_frozen(connection)
    keys = list(garbage.results)
    for start in range(0, len(keys), _CHUNK):
        connection.execute(delete(schema.result).where(schema.result.c.key.in_(keys[start : start + _CHUNK])))
    forget_removed(connection, keys=keys)
    context.controls.drop(keys, [f"session:{path}" for path in [*garbage.files, *garbage.checkpoints]])
    said = garbage.sentence
    context.notify(NoticeCause.CLEANED, f"cleaned up, as {context.author} asked: {said}")
    return said


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


def plan_cleaning(session: Session, *, old_revisions: bool) -> Garbage:
    """Return what `clean` would delete now; nothing is changed, and a runner may be at work.

    Raises
    ------
    WorkflowError
        The workflow cannot run, so nobody can tell what it needs.
    """
    with reading(session) as connection:
        return Garbage() if connection is None else find_garbage(connection, session, old_revisions=old_revisions)
