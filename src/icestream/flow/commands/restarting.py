"""Restarting and resetting: a step and everything downstream of it get new revisions, and start from nothing."""

from sqlalchemy import delete, func, select

from icestream.counting import counted
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.requests import Reset, Restart
from icestream.flow.declaration import outcomes
from icestream.flow.scheduling import Cause, DrainReason, NoticeCause, instructions
from icestream.flow.storage import Writing, schema


def restart(context: CommandContext, command: Restart) -> str:
    """Compute a step and what is below it afresh: a new epoch in the keys from there on."""
    steps = context.workflow.graph.from_step(context.node(command.step).name)
    context.controls.begin_anew(steps)
    text = f"{', '.join(steps)}: recomputed, as {context.author} asked"
    context.notify(NoticeCause.RECOMPUTED, text, command.step)
    return f"{counted(len(steps), 'step', 'is/are')} recomputed: {', '.join(steps)}"


def reset(context: CommandContext, command: Reset) -> str:
    """Drop the results of a step and what is below it, and let it take nothing until the session is continued."""
    steps = context.workflow.graph.from_step(context.node(command.step).name)
    old = [context.workflow.revisions[step].id for step in steps]
    context.controls.begin_anew(steps)
    dropped = _count_decided(context.writing, old)
    for revision in old:
        _drop(context.writing, revision)
    if not context.workflow.scheduler.stages[command.step].drained:
        context.writing.apply(instructions.Drain(command.step, DrainReason(Cause.RESET, context.author)))
    text = f"{', '.join(steps)}: {counted(dropped, 'outcome')} dropped, as {context.author} asked"
    context.notify(NoticeCause.RECOMPUTED, text, command.step)
    dropped_from = f"{counted(dropped, 'outcome')} of {counted(len(steps), 'step')} dropped: {', '.join(steps)}"
    return f"{dropped_from}; {command.step} takes nothing new until `icestream continue`"


def _count_decided(writing: Writing, revisions: list[int]) -> int:
    """Return how many units the steps had decided; those that they had left out, or skipped, lose nothing."""
    table = schema.outcome
    decided = table.c.status.in_([outcomes.Status.ITEM, outcomes.Status.REJECTED, outcomes.Status.FAILED])
    query = select(func.count()).select_from(table).where(table.c.revision.in_(revisions) & decided)
    return int(writing.connection.execute(query).scalar_one())


def _drop(writing: Writing, revision: int) -> None:
    """Drop what refers to results of a revision; the files go when nothing refers to them any more."""
    for table in (schema.outcome, schema.binding, schema.snapshot, schema.gate_opening, schema.gate_clock, schema.batch):
        writing.connection.execute(delete(table).where(table.c.revision == revision))
    writing.connection.execute(delete(schema.accumulator_log).where(schema.accumulator_log.c.revision == revision))
