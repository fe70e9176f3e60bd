"""Which files of a session's results can go without being missed: nothing needs them now, and they can be computed again."""

import json
import os
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import Connection, Row, func, select

from icestream.counting import counted
from icestream.flow.commands.rejected import find_rejected
from icestream.flow.commands.requests import Remove
from icestream.flow.declaration import files_named_in, resolve_ref
from icestream.flow.storage import (
    FileKind,
    PlainResults,
    Revision,
    Session,
    find_removed,
    fingerprint_of,
    kind_of_file,
    removed_refs,
    schema,
)
from icestream.flow.workflow import Graph, may_repeat

DERIVED: tuple[FileKind, ...] = ("micrographs", "particles", "thumbnails", "metadata")
"""What may be removed by kind; versions of wholes are pruned by their steps, raw data have a way of their own."""

NEEDED = "an exposure is still being processed"
IN_BATCH = "a batch has not been processed yet"
EXPORTED = "an export leads to it"
NOT_AGAIN = "it cannot be computed again"
NO_FILE = "it is missing, or a link"
_PAGE = 500
BROUGHT_BACK = "it was put back, or computed again, not long enough ago"
_COMMIT_S = 60.0
"""A file that was written so long after its result was noted was put back, or computed again."""


_Result: TypeAlias = Row[Any, Any, Any, Any, Any, Any]
"""A row of a result: its key, revision, unit, record, seconds and moment."""


@dataclass(frozen=True)
class RemovableFile:
    """A file that can go."""

    ref: str
    key: str
    unit: str
    step: str
    kind: FileKind
    size_bytes: int


@dataclass
class Removable:
    """What a removal would take, and why other files that were meant stay."""

    files: list[RemovableFile] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)
    """Reason → files."""
    seconds: float = 0.0
    """How long the results took to compute, on one worker after the other."""
    exposures: int = 0

    @property
    def n_bytes(self) -> int:
        """How much disk is freed once the files have gone for good."""
        return sum(one.size_bytes for one in self.files)

    @property
    def sentence(self) -> str:
        """How much it is, in one line."""
        return f"{counted(len(self.files), 'file')}, {self.n_bytes / 1e6:.1f} MB"

    def by_step(self) -> "list[RemovableLine]":
        """Return how much of it is of which step and kind."""
        counts: Counter[tuple[str, FileKind]] = Counter()
        sizes: Counter[tuple[str, FileKind]] = Counter()
        for one in self.files:
            counts[one.step, one.kind] += 1
            sizes[one.step, one.kind] += one.size_bytes
        return [RemovableLine(step, kind, counts[step, kind], sizes[step, kind]) for step, kind in sorted(counts)]


@dataclass(frozen=True)
class RemovableLine:
    """How much of one step and kind can go."""

    step: str
    kind: FileKind
    files: int
    bytes: int


def find_removable(connection: Connection, session: Session, asked: Remove, *, now: float | None = None) -> Removable:
    """Return the files that are meant and can go.

    A file stays while a step may still read it, while an export leads to it, and, unless ``asked`` says so, where what made it
    cannot be repeated: its workflow was edited since, or its raw data are gone.

    Raises
    ------
    WorkflowError
        The workflow cannot run, so nobody can tell what it needs.
    """
    graph = session.graph()
    looking = _Looking(connection, session, graph, asked, time.time() if now is None else now)
    found = Removable()
    units = set()
    for row in _results(connection, looking):
        named = [ref for ref in files_named_in(row.record) if ref.startswith(looking.folder_of[row.revision])]
        meant = [(ref, kind) for ref in named if (kind := kind_of_file(ref, whole=False)) in looking.kinds]
        meant = [(ref, kind) for ref, kind in meant if ref not in looking.gone]
        reason = looking.why_kept(row) if meant else None
        if reason is not None:
            found.kept[reason] += len(meant)
            continue
        taken = [one for ref, kind in meant if (one := _look_at(looking, row, ref, kind, found)) is not None]
        if taken:
            found.files += taken
            found.seconds += row.wall_s
            units.add(row.unit)
    found.exposures = len(units)
    return found


def _look_at(looking: "_Looking", row: _Result, ref: str, kind: FileKind, found: Removable) -> RemovableFile | None:
    size = looking.plain.size_of(ref)
    if size is None:
        found.kept[NO_FILE] += 1
        return None
    if looking.exported and looking.plain.real(ref) in looking.exported:
        found.kept[EXPORTED] += 1
        return None
    if looking.is_brought_back(ref, row.created_at):
        found.kept[BROUGHT_BACK] += 1
        return None
    return RemovableFile(ref, row.key, row.unit, looking.steps[row.revision], kind, size)


def _results(connection: Connection, looking: "_Looking") -> Iterator[_Result]:
    """Give the results of single units that name files of the session and are meant, page by page."""
    table, snapshot = schema.result, schema.snapshot
    columns = (table.c.key, table.c.revision, table.c.unit, table.c.record, table.c.wall_s, table.c.created_at)
    meant = table.c.record.contains("session:steps/") & (table.c.created_at <= looking.before)
    single = table.c.key.not_in(select(snapshot.c.key)) & table.c.revision.in_(looking.steps)
    yield from connection.execute(select(*columns).where(meant & single)).yield_per(1000)


