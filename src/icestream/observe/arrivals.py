"""How exposures arrive: the newest one, and the rate at which they came before it."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from icestream.flow.storage import schema

WINDOW_S = 3600.0
MOST_LOOKED_AT = 2000
LEAST_SPAN_S = 10.0


@dataclass(frozen=True)
class Arrivals:
    """The newest exposure, and the rate in the hour before it; unset where there are too few to have one."""

    name: str | None = None
    at: float | None = None
    per_hour: float | None = None


def read_arrivals(connection: Connection) -> Arrivals:
    """Look at the newest exposures; the cost does not grow with the session."""
    table = schema.exposure
    newest = connection.execute(
        select(table.c.name, table.c.arrived_at).order_by(table.c.ordinal.desc()).limit(MOST_LOOKED_AT)
    ).all()
    if not newest:
        return Arrivals()
    last = max(row.arrived_at for row in newest)
    recent = [row.arrived_at for row in newest if row.arrived_at > last - WINDOW_S]
    span_s = last - min(recent)
    per_hour = (len(recent) - 1) / span_s * 3600 if span_s >= LEAST_SPAN_S else None
    return Arrivals(newest[0].name, last, per_hour)
