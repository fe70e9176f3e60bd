"""Who processes a session: one runner, which others believe alive or dead without comparing clocks of two machines."""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import psutil
from sqlalchemy import Connection, select

from icestream.errors import SessionBusy, SessionError
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.location import Location
from icestream.flow.storage.store_schema import SCHEMA_VERSION

LEASE_S = 30.0
"""A runner that cannot be looked up and was silent for so long, by the clock of who watches it, is taken for dead."""

_LOOK_EVERY_S = 0.5
"""How often the row is looked at while its runner is watched; in a short lease ten times."""

_SAME_START_S = 1.0

_COLUMNS = ("schema_version", "fence", "host", "pid", "pid_started", "heartbeat_at", "last_seq", "state")
"""What every version of the schema has."""

_held: set[tuple[str, int]] = set()
"""The claims of this very process, by store and fencing number: its own process id alone does not say that it still runs."""


@dataclass(frozen=True)
class RunnerRow:
    """Who has the session, as far as every version of the schema tells; two equal rows mean that nothing happened between."""

    schema_version: int
    fence: int
    host: str | None
    pid: int | None
    pid_started: float | None
    heartbeat_at: float | None
    last_seq: int
    state: str


def read_runner_row(connection: Connection, *, lock: bool = False) -> RunnerRow:
    """Read who has the session; with ``lock`` nobody else can claim it or commit to it until this transaction ends."""
    query = select(*(schema.runner.c[name] for name in _COLUMNS))
    row = connection.execute(query.with_for_update() if lock else query).mappings().one()
    return RunnerRow(**row)


def check_version(row: RunnerRow, location: Location) -> None:
    """Refuse a store that newer software has written.

    Raises
    ------
    SessionError
        Naming both versions.
    """
    if row.schema_version > SCHEMA_VERSION:
        raise SessionError(
            f"{location}: has schema {row.schema_version}, but this version of icestream reads {SCHEMA_VERSION} and older; "
            "use the version that wrote it, or a newer one"
        )


def describe_process() -> dict[str, Any]:
    """Return what a runner says of itself in its row."""
    process = psutil.Process()
    return {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": process.create_time(), "heartbeat_at": time.time()}


def hold(location: Location, fence: int) -> None:
    """Remember that this process has a claim."""
    _held.add((str(location), fence))


def release(location: Location, fence: int) -> None:
    """Forget a claim of this process."""
    _held.discard((str(location), fence))


def look_up(row: RunnerRow, location: Location) -> Literal["alive", "dead", "unknown"]:
    """Tell what became of the runner of a row: looked up on its own machine; on another one only watching tells."""
    if row.state != "running" or row.pid is None:
        return "dead"
    if row.host != socket.gethostname():
        return "unknown"
    try:
        process = psutil.Process(row.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return "dead"
        same = abs(process.create_time() - (row.pid_started or 0.0)) < _SAME_START_S
    except psutil.NoSuchProcess:
        return "dead"
    if row.pid == os.getpid():
        return "alive" if (str(location), row.fence) in _held else "dead"
    return "alive" if same else "unknown"  # start times also differ after the machine's clock was set


def watch(row: RunnerRow, look: Callable[[], RunnerRow], *, location: Location, lease_s: float) -> RunnerRow:
    """Watch a runner that cannot be looked up for ``lease_s`` of our own monotonic time; return its row if nothing changed in it.

    Raises
    ------
    SessionBusy
        The row changed: its runner lives.
    """
    end = time.monotonic() + lease_s
    while time.monotonic() < end:
        time.sleep(min(_LOOK_EVERY_S, lease_s / 10))
        newer = look()
        if newer.state != "running":
            return newer
        if newer != row:
            raise busy(newer, location)
    return row


def busy(row: RunnerRow, location: Location) -> SessionBusy:
    """Return the error that names who has the session."""
    return SessionBusy(f"{location}: is already being processed by process {row.pid} on {row.host}")


def is_alive(row: RunnerRow) -> bool:
    """Tell whether the runner of a row seems to live, for a view that cannot wait.

    The heartbeat from another machine is read by our clock: a view may be wrong about it, a claim is not.
    """
    if row.state != "running" or row.pid is None or row.heartbeat_at is None:
        return False
    if row.host != socket.gethostname():
        return abs(time.time() - row.heartbeat_at) < LEASE_S
    try:
        process = psutil.Process(row.pid)
        same: bool = abs(process.create_time() - (row.pid_started or 0.0)) < _SAME_START_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
