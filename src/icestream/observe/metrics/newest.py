"""The newest results of each step: what they measured, what they cost, and how long after its exposure each was there."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Integer, literal_column, select

from icestream.flow.storage import json_text, schema
from icestream.observe.catalog import Catalog
from icestream.observe.metrics.measured import measured_values
from icestream.observe.one_exposure import published_pictures
from icestream.observe.order import ActiveRevision

NEWEST = 50
"""So many results are looked at."""


@dataclass(frozen=True)
class Seen:
    """One result; ``record_type`` is unset where the step passed on what another has made."""

    latency_s: float | None
    wall_s: float | None = None
    cpu_s: float | None = None
    record_type: str | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """Metric → value."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Field → title of the pictures that were published."""


@dataclass
class Newest:
    """The newest results of one session, by the id of a revision; only what is new is read."""

    _seen: dict[int, deque[Seen]] = field(default_factory=dict)

    def follow(self, reader: "ResultReader", revision: ActiveRevision, *, since_seq: int, new: int) -> None:
        """Read the ``new`` items of a revision after a number of the change sequence; all again where that is 0."""
        mine = self._seen.setdefault(revision.id, deque(maxlen=NEWEST))
        if since_seq == 0:
            mine.clear()
        if new:
            mine.extend(reversed(reader.read(revision, since_seq=since_seq, limit=min(new, NEWEST))))

    def of(self, revision: int) -> tuple[Seen, ...]:
        """Return the newest results of a revision, the oldest first."""
        return tuple(self._seen.get(revision, ()))

    def forget(self, active: set[int]) -> None:
        """Let go of revisions that are not ``active`` any more."""
        self._seen = {revision: seen for revision, seen in self._seen.items() if revision in active}


@dataclass(frozen=True)
class ResultReader:
    """Reads results in one transaction."""

    connection: Connection
    catalog: Catalog
    pixel_size_ang: float | None

    def read(self, revision: ActiveRevision, *, since_seq: int, limit: int) -> list[Seen]:
        """Return the newest items of a revision after a number of the change sequence, the newest first."""
        outcome, exposure, result = schema.outcome, schema.exposure, schema.result
        columns: list[Any] = [outcome.c.at, exposure.c.arrived_at]
        tables: Any = outcome.outerjoin(exposure, exposure.c.unit == outcome.c.unit)
        if revision.kind in ("map", "source"):
            columns += [result.c.wall_s, result.c.cpu_s, result.c.record_type, result.c.record_version, result.c.record]
            tables = tables.outerjoin(result, result.c.key == json_text(outcome.c["keys"], "out"))
        # By the bare column, SQLite would sort all items of the revision instead of walking along the sequence.
        of_revision = outcome.c.revision if since_seq == 0 else literal_column("+outcome.revision", Integer)
        items = (of_revision == revision.id) & (outcome.c.status == "item") & (outcome.c.seq > since_seq)
        query = select(*columns).select_from(tables).where(items).order_by(outcome.c.seq.desc()).limit(limit)
        return [self._seen(row) for row in self.connection.execute(query).mappings()]

    def _seen(self, row: Mapping[Any, Any]) -> Seen:
        latency_s = None if row["arrived_at"] is None else max(0.0, row["at"] - row["arrived_at"])
        if row.get("record_type") is None:
            return Seen(latency_s)
        name = self.catalog.name_of(row["record_type"])
        shown, record = self.catalog.shown(name), self.catalog.fields(row)
        values = measured_values(shown, record, pixel_size_ang=self.pixel_size_ang)
        pictures = {path: title for path, (title, _) in published_pictures(shown, record).items()}
        return Seen(latency_s, row["wall_s"], row["cpu_s"], name, values, pictures)
