"""The exposures of a session as a table that is read page by page, sorted and filtered by the store or by what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, false, func, select

from icestream.errors import SessionError
from icestream.flow.storage import schema
from icestream.observe.measured import MOST_MEASURED, MeasureOfStep, list_measures, pixel_size_of, read_series
from icestream.observe.queries import SessionView, StepSummary, StoredRecord
from icestream.observe.values import field_at, value_of

State = Literal["failed", "set aside", "processing", "done"]
STATES: tuple[State, ...] = ("failed", "set aside", "processing", "done")
MOST_ROWS = 200
_STORED = ("number", "name")


@dataclass(frozen=True)
class Range:
    """Only exposures whose measure is between two values, either of which may be open."""

    measure: str
    low: float | None = None
    high: float | None = None

    def holds(self, value: float | None) -> bool:
        """Tell whether a value is inside; one that is missing is not."""
        inside = value is not None and (self.low is None or value >= self.low)
        return inside and (self.high is None or (value is not None and value <= self.high))


def read_range(text: str) -> Range:
    """Read ``measure,low,high``, either number of which may be empty.

    Raises
    ------
    SessionError
        It is not written so.
    """
    try:
        name, low, high = text.rsplit(",", 2)
        return Range(name, float(low) if low else None, float(high) if high else None)
    except ValueError:
        raise SessionError(f"range {text!r}: must be MEASURE,LOW,HIGH; either number may be empty") from None


@dataclass(frozen=True)
class TableQuery:
    """Which rows of the table are wanted; ``sort`` is ``number``, ``name``, or the id of a measure."""

    sort: str = "number"
    descending: bool = True
    text: str = ""
    state: State | None = None
    ranges: tuple[Range, ...] = ()
    offset: int = 0
    limit: int = 50


@dataclass(frozen=True)
class Mark:
    """What a step says about an exposure that is worth a word."""

    step: str
    status: Literal["failed", "rejected"]
    reason: str


@dataclass(frozen=True)
class PublishedPicture:
    """A picture that a step has published, by the key of its record and the field that names it."""

    key: str
    field: str
    title: str


@dataclass(frozen=True)
class ExposureRow:
    """One exposure: what became of it, what was measured, and its picture."""

    unit: str
    name: str
    number: int
    arrived_at: float
    state: State
    marks: tuple[Mark, ...]
    decisions: tuple[str, ...]
    """What people decided about it, as sentences."""
    values: Mapping[str, float | None]
    """Measure → value."""
    picture: PublishedPicture | None


@dataclass(frozen=True)
class ExposureTable:
    """A page of the table, and how many rows there are in all."""

    columns: tuple[MeasureOfStep, ...]
    rows: tuple[ExposureRow, ...]
    total: int
    matching: int


@dataclass(frozen=True)
class _Page:
    rows: Sequence[Row[Any]] = ()
    marks: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)
    open: frozenset[str] = frozenset()
    total: int = 0
    matching: int = 0


def read_table(view: SessionView, steps: Sequence[StepSummary], query: TableQuery) -> ExposureTable:
    """Return a page of the table.

    Raises
    ------
    SessionError
        It is to be sorted or filtered by something that no step measures.
    """
    catalog = view.catalog()
    columns = tuple(one for one in list_measures(view, steps) if not one.whole)
    wanted = [query.sort, *(one.measure for one in query.ranges)]
    known = {one.id for one in columns}
    for name in wanted:
        if name not in known and name not in _STORED:
            raise SessionError(
                f"{name!r}: no step of this session measures this; it has {', '.join(sorted(known)) or 'none yet'}"
            )
    measured = {
        name: dict(zip(series.exposures, series.values, strict=True))
        for name, series in read_series(view, steps, [one for one in columns if one.id in wanted], most=MOST_MEASURED).items()
    }
    with view.reading() as connection:
        page = _Page() if connection is None else _read_page(view, connection, query, measured)
    units = [row.unit for row in page.rows]
    records = {step.name: view.records_of(step.name, units) for step in steps if step.records.get("out")} if units else {}
    decided: dict[str, list[str]] = {}
    for one in view.decisions(units) if units else []:
        decided.setdefault(one.unit, []).append(f"{one.step}: {one.sentence}")
    size = pixel_size_of(view)
    pictured = _picture_steps(steps, {step.name: catalog.shown(step.records.get("out")).image for step in steps})
    rows = [
        ExposureRow(
            unit=row.unit,
            name=row.name,
            number=row.ordinal,
            arrived_at=row.arrived_at,
            state=_state_of(page, row.unit),
            marks=page.marks.get(row.unit, ()),
            decisions=tuple(decided.get(row.unit, ())),
            values={column.id: _value(records, column, row.unit, size) for column in columns},
            picture=_picture(records, pictured, row.unit),
        )
        for row in page.rows
    ]
    return ExposureTable(columns, tuple(rows), page.total, page.matching)


def neighbours(connection: Connection, unit: str) -> tuple[str | None, str | None]:
    """Return the exposures that arrived just before and just after one."""
    table = schema.exposure
    ordinal = select(table.c.ordinal).where(table.c.unit == unit).scalar_subquery()
    before = select(table.c.unit).where(table.c.ordinal < ordinal).order_by(table.c.ordinal.desc()).limit(1)
    after = select(table.c.unit).where(table.c.ordinal > ordinal).order_by(table.c.ordinal).limit(1)
    return connection.execute(before).scalar(), connection.execute(after).scalar()


def _read_page(
    view: SessionView, connection: Connection, query: TableQuery, measured: Mapping[str, Mapping[int, float]]
) -> _Page:
    table = schema.exposure
    active = [one.id for one in view.revisions(connection).values()]
    where = _conditions(query, active)
    if query.sort in _STORED and not query.ranges:
        column = table.c.ordinal if query.sort == "number" else table.c.name
        rows = connection.execute(
            select(table)
            .where(where)
            .order_by(column.desc() if query.descending else column, table.c.ordinal)
            .limit(query.limit)
            .offset(query.offset)
        ).all()
        matching = int(connection.execute(select(func.count()).select_from(table).where(where)).scalar_one())
    else:
        chosen = _sorted_ordinals(connection, query, where, measured)
        here = chosen[query.offset : query.offset + query.limit]
        found = {row.ordinal: row for row in connection.execute(select(table).where(table.c.ordinal.in_(here)))}
        rows, matching = [found[ordinal] for ordinal in here], len(chosen)
    units = [row.unit for row in rows]
    return _Page(
        rows=rows,
        marks=_read_marks(connection, view, units),
        open=frozenset(row.unit for row in rows if row.settled_by is None),
        total=int(connection.execute(select(func.count()).select_from(table)).scalar_one()),
        matching=matching,
    )


def _sorted_ordinals(
    connection: Connection, query: TableQuery, where: ColumnElement[bool], measured: Mapping[str, Mapping[int, float]]
) -> list[int]:
    """Return the numbers of all exposures that fit, in order; those without the measure come last whatever the direction."""
    table = schema.exposure
    fitting = connection.execute(select(table.c.ordinal, table.c.name).where(where).order_by(table.c.ordinal)).all()
    kept = [row for row in fitting if all(one.holds(measured.get(one.measure, {}).get(row.ordinal)) for one in query.ranges)]
    if query.sort in _STORED:
        kept.sort(key=lambda row: row.ordinal if query.sort == "number" else row.name, reverse=query.descending)
        return [row.ordinal for row in kept]
    values = measured.get(query.sort, {})
    having = sorted((row.ordinal for row in kept if row.ordinal in values), key=lambda n: values[n], reverse=query.descending)
    return [*having, *(row.ordinal for row in kept if row.ordinal not in values)]


def _conditions(query: TableQuery, active: Sequence[int]) -> ColumnElement[bool]:
    table, outcome = schema.exposure, schema.outcome

    def has(status: str) -> ColumnElement[bool]:
        mine = (outcome.c.unit == table.c.unit) & (outcome.c.status == status) & outcome.c.revision.in_(active)
        return select(outcome.c.unit).where(mine).exists()

    failed, aside, unsettled = has("failed"), has("rejected"), table.c.settled_by.is_(None)
    states: dict[State | None, list[ColumnElement[bool]]] = {
        None: [],
        "failed": [failed],
        "set aside": [~failed, aside],
        "processing": [~failed, ~aside, unsettled],
        "done": [~failed, ~aside, ~unsettled],
    }
    text = [table.c.name.contains(query.text, autoescape=True)] if query.text else []
    return and_(~false(), *states[query.state], *text)


def _read_marks(connection: Connection, view: SessionView, units: Sequence[str]) -> dict[str, tuple[Mark, ...]]:
    """Return unit → where it failed or was set aside, in workflow order."""
    outcome = schema.outcome
    steps = {one.id: name for name, one in view.revisions(connection).items()}
    rows = connection.execute(
        select(outcome.c.unit, outcome.c.revision, outcome.c.status, outcome.c.reason).where(
            outcome.c.unit.in_(units) & outcome.c.revision.in_(steps) & outcome.c.status.in_(("failed", "rejected"))
        )
    ).all()
    place = {name: index for index, name in enumerate(view.order)}
    found: dict[str, list[Mark]] = {}
    for row in sorted(rows, key=lambda row: place[steps[row.revision]]):
        found.setdefault(row.unit, []).append(Mark(steps[row.revision], row.status, row.reason or ""))
    return {unit: tuple(marks) for unit, marks in found.items()}


def _state_of(page: _Page, unit: str) -> State:
    said = {mark.status for mark in page.marks.get(unit, ())}
    if said:
        return "failed" if "failed" in said else "set aside"
    return "processing" if unit in page.open else "done"


def _value(
    records: Mapping[str, Mapping[str, StoredRecord]], one: MeasureOfStep, unit: str, pixel_size_ang: float | None
) -> float | None:
    stored = records.get(one.step, {}).get(unit)
    return None if stored is None else value_of(one.declared, stored.record, pixel_size_ang=pixel_size_ang)


def _picture_steps(steps: Sequence[StepSummary], images: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the steps that make images of exposures with the field of their picture, those closest to the end first."""
    return [(step.name, images[step.name].picture) for step in reversed(steps) if images[step.name] is not None]


def _picture(
    records: Mapping[str, Mapping[str, StoredRecord]], pictured: Sequence[tuple[str, str]], unit: str
) -> PublishedPicture | None:
    for step, path in pictured:
        stored = records.get(step, {}).get(unit)
        if stored is not None and field_at(stored.record, path):
            return PublishedPicture(stored.key, path, step)
    return None