class _Looking:
    """What is known of a session while its results are looked at one after the other."""

    def __init__(self, connection: Connection, session: Session, graph: Graph, asked: Remove, now: float) -> None:
        revision = schema.revision
        rows = connection.execute(select(revision.c.id, revision.c.step, revision.c.number, revision.c.state)).all()
        wanted = set(asked.steps) or {row.step for row in rows}
        self.steps = {row.id: row.step for row in rows if row.step in wanted}
        self.folder_of = {row.id: f"session:steps/{row.step}/{row.number}/" for row in rows}
        self.active = {row.step: row.id for row in rows if row.state == "active" and row.step in graph.nodes}
        self.graph, self.session, self.asked = graph, session, asked
        self.kinds: Collection[FileKind] = asked.kinds or DERIVED
        self.now, self.before = now, now - 3600 * asked.older_than_hours
        self.gone = removed_refs(connection)
        self.plain = PlainResults(session.folder)
        self.exported = set(exported_targets(session.folder))
        self.settled = settled_units(connection, self.active)
        self.rejected = find_rejected(connection, graph, self.active) if asked.rejected else None
        self._busy = {step for step in self.active if _waits_in_batches(connection, graph, step, self.active)}
        self._keys = {step: _keys_of(connection, self.active[step]) for step in self._repeatable()}
        self._raw = _RawFiles(connection, session)

    def why_kept(self, row: _Result) -> str | None:
        """Return why the files of a result stay, or None if they can go."""
        step = self.steps[row.revision]
        if self.rejected is not None and row.unit not in self.rejected:
            return "its exposure was not rejected"
        if row.unit not in self.settled:
            return NEEDED
        if step in self._busy:
            return IN_BATCH
        if not self.asked.even_if_lost and not (self._is_repeatable(step, row) and self._raw.are_there(row.unit)):
            return NOT_AGAIN
        return None

    def is_brought_back(self, ref: str, noted_at: float) -> bool:
        """Tell whether a file was put back, or computed again, so lately that it is too young.

        Its age counts from then. A rule leaves it alone at least as long as what it removes can be undone: somebody wanted it.
        """
        back_at = self.plain.changed_at(ref)
        waits_h = max(self.asked.older_than_hours, self.asked.undo_hours if self.asked.rule else 0.0)
        return back_at > noted_at + _COMMIT_S and back_at > self.now - 3600 * waits_h

    def _is_repeatable(self, step: str, row: _Result) -> bool:
        """Tell whether a result is the one that the step has now, or had before its exposure was taken out upstream."""
        keys = self._keys.get(step)
        if keys is None:
            return False
        now = keys.get(row.unit)
        return bool(now == row.key) if now is not None else bool(row.revision == self.active[step])

    def _repeatable(self) -> list[str]:
        return [name for name in self.active if may_repeat(self.graph.nodes[name])]


def _keys_of(connection: Connection, revision: int) -> dict[str, str]:
    """Return exposure → the result that the active revision of a step has now."""
    outcome = schema.outcome
    mine = (outcome.c.revision == revision) & (outcome.c.status == "item")
    rows = connection.execute(select(outcome.c.unit, outcome.c["keys"]).where(mine))
    return {unit: json.loads(text).get("out", "") for unit, text in rows}


def settled_units(connection: Connection, active: dict[str, int], *, among: Collection[str] | None = None) -> set[str]:
    """Return the exposures, or those of some, about which every step of the present workflow has decided."""
    stand_ins = {step: Revision(id, step, 0, "", 0, 0, {}) for step, id in active.items()}
    table = schema.exposure
    query = select(table.c.unit).where(table.c.settled_by == fingerprint_of(stand_ins))
    return set(connection.execute(query if among is None else query.where(table.c.unit.in_(among))).scalars())


def keep_needed(connection: Connection, graph: Graph, active: dict[str, int], found: Removable) -> None:
    """Take out of what was found before whatever is needed, or away, by now; in pages, and without a look at the disk."""
    busy = {
        step for step in {one.step for one in found.files} & set(active) if _waits_in_batches(connection, graph, step, active)
    }
    files, found.files = found.files, []
    for start in range(0, len(files), _PAGE):
        page = files[start : start + _PAGE]
        settled = settled_units(connection, active, among={one.unit for one in page})
        away = {one.ref for one in find_removed(connection, [one.ref for one in page])}
        free = [one for one in page if one.unit in settled and one.step not in busy]
        found.files += [one for one in free if one.ref not in away]
        found.kept[IN_BATCH] += sum(one.step in busy for one in page)
        found.kept[NEEDED] += sum(one.unit not in settled and one.step not in busy for one in page)
    found.kept += Counter()  # reasons of no file


def _waits_in_batches(connection: Connection, graph: Graph, step: str, active: dict[str, int]) -> bool:
    """Tell whether a batch of what a step has made has not been processed by every step that takes batches."""
    outcome, batch = schema.outcome, schema.batch
    for name in graph.descendants(step) - {step}:
        domain = graph.nodes[name].domain.removeprefix("batch:")
        if domain not in active or name not in active:
            continue
        closed = connection.execute(
            select(func.count()).select_from(batch).where(batch.c.revision == active[domain])
        ).scalar_one()
        mine = outcome.c.revision == active[name]
        if connection.execute(select(func.count()).select_from(outcome).where(mine)).scalar_one() < closed:
            return True
    return False


def exported_targets(folder: Path) -> Iterator[str]:
    """Give where the links of exported projects lead."""
    for where, folders, names in os.walk(folder / "exports"):
        for name in (*names, *folders):
            path = os.path.join(where, name)  # noqa: PTH118 - there may be very many
            if os.path.islink(path):  # noqa: PTH114
                yield os.path.realpath(path)


class _RawFiles:
    """Whether the raw file of an exposure is still there."""

    def __init__(self, connection: Connection, session: Session) -> None:
        table = schema.source_file
        self._refs = {row.unit: row.ref for row in connection.execute(select(table.c.unit, table.c.ref))}
        self._roots = session.roots

    def are_there(self, unit: str) -> bool:
        ref = self._refs.get(unit)
        return ref is None or (ref.partition(":")[0] in self._roots and resolve_ref(self._roots, ref).exists())
