"""What people did to a session: what they asked for, what they decided by hand, what holds because of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Connection, Table, func, select

from icestream.errors import SessionError
from icestream.flow.storage import ActivePause, OwnParams, columns_there, is_there, json_text, load_drains, schema
from icestream.observe.answers import Marks
from icestream.observe.tracing import find_unit


@dataclass(frozen=True)
class AuditEntry:
    """One thing that a person asked for, or a revision that came of it (then nobody is named)."""

    at: float
    author: str | None
    what: str
    state: str
    """``asked``, ``done`` or ``refused``; of a revision ``active`` or ``frozen``."""
    answer: str


@dataclass(frozen=True)
class Decision:
    """What a person decided about an exposure at a step, and still holds: accept, reject, or recompute with ``params``."""

    unit: str
    exposure: str
    step: str
    verdict: str
    author: str
    reason: str
    at: float
    params: dict[str, Any] | None = None
    """Of recompute: the parameters that the exposure has of its own."""

    @property
    def sentence(self) -> str:
        """What people read."""
        if self.params is not None:
            return OwnParams(self.params, self.author, self.reason).sentence
        return f"{self.verdict}ed by hand by {self.author}" + (f": {self.reason}" if self.reason else "")


def read_pause(connection: Connection) -> ActivePause | None:
    """Return why nothing is dispatched, if a person or the surroundings paused the session."""
    if schema.runner.c.hold not in columns_there(connection, schema.runner):
        return None
    text = connection.execute(select(schema.runner.c.hold)).scalar()
    return ActivePause(**json.loads(text)) if text else None


def read_marks(connection: Connection) -> dict[str, Marks]:
    """Return what is to be known of each step that has something."""
    stale, override, recompute = schema.stale, schema.override, schema.recompute
    revision = schema.revision
    if not is_there(connection, stale):
        return {}
    drained = {step: why.sentence for step, why in load_drains(connection).items()}
    active = stale.join(revision, revision.c.id == stale.c.revision)
    stales = _counts(
        connection, select(revision.c.step, func.count()).select_from(active).where(revision.c.state == "active"), revision.c.step
    )
    hands = _counts(connection, select(override.c.step, func.count()).where(override.c.active), override.c.step)
    own = {}
    if is_there(connection, recompute):
        own = _counts(connection, select(recompute.c.step, func.count()).where(recompute.c.active), recompute.c.step)
    used = select(schema.outcome.c.revision).where(schema.outcome.c.revision == revision.c.id).exists()
    frozen = select(revision.c.step, func.count()).where((revision.c.state == "frozen") & used)
    old = _counts(connection, frozen, revision.c.step)
    return {
        step: Marks(drained.get(step), stales.get(step, 0), hands.get(step, 0), old.get(step, 0), own.get(step, 0))
        for step in {*drained, *stales, *hands, *old, *own}
    }


def _counts(connection: Connection, query: Any, by: Any) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(query.group_by(by))}


def read_history(connection: Connection, *, limit: int | None) -> list[AuditEntry]:
    """Return what people asked for and the revisions that came of it, oldest first; the newest ``limit`` of them."""
    command, revision = schema.command, schema.revision
    names = _names(connection)
    asked = connection.execute(select(*columns_there(connection, command)).order_by(command.c.id.desc()).limit(limit)).mappings()
    entries = [
        AuditEntry(
            row["at"], row["author"], describe_command(row["kind"], row["arguments"], names), row["state"], row["answer"] or ""
        )
        for row in asked
    ]
    made = select(revision).where(revision.c.number > 1).order_by(revision.c.id.desc()).limit(limit)
    entries += [
        AuditEntry(
            row["created_at"], None, f"{row['step']} got revision {row['number']}", row["state"], f"icestream {row['software']}"
        )
        for row in connection.execute(made).mappings()
    ]
    entries.sort(key=lambda entry: entry.at)
    return entries if limit is None else entries[-limit:]


def _names(connection: Connection) -> dict[str, str]:
    """Return unit → name of the exposures that people have named in commands."""
    command, exposure = schema.command, schema.exposure
    kinds = command.c.kind.in_(("override", "recompute", "retry"))
    asked = select(json_text(command.c.arguments, "unit")).where(kinds)
    rows = connection.execute(select(exposure.c.unit, exposure.c.name).where(exposure.c.unit.in_(asked)))
    return {row[0]: row[1] for row in rows}


def describe_command(kind: str, arguments: str, names: dict[str, str]) -> str:
    """Return what was asked for, as short as it was typed."""
    given: dict[str, Any] = json.loads(arguments)
    unit = given.pop("unit", None)
    kind = "withdraw" if given.pop("lift", False) else kind
    words = [str(given.pop("verdict", kind)).replace("_", " ")]
    words += [names.get(unit, unit)] if unit else []
    words += [f"{given.pop('name')} beside"] if given.get("name") else []
    words += [str(given.pop("step"))] if given.get("step") else []
    params = given.pop("params", None) or {}
    words += [f"{name}={'default' if value is None else json.dumps(value, ensure_ascii=False)}" for name, value in params.items()]
    words += [*given.pop("kinds", ()), *_say_steps(given.pop("steps", None) or {})]
    reason = given.pop("reason", "")
    words += [name for name, value in given.items() if value is True and name != "below"]
    return " ".join(words) + (f" ({reason})" if reason else "")


def _say_steps(steps: dict[str, Any] | list[str]) -> list[str]:
    """Name the steps that a change makes or takes away, or those whose files a removal takes."""
    if isinstance(steps, list):
        return steps
    return [name if spec is not None else f"{name} (removed)" for name, spec in steps.items()]


def read_decisions(connection: Connection, units: Sequence[str] | None = None) -> list[Decision]:
    """Return what is decided by hand now, oldest first."""
    decided = [_decision(row, row["verdict"]) for row in _active_rows(connection, schema.override, units)]
    decided += [_decision(row, "recompute") for row in _active_rows(connection, schema.recompute, units)]
    return sorted(decided, key=lambda one: one.at)


def _active_rows(connection: Connection, table: Table, units: Sequence[str] | None) -> list[dict[str, Any]]:
    exposure = schema.exposure
    if not is_there(connection, table):
        return []
    query = select(table, exposure.c.name).select_from(table.outerjoin(exposure, exposure.c.unit == table.c.unit))
    query = query.where(table.c.active).order_by(table.c.id)
    query = query if units is None else query.where(table.c.unit.in_(units))
    return [dict(row) for row in connection.execute(query).mappings()]


def _decision(row: dict[str, Any], verdict: str) -> Decision:
    params = json.loads(row["params"]) if "params" in row else None
    return Decision(
        row["unit"], row["name"] or row["unit"], row["step"], verdict, row["author"], row["reason"], row["at"], params
    )


def choose_exposures(connection: Connection, wanted: Sequence[str]) -> list[str]:
    """Return the ids of exposures by name, id, file or pattern (``*``, ``?``), each once, in the order they were named.

    Raises
    ------
    SessionError
        Something names no exposure, or more than one without being a pattern.
    """
    table = schema.exposure
    chosen: dict[str, None] = {}
    for name in wanted:
        if any(mark in name for mark in "*?["):
            rows = connection.execute(select(table.c.unit, table.c.name).order_by(table.c.ordinal))
            found = [row.unit for row in rows if fnmatchcase(row.name, name)]
            if not found:
                raise SessionError(f"{name!r}: no exposure of this session has this name")
            chosen.update(dict.fromkeys(found))
        else:
            chosen[find_unit(connection, name)] = None
    return list(chosen)
