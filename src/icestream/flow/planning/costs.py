"""What results cost: seconds and bytes, taken from a sample of the newest results of the same step."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from icestream.flow.declaration import files_named_in, resolve_ref
from icestream.flow.storage import Session, json_text, outcome_rowid, schema

_N_TIMES = 101
_N_FILES = 20


@dataclass(frozen=True)
class Cost:
    """What one result of a step takes; unset where no result tells."""

    wall_s: float | None
    file_bytes: float | None


def cost_of(connection: Connection, session: Session, revisions: Sequence[int]) -> Cost:
    """Return the median seconds and the mean bytes on disk of the newest results of some revisions."""
    keys = [key for revision in revisions for key in _newest_keys(connection, revision)][:_N_TIMES]
    table = schema.result
    rows = connection.execute(select(table.c.wall_s, table.c.record).where(table.c.key.in_(keys))).all()
    if not rows:
        return Cost(None, None)
    sizes = [sum(_size_of(session, ref) for ref in files_named_in(row.record)) for row in rows[:_N_FILES]]
    return Cost(statistics.median(row.wall_s for row in rows), statistics.fmean(sizes))


def _newest_keys(connection: Connection, revision: int) -> list[str]:
    """Return the keys that a step's own newest results have: of its items, or of its versions."""
    outcome, snapshot = schema.outcome, schema.snapshot
    items = (outcome.c.revision == revision) & (outcome.c.status == "item")
    newest = select(json_text(outcome.c["keys"], "out")).where(items).order_by(outcome_rowid().desc()).limit(_N_TIMES)
    found = [key for key in connection.execute(newest).scalars() if key]
    if found:
        return found
    mine = (snapshot.c.revision == revision) & ~snapshot.c.pruned
    versions = select(snapshot.c.key).where(mine).order_by(snapshot.c.version.desc()).limit(_N_TIMES)
    return list(connection.execute(versions).scalars())


def _size_of(session: Session, ref: str) -> int:
    path = resolve_ref(session.roots, ref)
    return path.stat().st_size if path.is_file() else 0


def count_results(connection: Connection, revision: int) -> int:
    """Return how many results a revision refers to: its items, or its versions."""
    outcome, snapshot = schema.outcome, schema.snapshot
    items = (outcome.c.revision == revision) & (outcome.c.status == "item")
    versions = (snapshot.c.revision == revision) & ~snapshot.c.pruned
    n_versions = connection.execute(select(func.count()).select_from(snapshot).where(versions)).scalar_one()
    return int(n_versions or connection.execute(select(func.count()).select_from(outcome).where(items)).scalar_one())


def count_stale(connection: Connection, revision: int, units: Sequence[str]) -> tuple[int, int]:
    """Return how many of those that an accumulator took would have changed, were ``units`` to change; and how many it took."""
    outcome, stale = schema.outcome, schema.stale
    mine = (outcome.c.revision == revision) & (outcome.c.status == "item")
    taken = set(connection.execute(select(outcome.c.unit).where(mine)).scalars())
    changed = set(connection.execute(select(stale.c.unit).where(stale.c.revision == revision)).scalars())
    return len(changed | (taken & set(units))), len(taken)
