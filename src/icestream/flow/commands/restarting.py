"""Restarting and resetting: a step and all below it get new revisions, and start from nothing."""

import time
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select, update

from icestream.flow.commands.requests import Reset, Restart
from icestream.flow.commands.retrying import known_step
from icestream.flow.declaration import outcomes
from icestream.flow.scheduling import instructions
from icestream.flow.scheduling.accumulator import Accumulating
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def restart(runner: "Runner", writing: Writing, command: Restart, author: str) -> str:
    """Compute a step and what is below it afresh: a new epoch in the keys from there on."""
    steps = _begin_anew(runner, writing, command.step)
    writing.notify(instructions.Notify("info", f"{', '.join(steps)}: computed afresh, as {author} asked", command.step))
    return f"{len(steps)} steps are computed afresh: {', '.join(steps)}"


def rebuild_stale(runner: "Runner", writing: Writing) -> None:
    """Build an accumulator anew once too much of what it took is no item any more; the old one stays to be seen beside it."""
    for name, stage in runner.scheduler.stages.items():
        if runner.outdated or not isinstance(stage, Accumulating) or not stage.stale or stage.entry is not None:
            continue
        if stage.shut:  # a new one would take nothing: it is built anew when the step goes on
            continue
        taken = stage.passed
        if len(stage.stale) >= runner.settings.rebuild_fraction * taken:
            steps = _begin_anew(runner, writing, name)
            text = f"{name}: {len(stage.stale)} of the {taken} exposures it took are no items any more; it is built anew"
            writing.notify(instructions.Notify("info", f"{text}, with {', '.join(steps[1:])}" if steps[1:] else text, name))


def reset(runner: "Runner", writing: Writing, command: Reset, author: str) -> str:
    """Drop the results of a step and what is below it, and let it take nothing until the session is continued."""
    old = [runner.revisions[step].id for step in _steps_from(runner, command.step)]
    steps = _begin_anew(runner, writing, command.step)
    dropped = _count_decided(writing, old)
    for revision in old:
        _drop(writing, revision)
    if not runner.scheduler.stages[command.step].drained:
        writing.apply(instructions.Drain(command.step, DrainReason(Cause.RESET, author)))
    writing.notify(
        instructions.Notify("info", f"{', '.join(steps)}: {dropped} outcomes dropped, as {author} asked", command.step)
    )
    dropped_from = f"{dropped} outcomes of {len(steps)} steps dropped: {', '.join(steps)}"
    return f"{dropped_from}; {command.step} takes nothing until `icestream continue`"


def _steps_from(runner: "Runner", step: str) -> list[str]:
    known_step(runner, step)
    below = runner.graph.descendants(step)
    return [name for name in runner.graph.nodes if name in below]


def _begin_anew(runner: "Runner", writing: Writing, step: str) -> list[str]:
    """Freeze the revisions of a step and of all below it, and give each a new one of the next epoch."""
    steps = _steps_from(runner, step)
    writing.flush()
    table = schema.revision
    for name in steps:
        mine = table.c.step == name
        rows = writing.connection.execute(select(table).where(mine).order_by(table.c.number)).mappings().all()
        active = next(dict(row) for row in rows if row["state"] == "active")
        writing.connection.execute(update(table).where(mine).values(state="frozen"))
        values = {column: value for column, value in active.items() if column != "id"}
        values |= {"number": rows[-1]["number"] + 1, "epoch": max(row["epoch"] for row in rows) + 1, "created_at": time.time()}
        writing.connection.execute(insert(table).values(**values))
        files = schema.source_file
        writing.connection.execute(delete(files).where(files.c.step == name))
    runner.outdated = True
    return steps


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
