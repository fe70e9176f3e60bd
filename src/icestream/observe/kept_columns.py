"""Columns of the records of a step, kept between looks: of a long session only what is new is read again."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, null, select

from icestream.flow.storage import Session, json_number, json_text, schema
from icestream.observe.newest import UNINDEXED_REVISION

MOST_ROWS = 500_000
"""So many rows are kept in all, those of the columns that were asked for last."""


@dataclass
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    seq: int = 0
    """The change to which the rows are complete."""


@dataclass
class KeptColumns:
    """Keeps columns of sessions in memory; what it returns is what the store has now."""

    _kept: "OrderedDict[tuple[object, ...], _Kept]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(
        self,
        session: Session,
        connection: Connection,
        revision: int,
        numbers: Sequence[str | None],
        texts: Sequence[str | None] = (),
    ) -> list[tuple[Any, ...]]:
        """Return a row for each exposure that has a record of a revision, in their order: its number, numbers, and texts.

        ``numbers`` and ``texts`` are paths into the record; None is an empty column.
        """
        begun = connection.execute(select(schema.revision.c.created_at).where(schema.revision.c.id == revision)).scalar()
        place = (str(session.store_at), session.folder, revision, begun)  # a new session of the same name begins at another time
        kept = self._of((*place, tuple(numbers), tuple(texts)))
        with kept.lock:
            newest = int(connection.execute(select(func.max(schema.outcome.c.seq))).scalar() or 0)
            if newest < kept.seq:  # another store is at this place
                kept.rows, kept.seq = {}, 0
            _take(connection, revision, numbers, texts, kept)
            if len(kept.rows) != _count(connection, revision):  # something was withdrawn
                kept.rows, kept.seq = {}, 0
                _take(connection, revision, numbers, texts, kept)
            kept.seq = newest
            self._forget_oldest()
            return [(ordinal, *kept.rows[ordinal]) for ordinal in sorted(kept.rows)]

    def _of(self, key: tuple[object, ...]) -> _Kept:
        with self._lock:
            kept = self._kept.pop(key, None) or _Kept()
            self._kept[key] = kept
            return kept

    def _forget_oldest(self) -> None:
        with self._lock:
            while len(self._kept) > 1 and sum(len(one.rows) for one in self._kept.values()) > MOST_ROWS:
                self._kept.popitem(last=False)


def _take(connection: Connection, revision: int, numbers: Sequence[str | None], texts: Sequence[str | None], kept: _Kept) -> None:
    """Take what was decided since the last look; an exposure that has no record any more goes."""
    outcome, exposure, result = schema.outcome, schema.exposure, schema.result
    columns: list[ColumnElement[Any]] = [json_number(result.c.record, path) if path else null() for path in numbers]
    columns += [json_text(result.c.record, path) if path else null() for path in texts]
    of_revision = UNINDEXED_REVISION.op("=")(revision) if kept.seq else outcome.c.revision == revision
    rows = connection.execute(
        select(exposure.c.ordinal, outcome.c.status, *columns)
        .select_from(
            outcome.join(exposure, exposure.c.unit == outcome.c.unit).outerjoin(
                result, result.c.key == json_text(outcome.c["keys"], "out")
            )
        )
        .where(of_revision, outcome.c.seq > kept.seq)
    )
    for ordinal, status, *values in rows:
        if status == "item":
            kept.rows[ordinal] = tuple(values)
        else:
            kept.rows.pop(ordinal, None)


def _count(connection: Connection, revision: int) -> int:
    """Count the exposures that have a record of a revision."""
    outcome = schema.outcome
    mine = (outcome.c.revision == revision) & (outcome.c.status == "item")
    return int(connection.execute(select(func.count()).select_from(outcome).where(mine)).scalar_one())


KEPT = KeptColumns()
