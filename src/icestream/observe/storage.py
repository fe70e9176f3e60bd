"""What a session holds on the disk, by kind and step: how much of it can be computed again, and how fast it grows."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, func, select

from icestream.errors import WorkflowError
from icestream.files import SESSION_FOLDERS
from icestream.flow.commands.rejected import find_rejected
from icestream.flow.declaration import RESULTS
from icestream.flow.storage import FILE_KINDS, FileKind, Removal, Session, read_removals, reading, schema
from icestream.flow.workflow import Graph, may_repeat
from icestream.observe.file_sizes import FileSizes, mark_units, read_note

GROWTH_S = 3600.0
OTHER = "other"
_NO_RESULTS = sorted({*SESSION_FOLDERS, "checkpoints"} - {RESULTS})


@dataclass(frozen=True)
class Held:
    """The files of one kind: how many, how large, and how much of that can be computed again or is of rejected exposures."""

    kind: str
    files: int
    bytes: int
    again_bytes: int
    rejected_bytes: int


@dataclass(frozen=True)
class HeldByStep:
    """The files of one kind that one step has written; ``old_bytes`` are of revisions that were replaced."""

    step: str
    kind: FileKind
    files: int
    bytes: int
    old_bytes: int
    again: bool
    """Results of this step can be computed again."""


@dataclass(frozen=True)
class Holding:
    """What a session holds."""

    kinds: tuple[Held, ...]
    steps: tuple[HeldByStep, ...]
    removals: tuple[Removal, ...]
    trash_bytes: int
    """In the trash: they count until they have gone for good."""
    removed_bytes: int
    """Of files that have gone for good and can be computed again."""
    bytes_per_hour: float | None
    """By which the results grew in the newest hour."""
    free_bytes: int
    seen_at: float | None
    complete: bool
    """Every result has been looked at; otherwise these are sums so far."""

    @property
    def bytes(self) -> int:
        """All of it but raw data outside the session."""
        return sum(one.bytes for one in self.kinds if one.kind != "raw") + self.trash_bytes


def read_holding(session: Session, sizes: FileSizes, *, seconds: float | None = None) -> Holding:
    """Return what a session holds, after looking for new files for at most about ``seconds``.

    Raises
    ------
    SessionError
        The store cannot be read.
    """
    complete = sizes.refresh(seconds=seconds)
    with reading(session) as connection:
        removals = [] if connection is None else read_removals(connection)
        raw = (0, 0) if connection is None else _raw(connection)
        graph, active = _graph(session), {} if connection is None else _active(connection)
        known = {step: id for step, id in active.items() if graph is not None and step in graph.nodes}
        rejected = set() if connection is None or graph is None else find_rejected(connection, graph, known)
    repeatable = {known[step]: step for step in known if graph is not None and may_repeat(graph.nodes[step])}
    in_trash = [one for one in removals if one.state in ("moving", "trash", "undoing", "emptying")]
    with sizes.open() as index:
        mark_units(index, rejected)
        rows = index.execute(
            "SELECT step, kind, revision, count(*), sum(bytes), "
            "sum(CASE WHEN unit IN (SELECT unit FROM marked) THEN bytes ELSE 0 END) "
            "FROM file GROUP BY step, kind, revision ORDER BY step, kind"
        ).fetchall()
        growth = _growth(index)
        seen_at = read_note(index, "seen_at")
    return Holding(
        kinds=_by_kind(rows, repeatable, raw, _other(session)),
        steps=_by_step(rows, set(active.values()), repeatable),
        removals=tuple(removals),
        trash_bytes=sum(one.bytes_left for one in in_trash),
        removed_bytes=sum(one.bytes_left for one in removals if one.state == "gone"),
        bytes_per_hour=growth,
        free_bytes=shutil.disk_usage(session.folder).free,
        seen_at=None if seen_at is None else float(seen_at),
        complete=complete,
    )


_Row = tuple[str, FileKind, int, int, int, int]
"""Step, kind, revision, files, bytes, bytes of rejected exposures."""


def _by_kind(rows: list[_Row], repeatable: dict[int, str], raw: tuple[int, int], other: tuple[int, int]) -> tuple[Held, ...]:
    found = [Held("raw", *raw, 0, 0)] if raw[0] else []
    for kind in FILE_KINDS:
        mine = [row for row in rows if row[1] == kind]
        if mine:
            again = sum(row[4] for row in mine if row[2] in repeatable)
            found.append(Held(kind, sum(row[3] for row in mine), sum(row[4] for row in mine), again, sum(row[5] for row in mine)))
    return (*found, Held(OTHER, *other, 0, 0))


def _by_step(rows: list[_Row], active: set[int], repeatable: dict[int, str]) -> tuple[HeldByStep, ...]:
    groups: dict[tuple[str, FileKind], list[_Row]] = {}
    for row in rows:
        groups.setdefault((row[0], row[1]), []).append(row)
    return tuple(
        HeldByStep(
            step,
            kind,
            sum(row[3] for row in mine),
            sum(row[4] for row in mine),
            sum(row[4] for row in mine if row[2] not in active),
            step in repeatable.values(),
        )
        for (step, kind), mine in groups.items()
    )


def _growth(index: sqlite3.Connection) -> float | None:
    newest = index.execute("SELECT max(at) FROM file").fetchone()[0]
    if newest is None or time.time() - newest > GROWTH_S:
        return None
    since = newest - GROWTH_S
    first, total = index.execute("SELECT min(at), sum(bytes) FROM file WHERE at > ?", (since,)).fetchone()
    span = newest - first
    return float(total) * GROWTH_S / span if span > GROWTH_S / 60 else None


def _raw(connection: Connection) -> tuple[int, int]:
    """Return how many raw files the session has taken, and their bytes, at the newest size of each."""
    table = schema.source_file
    newest = select(table.c.ref, func.max(table.c.size_bytes).label("size")).group_by(table.c.ref).subquery()
    count, total = connection.execute(select(func.count(), func.coalesce(func.sum(newest.c.size), 0)).select_from(newest)).one()
    return int(count), int(total)


def _active(connection: Connection) -> dict[str, int]:
    table = schema.revision
    return {row.step: row.id for row in connection.execute(select(table.c.step, table.c.id).where(table.c.state == "active"))}


def _graph(session: Session) -> Graph | None:
    """Return the workflow; None where it cannot run, so that nothing can be computed again."""
    try:
        return session.graph()
    except WorkflowError:
        return None


def _other(session: Session) -> tuple[int, int]:
    """Return how many files there are beside results, and their bytes: the store, exports, the report, logs."""
    folders = [session.folder / name for name in _NO_RESULTS]
    sizes = [size for folder in folders for size in _sizes_below(folder)]
    entries = [entry for entry in os.scandir(session.folder) if entry.is_file(follow_symlinks=False)]
    sizes += [entry.stat(follow_symlinks=False).st_size for entry in entries]
    return len(sizes), sum(sizes)


def _sizes_below(folder: Path) -> Iterable[int]:
    if folder.is_symlink():
        return
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.lstat(os.path.join(where, name)).st_size  # noqa: PTH118 - there may be very many
            except OSError:  # deleted meanwhile
                continue
