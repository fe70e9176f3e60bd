"""Exposures as the store knows them: found by what people call them, loaded with all that is known of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, or_, select

from icestream.errors import SessionError
from icestream.flow.scheduling import Unit
from icestream.flow.storage import resuming
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.revisions import Revision

_CHUNK = 200


def find_exposure(connection: Connection, wanted: str) -> tuple[str, str, str]:
    """Return id, name and source of the exposure with this name, id, or beginning of an id (8 characters at least).

    Raises
    ------
    SessionError
        None is called so, or more than one.
    """
    table = schema.exposure
    by_id = table.c.unit.startswith(wanted, autoescape=True) if len(wanted) >= 8 else table.c.unit == wanted
    rows = connection.execute(
        select(table.c.unit, table.c.name, table.c.source).where(or_(table.c.name == wanted, by_id)).limit(2)
    ).all()
    if not rows:
        raise SessionError(f"no exposure is called {wanted!r}")
    if len(rows) > 1:
        raise SessionError(f"{wanted!r} means more than one exposure: {rows[0].unit} and {rows[1].unit}; give an id")
    return rows[0].unit, rows[0].name, rows[0].source


def load_arrived(connection: Connection, revisions: Mapping[str, Revision], ids: Iterable[str]) -> list[Unit]:
    """Return those of some units that are exposures and have come from their source under the present workflow."""
    sources = {row["unit"]: row["source"] for row in read_exposures(connection, ids)}
    units = resuming.load_exposures(connection, revisions, list(sources))
    return [unit for unit in units if sources[unit.id] in unit.outcomes]


def read_exposures(connection: Connection, ids: Iterable[str]) -> Iterable[Mapping[Any, Any]]:
    """Give the rows of those of some units that are exposures."""
    wanted, table = list(ids), schema.exposure
    for start in range(0, len(wanted), _CHUNK):
        chunk = table.c.unit.in_(wanted[start : start + _CHUNK])
        yield from connection.execute(select(table).where(chunk)).mappings().all()
