"""The session's store: SQLite in WAL mode, one writer with a fencing number, many readers."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, select, update
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import NullPool, StaticPool

from icestream.errors import SessionBusy, SessionError, StaleRunner
from icestream.flow import schema
from icestream.flow.schema import SCHEMA_VERSION

LEASE_S = 30.0
"""A runner on another host that was silent for so long is taken for dead."""

_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.sshfs",
    "glusterfs",
    "9p",
}


def engine_for(path: Path, *, durable: bool = False, read_only: bool = False) -> Engine:
    """Return an engine on the SQLite file ``path``; ``durable`` commits survive a power cut."""
    mode = "ro" if read_only else "rwc"
    url = f"sqlite:///file:{quote(str(path))}?mode={mode}&uri=true"
    pool = NullPool if read_only else StaticPool
    engine = create_engine(url, poolclass=pool, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        if not read_only:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def check_file_system(path: Path) -> None:
    """Refuse a store on a network file system, where WAL corrupts.

    Raises
    ------
    SessionError
        Naming the file system and the remedy.
    """
    kind, mount = "", ""
    real = path.resolve()
    for part in psutil.disk_partitions(all=True):
        inside = str(real).startswith(part.mountpoint.rstrip("/") + "/") or part.mountpoint == "/"
        if inside and len(part.mountpoint) > len(mount):
            kind, mount = part.fstype.lower(), part.mountpoint
    if kind in _NETWORK_FILE_SYSTEMS:
        raise SessionError(
            f"{path}: lies on a network file system ({kind} at {mount}), where SQLite's WAL mode is not safe; "
            "set `store:` in session.yaml to a path on a local disk"
        )


class Store:
    """The writer's side. Every transaction carries the fencing number; a stale runner cannot commit."""

    def __init__(self, path: Path) -> None:
        check_file_system(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._normal = engine_for(path)
        self._durable = engine_for(path, durable=True)
        self.fence = 0
        self.seq = 0
        self.uptime_s = 0.0

    def claim(self) -> None:
        """Become the one writer: create or check the schema, raise the fencing number, drop the leases of dead runners.

        Raises
        ------
        SessionBusy
            Another runner is alive.
        SessionError
            The store was written by a newer version, or is not a database.
        """
        try:
            with self._durable.begin() as connection:
                schema.metadata.create_all(connection)
                row = connection.execute(select(schema.runner)).mappings().first()
                self._check_claim(dict(row) if row else None)
                self.fence = (row["fence"] if row else 0) + 1
                self.seq = row["last_seq"] if row else 0
                self.uptime_s = row["uptime_s"] if row else 0.0
                mine = self._identity(state="running")
                if row is None:
                    connection.execute(insert(schema.runner).values(id=1, schema_version=SCHEMA_VERSION, last_seq=0, **mine))
                else:
                    connection.execute(update(schema.runner).values(**mine))
                connection.execute(schema.lease.delete())
        except DatabaseError as error:
            raise SessionError(f"{self.path}: cannot be used as a store: {error.orig}") from error

    def _check_claim(self, row: dict[str, Any] | None) -> None:
        if row is None:
            return
        if row["schema_version"] != SCHEMA_VERSION:
            raise SessionError(
                f"{self.path}: has schema {row['schema_version']}, this version of icestream reads {SCHEMA_VERSION}; "
                "use the version that wrote it, or a newer one"
            )
        if row["state"] == "running" and is_alive(row):
            raise SessionBusy(f"{self.path.parent}: is processed already by process {row['pid']} on {row['host']}")

    def _identity(self, *, state: str) -> dict[str, Any]:
        process = psutil.Process()
        return {
            "fence": self.fence,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_started": process.create_time(),
            "heartbeat_at": time.time(),
            "state": state,
            "note": None,
        }

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[Connection]:
        """Open a transaction that fails if this runner was replaced.

        Raises
        ------
        StaleRunner
            Another runner has claimed the session since.
        SessionError
            The store cannot be written (full disk, read-only folder).
        """
        engine = self._durable if durable else self._normal
        try:
            with engine.begin() as connection:
                yield connection
                renewed = connection.execute(
                    update(schema.runner)
                    .where(schema.runner.c.fence == self.fence)
                    .values(heartbeat_at=time.time(), last_seq=self.seq, uptime_s=self.uptime_s)
                )
                if renewed.rowcount != 1:
                    raise StaleRunner(f"{self.path.parent}: was taken over by another runner (this one had number {self.fence})")
        except OperationalError as error:
            raise SessionError(f"{self.path}: cannot be written: {error.orig}") from error

    def check_in_place(self) -> None:
        """Check that the store's file is still where it was.

        Raises
        ------
        SessionError
            Somebody has moved or deleted it: what is written now would be lost.
        """
        if not self.path.exists():
            raise SessionError(f"{self.path}: is gone; the session was moved or deleted while it was processed")

    def next_seq(self) -> int:
        """Return the next number of the change sequence; it counts once the transaction commits."""
        self.seq += 1
        return self.seq

    def close(self, note: str) -> None:
        """Give the session back."""
        with self.transaction(durable=True) as connection:
            connection.execute(update(schema.runner).values(state="stopped", note=note))
        self.dispose()

    def dispose(self) -> None:
        """Close the connections without giving the session back."""
        self._normal.dispose()
        self._durable.dispose()


def is_alive(row: dict[str, Any]) -> bool:
    """Tell whether the process of a runner row lives: looked up on its own machine, else by its heartbeat."""
    if row["pid"] is None or row["heartbeat_at"] is None:
        return False
    if row["host"] != socket.gethostname():
        return bool(time.time() - row["heartbeat_at"] < LEASE_S)
    try:
        process = psutil.Process(row["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - row["pid_started"]) < 1.0
    except psutil.NoSuchProcess:
        return False


def append_command(path: Path, kind: str, arguments: dict[str, Any], *, author: str) -> int:
    """Ask the runner (present or next) for something; return the command's number. This is all other processes write."""
    engine = engine_for(path, durable=True)
    try:
        with engine.begin() as connection:
            row = connection.execute(
                insert(schema.command).values(
                    kind=kind, arguments=json.dumps(arguments), author=author, state="asked", at=time.time()
                )
            )
            return int(row.inserted_primary_key[0]) if row.inserted_primary_key else 0
    finally:
        engine.dispose()


def count_rows(connection: Connection, table: Any) -> int:
    """Count the rows of a table."""
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())
