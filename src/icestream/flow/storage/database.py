"""Engines on a session's store, by its location: SQLite in WAL mode, or a schema of a PostgreSQL database."""

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

from icestream.errors import SessionError
from icestream.files import make_shared
from icestream.flow.storage.location import Location, Server, find_password

LOCK_WAIT_S = 30
"""A transaction waits so long for another one's lock before the store counts as unavailable."""

_SILENCE_S = 60
"""A server that says nothing for so long in the middle of a question, or a writer in the middle of a transaction, is gone."""

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


def engine_for(location: Location, *, durable: bool = False, read_only: bool = False, create: bool = False) -> Engine:
    """Return an engine on the store at ``location``.

    ``durable`` commits survive a power cut; a ``read_only`` engine sees one consistent moment in each transaction; ``create``
    makes the file of a store that is not there yet.

    Raises
    ------
    SessionError
        The driver for PostgreSQL is not installed, or the password cannot be looked up.
    """
    if isinstance(location, Server):
        return _server_engine(location, durable=durable, read_only=read_only)
    return _file_engine(location, durable=durable, mode="ro" if read_only else "rwc" if create else "rw")


def _file_engine(path: Path, *, durable: bool, mode: str) -> Engine:
    read_only = mode == "ro"
    if mode == "rwc":
        make_shared(path)
    url = f"sqlite:///file:{quote(str(path))}?mode={mode}&uri=true"
    pool = NullPool if read_only else StaticPool
    engine = create_engine(url, poolclass=pool, connect_args={"timeout": LOCK_WAIT_S, "check_same_thread": False})

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


def _server_engine(server: Server, *, durable: bool, read_only: bool) -> Engine:
    try:
        import pg8000  # noqa: F401, PLC0415 - an extra: only sessions on a server need it
    except ImportError as error:
        raise SessionError(f"{server}: needs the driver for PostgreSQL: install icestream-em[postgres]") from error
    socket = f"{server.host}/.s.PGSQL.{server.port}" if server.host.startswith("/") else None
    contexts: dict[str, Any] = {"disable": False, "prefer": None, "require": True}
    verified = ssl.create_default_context() if server.sslmode == "verify-full" else None
    arguments = {
        "application_name": "icestream",
        "password": find_password(server) or "",  # the driver cannot answer a server's question with None
        "timeout": _SILENCE_S,
        "tcp_keepalive": True,
        "unix_sock": socket,
        "ssl_context": False if socket else verified or contexts[server.sslmode],
    }
    host = None if socket else server.host
    url = URL.create("postgresql+pg8000", server.user, None, host, server.port, server.database)
    if read_only:
        engine = create_engine(url, poolclass=NullPool, connect_args=arguments, hide_parameters=True)
    else:
        pool = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_pre_ping": True}
        engine = create_engine(url, connect_args=arguments, hide_parameters=True, **pool)

    @event.listens_for(engine, "connect", insert=True)
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        for name, value in _server_settings(server, durable=durable, read_only=read_only).items():
            cursor.execute(f"SET SESSION {name} TO {value}")  # names and values are our own, the schema's name is checked
        connection.commit()
        cursor.close()

    return engine


def _server_settings(server: Server, *, durable: bool, read_only: bool) -> dict[str, str]:
    settings = {"search_path": f'"{server.schema}"', "lock_timeout": f"'{LOCK_WAIT_S}s'"}
    if read_only:
        return settings | {"default_transaction_isolation": "'repeatable read'", "default_transaction_read_only": "on"}
    return settings | {
        "synchronous_commit": "on" if durable else "off",
        "idle_in_transaction_session_timeout": f"'{_SILENCE_S}s'",  # a runner cut off from the server must let go of its lock
    }


def insert_if_new(connection: Connection, table: Table) -> Any:
    """Return an INSERT that leaves a row that is there already as it is."""
    make = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    return make(table).on_conflict_do_nothing()


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
            f"{path}: is on a network file system ({kind} at {mount}), where SQLite's WAL mode is not safe; "
            "set `store:` in session.yaml to a path on a local disk, or to the URL of a PostgreSQL database"
        )
