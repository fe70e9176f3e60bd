"""The session's uptime: seconds during which a runner was up and not paused, over all its runs."""

from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from icestream.flow import schema


@dataclass
class Uptime:
    """Counts on a monotonic clock that the caller reads; what earlier runs counted comes from the store."""

    total_s: float
    heard_s: float

    def advance(self, now_s: float, *, paused: bool = False) -> float:
        """Count the time since the last call, unless the session was paused; return the uptime."""
        if not paused:
            self.total_s += max(0.0, now_s - self.heard_s)
        self.heard_s = now_s
        return self.total_s


def load_uptime(connection: Connection) -> float:
    """Return the uptime that earlier runs stored."""
    return float(connection.execute(select(schema.runner.c.uptime_s)).scalar() or 0.0)


def store_uptime(connection: Connection, uptime_s: float) -> None:
    """Store the uptime."""
    connection.execute(update(schema.runner).values(uptime_s=uptime_s))
