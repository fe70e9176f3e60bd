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

from icestream.alarms.notify import DeliveryState, Plan, Sent
from icestream.alarms.observations import Sample
from icestream.alarms.state import Alarm, AlarmState, Evaluated, Event
from icestream.errors import SessionError, StoreUnavailable

MOST_SAMPLES = 6000
"""A day of samples every 15 s."""
MOST_ENDED = 1000
CLAIM_S = 600.0
"""A message that was claimed and neither sent nor given back for so long is sent again."""
TESTS_KEPT_S = 24 * 3600.0
_PATIENCE_S = 15.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS observer (
    id INTEGER PRIMARY KEY CHECK (id = 1), holder TEXT, until REAL NOT NULL DEFAULT 0, state TEXT NOT NULL,
    looked_at REAL, trouble TEXT);
CREATE TABLE IF NOT EXISTS alarm (
    number INTEGER PRIMARY KEY, ended_at REAL, content TEXT NOT NULL, acknowledged_by TEXT, acknowledged_at REAL, note TEXT);
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY AUTOINCREMENT, number INTEGER NOT NULL, channel TEXT NOT NULL, event TEXT NOT NULL,
    due_at REAL NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, error TEXT, at REAL NOT NULL,
    claimed_until REAL NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS delivery_of_alarm ON delivery (number, channel);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (state, due_at);
CREATE TABLE IF NOT EXISTS sample (at REAL PRIMARY KEY, content TEXT NOT NULL);
"""


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

    def take_turn(self, holder: str, *, now: float, lasting_s: float) -> bool:
        """Take or renew the turn; tell whether ``holder`` has it. Makes the database where there is none."""
        with self._writing(create=True) as database:
            row = database.execute("SELECT holder, until FROM observer").fetchone()
            if row[0] not in (None, holder) and now < row[1] <= now + 10 * lasting_s:  # a clock that went back locks nobody out
                return False
            database.execute("UPDATE observer SET holder = ?, until = ?", (holder, now + lasting_s))
            return True

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

    def commit(self, holder: str, evaluated: Evaluated, sample: Sample | None, planning: Planning) -> bool:
        """Store an evaluation and the messages that follow from it; False, and nothing stored, if the turn was lost."""
        state = evaluated.state
        now = state.at or 0.0
        with self._writing() as database:
            if database.execute("SELECT holder FROM observer").fetchone()[0] != holder:
                return False
            database.execute("UPDATE observer SET state = ?, looked_at = ?, trouble = NULL", (state.model_dump_json(), now))
            for alarm in (*state.open.values(), *evaluated.ended):
                database.execute(
                    "INSERT INTO alarm (number, ended_at, content) VALUES (?, ?, ?) "
                    "ON CONFLICT (number) DO UPDATE SET ended_at = excluded.ended_at, content = excluded.content",
                    (alarm.number, alarm.ended_at, alarm.model_dump_json()),
                )
            if sample is not None:
                database.execute("INSERT OR REPLACE INTO sample VALUES (?, ?)", (sample.at, sample.model_dump_json()))
            open_numbers = [alarm.number for alarm in (*state.open.values(), *evaluated.ended)]
            plan = planning(_sent(database, open_numbers, now), _acknowledged(database))
            _store_plan(database, plan, now)
            _forget_the_oldest(database)
        return True

    def complain(self, holder: str, trouble: str, *, now: float) -> None:
        """Note what keeps the observer from looking."""
        with self._writing() as database:
            database.execute("UPDATE observer SET trouble = ?, looked_at = ? WHERE holder = ?", (trouble, now, holder))

    def add_test(self, channels: Sequence[str], *, now: float) -> list[int]:
        """Queue a test message to channels, of alarm 0, which is none; return the numbers of the deliveries."""
        with self._writing(create=True) as database:
            for channel in channels:
                _queue(database, 0, channel, "test", now, now)
            ids = database.execute("SELECT id FROM delivery ORDER BY id DESC LIMIT ?", (len(channels),)).fetchall()
        return sorted(row[0] for row in ids)

    def claim_due(
        self, *, now: float, most: int = 20, only: Sequence[int] | None = None, without: Collection[str] = ()
    ) -> list[Delivery]:
        """Return messages that are due, claimed for whoever asks; those to the channels ``without`` wait."""
        with self._writing() as database:
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM delivery WHERE state = 'pending' AND due_at <= ? AND claimed_until <= ? "  # noqa: S608
                "ORDER BY id",
                (now, now),
            )
            due = (one for one in map(_delivery, rows) if one.channel not in without and (only is None or one.id in only))
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
                database.executescript(_SCHEMA)
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


def _sent(database: sqlite3.Connection, numbers: Sequence[int], now: float) -> dict[tuple[int, str], Sent]:
    """Return the newest message of each alarm to each channel; one that is being sent counts as sent."""
    found = {}
    for number in numbers:
        rows = database.execute(
            "SELECT channel, event, state, at, due_at, claimed_until FROM delivery WHERE number = ? ORDER BY id", (number,)
        )
        for channel, event, state, at, due_at, claimed_until in rows:
            being_sent = state == "pending" and claimed_until > now
            found[number, channel] = Sent(event, "sent" if being_sent else state, due_at if state == "pending" else at)
    return found


def _acknowledged(database: sqlite3.Connection) -> frozenset[int]:
    rows = database.execute("SELECT number FROM alarm WHERE ended_at IS NULL AND acknowledged_by IS NOT NULL")
    return frozenset(row[0] for row in rows)


def _store_plan(database: sqlite3.Connection, plan: Plan, now: float) -> None:
    for number, channel in plan.dropped:
        database.execute(
            "UPDATE delivery SET state = 'dropped', at = ? WHERE number = ? AND channel = ? AND state = 'pending'",
            (now, number, channel),
        )
    for one in plan.messages:
        if one.event == "refresh":  # only the newest is kept
            database.execute(
                "DELETE FROM delivery WHERE number = ? AND channel = ? AND event = 'refresh'", (one.number, one.channel)
            )
        _queue(database, one.number, one.channel, one.event, one.due_at, now)


def _queue(database: sqlite3.Connection, number: int, channel: str, event: Event, due_at: float, now: float) -> None:
    database.execute(
        "INSERT INTO delivery (number, channel, event, due_at, state, at) VALUES (?, ?, ?, ?, 'pending', ?)",
        (number, channel, event, due_at, now),
    )


def _forget_the_oldest(database: sqlite3.Connection) -> None:
    database.execute("DELETE FROM sample WHERE at NOT IN (SELECT at FROM sample ORDER BY at DESC LIMIT ?)", (MOST_SAMPLES,))
    database.execute(
        "DELETE FROM alarm WHERE ended_at IS NOT NULL AND number NOT IN "
        "(SELECT number FROM alarm WHERE ended_at IS NOT NULL ORDER BY number DESC LIMIT ?)",
        (MOST_ENDED,),
    )
    database.execute("DELETE FROM delivery WHERE number > 0 AND number NOT IN (SELECT number FROM alarm)")
    database.execute("DELETE FROM delivery WHERE number = 0 AND at < (SELECT looked_at FROM observer) - ?", (TESTS_KEPT_S,))
