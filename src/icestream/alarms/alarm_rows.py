"""The tables of the database of alarms, and what is done to them within a transaction."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from icestream.alarms.notify import Plan, Sent
from icestream.alarms.rules import LONGEST_SAMPLED_MINUTES
from icestream.alarms.state import Event

SAMPLES_KEPT_S = 60.0 * LONGEST_SAMPLED_MINUTES + 3600.0
MOST_SAMPLES = 20_000
"""A day of samples every 5 s."""
MOST_ENDED = 1000
UNSENT = "not sent for a day: no observer has this channel, or it came with the folder"
UNSENT_KEPT_S = 24 * 3600.0
"""A message to a channel that no observer has fails after so long."""
TESTS_KEPT_S = 24 * 3600.0

SCHEMA = """
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
CREATE TABLE IF NOT EXISTS origin (id INTEGER PRIMARY KEY CHECK (id = 1), token TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facility (
    id INTEGER PRIMARY KEY CHECK (id = 1), holder TEXT NOT NULL, seen_at REAL NOT NULL, document TEXT, judged_by TEXT);
CREATE TABLE IF NOT EXISTS sample (at REAL PRIMARY KEY, content TEXT NOT NULL);
"""


def sent(database: sqlite3.Connection, numbers: Sequence[int], now: float) -> dict[tuple[int, str], Sent]:
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


def acknowledged(database: sqlite3.Connection) -> frozenset[int]:
    """Return the open alarms that somebody has acknowledged."""
    rows = database.execute("SELECT number FROM alarm WHERE ended_at IS NULL AND acknowledged_by IS NOT NULL")
    return frozenset(row[0] for row in rows)


def store_plan(database: sqlite3.Connection, plan: Plan, now: float) -> None:
    """Queue the messages of a plan, and drop those it drops."""
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
        queue(database, one.number, one.channel, one.event, one.due_at, now)


def give_up(database: sqlite3.Connection, now: float) -> None:
    """Let messages fail that nobody could send for long, as nobody has their channel."""
    database.execute(
        "UPDATE delivery SET state = 'failed', error = coalesce(error, ?), at = ? "
        "WHERE state = 'pending' AND attempts = 0 AND due_at < ?",
        (UNSENT, now, now - UNSENT_KEPT_S),
    )


def queue(database: sqlite3.Connection, number: int, channel: str, event: Event, due_at: float, now: float) -> None:
    """Queue a message."""
    database.execute(
        "INSERT INTO delivery (number, channel, event, due_at, state, at) VALUES (?, ?, ?, ?, 'pending', ?)",
        (number, channel, event, due_at, now),
    )


def forget_the_oldest(database: sqlite3.Connection) -> None:
    """Keep histories bounded."""
    database.execute("DELETE FROM sample WHERE at NOT IN (SELECT at FROM sample ORDER BY at DESC LIMIT ?)", (MOST_SAMPLES,))
    database.execute("DELETE FROM sample WHERE at < (SELECT max(at) FROM sample) - ?", (SAMPLES_KEPT_S,))
    database.execute(
        "DELETE FROM alarm WHERE ended_at IS NOT NULL AND number NOT IN "
        "(SELECT number FROM alarm WHERE ended_at IS NOT NULL ORDER BY number DESC LIMIT ?)",
        (MOST_ENDED,),
    )
    database.execute("DELETE FROM delivery WHERE number > 0 AND number NOT IN (SELECT number FROM alarm)")
    database.execute("DELETE FROM delivery WHERE number = 0 AND at < (SELECT looked_at FROM observer) - ?", (TESTS_KEPT_S,))


@dataclass(frozen=True)
class Mark:
    """From where on messages are one's own: those after a delivery, about alarms from a number on."""

    delivery: int = 0
    number: int = 1


class Meeting:
    """Looks at where a database comes from, within a transaction."""

    def __init__(self, database: sqlite3.Connection, open_numbers: Iterable[int], next_number: int) -> None:
        self._database = database
        row = database.execute("SELECT token FROM origin").fetchone()
        self.token: str | None = None if row is None else str(row[0])
        deliveries, alarms = (
            int(database.execute(query).fetchone()[0])
            for query in (
                "SELECT max(coalesce((SELECT max(id) FROM delivery), 0), "
                "coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'delivery'), 0))",
                "SELECT coalesce(max(number), 0) FROM alarm",
            )
        )
        self.mark = Mark(deliveries, max([alarms + 1, next_number, *(number + 1 for number in open_numbers)]))

    def rename(self, token: str, *, drop: bool) -> None:
        """Give the database a token of its own; ``drop`` what waits in it to be sent."""
        self._database.execute("INSERT OR REPLACE INTO origin VALUES (1, ?)", (token,))
        if drop:
            self._database.execute("UPDATE delivery SET state = 'dropped' WHERE state = 'pending'")
