"""Accepting and rejecting exposures by hand."""

from typing import TYPE_CHECKING

from sqlalchemy import Connection, or_, select, update

from icestream.errors import SessionError
from icestream.flow.commands.requests import Override
from icestream.flow.commands.retrying import known_step, readmit
from icestream.flow.declaration import outcomes
from icestream.flow.scheduling import events
from icestream.flow.scheduling.overriding import Override as Decision
from icestream.flow.scheduling.overriding import may_override
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def override(runner: "Runner", writing: Writing, command: Override, author: str) -> str:
    """Note a decision, or take it back, and decide the exposure again."""
    writing.flush()
    unit, name, source = find_exposure(writing.connection, command.unit)
    step = command.step or (source if command.verdict == "reject" else _where_rejected(runner, writing, unit))
    known_step(runner, step)
    node = runner.graph.nodes[step]
    refusal = may_override(node, accepted=command.verdict == "accept")
    if refusal is not None and command.verdict != "lift":
        raise SessionError(refusal)
    if command.verdict == "lift" and (unit, step) not in runner.scheduler.overrides:
        raise SessionError(f"nobody has decided about {name} by hand at {step}: there is nothing to take back")
    if node.type.is_source and step != source:
        raise SessionError(f"{name} did not come from {step} but from {source}")
    _store(runner, writing, command, unit=unit, step=step, author=author)
    readmit(runner, writing, unit, domain=node.domain)
    runner.handle(writing, events.Overridden(step, unit))
    done = {"accept": "accepted", "reject": "rejected", "lift": "left to the step again"}[command.verdict]
    return f"{name} is {done} at {step}"


def _store(runner: "Runner", writing: Writing, command: Override, *, unit: str, step: str, author: str) -> None:
    table = schema.override
    earlier = (table.c.unit == unit) & (table.c.step == step) & table.c.active
    writing.connection.execute(update(table).where(earlier).values(active=False))
    overrides = dict(runner.scheduler.overrides)
    if command.verdict == "lift":
        overrides.pop((unit, step), None)
    else:
        overrides[unit, step] = Decision(command.verdict == "accept", author, command.reason)
        writing.add(
            table,
            unit=unit,
            step=step,
            verdict=command.verdict,
            author=author,
            reason=command.reason,
            active=True,
            at=writing.now,
            seq=writing.store.next_seq(),
        )
    runner.scheduler.overrides = overrides


def find_exposure(connection: Connection, wanted: str) -> tuple[str, str, str]:
    """Return id, name and source of the exposure with this name, id, or beginning of an id (8 characters at least)."""
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


def _where_rejected(runner: "Runner", writing: Writing, unit: str) -> str:
    """Return the step that rejected an exposure, where only one did; accepting is meant for it."""
    outcome = schema.outcome
    steps = {revision.id: step for step, revision in runner.revisions.items()}
    rejected = (outcome.c.unit == unit) & (outcome.c.status == outcomes.Status.REJECTED.value) & outcome.c.revision.in_(steps)
    found = [steps[row] for row in writing.connection.execute(select(outcome.c.revision).where(rejected)).scalars()]
    table = schema.override
    mine = select(table.c.step).where((table.c.unit == unit) & table.c.active)
    found = found or list(writing.connection.execute(mine).scalars())
    if len(found) != 1:
        where = " and ".join(found) or "no step"
        raise SessionError(f"{where} rejected it; name the step to decide at")
    return found[0]
