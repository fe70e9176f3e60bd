"""Accepting and rejecting exposures by hand."""

import json

from sqlalchemy import select, update

from icestream.errors import SessionError
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.requests import Override
from icestream.flow.declaration import outcomes
from icestream.flow.scheduling import ManualVerdict, events, may_override
from icestream.flow.storage import find_exposure, schema


def override(context: CommandContext, command: Override) -> str:
    """Note a decision, or take it back, and decide the exposure again."""
    context.writing.flush()
    unit, name, source = find_exposure(context.writing.connection, command.unit)
    step = command.step or (source if command.verdict == "reject" else _where_rejected(context, unit))
    node = context.node(step)
    refusal = may_override(node, accepted=command.verdict == "accept")
    if refusal is not None and command.verdict != "lift":
        raise SessionError(refusal)
    if command.verdict == "lift" and (unit, step) not in context.workflow.scheduler.overrides:
        raise SessionError(f"there is no override for {name} at {step}: nothing to withdraw")
    if node.type.is_source and step != source:
        raise SessionError(f"{name} did not arrive from {step} but from {source}")
    error = _how_it_broke(context, unit, step) if node.type.is_source else None
    if error is not None and command.verdict == "accept":
        raise SessionError(f"{name} arrived broken ({error}), so there is nothing to accept; write its file again")
    _store(context, command, unit=unit, step=step)
    context.controls.decide_again(events.Overridden(step, unit, error))
    done = {"accept": "accepted", "reject": "rejected", "lift": "no longer overridden"}[command.verdict]
    return f"{name} is {done} at {step}"


def _how_it_broke(context: CommandContext, unit: str, step: str) -> str | None:
    """Return why an exposure arrived broken at its source, or None if it did not."""
    outcome, failure, revision = schema.outcome, schema.failure, context.workflow.revisions[step].id
    mine = (outcome.c.unit == unit) & (outcome.c.revision == revision)
    row = context.writing.connection.execute(select(outcome.c["keys"], outcome.c.reason).where(mine)).first()
    if row is None or json.loads(row[0]):
        return None
    broke = (failure.c.unit == unit) & (failure.c.revision == revision)
    told = context.writing.connection.execute(select(failure.c.message).where(broke).order_by(failure.c.seq.desc())).scalar()
    return str(told or row.reason or "for a reason that was not stored")


def _store(context: CommandContext, command: Override, *, unit: str, step: str) -> None:
    table, writing = schema.override, context.writing
    earlier = (table.c.unit == unit) & (table.c.step == step) & table.c.active
    writing.connection.execute(update(table).where(earlier).values(active=False))
    overrides = dict(context.workflow.scheduler.overrides)
    if command.verdict == "lift":
        overrides.pop((unit, step), None)
    else:
        overrides[unit, step] = ManualVerdict(command.verdict == "accept", context.author, command.reason)
        writing.add(
            table,
            unit=unit,
            step=step,
            verdict=command.verdict,
            author=context.author,
            reason=command.reason,
            active=True,
            at=writing.now,
            seq=writing.store.next_seq(),
        )
    context.controls.decide_with(overrides)


def _where_rejected(context: CommandContext, unit: str) -> str:
    """Return the step that rejected an exposure, where only one did; accepting is meant for it."""
    outcome = schema.outcome
    steps = {revision.id: step for step, revision in context.workflow.revisions.items()}
    rejected = (outcome.c.unit == unit) & (outcome.c.status == outcomes.Status.REJECTED.value) & outcome.c.revision.in_(steps)
    found = [steps[row] for row in context.writing.connection.execute(select(outcome.c.revision).where(rejected)).scalars()]
    table = schema.override
    mine = select(table.c.step).where((table.c.unit == unit) & table.c.active)
    found = found or list(context.writing.connection.execute(mine).scalars())
    if len(found) != 1:
        where = " and ".join(found) or "no step"
        raise SessionError(f"{where} rejected it; name the step (`--step`)")
    return found[0]
