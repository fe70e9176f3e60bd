"""What is built from a workflow: at the start of a run, and again after each edit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from icestream.flow.resources.capacity import Machine
from icestream.flow.runner.backlog import Backlog, find_backlog
from icestream.flow.runner.status import Board
from icestream.flow.runner.tasks import TaskBuilder
from icestream.flow.scheduling import NoticeCause, Notify, Scheduler, judge_for
from icestream.flow.storage import (
    Owned,
    Revision,
    Session,
    activate_revisions,
    find_misfits,
    fingerprint_of,
    load_owned,
    read_exposures,
    resuming,
    with_own_contents,
)
from icestream.flow.workflow import Graph, check_requests, look_for_programs, look_into_files, tell_other_versions
from icestream.settings import Settings


@dataclass(frozen=True)
class ActiveWorkflow:
    """A session's workflow as it runs: the graph, its revisions, and all that remembers exposures. An edit replaces it whole."""

    session: Session
    graph: Graph
    revisions: Mapping[str, Revision]
    fingerprint: str
    scheduler: Scheduler
    tasks: TaskBuilder
    board: Board
    backlog: Backlog

    @property
    def owned(self) -> Owned:
        """The parameters that exposures have of their own."""
        return self.tasks.owned

    def learn_units(self, connection: Connection, units: Iterable[str]) -> None:
        """Remember names and acquisition values of exposures that are taken up."""
        for row in read_exposures(connection, units):
            self.tasks.know_row(row)


def build_workflow(
    connection: Connection, session: Session, *, settings: Settings, machine: Machine, uptime_s: float
) -> tuple[ActiveWorkflow, list[Notify]]:
    """Return the workflow of a session with a scheduler that knows nothing yet, and what people should know about it.

    Raises
    ------
    WorkflowError
        The workflow cannot run on this machine.
    """
    graph = session.graph()
    look_into_files(graph, session.roots)
    missing = look_for_programs(graph, settings.programs)
    too_big = check_requests(graph, machine.limits, machine.gpus)
    notices = [Notify("warning", text, cause=NoticeCause.RESOURCES) for text in too_big]
    acquisition = session.document.acquisition.model_dump(exclude_none=True)
    revisions = activate_revisions(connection, graph, acquisition)
    others = tell_other_versions(graph, {name: revision.params for name, revision in revisions.items()})
    notices += [
        Notify("warning", one.text, one.step, cause=NoticeCause.PROGRAM, subject=one.program) for one in [*missing, *others]
    ]
    fingerprint = fingerprint_of(revisions)
    scheduler = Scheduler(graph, judge_for, resuming.load_overrides(connection))
    scheduler.uptime_s = uptime_s
    owned = with_own_contents(load_owned(connection), graph, session.roots)
    misfits = find_misfits(connection, graph, owned)
    notices += [Notify("warning", text, cause=NoticeCause.OWN_PARAMETERS) for text in misfits]
    tasks = TaskBuilder(session, graph, revisions, owned=owned, record_limit_bytes=settings.record_memory_mb * 2**20)
    backlog = find_backlog(connection, fingerprint=fingerprint, newest_first=settings.newest_first)
    scheduler.backlog = backlog.more
    board = Board(scheduler)
    return ActiveWorkflow(session, graph, revisions, fingerprint, scheduler, tasks, board, backlog), notices
