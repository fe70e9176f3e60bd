"""Where a result comes from: everything that is known about one exposure, step by step."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from icestream.errors import SessionError
from icestream.flow.storage import OwnParams, Session, begins_with, has_text, load_owned, schema
from icestream.observe.catalog import Catalog, read_catalog
from icestream.observe.order import ActiveRevision
from icestream.observe.values import Told, notes_in, pictures_in, tell_record

MOST_CANDIDATES = 8
LEAST_OF_A_DIGEST = 8
_FILE = re.compile(r"^([a-z][a-z0-9_]*):[^/]")


@dataclass(frozen=True)
class TracedResult:
    """What one key stands for."""

    output: str
    key: str
    record_type: str
    record: dict[str, Any]
    inputs: dict[str, list[str]]
    params: dict[str, Any]
    acquisition: dict[str, Any]
    wall_s: float
    cpu_s: float
    host: str
    software: str
    created_at: float
    files: tuple[str, ...]
    shown: tuple[Told, ...] = ()
    """The numbers that people see of the record: label, value, unit."""
    pictures: tuple[tuple[str, str], ...] = ()
    """Title and file of its pictures."""
    notes: tuple[str, ...] = ()
    """What people should know of it."""


@dataclass(frozen=True)
class Bound:
    """The version of a whole that was used."""

    port: str
    version: int
    key: str


@dataclass(frozen=True)
class TracedStep:
    """What one step says about the exposure; ``status`` is unset while it has not decided."""

    step: str
    status: str | None
    reason: str | None
    root: str | None
    at: float | None
    revision: int
    use: str
    type_version: int
    params: dict[str, Any]
    software: str
    results: tuple[TracedResult, ...]
    bindings: tuple[Bound, ...]
    log_positions: tuple[int, ...]
    missing: tuple[str, ...] = ()
    own: OwnParams | None = None
    """The parameters that the exposure has of its own here; ``params`` holds them, too."""


@dataclass(frozen=True)
class Trace:
    """Everything that is known about one exposure (or batch, or version: those have no file of their own)."""

    unit: str
    name: str
    ordinal: int | None
    identity: str | None
    source: str | None
    files: tuple[str, ...]
    acquisition: dict[str, Any]
    arrived_at: float | None
    steps: tuple[TracedStep, ...]


def find_unit(connection: Connection, wanted: str) -> str:
    """Return the unit that ``wanted`` means: an id, a file name, a name, or the beginning of one.

    The beginning of an id or of a result key, which are digests, counts from `LEAST_OF_A_DIGEST` characters on: a number that
    names no exposure shall not mean another one by chance.

    Raises
    ------
    SessionError
        Nothing is called so, or several units are.
    """
    exposure, outcome, files, result = schema.exposure.c, schema.outcome.c, schema.source_file.c, schema.result.c
    if not wanted:
        raise SessionError("no name was given; give an exposure's id, its file's name, or the key of a result")
    digest = len(wanted) >= LEAST_OF_A_DIGEST
    questions = (
        select(exposure.unit).where((exposure.unit == wanted) | (exposure.name == wanted)),
        select(outcome.unit).where(outcome.unit == wanted),
        select(files.unit).where((files.ref == wanted) | files.ref.endswith(f"/{wanted}", autoescape=True)),
        select(files.unit).where(files.ref.endswith(f":{wanted}", autoescape=True)),
        select(exposure.unit).where(begins_with(exposure.name, wanted)),
        *([select(exposure.unit).where(begins_with(exposure.unit, wanted))] if digest else []),
        *([select(result.unit).where(begins_with(result.key, wanted))] if digest else []),
        select(exposure.unit).where(exposure.name.contains(wanted, autoescape=True)),
    )
    for question in questions:
        units = connection.execute(question.distinct().limit(MOST_CANDIDATES + 1)).scalars().all()
        if len(units) == 1:
            return str(units[0])
        if units:
            raise SessionError(f"{wanted!r}: could be any of: {_list_candidates(connection, list(units))}")
    raise SessionError(f"{wanted!r}: no exposure, file or result of this session has this name")


def _list_candidates(connection: Connection, units: list[str]) -> str:
    table = schema.exposure
    rows = connection.execute(select(table.c.unit, table.c.name).where(table.c.unit.in_(units)))
    names: dict[str, str] = {row[0]: row[1] for row in rows}
    shown = [f"{names.get(unit, unit)} ({unit[:12]})" for unit in units[:MOST_CANDIDATES]]
    return ", ".join(shown) + (", …" if len(units) > MOST_CANDIDATES else "")


def read_trace(
    connection: Connection, session: Session, unit: str, order: list[str], revisions: dict[str, ActiveRevision]
) -> Trace:
    """Return everything that is known about one unit.

    Raises
    ------
    SessionError
        The unit is no exposure, batch or version that a step has decided.
    """
    exposure = connection.execute(select(schema.exposure).where(schema.exposure.c.unit == unit)).mappings().first()
    refs = connection.execute(select(schema.source_file.c.ref).where(schema.source_file.c.unit == unit)).scalars()
    found_by = None if exposure is None else exposure["source"]
    active = [revisions[name] for name in order if name in revisions]
    chosen = [revision for revision in active if exposure is None or revision.kind != "source" or revision.step == found_by]
    owned, catalog = load_owned(connection), read_catalog(connection)
    steps = tuple(
        _trace_step(connection, session, catalog, unit, revision, own=owned.get((unit, revision.step))) for revision in chosen
    )
    if exposure is None:
        steps = tuple(step for step in steps if step.status is not None)
        if not steps:
            raise SessionError(f"{unit!r}: is a whole (a snapshot), made from many exposures; there is no single one to trace")
        return Trace(unit, unit, None, None, None, (), {}, None, steps)
    return Trace(
        unit=unit,
        name=exposure["name"],
        ordinal=exposure["ordinal"],
        identity=exposure["identity"],
        source=exposure["source"],
        files=tuple(dict.fromkeys(refs)),
        acquisition=json.loads(exposure["acquisition"]),
        arrived_at=exposure["arrived_at"],
        steps=steps,
    )


def _trace_step(
    connection: Connection, session: Session, catalog: Catalog, unit: str, revision: ActiveRevision, *, own: OwnParams | None
) -> TracedStep:
    outcome, binding, log = schema.outcome, schema.binding, schema.accumulator_log
    mine = (outcome.c.revision == revision.id) & (outcome.c.unit == unit)
    row = connection.execute(select(outcome).where(mine)).mappings().first()
    bound = connection.execute(
        select(binding.c.port, binding.c.version, binding.c.key)
        .where((binding.c.revision == revision.id) & (binding.c.unit == unit))
        .order_by(binding.c.port)
    )
    consumed = (log.c.revision == revision.id) & has_text(log.c.members, json.dumps(unit))
    positions = connection.execute(select(log.c.position).where(consumed).order_by(log.c.position)).scalars()
    keys: dict[str, str] = json.loads(row["keys"]) if row else {}
    return TracedStep(
        step=revision.step,
        status=row["status"] if row else None,
        reason=row["reason"] if row else None,
        root=row["root"] if row else None,
        at=row["at"] if row else None,
        revision=revision.number,
        use=session.document.steps[revision.step].use,
        type_version=revision.type_version,
        params=revision.params | ({} if own is None else dict(own.params)),
        software=revision.software,
        results=tuple(_trace_results(connection, session, catalog, keys)),
        bindings=tuple(Bound(port, version, key) for port, version, key in bound),
        log_positions=tuple(positions),
        missing=tuple(json.loads(row["missing"])) if row and row["missing"] else (),
        own=own,
    )


def _trace_results(connection: Connection, session: Session, catalog: Catalog, keys: dict[str, str]) -> Iterator[TracedResult]:
    table = schema.result
    columns = [column for column in table.columns if column.name != "block"]
    for output, key in sorted(keys.items()):
        row = connection.execute(select(*columns).where(table.c.key == key)).mappings().first()
        if row is None:
            continue
        record, name = catalog.fields(row), catalog.name_of(row["record_type"])
        shown, acquisition = catalog.shown(name), json.loads(row["acquisition"])
        size = acquisition.get("pixel_size_ang") or session.document.acquisition.pixel_size_ang
        yield TracedResult(
            output=output,
            key=key,
            record_type=name,
            record=record,
            inputs=json.loads(row["inputs"]),
            params=json.loads(row["params"]),
            acquisition=acquisition,
            wall_s=row["wall_s"],
            cpu_s=row["cpu_s"],
            host=row["host"],
            software=row["software"],
            created_at=row["created_at"],
            files=tuple(dict.fromkeys(_files_in(record, set(session.roots)))),
            shown=tell_record(shown, record, pixel_size_ang=size),
            pictures=pictures_in(shown, record),
            notes=notes_in(shown, record),
        )


def _files_in(value: object, roots: set[str]) -> Iterator[str]:
    """Find the file references in a record, whatever its type: texts that begin with a root of this session."""
    if isinstance(value, str):
        found = _FILE.match(value)
        if found and found.group(1) in roots:
            yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _files_in(part, roots)
