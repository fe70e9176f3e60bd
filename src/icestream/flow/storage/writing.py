"""From the scheduler's instructions to rows: the only code that writes results."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, update

from icestream.flow.declaration import CallFailure
from icestream.flow.scheduling import instructions
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.database import insert_if_new
from icestream.flow.storage.drains import DRAINED, RESUMED
from icestream.flow.storage.store import Store

DURABLE = (
    instructions.OpenGate,
    instructions.StartClock,
    instructions.Drain,
    instructions.Resume,
    instructions.CloseBatch,
    instructions.Consume,
    instructions.DropEntry,
)
"""Decisions that a power cut must not undo."""


_INSERTS = {table.name: insert(table) for table in schema.metadata.sorted_tables}
"""In an order that foreign keys allow."""


def needs_durability(instruction: instructions.Instruction) -> bool:
    """Tell whether the commit that carries ``instruction`` must survive a power cut."""
    return isinstance(instruction, DURABLE)


def _storable(value: Any) -> Any:
    """Return texts as every database takes them: what a step or a file name says may hold what is no text."""
    if not isinstance(value, str) or (value.isascii() and "\0" not in value):
        return value
    return value.replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass
class Writing:
    """One transaction: rows of one table are gathered and inserted together, in the order of the change sequence."""

    store: Store
    connection: Connection
    revisions: Mapping[str, int]
    fingerprint: str
    now: float = field(default_factory=time.time)
    told: list[instructions.Notify] = field(default_factory=list)
    _rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, table: Table, **values: Any) -> None:
        """Insert a row, later."""
        self._rows.setdefault(table.name, []).append({name: _storable(value) for name, value in values.items()})

    def flush(self) -> None:
        """Insert what was gathered."""
        if self._rows:
            for name in [name for name in _INSERTS if name in self._rows]:
                self.connection.execute(_INSERTS[name], self._rows.pop(name))

    def put_result(self, **values: Any) -> None:
        """Store a result unless its key has one: the first one stays."""
        self.flush()
        self.connection.execute(insert_if_new(self.connection, schema.result).values(created_at=self.now, **values))

    def apply(self, instruction: instructions.Instruction) -> None:
        """Store what one instruction says."""
        match instruction:
            case instructions.Settle():
                self._settle(instruction)
            case instructions.Forget():
                self._forget(instruction)
            case instructions.Bind():
                revision = self.revisions[instruction.step]
                self.add(
                    schema.binding,
                    revision=revision,
                    unit=instruction.unit,
                    port=instruction.port,
                    version=instruction.version,
                    key=instruction.key,
                )
            case instructions.OpenGate() | instructions.StartClock() | instructions.Drain() | instructions.Resume():
                self._change_step(instruction)
            case instructions.CloseBatch():
                self._close_batch(instruction)
            case instructions.Consume():
                self._consume(instruction)
            case instructions.DropEntry():
                self._drop_entry(instruction)
            case instructions.MarkStale():
                self._mark_stale(instruction)
            case instructions.MarkStream():
                self._stamped(schema.stream, instruction.step, state=instruction.state, reason=instruction.reason)
            case instructions.PublishVersion():
                values = {"version": instruction.version, "key": instruction.key, "pruned": False}
                self._stamped(schema.snapshot, instruction.step, **values)
            case instructions.Release():
                self.flush()
                row = schema.exposure.c.unit == instruction.unit
                self.connection.execute(update(schema.exposure).where(row).values(settled_by=self.fingerprint))
            case instructions.Notify():
                self.notify(instruction)

    def _stamped(self, table: Table, step: str, **values: Any) -> None:
        self.add(table, revision=self.revisions[step], at=self.now, seq=self.store.next_seq(), **values)

    def _settle(self, settle: instructions.Settle) -> None:
        outcome = settle.outcome
        self._stamped(
            schema.outcome,
            settle.step,
            unit=settle.unit,
            status=outcome.status.value,
            keys=json.dumps(dict(outcome.keys)),
            weight=outcome.weight,
            reason=outcome.reason,
            root=outcome.root,
            missing=json.dumps(outcome.missing) if outcome.missing else None,
        )

    def _forget(self, forget: instructions.Forget) -> None:
        self.flush()
        table = schema.outcome
        where = (table.c.revision == self.revisions[forget.step]) & (table.c.unit == forget.unit)
        self.connection.execute(delete(table).where(where))

    def _change_step(
        self, instruction: instructions.OpenGate | instructions.StartClock | instructions.Drain | instructions.Resume
    ) -> None:
        step = instruction.step
        match instruction:
            case instructions.OpenGate():
                self._stamped(schema.gate_opening, step, reason=instruction.reason, last=instruction.last)
            case instructions.StartClock():
                self._reset_clock(step)
                self.add(schema.gate_clock, revision=self.revisions[step], started_uptime_s=instruction.uptime_s)
            case instructions.Drain(why=why):
                self._note_drain(step, state=DRAINED, cause=why.cause.value, by=why.by, reason=why.reason)
            case instructions.Resume():
                self._note_drain(step, state=RESUMED, cause=None, by="", reason="")

    def _note_drain(self, step: str, **values: str | None) -> None:
        self.add(schema.drain, seq=self.store.next_seq(), step=step, at=self.now, **values)

    def _reset_clock(self, step: str) -> None:
        self.flush()
        table = schema.gate_clock
        self.connection.execute(delete(table).where(table.c.revision == self.revisions[step]))

    def _close_batch(self, closed: instructions.CloseBatch) -> None:
        self._reset_clock(closed.step)
        members = json.dumps([[unit, dict(keys)] for unit, keys in closed.members])
        values = {"number": closed.number, "members": members, "weight": closed.weight, "remainder": closed.remainder}
        self._stamped(schema.batch, closed.step, **values)

    def _consume(self, consume: instructions.Consume) -> None:
        if consume.stored:
            return
        self.add(
            schema.accumulator_log,
            revision=self.revisions[consume.step],
            position=consume.position,
            members=json.dumps([[unit, dict(keys)] for unit, keys in consume.members]),
            weight=consume.weight,
            closing=consume.closing,
            state_key="",
            absorbed=False,
            at=self.now,
        )

    def _drop_entry(self, drop: instructions.DropEntry) -> None:
        self.flush()
        table = schema.accumulator_log
        revision, failures = self.revisions[drop.step], schema.failure
        where = (table.c.revision == revision) & (table.c.position == drop.position) & ~table.c.absorbed
        self.connection.execute(delete(table).where(where))
        counted = (failures.c.revision == revision) & (failures.c.unit == str(drop.position))
        self.connection.execute(update(failures).where(counted).values(cleared=True))  # the next entry here has other members

    def _mark_stale(self, mark: instructions.MarkStale) -> None:
        self.flush()
        table, revision = schema.stale, self.revisions[mark.step]
        self.connection.execute(delete(table).where((table.c.revision == revision) & (table.c.unit == mark.unit)))
        if mark.reason is not None:
            self.add(table, revision=revision, unit=mark.unit, reason=mark.reason, at=self.now)

    def notify(self, notice: instructions.Notify) -> None:
        """Store something that people should see."""
        self.told.append(notice)
        self.add(
            schema.notice,
            seq=self.store.next_seq(),
            level=notice.level,
            step=notice.step,
            unit=notice.unit,
            message=notice.message,
            cause=notice.cause,
            subject=notice.subject,
            by=notice.by,
            at=self.now,
        )

    def lease(self, step: str, unit: str, *, attempt: str, worker: str) -> None:
        """Note that a worker is about to work on a unit."""
        self.add(
            schema.lease,
            revision=self.revisions[step],
            unit=unit,
            attempt=attempt,
            fence=self.store.fence,
            worker=worker,
            started_at=self.now,
        )

    def end_lease(self, attempt: str) -> None:
        """Note that an attempt ended."""
        self.flush()
        self.connection.execute(delete(schema.lease).where(schema.lease.c.attempt == attempt))

    def add_failure(self, step: str, unit: str, *, attempt: str, failure: CallFailure) -> None:
        """Store how an attempt ended badly."""
        self.add(
            schema.failure,
            seq=self.store.next_seq(),
            revision=self.revisions[step],
            unit=unit,
            attempt=attempt,
            kind=failure.kind.value,
            error_type=failure.error_type,
            message=failure.message,
            traceback=failure.traceback,
            cleared=False,
            at=self.now,
        )

    def store_state(self, step: str, position: int, *, state_key: str, state: str, state_version: int) -> None:
        """Store the state of an accumulator after an entry of its log."""
        self.flush()
        table = schema.accumulator_log
        mine = table.c.revision == self.revisions[step]
        values = {"state_key": state_key, "state": state, "state_version": state_version, "absorbed": True}
        self.connection.execute(update(table).where(mine & (table.c.position == position)).values(**values))
