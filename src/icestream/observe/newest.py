"""The newest outcomes of a step, and what is counted over all of them, at a cost that does not grow with the session."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, RowMapping, Select, func, literal_column, select

from icestream.flow.storage import json_text, outcome_rowid, schema

_TAIL = 4000
"""The newest rows are looked for among so many at the end of the sequence first, and 200 more for each that is wanted."""

UNINDEXED_REVISION = literal_column("+outcome.revision", Integer)
"""The revision of an outcome, which no index may be used for: the end of the sequence is short."""


def read_newest(
    connection: Connection, columns: Sequence[ColumnElement[Any]], revision: int, *, status: str = "item", limit: int
) -> list[RowMapping]:
    """Return columns of the newest outcomes of a revision, newest first.

    They are near the end of the change sequence as long as the step keeps up; the whole index is sorted only where they are not.
    """
    outcome = schema.outcome
    last = connection.execute(select(func.max(outcome.c.seq))).scalar() or 0
    near = (UNINDEXED_REVISION.op("=")(revision), outcome.c.status == status, outcome.c.seq > last - _TAIL - 200 * limit)
    found = connection.execute(_join(columns).where(*near).order_by(outcome.c.seq.desc()).limit(limit)).mappings().all()
    if len(found) == limit:
        return list(found)
    everywhere = (outcome.c.revision == revision) & (outcome.c.status == status)
    return list(connection.execute(_join(columns).where(everywhere).order_by(outcome_rowid().desc()).limit(limit)).mappings())


def _join(columns: Sequence[ColumnElement[Any]]) -> Select[Any]:
    outcome, exposure = schema.outcome, schema.exposure
    query = select(*columns)
    if any(column.table is exposure for column in columns if hasattr(column, "table")):
        return query.select_from(outcome.outerjoin(exposure, exposure.c.unit == outcome.c.unit))
    return query.select_from(outcome)


@dataclass
class _Tally:
    seq: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Unit → its counts."""
    total: dict[str, int] = field(default_factory=dict)

    def put(self, unit: str, counts: dict[str, int] | None) -> None:
        """Let a unit have these counts now, instead of those it had."""
        for reason, count in self.counts.pop(unit, {}).items():
            self.total[reason] -= count
        if counts is not None:
            self.counts[unit] = counts
            for reason, count in counts.items():
                self.total[reason] = self.total.get(reason, 0) + count


@dataclass
class Tallies:
    """Counts by reason, added up over all exposures of a step; one that is kept reads only what has changed since."""

    known: dict[tuple[int, str], _Tally] = field(default_factory=dict)

    def add_up(self, connection: Connection, revision: int, path: str) -> dict[str, int]:
        """Return reason → count; the field at ``path`` is a list of both."""
        outcome = schema.outcome
        tally = self.known.setdefault((revision, path), _Tally())
        self._follow(connection, tally, revision, path)
        mine = (outcome.c.revision == revision) & (outcome.c.status == "item")
        if len(tally.counts) != connection.execute(select(func.count()).select_from(outcome).where(mine)).scalar_one():
            tally = self.known[revision, path] = _Tally()  # something was taken back
            self._follow(connection, tally, revision, path)
        return dict(tally.total)

    def _follow(self, connection: Connection, tally: _Tally, revision: int, path: str) -> None:
        outcome, result = schema.outcome, schema.result
        rows = connection.execute(
            select(outcome.c.unit, outcome.c.status, outcome.c.seq, json_text(result.c.record, path))
            .select_from(outcome.outerjoin(result, result.c.key == json_text(outcome.c["keys"], "out")))
            .where(((UNINDEXED_REVISION if tally.seq else outcome.c.revision) == revision) & (outcome.c.seq > tally.seq))
            .order_by(outcome.c.seq)
        )
        for unit, status, seq, listed in rows:
            tally.seq = seq
            tally.put(unit, _count(json.loads(listed or "[]")) if status == "item" else None)


def _count(parts: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in parts:
        counts[part["reason"]] = counts.get(part["reason"], 0) + part["count"]
    return counts
