"""Taking up a session from its store: at the start of a run, after an edit, or only to answer what was asked."""

from typing import TYPE_CHECKING

from sqlalchemy import Connection

from icestream.flow.commands.dispatch import carry_out_commands
from icestream.flow.runner.backlog import find_backlog, load_arrived
from icestream.flow.runner.capacity import own_limits
from icestream.flow.runner.reopening import decide_absent, end_outlived_signals
from icestream.flow.runner.status import Board
from icestream.flow.runner.tasks import TaskBuilder
from icestream.flow.scheduling.accumulator import Accumulating
from icestream.flow.scheduling.deciding import judge_for
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.scheduling.stage import Unit
from icestream.flow.storage import resuming
from icestream.flow.storage.contents import look_into_files
from icestream.flow.storage.own_params import find_misfits, load_owned, with_own_contents
from icestream.flow.storage.revisions import activate_revisions, fingerprint_of
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.requests import check_requests

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner

LOW_WATER = 200
"""With fewer tasks ready, more of what earlier runs left unsettled is taken up."""


def take_up_workflow(runner: "Runner", connection: Connection) -> None:
    """Build the graph, its revisions, and a scheduler that knows nothing yet."""
    runner.graph = runner.session.graph()
    look_into_files(runner.graph, runner.session.roots)
    notices = check_requests(runner.graph, own_limits(runner.settings, runner.gpus), runner.gpus)
    runner.broker.said += [("warning", notice) for notice in notices]
    acquisition = runner.session.document.acquisition.model_dump(exclude_none=True)
    runner.revisions = activate_revisions(connection, runner.graph, acquisition)
    runner.fingerprint = fingerprint_of(runner.revisions)
    runner.scheduler = Scheduler(runner.graph, judge_for, resuming.load_overrides(connection))
    runner.scheduler.uptime_s = runner.clock.uptime_s
    runner.task_builder = TaskBuilder(runner.session, runner.graph, runner.revisions)
    runner.task_builder.owned = with_own_contents(load_owned(connection), runner.graph, runner.session.roots)
    runner.broker.said += [("warning", text) for text in find_misfits(connection, runner.graph, runner.task_builder.owned)]
    runner.task_builder.records.limit_bytes = runner.settings.record_memory_mb * 2**20
    runner.board = Board(runner.scheduler, runner.running, notices=runner.status_table.notices)


def resume(runner: "Runner") -> None:
    """Take up what earlier runs left unsettled."""
    with runner.store.transaction() as connection:
        runner.health.expect_results(connection)
        writing = runner.writing(connection)
        resuming.load_stages(connection, runner.scheduler, runner.revisions)
        outlived = end_outlived_signals(runner, writing)
        newest_first = runner.settings.newest_first
        runner.backlog = find_backlog(connection, fingerprint=runner.fingerprint, newest_first=newest_first)
        runner.scheduler.backlog = runner.backlog.more
        runner.board.load(connection, runner.revisions)
        units = _load_under_way(runner, connection)
        units += resuming.load_derived(connection, runner.scheduler, runner.revisions)
        wanted = runner.scheduler.resume(units)
        resuming.load_failures(connection, runner.scheduler, runner.revisions)
        runner.carry_out(writing, wanted)
        for step in outlived:
            decide_absent(runner, writing, runner.graph.nodes[step])
        admit_backlog(runner, writing)
        writing.flush()
    runner.after_commit()


def _load_under_way(runner: "Runner", connection: Connection) -> list[Unit]:
    """Return the exposures that accumulators compute with, and those of what still runs: they cannot wait for their turn."""
    accumulators = [stage for stage in runner.scheduler.stages.values() if isinstance(stage, Accumulating)]
    entries = [stage.entry for stage in accumulators if stage.entry and stage.node.domain == "exposure"]
    wanted = {unit: None for entry in entries for unit, _ in entry.members}
    wanted |= {task.unit: None for task, _ in runner.running.values() if task.entry is None}
    units = load_arrived(connection, runner.revisions, wanted)
    runner.results.learn_units(connection, [unit.id for unit in units])
    return units


def admit_backlog(runner: "Runner", writing: Writing) -> None:
    """Take the next page of what earlier runs left unsettled, whenever little is ready to run."""
    while runner.backlog.more and len(runner.ready) < LOW_WATER:
        writing.flush()
        units = runner.backlog.next_page(writing.connection, runner.revisions)
        runner.results.learn_units(writing.connection, [unit.id for unit in units])
        wanted = runner.scheduler.admit(units, more=runner.backlog.more)
        resuming.load_failures(writing.connection, runner.scheduler, runner.revisions)
        runner.carry_out(writing, wanted)


def reload(runner: "Runner", *, watch: bool = True) -> None:
    """Go on with an edited workflow: what is running goes on if it is still wanted, everything else is looked at anew."""
    runner.outdated = False
    runner.inflight.let_go(running=set(runner.running))
    runner.ready.clear()
    runner.postponed.clear()
    runner.health.session = runner.session
    with runner.store.transaction(durable=True) as connection:
        take_up_workflow(runner, connection)
    resume(runner)
    with runner.store.transaction() as connection:
        writing = runner.writing(connection)
        for attempt, (task, _) in runner.running.items():
            if (task.step, task.unit) not in task.waiters:  # its unit may be computed with other inputs before this has ended
                writing.end_lease(attempt)
            if not task.waiters:
                runner.executor.cancel(attempt)
    if watch:
        runner.sources.reconcile()


def answer_commands(runner: "Runner") -> None:
    """Carry out what was asked while no runner was there; nothing is processed."""
    try:
        resume(runner)
        again = True
        while again:
            with runner.store.transaction() as connection:
                writing = runner.writing(connection)
                carry_out_commands(runner, writing)
                writing.flush()
                runner.holds.store(connection)
            again = runner.outdated
            runner.after_commit()
            if runner.outdated:
                reload(runner, watch=False)
        runner.broker.close()
        runner.store.close("commands were carried out; nothing was processed")
    except BaseException as error:
        runner.broker.close()
        runner.store.give_back(f"ended by {type(error).__name__}: {error}")
        raise
