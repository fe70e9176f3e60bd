"""Where a whole comes from: one version of class averages, a map or a gain reference."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from icestream.errors import SessionError
from icestream.flow.storage import schema
from icestream.observe.catalog import read_catalog
from icestream.observe.values import Told, pictures_in, tell_record

_SHORTEST_KEY = 8


@dataclass(frozen=True)
class Lineage:
    """One version of a whole, and everything it was made from."""

    step: str
    revision: int
    version: int
    key: str
    at: float
    pruned: bool
    record_type: str | None
    record: dict[str, Any]
    params: dict[str, Any]
    software: str
    host: str | None
    portions: int
    """An accumulator's: so many portions of its log went into it."""
    members: tuple[str, ...]
    """An accumulator's: the exposures, by name, in the order it took them."""
    inputs: dict[str, list[str]]
    """Else: port → the keys of its inputs."""
    used_by: int
    """So many exposures were computed with it."""
    shown: tuple[Told, ...] = ()
    """The numbers that people see of it: label, value, unit."""
    pictures: tuple[tuple[str, str], ...] = ()
    """Title and file of its pictures."""


def read_lineage(connection: Connection, wanted: str, steps: list[str]) -> Lineage | None:
    """Return the version that ``wanted`` means, or None if it means none: a step, ``step:3``, or the key of a version.

    Raises
    ------
    SessionError
        The step has published no such version.
    """
    table, revision = schema.snapshot, schema.revision
    query = select(table, revision.c.step, revision.c.number, revision.c.params, revision.c.software)
    query = query.select_from(table.join(revision, revision.c.id == table.c.revision))
    step, colon, version = wanted.partition(":")
    if step in steps:
        query = query.where((revision.c.step == step) & (revision.c.state == "active")).order_by(table.c.version.desc())
        if colon:
            number = version.removeprefix("v")
            if not number.isdigit():
                raise SessionError(f"{wanted!r}: write the number of a version, as in {step}:3")
            query = query.where(table.c.version == int(number))
    elif len(wanted) >= _SHORTEST_KEY:
        query = query.where((table.c.key >= wanted) & (table.c.key < wanted + "\U0010ffff")).order_by(table.c.seq.desc())
    else:
        return None
    row = connection.execute(query.limit(1)).mappings().first()
    if row is None:
        if colon and step in steps:
            raise SessionError(f"{step}: has published no version {version}")
        return None
    return _lineage(connection, dict(row))


def _lineage(connection: Connection, row: dict[str, Any]) -> Lineage:
    result, binding = schema.result, schema.binding
    columns = [column for column in result.columns if column.name != "block"]
    made = connection.execute(select(*columns).where(result.c.key == row["key"])).mappings().first()
    catalog = read_catalog(connection)
    record_type = None if made is None else catalog.name_of(made["record_type"])
    record = {} if made is None else catalog.fields(made)
    shown = catalog.shown(record_type)
    portions, members = _members(connection, row["revision"], row["version"])
    used = select(func.count(binding.c.unit.distinct())).where(binding.c.key == row["key"])
    inputs: dict[str, list[str]] = {} if made is None else json.loads(made["inputs"])
    return Lineage(
        step=row["step"],
        revision=row["number"],
        version=row["version"],
        key=row["key"],
        at=row["at"],
        pruned=row["pruned"],
        record_type=record_type,
        record=record,
        shown=tell_record(shown, record),
        pictures=pictures_in(shown, record),
        params=json.loads(row["params"] if made is None else made["params"]),
        software=row["software"] if made is None else made["software"],
        host=None if made is None else made["host"],
        portions=portions,
        members=members,
        inputs={} if members else inputs,
        used_by=int(connection.execute(used).scalar_one()),
    )


def _members(connection: Connection, revision: int, version: int) -> tuple[int, tuple[str, ...]]:
    """Return how many portions an accumulator took up to a version, and the names of the exposures in them."""
    log, exposure = schema.accumulator_log, schema.exposure
    mine = (log.c.revision == revision) & (log.c.position <= version)
    texts = connection.execute(select(log.c.members).where(mine).order_by(log.c.position)).scalars().all()
    units = [unit for text in texts for unit, _ in json.loads(text)]
    names: dict[str, str] = {}
    for start in range(0, len(units), 500):
        rows = connection.execute(select(exposure.c.unit, exposure.c.name).where(exposure.c.unit.in_(units[start : start + 500])))
        names |= {row[0]: row[1] for row in rows}
    return len(texts), tuple(names.get(unit, unit) for unit in units)
