"""What failed and what was rejected, with the reasons."""

import json
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select

from icestream.flow.storage import schema
from icestream.observe.answers import FailedItem, ReasonCount, RejectedItem
from icestream.observe.catalog import Catalog, read_catalog
from icestream.observe.order import ActiveRevision
from icestream.observe.values import notes_in

_NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")


def read_failed(connection: Connection, revisions: dict[str, ActiveRevision], *, limit: int | None) -> list[FailedItem]:
    """Return the units whose outcome is failed, newest first, each with its last attempt."""
    steps = {revision.id: name for name, revision in revisions.items()}
    found, catalog = [], read_catalog(connection)
    for row in connection.execute(_with_status(steps, "failed", limit)).mappings():
        last, attempts = _last_attempt(connection, row["revision"], row["unit"])
        found.append(
            FailedItem(
                step=steps[row["revision"]],
                unit=row["unit"],
                exposure=row["name"] or row["unit"],
                reason=row["reason"] or (last["message"] if last else "no reason was given"),
                kind=last["kind"] if last else None,
                error_type=last["error_type"] if last else None,
                attempts=attempts,
                at=row["at"],
                traceback=last["traceback"] if last else None,
                notes=_notes_on(connection, catalog, row["unit"]),
            )
        )
    return found


def read_rejected(connection: Connection, revisions: dict[str, ActiveRevision], *, limit: int | None) -> list[RejectedItem]:
    """Return the units that filters set aside, newest first."""
    steps = {revision.id: name for name, revision in revisions.items()}
    rows = connection.execute(_with_status(steps, "rejected", limit)).mappings()
    return [
        RejectedItem(steps[row["revision"]], row["unit"], row["name"] or row["unit"], row["reason"] or "", row["at"])
        for row in rows
    ]


def count_reasons(connection: Connection, revisions: dict[str, ActiveRevision], status: str) -> list[ReasonCount]:
    """Return how often which reason was given, the most frequent first."""
    steps = {revision.id: name for name, revision in revisions.items()}
    table = schema.outcome
    rows = connection.execute(
        select(table.c.revision, table.c.reason, func.count())
        .where(table.c.revision.in_(steps) & (table.c.status == status))
        .group_by(table.c.revision, table.c.reason)
        .order_by(func.count().desc())
    )
    return [ReasonCount(steps[revision], reason or "", count) for revision, reason, count in rows]


def _notes_on(connection: Connection, catalog: Catalog, unit: str) -> tuple[str, ...]:
    """Return what people should know of the files that an exposure came from, as its source found them last."""
    exposure, outcome, revision, result = schema.exposure, schema.outcome, schema.revision, schema.result
    mine = (exposure.c.unit == unit) & (revision.c.step == exposure.c.source) & (revision.c.state == "active")
    joined = exposure.join(outcome, outcome.c.unit == exposure.c.unit).join(revision, revision.c.id == outcome.c.revision)
    keys = json.loads(connection.execute(select(outcome.c["keys"]).select_from(joined).where(mine)).scalar() or "{}")
    columns = (result.c.record_type, result.c.record_version, result.c.record)
    rows = connection.execute(select(*columns).where(result.c.key.in_(keys.values()))).mappings()
    return tuple(note for row in rows for note in notes_in(catalog.shown(row["record_type"]), catalog.fields(row)))


def _with_status(steps: dict[int, str], status: str, limit: int | None) -> Select[Any]:
    outcome, exposure = schema.outcome, schema.exposure
    return (
        select(outcome.c.revision, outcome.c.unit, exposure.c.name, outcome.c.reason, outcome.c.at)
        .select_from(outcome.outerjoin(exposure, exposure.c.unit == outcome.c.unit))
        .where(outcome.c.revision.in_(steps) & (outcome.c.status == status))
        .order_by(outcome.c.seq.desc())
        .limit(limit)
    )


def _last_attempt(connection: Connection, revision: int, unit: str) -> tuple[RowMapping | None, int]:
    """Return the newest failure of a unit and how many there were; none where it arrived broken."""
    table = schema.failure
    rows = connection.execute(
        select(table).where((table.c.revision == revision) & (table.c.unit == unit)).order_by(table.c.seq.desc())
    ).mappings()
    attempts = rows.all()
    return (attempts[0], len(attempts)) if attempts else (None, 1)


def group_reasons(reasons: Iterable[ReasonCount]) -> list[ReasonCount]:
    """Return reasons with those of one step merged that differ in numbers only, the most frequent first.

    Numbers that differ are told as the lowest and the highest: ``moved 11.2 … 55.8 Å, allowed are 10 Å``.
    """
    groups: dict[tuple[str, str], list[ReasonCount]] = {}
    for one in reasons:
        groups.setdefault((one.step, _NUMBER.sub("\0", one.reason)), []).append(one)
    merged = [
        ReasonCount(step, _tell_together([one.reason for one in group]), sum(one.count for one in group))
        for (step, _), group in groups.items()
    ]
    return sorted(merged, key=lambda one: -one.count)


def _tell_together(texts: list[str]) -> str:
    words = _NUMBER.split(texts[0])
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    told = [_tell_range(column) for column in columns]
    return "".join(word + number for word, number in zip(words, [*told, ""], strict=True))


def _tell_range(numbers: tuple[str, ...]) -> str:
    low, high = (choose(numbers, key=_value) for choose in (min, max))
    return low if _value(low) == _value(high) else f"{low} … {high}"


def _value(number: str) -> float:
    return float(number.replace("−", "-"))
