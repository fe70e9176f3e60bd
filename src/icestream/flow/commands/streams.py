"""Closing a stream by hand, reopening it, releasing a gate, retrying what failed, and continuing everything."""

from sqlalchemy import select, update

from icestream.counting import counted
from icestream.errors import SessionError
from icestream.flow.commands import pausing
from icestream.flow.commands.context import CommandContext
from icestream.flow.commands.requests import Close, Continue, Release, Reopen, Resume, Retry
from icestream.flow.declaration import Status
from icestream.flow.scheduling import Cause, DrainReason, NoticeCause, Source, VersionRuns, events
from icestream.flow.storage import schema


def close(context: CommandContext, command: Close) -> str:
    """Let a step take nothing new; what is below closes when it has finished."""
    step = context.node(command.step).name
    if context.workflow.scheduler.stages[step].drained:
        return f"{step} already takes nothing new"
    context.controls.handle(events.Drained(step, DrainReason(Cause.PERSON, context.author)))
    running = context.controls.running(step)
    if command.now:
        context.controls.cancel(running)
    end = "is/are" if command.now else "will finish/will finish"
    return f"{step} takes nothing new; {counted(len(running), 'running call', end)}{' cancelled' if command.now else ''}"


def reopen(context: CommandContext, command: Reopen) -> str:
    """Let a step go on, with what it left out meanwhile."""
    step = context.node(command.step).name
    if not context.workflow.scheduler.stages[step].drained:
        return f"{step} was not closed by hand; new exposures open it automatically while the session is running"
    count = context.controls.resume_step(step)
    return f"{step} is open again; {counted(count, 'exposure', 'is/are')} decided now that it left out"


def release(context: CommandContext, command: Release) -> str:
    """Let a gate open, or a batch close, because a person wants it."""
    step, step_type = command.step, context.node(command.step).type
    if not step_type.holds_units:
        raise SessionError(f"{step} is a {step_type.kind}, which holds nothing back: there is nothing to release")
    count = context.controls.release(step)
    context.notify(NoticeCause.RELEASE, f"{step} was released by {context.author}", step)
    return f"{step} was released; {counted(count, 'exposure', 'is/are')} no longer waiting"


def go_on(context: CommandContext, _command: Continue) -> str:
    """End a pause, open what people closed or reset, and retry what failed."""
    parts = [answer] if (answer := pausing.resume(context, Resume())) != pausing.NOT_PAUSED else []
    stages = context.workflow.scheduler.stages
    closed = [name for name, stage in stages.items() if stage.drained and stage.drained.by_hand]
    parts += [reopen(context, Reopen(step=step)) for step in closed]
    parts.append(retry(context, Retry()))
    return "; ".join(parts)


def retry(context: CommandContext, command: Retry) -> str:
    """Try failed units again: those of one step or all, one unit or all."""
    only = None if command.step is None else context.node(command.step).name
    count, sources = 0, 0
    for name in context.workflow.graph.nodes:
        if only not in (None, name):
            continue
        chosen = [unit for unit in _failed_at(context, name) if command.unit in (None, unit)]
        stage = context.workflow.scheduler.stages[name]
        if isinstance(stage, Source):
            sources += len(chosen) - len(stage.troubles.keys() & set(chosen))  # what cannot be read is tried again by itself
            continue
        for unit in chosen:
            clear_failures(context, name, unit)
            context.controls.decide_again(events.Retried(name, unit))
            count += 1
    broken = f"; {sources} arrived broken: write those files again to have them processed" if sources else ""
    return f"{count} to be retried{broken}"


def _failed_at(context: CommandContext, step: str) -> list[str]:
    """Return the units that failed at a step, but no run of an earlier version."""
    outcome, stage = schema.outcome, context.workflow.scheduler.stages[step]
    failed = (outcome.c.revision == context.workflow.revisions[step].id) & (outcome.c.status == Status.FAILED.value)
    units = context.writing.connection.execute(select(outcome.c.unit).where(failed)).scalars().all()
    return [unit for unit in units if not isinstance(stage, VersionRuns) or stage.is_latest(unit)]


def clear_failures(context: CommandContext, step: str, unit: str) -> None:
    """Let earlier failures of a unit count no more."""
    table = schema.failure
    mine = (table.c.revision == context.workflow.revisions[step].id) & (table.c.unit == unit)
    context.writing.connection.execute(update(table).where(mine).values(cleared=True))
