"""The revisions of a step: what differs between them, and what their results say side by side."""

import json
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from icestream.errors import SessionError
from icestream.flow.storage import load_owned, schema

_CHUNK = 500


@dataclass(frozen=True)
class RevisionRow:
    """One revision of a step."""

    step: str
    number: int
    state: str
    created_at: float
    software: str
    type_version: int
    epoch: int
    params: dict[str, Any]
    changed: dict[str, tuple[Any, Any]]
    """What differs from the revision before: name → (there, here); a parameter that is new or gone is None there."""
    counts: dict[str, int]
    """Outcome → so many exposures; nothing after they were dropped or cleaned up."""
    own_params: int = 0
    """So many exposures have parameters of their own here; only the active revision has such."""


@dataclass(frozen=True)
class Difference:
    """An exposure that two revisions judge differently."""

    unit: str
    exposure: str
    first: str
    second: str
    reason: str


@dataclass(frozen=True)
class Median:
    """A number of the records of two revisions, side by side."""

    field: str
    first: float | None
    second: float | None
    n_first: int
    n_second: int


@dataclass(frozen=True)
class Comparison:
    """Two revisions of one step; exposures that only one of them has decided are counted, not listed."""

    first: RevisionRow
    second: RevisionRow
    same: int
    only_first: int
    only_second: int
    differing: tuple[Difference, ...]
    medians: tuple[Median, ...]


def read_revisions(connection: Connection, step: str | None) -> list[RevisionRow]:
    """Return the revisions of one step or all, oldest first."""
    table, outcome = schema.revision, schema.outcome
    query = select(table).order_by(table.c.step, table.c.number)
    rows = connection.execute(query if step is None else query.where(table.c.step == step)).mappings().all()
    counts: dict[int, dict[str, int]] = {}
    for row in rows:
        mine = select(outcome.c.status, func.count()).where(outcome.c.revision == row["id"]).group_by(outcome.c.status)
        counts[row["id"]] = {row[0]: row[1] for row in connection.execute(mine)}
    own = Counter(step for _, step in load_owned(connection))
    found = []
    before: dict[str, Any] | None = None
    for row in rows:
        here = _identity(dict(row))
        there = before if before is not None and before["step"] == row["step"] else None
        changed = {} if there is None else _changes(there, here)
        before = here
        found.append(
            RevisionRow(
                row["step"],
                row["number"],
                row["state"],
                row["created_at"],
                row["software"],
                row["type_version"],
                row["epoch"],
                json.loads(row["params"]),
                changed,
                counts[row["id"]],
                own[row["step"]] if row["state"] == "active" else 0,
            )
        )
    return found


def _identity(row: dict[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in json.loads(row["params"]).items() if value is not None}
    links = {f"input {port}": ", ".join(group) for port, group in json.loads(row["links"]).items()}
    versions = {"step type": row["type"], "version": row["type_version"], "recomputed": row["epoch"]}
    return {"step": row["step"], **params, **links, **versions}


def _changes(there: dict[str, Any], here: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = list({**there, **here})
    return {name: (there.get(name), here.get(name)) for name in names if there.get(name) != here.get(name)}


def compare_revisions(connection: Connection, step: str, numbers: tuple[int, int]) -> Comparison:
    """Compare two revisions of a step.

    Raises
    ------
    SessionError
        The step has no such revision.
    """
    rows = {row.number: row for row in read_revisions(connection, step)}
    missing = [number for number in numbers if number not in rows]
    if missing:
        raise SessionError(f"{step}: has no revision {missing[0]}; it has {', '.join(map(str, rows)) or 'none yet'}")
    first, second = (_outcomes(connection, step, number) for number in numbers)
    both = [unit for unit in first if unit in second]
    names = _names(connection, differing := [unit for unit in both if first[unit][0] != second[unit][0]])
    return Comparison(
        first=rows[numbers[0]],
        second=rows[numbers[1]],
        same=len(both) - len(differing),
        only_first=len(first) - len(both),
        only_second=len(second) - len(both),
        differing=tuple(
            Difference(unit, names.get(unit, unit), first[unit][0], second[unit][0], second[unit][1] or first[unit][1])
            for unit in differing
        ),
        medians=_medians(_numbers(connection, first), _numbers(connection, second)),
    )


def _outcomes(connection: Connection, step: str, number: int) -> dict[str, tuple[str, str, str]]:
    """Return unit → (status, reason, key of its result)."""
    table, revision = schema.outcome, schema.revision
    mine = select(revision.c.id).where((revision.c.step == step) & (revision.c.number == number)).scalar_subquery()
    rows = connection.execute(
        select(table.c.unit, table.c.status, table.c.reason, table.c["keys"])
        .where(table.c.revision == mine)
        .order_by(table.c.seq)
    )
    return {row[0]: (row[1], row[2] or "", json.loads(row[3]).get("out", "")) for row in rows}


def _names(connection: Connection, units: list[str]) -> dict[str, str]:
    table = schema.exposure
    found: dict[str, str] = {}
    for start in range(0, len(units), _CHUNK):
        rows = connection.execute(select(table.c.unit, table.c.name).where(table.c.unit.in_(units[start : start + _CHUNK])))
        found |= {row[0]: row[1] for row in rows}
    return found


def _numbers(connection: Connection, outcomes: dict[str, tuple[str, str, str]]) -> dict[str, list[float]]:
    """Return field → the numbers in the records of a revision; a field of a record within a record has a dotted name."""
    keys = [key for _, _, key in outcomes.values() if key]
    table = schema.result
    found: dict[str, list[float]] = {}
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        for text in connection.execute(select(table.c.record).where(table.c.key.in_(chunk))).scalars():
            for name, value in _flat(json.loads(text), ""):
                found.setdefault(name, []).append(value)
    return found


def _flat(fields: dict[str, Any], above: str) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in fields.items():
        if isinstance(value, dict):
            found += _flat(value, f"{above}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((f"{above}{name}", float(value)))
    return found


def _medians(first: dict[str, list[float]], second: dict[str, list[float]]) -> tuple[Median, ...]:
    return tuple(
        Median(name, _median(first.get(name)), _median(second.get(name)), len(first.get(name, [])), len(second.get(name, [])))
        for name in dict.fromkeys([*first, *second])
    )


def _median(values: list[float] | None) -> float | None:
    return statistics.median(values) if values else None
