"""Trying again what failed."""

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from icestream.errors import SessionError
from icestream.flow.commands.requests import Retry
from icestream.flow.declaration import outcomes
from icestream.flow.runner.backlog import load_arrived
from icestream.flow.scheduling import events
from icestream.flow.scheduling.computing import VersionRuns
from icestream.flow.storage import resuming, schema
from icestream.flow.storage.writing import Writing

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


def retry(runner: "Runner", writing: Writing, command: Retry, _author: str) -> str:
    """Try failed units again: those of one step or all, one unit or all."""
    step, wanted = command.step, command.unit
    known_step(runner, step)
    count, sources = 0, 0
    for name, revision in runner.revisions.items():
        if step not in (None, name):
            continue
        outcome = schema.outcome
        failed = (outcome.c.revision == revision.id) & (outcome.c.status == outcomes.Status.FAILED.value)
        units = writing.connection.execute(select(outcome.c.unit).where(failed)).scalars().all()
        chosen = [unit for unit in units if wanted in (None, unit) and not _was_overtaken(runner, name, unit)]
        if runner.graph.nodes[name].type.is_source:
            sources += len(chosen)
            continue
        for unit in chosen:
            _try_again(runner, writing, name, unit)
            count += 1
    broken = f"; {sources} arrived broken: write those files again to have them processed" if sources else ""
    return f"{count} to be tried again{broken}"


def known_step(runner: "Runner", step: str | None) -> None:
    """Refuse the name of a step that the workflow does not have."""
    if step is not None and step not in runner.graph.nodes:
        raise SessionError(f"no step is called {step!r}; known: {', '.join(runner.graph.nodes)}")


def _was_overtaken(runner: "Runner", step: str, unit: str) -> bool:
    stage = runner.scheduler.stages[step]
    return isinstance(stage, VersionRuns) and not stage.is_latest(unit)


def _try_again(runner: "Runner", writing: Writing, step: str, unit: str) -> None:
    connection = writing.connection
    revision, failures = runner.revisions[step].id, schema.failure
    connection.execute(update(failures).where((failures.c.revision == revision) & (failures.c.unit == unit)).values(cleared=True))
    readmit(runner, writing, unit, domain=runner.graph.nodes[step].domain)
    runner.handle(writing, events.Retried(step, unit))


def readmit(runner: "Runner", writing: Writing, unit: str, *, domain: str) -> None:
    """Take a unit back into the scheduler's memory with all that is known of it."""
    writing.flush()
    connection, exposures, scheduler = writing.connection, schema.exposure, runner.scheduler
    if unit not in scheduler.units:
        runner.results.learn_units(connection, [unit])
        steps = {stage.name for stage in scheduler.stages_of(domain)}
        arrived = load_arrived(connection, runner.revisions, [unit]) if domain == "exposure" else []
        waiting = [one for one in arrived if steps - one.outcomes.keys()]  # its turn in the backlog has come: all decide it
        runner.carry_out(writing, scheduler.admit(waiting, more=scheduler.backlog))
        writing.flush()
    if unit not in scheduler.units:
        runner.results.learn_units(connection, [unit])
        scheduler.readmit(resuming.load_unit(connection, runner.revisions, unit, domain=domain))
    connection.execute(update(exposures).where(exposures.c.unit == unit).values(settled_by=None))
