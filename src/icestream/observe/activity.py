"""What happened: notices, and the change sequence that a watcher follows."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, String, cast, literal, null, select

from icestream.flow.storage import schema
from icestream.observe.answers import Change, ChangeKind, NoticeRow


def read_notices(connection: Connection, *, limit: int | None) -> list[NoticeRow]:
    """Return what people should see, newest first."""
    table = schema.notice.c  # those of its columns that stores of every version have
    shown = select(table.seq, table.level, table.step, table.unit, table.message, table.at)
    return [NoticeRow(*row) for row in connection.execute(shown.order_by(table.seq.desc()).limit(limit))]


def read_changes(connection: Connection, seq: int, *, limit: int) -> list[Change]:
    """Return at most ``limit`` changes after number ``seq``, in order."""
    revision = schema.revision
    steps: dict[int, str] = {row.id: row.step for row in connection.execute(select(revision.c.id, revision.c.step))}
    found: list[Change] = []
    for what, (number, step, unit, detail) in _sequences().items():
        rows = connection.execute(select(number, step, unit, detail).where(number > seq).order_by(number).limit(limit))
        found.extend(Change(row[0], what, steps.get(row[1], row[1]), row[2], row[3]) for row in rows)
    return sorted(found, key=lambda change: change.seq)[:limit]


def _sequences() -> dict[ChangeKind, tuple[ColumnElement[Any], ...]]:
    """Return, for each table along the sequence: its number, step (or revision), unit, and what to say about the row."""
    exposure, outcome, snapshot = schema.exposure.c, schema.outcome.c, schema.snapshot.c
    stream, gate, batch = schema.stream.c, schema.gate_opening.c, schema.batch.c
    failure, notice = schema.failure.c, schema.notice.c
    return {
        "exposure": (exposure.seq, exposure.source, exposure.unit, exposure.name),
        "outcome": (outcome.seq, outcome.revision, outcome.unit, outcome.status),
        "snapshot": (snapshot.seq, snapshot.revision, null(), literal("version ") + cast(snapshot.version, String)),
        "stream": (stream.seq, stream.revision, null(), stream.state + literal(": ") + stream.reason),
        "gate": (gate.seq, gate.revision, null(), gate.reason),
        "batch": (batch.seq, batch.revision, null(), literal("number ") + cast(batch.number, String)),
        "failure": (failure.seq, failure.revision, failure.unit, failure.message),
        "notice": (notice.seq, notice.step, notice.unit, notice.message),
    }
