"""The database of a session's alarms: small, beside the store, and written by whoever observes the session.

One observer at a time has the turn: it holds a lease that it renews, so that two that watch the same session raise each alarm
once. A message is claimed before it is sent, so that two send it once. If the process dies in between, it is sent again when the
claim has run out.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from icestream.alarms import alarm_rows
from icestream.alarms.alarm_rows import Mark, Meeting
from icestream.alarms.notify import DeliveryState, Plan, Sent
from icestream.alarms.observations import Sample
from icestream.alarms.state import Alarm, AlarmState, Evaluated, Event
from icestream.errors import SessionError, StoreUnavailable
from icestream.files import make_shared

CLAIM_S = 600.0
"""A message that was claimed and neither sent nor given back for so long is sent again."""
AWAY_S = 600.0
"""An observer without the facility's document waits so long for one that has it."""
RULES_KEPT_S = 24 * 3600.0
"""Alarms of rules that only another facility document has stay open for so long after it was seen last."""
_PATIENCE_S = 15.0


@dataclass(frozen=True)
class KeptAlarm:
    """An alarm, and who acknowledged it."""

    alarm: Alarm
    acknowledged_by: str | None = None
    acknowledged_at: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class Delivery:
    """A message to one channel: what became of it."""

    id: int
    number: int
    channel: str
    event: Event
    state: DeliveryState
    due_at: float
    at: float
    """When its state changed last."""
    attempts: int = 0
    error: str | None = None


@dataclass(frozen=True)
class ObserverSeen:
    """Who observes the session, when it looked last, and what kept it from looking."""

    holder: str | None = None
    until: float = 0.0
    looked_at: float | None = None
    trouble: str | None = None


_Row = TypeVar("_Row", bound=BaseModel)
Planning = Callable[[Mapping[tuple[int, str], Sent], frozenset[int]], Plan]


