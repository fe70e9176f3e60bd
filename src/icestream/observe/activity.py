"""What happened: notices, and the change sequence that a watcher follows."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, String, cast, func, literal, null, select

from icestream.flow.scheduling import NoticeCause
from icestream.flow.storage import columns_there, schema
from icestream.observe.answers import Change, ChangeKind, NoticeRow
from icestream.observe.people import read_pause


def read_notices(connection: Connection, *, limit: int | None) -> list[NoticeRow]:
    """Return what people should see, newest first, and whether it is over; cause, step and subject say what one is about."""
    table = schema.notice
    shown = select(*columns_there(connection, table)).order_by(table.c.seq.desc()).limit(limit)
    found, told_later = [], set()
    for row in connection.execute(shown).mappings():
        about = (row.get("cause"), row["step"], row.get("subject"))
        told_again = about in told_later and any(about[1:])  # what names neither step nor subject may be about anything
        over = row["level"] != "info" and about[0] is not None and (told_again or _is_over(connection, row))
        told_later.add(about)
        found.append(NoticeRow(row["seq"], row["level"], row["step"], row["unit"], row["message"], row["at"], over))
    return found


def read_program_notices(connection: Connection) -> dict[str, list[str]]:
    """Return step → what is to be known of the programs it runs: one is missing, or has another version than its revision."""
    table = schema.notice
    columns = columns_there(connection, table)
    found: dict[str, dict[str, str]] = {}
    if table.c.cause in columns:
        rows = connection.execute(select(*columns).where(table.c.cause == NoticeCause.PROGRAM).order_by(table.c.seq)).mappings()
        for row in rows:
            if row["step"] is not None and not _is_over(connection, row):
                found.setdefault(row["step"], {})[row["subject"]] = row["message"].removeprefix(f"{row['step']}: ")
    return {step: list(told.values()) for step, told in found.items()}


def _is_over(connection: Connection, notice: Mapping[Any, Any]) -> bool:
    """Tell whether what was wrong has been well again since."""
    exposure, outcome, revision = schema.exposure.c, schema.outcome.c, schema.revision.c
    if notice["cause"] == NoticeCause.SURROUNDINGS:
        pause = read_pause(connection)
        return pause is None or pause.kind != "surroundings"
    if notice["cause"] == NoticeCause.PROGRAM:  # told again at each start, of the revision that is active then
        began = select(revision.created_at).where((revision.step == notice["step"]) & (revision.state == "active"))
        times = [*connection.execute(began).scalars(), *connection.execute(select(schema.runner.c.pid_started)).scalars()]
        return any(notice["at"] < at for at in times if at is not None)
    if notice["cause"] == NoticeCause.SOURCE:
        later = select(exposure.seq).where((exposure.source == notice["step"]) & (exposure.seq > notice["seq"]))
    elif notice["cause"] == NoticeCause.STEP_FAILING:
        mine = select(revision.id).where((revision.step == notice["step"]) & (revision.state == "active"))
        done = outcome.revision.in_(mine) & (outcome.status == "item")
        later = select(outcome.seq).where(done & (outcome.seq > notice["seq"]))
    else:
        return False
    return connection.execute(later.limit(1)).first() is not None


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


@dataclass(frozen=True)
class Pulse:
    """By what a watcher sees that a session has changed, in one short look: unequal to the last one if anything has."""

    seq: int = 0
    runner: str = "not started"
    fence: int = 0
    hold: str | None = None
    asked: int = 0
    """Number of the last command."""
    answered: float = 0.0
    """When a command was answered last."""

    @property
    def token(self) -> str:
        """A short text that differs when the pulse does."""
        return sha256(repr(self).encode()).hexdigest()[:16]


def read_pulse(connection: Connection) -> Pulse:
    """Look at what every change touches: the change sequence, the runner's row and the commands."""
    row = connection.execute(select(*columns_there(connection, schema.runner))).mappings().one()
    command = schema.command.c
    when = func.max(command.done_at) if command.done_at in columns_there(connection, schema.command) else null()
    asked, answered = connection.execute(select(func.max(command.id), when)).one()
    return Pulse(row["last_seq"], row["state"], row["fence"], row.get("hold"), asked or 0, answered or 0.0)
