"""The session's store: one writer with a fencing number, many readers."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import DBAPIError

from icestream.errors import SessionError, StaleRunner, StoreUnavailable
from icestream.flow.storage import claiming
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.claiming import LEASE_S, RunnerRow, read_runner_row
from icestream.flow.storage.creating import create_store
from icestream.flow.storage.database import check_file_system, engine_for
from icestream.flow.storage.location import Location, Server
from icestream.flow.storage.migrating import migrate_store
from icestream.flow.storage.store_schema import SCHEMA_VERSION
from icestream.flow.storage.store_trouble import explain
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)


class Store:
    """The writer's side. Every transaction carries the fencing number; a stale runner cannot commit."""

    def __init__(self, location: Location) -> None:
        if isinstance(location, Path):
            check_file_system(location)
            location.parent.mkdir(parents=True, exist_ok=True)
        self.location = location
        self._normal = engine_for(location)
        self._durable = engine_for(location, durable=True)
        self._claimed = False
        self._file: tuple[int, int] | None = None
        self.fence = 0
        self.seq = 0
        self.uptime_s: float | None = None  # unknown until the tables are of this version

    def claim(self, *, lease_s: float = LEASE_S) -> None:
        """Become the one writer: make the tables or bring them up to date, raise the fencing number, drop leases of the dead.

        A runner on another machine is watched for ``lease_s`` before it is taken for dead.

        Raises
        ------
        SessionBusy
            Another runner is alive.
        StoreUnavailable
            The store cannot be reached or written at this moment.
        SessionError
            The store was written by a newer version, or is not a database.
        """
        try:
            create_store(self.location)
            silent: RunnerRow | None = None
            while (row := self._take(silent)) is None:
                silent = self._watch(lease_s)
        except DBAPIError as error:
            self._disconnect()
            raise explain(self.location, error, "cannot be used as a store") from error
        except SessionError:
            self._disconnect()
            raise
        self._claimed = True
        if row.schema_version < SCHEMA_VERSION:
            try:
                with self._translated("cannot be migrated"):
                    migrate_store(self.location, self._durable, row.schema_version)
                log_event(_LOG, logging.INFO, "store migrated", from_version=row.schema_version, to_version=SCHEMA_VERSION)
            except BaseException:
                self.give_back(f"could not be migrated from schema {row.schema_version}")
                raise
        with self._normal.begin() as connection:
            self.uptime_s = float(connection.execute(select(schema.runner.c.uptime_s)).scalar_one())

    def _take(self, silent: RunnerRow | None) -> RunnerRow | None:
        """Take the session and return the row as it was; None where its runner has to be watched first, and is not ``silent``."""
        with self._durable.begin() as connection:
            row = read_runner_row(connection, lock=True)
            claiming.check_version(row, self.location)
            known = claiming.look_up(row, self.location)
            if known == "alive":
                raise claiming.busy(row, self.location)
            if known == "unknown" and row != silent:
                return None
            fence = row.fence + 1
            mine = claiming.describe_process() | {"fence": fence, "state": "running", "note": None}
            connection.execute(update(schema.runner).values(**mine))
            connection.execute(schema.lease.delete())
        self.fence, self.seq = fence, row.last_seq
        self._file = self._file_identity()
        claiming.hold(self.location, self.fence)
        return row

    def _watch(self, lease_s: float) -> RunnerRow:
        reader = engine_for(self.location, read_only=True)

        def look() -> RunnerRow:
            with reader.begin() as connection:
                return read_runner_row(connection)

        try:
            return claiming.watch(look(), look, location=self.location, lease_s=lease_s)
        finally:
            reader.dispose()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[Connection]:
        """Open a transaction that fails if this runner was replaced.

        After `StoreUnavailable` the next transaction connects again. Where the connection was lost during the commit itself, only
        the store knows whether it was carried out: read what is there before going on.

        Raises
        ------
        StaleRunner
            Another runner has claimed the session since.
        StoreUnavailable
            The store cannot be reached or written at this moment: locked, full disk, read-only, vanished, connection lost.
        SessionError
            The store refuses for a reason that waiting does not mend.
        """
        self.check_in_place()
        engine = self._durable if durable else self._normal
        with self._translated("cannot be written"), engine.begin() as connection:
            if isinstance(self.location, Server):  # SQLite's BEGIN IMMEDIATE has locked out all others already
                self._check_fence(read_runner_row(connection, lock=True).fence == self.fence)
            yield connection
            mine = update(schema.runner).where(schema.runner.c.fence == self.fence)
            uptime = {} if self.uptime_s is None else {"uptime_s": self.uptime_s}
            renewed = connection.execute(mine.values(heartbeat_at=time.time(), last_seq=self.seq, **uptime))
            self._check_fence(renewed.rowcount == 1)

    def _check_fence(self, mine: bool) -> None:
        if not mine:
            raise StaleRunner(f"{self.location}: was taken over by another runner (this one had number {self.fence})")

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            trouble = explain(self.location, error, doing)
            if isinstance(trouble, StoreUnavailable):
                self._disconnect()
            raise trouble from error

    def check_in_place(self) -> None:
        """Check that the store's file is still where it was, and the same.

        Raises
        ------
        StoreUnavailable
            Somebody has moved, replaced or deleted it: what is written now would be lost.
        """
        if self._file is not None and self._file_identity() != self._file:
            self._disconnect()
            raise StoreUnavailable(f"{self.location}: is missing; the session was moved or deleted while it was being processed")

    def _file_identity(self) -> tuple[int, int] | None:
        if isinstance(self.location, Server):
            return None
        try:
            found = os.stat(self.location)  # noqa: PTH116 - called in every transaction
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def next_seq(self) -> int:
        """Return the next number of the change sequence; it counts once the transaction commits."""
        self.seq += 1
        return self.seq

    def close(self, note: str) -> None:
        """Give the session back; ``note`` says why."""
        with self.transaction(durable=True) as connection:
            connection.execute(update(schema.runner).values(state="stopped", note=note))
        self._claimed = False
        self.dispose()

    def give_back(self, note: str) -> bool:
        """Give the session back if it still can be: on the way out after an error.

        Returns
        -------
        bool
            False where another runner has it, or the store cannot be written; the next claim finds out by itself.
        """
        if not self._claimed:
            self.dispose()
            return True
        try:
            self.close(note)
        except SessionError:
            self.dispose()
            return False
        return True

    def dispose(self) -> None:
        """Close the connections without giving the session back; this process counts as its runner no more."""
        claiming.release(self.location, self.fence)
        self._disconnect()

    def _disconnect(self) -> None:
        self._normal.dispose()
        self._durable.dispose()


def append_command(location: Location, kind: str, arguments: dict[str, Any], *, author: str) -> int:
    """Ask the runner (present or next) for something; return the command's number. This is all other processes write.

    Raises
    ------
    StoreUnavailable
        The store cannot be reached or written at this moment.
    SessionError
        There is no store yet, a newer version of icestream has written it, or it cannot be used.
    """
    if isinstance(location, Path) and not location.is_file():
        raise SessionError(f"{location}: not found; the session has not been run yet")
    engine = engine_for(location, durable=True)
    values = {"kind": kind, "arguments": json.dumps(arguments), "author": author, "state": "asked", "at": time.time()}
    try:
        with engine.begin() as connection:
            claiming.check_version(read_runner_row(connection), location)
            row = connection.execute(insert(schema.command).values(values))
            return int(row.inserted_primary_key[0]) if row.inserted_primary_key else 0
    except DBAPIError as error:
        raise explain(location, error, "cannot take a command") from error
    finally:
        engine.dispose()