class AlarmStore:
    """Reads and writes one such database; each call is one short transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Tell whether anybody has ever observed the session."""
        return self.path.is_file()

    @contextmanager
    def meeting(self) -> Iterator[Meeting]:
        """Look at where the database comes from, while nobody else does."""
        with self._writing(create=True) as database:
            state = self._parsed(AlarmState, database.execute("SELECT state FROM observer").fetchone()[0])
            yield Meeting(database, [alarm.number for alarm in state.open.values()], state.next_number)

    def take_turn(self, holder: str, *, now: float, lasting_s: float, facility: str | None = None) -> bool:
        """Take or renew the turn; tell whether ``holder`` has it. Makes the database where there is none.

        ``facility`` tells the facility's document from others; who has none waits for those who have one, and gives way to them.
        """
        with self._writing(create=True) as database:
            has, until = database.execute("SELECT holder, until FROM observer").fetchone()
            first, seen_at = database.execute("SELECT holder, seen_at FROM facility").fetchone() or (None, -AWAY_S)
            held = has not in (None, holder) and now < until <= now + 10 * lasting_s  # a clock that went back locks nobody out
            if held and (facility is None or has == first):
                return False
            if facility is None and first not in (None, holder) and 0 <= now - seen_at < AWAY_S:
                return False
            database.execute("UPDATE observer SET holder = ?, until = ?", (holder, now + lasting_s))
            if facility is not None:
                database.execute(
                    "INSERT INTO facility (id, holder, seen_at) VALUES (1, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, seen_at = excluded.seen_at",
                    (holder, now),
                )
            return True

    def knows_all_rules(self, holder: str, *, facility: str | None, now: float) -> bool:
        """Tell whether a rule that ``holder`` does not have is gone, or may be in another observer's facility document."""
        with self._reading() as database:
            query = "SELECT document, judged_by, seen_at FROM facility WHERE document IS NOT NULL"
            row = None if database is None else database.execute(query).fetchone()
        return row is None or facility == row[0] or holder == row[1] or abs(now - row[2]) > RULES_KEPT_S

    def release(self, holder: str) -> None:
        """Give the turn back, so that another observer need not wait."""
        if self.exists:
            with self._writing() as database:
                database.execute("UPDATE observer SET holder = NULL, until = 0 WHERE holder = ?", (holder,))

    def load_state(self) -> AlarmState:
        """Return the state of the evaluation."""
        with self._reading() as database:
            row = None if database is None else database.execute("SELECT state FROM observer").fetchone()
        return AlarmState() if row is None else self._parsed(AlarmState, row[0])

    def commit(
        self, holder: str, evaluated: Evaluated, sample: Sample | None, planning: Planning, *, facility: str | None = None
    ) -> bool:
        """Store an evaluation and the messages that follow from it; False, and nothing stored, if the turn was lost."""
        state = evaluated.state
        now = state.at or 0.0
        with self._writing() as database:
            if database.execute("SELECT holder FROM observer").fetchone()[0] != holder:
                return False
            database.execute("UPDATE observer SET state = ?, looked_at = ?, trouble = NULL", (state.model_dump_json(), now))
            if facility is not None:
                database.execute("UPDATE facility SET document = ?, judged_by = ?", (facility, holder))
            for alarm in (*state.open.values(), *evaluated.ended):
                database.execute(
                    "INSERT INTO alarm (number, ended_at, content) VALUES (?, ?, ?) "
                    "ON CONFLICT (number) DO UPDATE SET ended_at = excluded.ended_at, content = excluded.content",
                    (alarm.number, alarm.ended_at, alarm.model_dump_json()),
                )
            if sample is not None:
                database.execute("INSERT OR REPLACE INTO sample VALUES (?, ?)", (sample.at, sample.model_dump_json()))
            open_numbers = [alarm.number for alarm in (*state.open.values(), *evaluated.ended)]
            plan = planning(alarm_rows.sent(database, open_numbers, now), alarm_rows.acknowledged(database))
            alarm_rows.store_plan(database, plan, now)
            alarm_rows.forget_the_oldest(database)
        return True

    def complain(self, holder: str, trouble: str, *, now: float) -> None:
        """Note what keeps the observer from looking."""
        with self._writing() as database:
            database.execute("UPDATE observer SET trouble = ?, looked_at = ? WHERE holder = ?", (trouble, now, holder))

    def add_test(self, channels: Sequence[str], *, now: float) -> list[int]:
        """Queue a test message to channels, of alarm 0, which is none; return the numbers of the deliveries."""
        with self._writing(create=True) as database:
            for channel in channels:
                alarm_rows.queue(database, 0, channel, "test", now, now)
            ids = database.execute("SELECT id FROM delivery ORDER BY id DESC LIMIT ?", (len(channels),)).fetchall()
        return sorted(row[0] for row in ids)

    def claim_due(
        self,
        *,
        now: float,
        channels: Collection[str],
        most: int = 20,
        only: Sequence[int] | None = None,
        mark: Mark = Mark(),  # noqa: B008 - cannot be changed
    ) -> list[Delivery]:
        """Return messages to ``channels`` that are due, claimed for whoever asks; those to others wait for who has these.

        Those before ``mark`` came with the folder.
        """
        with self._writing() as database:
            alarm_rows.give_up(database, now)
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM delivery WHERE state = 'pending' AND due_at <= ? AND claimed_until <= ? "  # noqa: S608
                "AND id > ? AND (number = 0 OR number >= ?) ORDER BY id",
                (now, now, mark.delivery, mark.number),
            )
            due = (one for one in map(_delivery, rows) if one.channel in channels and (only is None or one.id in only))
            found = list(islice(due, most))
            ids = [(now + CLAIM_S, one.id) for one in found]
            database.executemany("UPDATE delivery SET claimed_until = ?, attempts = attempts + 1 WHERE id = ?", ids)
        return found

    def waits(self) -> bool:
        """Tell whether an alarm is open or a message is still to be sent."""
        with self._reading() as database:
            if database is None:
                return False
            query = (
                "SELECT EXISTS (SELECT 1 FROM alarm WHERE ended_at IS NULL) OR "
                "EXISTS (SELECT 1 FROM delivery WHERE state = 'pending')"
            )
            return bool(database.execute(query).fetchone()[0])

    def mark(
        self, delivery: int, state: DeliveryState, *, now: float, error: str | None = None, due_at: float | None = None
    ) -> None:
        """Say what became of a claimed message: it was sent, failed for good, or is pending until it is due again."""
        with self._writing() as database:
            database.execute(
                "UPDATE delivery SET state = ?, error = ?, at = ?, due_at = coalesce(?, due_at), claimed_until = 0 WHERE id = ?",
                (state, error, now, due_at, delivery),
            )

    def acknowledge(self, numbers: Sequence[int], *, by: str, note: str, now: float) -> list[int]:
        """Acknowledge open alarms; return those that were, the others being unknown, over, or acknowledged before."""
        done = []
        with self._writing() as database:
            for number in numbers:
                changed = database.execute(
                    "UPDATE alarm SET acknowledged_by = ?, acknowledged_at = ?, note = ? "
                    "WHERE number = ? AND ended_at IS NULL AND acknowledged_by IS NULL",
                    (by, now, note or None, number),
                )
                done += [number] if changed.rowcount else []
        return done

    def alarms(self, *, most: int = 200, only_open: bool = False) -> list[KeptAlarm]:
        """Return alarms, those that are open first, then the newest first."""
        with self._reading() as database:
            where = "WHERE ended_at IS NULL" if only_open else ""
            query = (
                f"SELECT content, acknowledged_by, acknowledged_at, note FROM alarm {where} "  # noqa: S608 - no text from outside
                "ORDER BY ended_at IS NOT NULL, number DESC LIMIT ?"
            )
            rows = [] if database is None else database.execute(query, (most,)).fetchall()
        return [KeptAlarm(self._parsed(Alarm, row[0]), *row[1:]) for row in rows]

    def count_open(self) -> int:
        """Count the open alarms, whatever they say."""
        with self._reading() as database:
            query = "SELECT count(*) FROM alarm WHERE ended_at IS NULL"
            return 0 if database is None else int(database.execute(query).fetchone()[0])

    def alarm(self, number: int) -> Alarm | None:
        """Return one alarm."""
        with self._reading() as database:
            row = (
                None if database is None else database.execute("SELECT content FROM alarm WHERE number = ?", (number,)).fetchone()
            )
        return None if row is None else self._parsed(Alarm, row[0])

    def deliveries(self, *, most: int = 100) -> list[Delivery]:
        """Return the newest messages, newest first."""
        with self._reading() as database:
            query = f"SELECT {_COLUMNS} FROM delivery ORDER BY id DESC LIMIT ?"  # noqa: S608 - no text from outside
            rows = [] if database is None else database.execute(query, (most,)).fetchall()
        return [_delivery(row) for row in rows]

    def samples(self, *, since: float, most: int | None = None) -> list[Sample]:
        """Return the samples from a moment on, oldest first; thinned to about ``most``, the newest always among them."""
        with self._reading() as database:
            if database is None:
                return []
            count = database.execute("SELECT count(*) FROM sample WHERE at >= ?", (since,)).fetchone()[0]
            stride = 1 if most is None else max(1, -(-count // most))
            query = (
                "SELECT content FROM (SELECT content, at, row_number() OVER (ORDER BY at DESC) AS place FROM sample "
                "WHERE at >= ?) WHERE (place - 1) % ? = 0 ORDER BY at"
            )
            rows = database.execute(query, (since, stride)).fetchall()
        return [self._parsed(Sample, row[0]) for row in rows]

    def observer(self) -> ObserverSeen:
        """Return who observes the session."""
        with self._reading() as database:
            row = (
                None
                if database is None
                else database.execute("SELECT holder, until, looked_at, trouble FROM observer").fetchone()
            )
        return ObserverSeen() if row is None else ObserverSeen(*row)

    def _parsed(self, model: type[_Row], text: str) -> _Row:
        try:
            return model.model_validate_json(text)
        except ValidationError as error:
            raise SessionError(f"{self.path}: was written by another version; move it away, and a new one is made") from error

    @contextmanager
    def _writing(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        if not create and not self.exists:
            raise SessionError(f"{self.path}: is not there: nobody has observed this session")
        with self._connected("rwc" if create else "rw") as database:
            if create:
                database.executescript(alarm_rows.SCHEMA)
                database.execute("INSERT OR IGNORE INTO observer (id, state) VALUES (1, ?)", (AlarmState().model_dump_json(),))
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        if not self.exists:
            yield None
            return
        with self._connected("ro") as database:
            yield database

    @contextmanager
    def _connected(self, mode: str) -> Iterator[sqlite3.Connection]:
        if mode == "rwc":
            make_shared(self.path)
        try:
            address = f"{self.path.absolute().as_uri()}?mode={mode}"
            with closing(sqlite3.connect(address, uri=True, timeout=_PATIENCE_S, isolation_level=None)) as database:
                yield database
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"{self.path}: cannot be used as the database of alarms: {error}") from error
        except sqlite3.DatabaseError as error:
            raise SessionError(f"{self.path}: is no database of alarms: {error}; move it away, and a new one is made") from error


_COLUMNS = "id, number, channel, event, state, due_at, at, attempts, error"


def _delivery(row: Sequence[object]) -> Delivery:
    return Delivery(*row)  # type: ignore[arg-type]
