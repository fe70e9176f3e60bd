"""Taking up what earlier runs left unsettled: at the start of a run, and after each edit."""

from sqlalchemy import Connection

from icestream.flow.commands.garbage import drop_file
from icestream.flow.runner.assembly import Parts
from icestream.flow.runner.build import build_workflow
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.fault_points import fault_point
from icestream.flow.runner.reopening import decide_absent, end_outlived_signals
from icestream.flow.scheduling import Accumulating, Notify, Unit
from icestream.flow.storage import load_arrived, resuming


def resume(parts: Parts) -> None:
    """Take up what earlier runs left unsettled."""
    engine, place = parts.engine, parts.place
    scheduler, revisions = engine.workflow.scheduler, engine.workflow.revisions
    with place.store.transaction() as connection:
        place.health.expect_results(connection)
        writing = engine.writing(connection)
        resuming.load_stages(connection, scheduler, revisions)
        outlived = end_outlived_signals(engine, writing)
        engine.workflow.board.load(connection, revisions)
        units = _load_under_way(engine, connection)
        units += resuming.load_derived(connection, scheduler, revisions)
        wanted = scheduler.resume(units)
        resuming.load_failures(connection, scheduler, revisions)
        engine.carry_out(writing, wanted)
        for step in outlived:
            decide_absent(engine, writing, step)
        engine.admit_backlog(writing)
        writing.flush()
    after_commit(parts)


def _load_under_way(engine: Engine, connection: Connection) -> list[Unit]:
    """Return the exposures that accumulators compute with, and those of what still runs: they cannot wait for their turn."""
    stages = engine.workflow.scheduler.stages.values()
    accumulators = [stage for stage in stages if isinstance(stage, Accumulating) and stage.node.domain == "exposure"]
    entries = [stage.entry for stage in accumulators if stage.entry]
    wanted = {unit: None for entry in entries for unit, _ in entry.members}
    wanted |= {task.unit: None for task in engine.work.running.values() if task.entry is None}
    units = load_arrived(connection, engine.workflow.revisions, wanted)
    engine.workflow.learn_units(connection, [unit.id for unit in units])
    return units


def reload(parts: Parts) -> list[Notify]:
    """Go on with an edited workflow: what is running goes on if it is still wanted, everything else is looked at again.

    Returns
    -------
    list
        What people should know about the edited workflow.
    """
    place, engine, edits = parts.place, parts.engine, parts.edits
    edits.outdated = False
    with place.store.transaction(durable=True) as connection:
        uptime_s = parts.clock.uptime_s
        workflow, notices = build_workflow(
            connection, edits.session, settings=place.settings, machine=place.machine, uptime_s=uptime_s
        )
    place.health.session = edits.session
    engine.replace(workflow)
    resume(parts)
    _end_unwanted(parts)
    return notices


def _end_unwanted(parts: Parts) -> None:
    with parts.place.store.transaction() as connection:
        writing = parts.engine.writing(connection)
        for attempt, task in parts.engine.work.running.items():
            if (task.step, task.unit) not in task.waiters:  # its unit may be computed with other inputs before this has ended
                writing.end_lease(attempt)
            if not task.waiters:
                parts.place.executor.cancel(attempt)


def watch_again(parts: Parts) -> None:
    """After an edit: stop the sources that changed or are gone, start the new ones, and close those again that had ended."""
    engine = parts.engine
    closed = engine.sources.reconcile(engine.workflow)
    with parts.place.store.transaction() as connection:
        writing = engine.writing(connection)
        for event in closed:
            engine.handle(writing, event)
        writing.flush()
    engine.sources.start_all(engine.workflow)


def after_commit(parts: Parts) -> None:
    """Do what only may be done once a transaction is committed."""
    engine = parts.engine
    if engine.durable:
        with parts.place.store.transaction(durable=True):
            engine.durable = False
        fault_point("after_sync")
    if engine.files_to_drop:
        fault_point("before_drop_files")
    for ref in engine.files_to_drop:
        drop_file(engine.workflow.session, ref)
    engine.files_to_drop.clear()
