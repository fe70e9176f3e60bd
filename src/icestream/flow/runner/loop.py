"""The run loop: messages of workers → scheduler → one transaction → new tasks."""

import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from icestream import __version__
from icestream.files import TemporarySweep
from icestream.flow.commands.dispatch import CommandDispatcher
from icestream.flow.execution.executor import Answer, Executor, Request, hear
from icestream.flow.execution.messages import CallAnswer, CallProgress, ExecutorNotice, SourceAnswer
from icestream.flow.execution.pool import Pool
from icestream.flow.execution.work_folder import sweep_work_folders, work_root
from icestream.flow.resources.broker import RETRY_S
from icestream.flow.resources.capacity import machine_for
from icestream.flow.runner.assembly import Place, assemble
from icestream.flow.runner.controls import RunnerControls
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.fault_points import fault_point
from icestream.flow.runner.health import Health
from icestream.flow.runner.resuming import after_commit, reload, resume, watch_again
from icestream.flow.runner.status import RunReport, RunStatus, StatusTable
from icestream.flow.scheduling import NoticeCause, Notify, Tick
from icestream.flow.storage import Session, Store, Writing
from icestream.flow.workflow import check_requests, require_programs
from icestream.logs import log_event
from icestream.settings import Settings

_LOG = logging.getLogger(__name__)

_POLL_S = 0.5
_KEPT_NOTICES = 100
_SWEEP_S = 0.05
"""How long each cycle looks for what dead attempts left: a session may have hundreds of thousands of files."""


@dataclass
class Runner:
    """One run of a session; `icestream.flow.runner.supervisor.run_session` is the way in."""

    session: Session
    settings: Settings
    on_change: Callable[[RunStatus], None] | None = None
    cluster: Executor | None = None
    _status_table: StatusTable = field(default_factory=StatusTable)
    _notices: "deque[str]" = field(default_factory=lambda: deque(maxlen=_KEPT_NOTICES))
    _commands: CommandDispatcher = field(default_factory=CommandDispatcher)
    _sweep: TemporarySweep | None = None
    _to_tell: list[Notify] = field(default_factory=list)  # what was found while the workflow was built

    def __post_init__(self) -> None:
        machine = machine_for(self.settings)
        graph = self.session.graph()
        check_requests(graph, machine.limits, machine.gpus)
        require_programs(graph, self.settings.programs)
        self.store = Store(self.session.store_at)
        self.store.claim()
        try:
            fault_point("claimed")
            self._meet_store()
            place = Place(self.store, self.settings, machine, self._make_health(), self._make_pool(), self.cluster)
            self.parts, self._to_tell = assemble(place, self.session)
        except BaseException as error:
            self.store.give_back(f"could not start: {error}")
            raise

    @property
    def engine(self) -> Engine:
        """The scheduler's edge."""
        return self.parts.engine

    def _meet_store(self) -> None:
        """Do nothing: a virtual machine lets things happen to the store."""

    def _make_pool(self) -> Pool:
        settings = self.settings
        return Pool(settings.cores, settings.usable_memory_gb, settings.image_memory_mb, settings.log_level)

    def _make_health(self) -> Health:
        return Health(self.session, self.settings.min_free_gb)

    def run(self) -> RunReport:
        """Run until every stream has closed, or until somebody stops it."""
        try:
            self._begin()
            while not self._done():
                self._cycle()
            return self._finish()
        except BaseException as error:
            self._give_up(error)
            raise

    def stop(self) -> None:
        """Stop after what is running; a second call stops at once. Called by signals, so it takes no lock."""
        self.parts.stop.ask()

    def answer_commands(self) -> None:
        """Carry out what was asked while no runner was there; nothing is processed."""
        parts = self.parts
        try:
            resume(parts)
            again = True
            while again:
                with self.store.transaction() as connection:
                    writing = parts.engine.writing(connection)
                    self._carry_out_commands(writing)
                    writing.flush()
                    parts.pausing.pauses.store(connection)
                again = parts.edits.outdated or self._commands.removal.asked is not None
                after_commit(parts)
                self._commands.removal.look_up(parts.engine.workflow.session)
                if parts.edits.outdated:
                    self._to_tell += reload(parts)
            self._move_files(seconds=math.inf)
            parts.broker.close()
            self.store.close("commands were carried out; nothing was processed")
        except BaseException as error:
            self._leave(error)
            raise

    def _begin(self) -> None:
        about = {"version": __version__, "pid": os.getpid(), "host": socket.gethostname(), "cores": self.settings.cores}
        log_event(_LOG, logging.INFO, "runner started", fence=self.store.fence, **about)
        self._sweep = TemporarySweep(self.parts.place.health.results_folder)
        sweep_work_folders(work_root(self.session.folder, self.settings.scratch))
        resume(self.parts)
        self.engine.sources.start_all(self.engine.workflow)
        fault_point("source_started")

    def _finish(self) -> RunReport:
        engine, stop = self.engine, self.parts.stop
        finished, running = stop.asked == 0, engine.work.count_running()
        reason = "every stream has closed" if finished else stop.reason
        report = engine.workflow.board.report(running, finished=finished, reason=reason)
        with self.store.transaction() as connection:
            self._status_table.publish(connection, engine.workflow.board.steps(running))
        fault_point("before_close")
        self._end_workers()
        self.parts.broker.close()
        self.store.close(report.reason)
        log_event(
            _LOG, logging.INFO, "runner stopped", reason=report.reason, exposures=report.n_exposures, failed=report.n_failed
        )
        return report

    def _give_up(self, error: BaseException) -> None:
        _LOG.error("runner ended", exc_info=error)
        self._end_workers()
        self._leave(error)

    def _leave(self, error: BaseException) -> None:
        self.parts.broker.close()
        self.store.give_back(f"ended by {type(error).__name__}: {error}")

    def _end_workers(self) -> None:
        self.parts.place.pool.shut_down()
        if self.cluster is not None:  # it outlives a runner that is rebuilt
            for attempt in self.engine.work.running:
                self.cluster.cancel(attempt)

    def _done(self) -> bool:
        engine, stop, pauses = self.engine, self.parts.stop, self.parts.pausing.pauses
        work, workflow = engine.work, engine.workflow
        if stop.asked:
            waited = time.monotonic() - stop.asked_at > self.settings.drain_s
            return stop.asked > 1 or not work.running or waited
        busy = work.running or len(work.ready) or workflow.scheduler.delayed or workflow.backlog.more or "person" in pauses
        busy = busy or engine.held.busy or engine.trash_waits or self._commands.removal.asked is not None
        return not busy and all(stage.closed for stage in workflow.scheduler.stages.values())

    def _cycle(self) -> None:
        parts, engine, pauses = self.parts, self.engine, self.parts.pausing.pauses
        answers = self._listen()
        with self.store.transaction() as connection:
            writing = engine.writing(connection)
            parts.clock.advance(counting=pauses.first is None)
            for answer in answers:
                self._hear(writing, answer)
            engine.handle(writing, Tick(time.monotonic(), parts.clock.uptime_s))
            self._look_around(writing)
            self._carry_out_commands(writing)
            parts.edits.rebuild_stale(writing, engine.workflow, fraction=self.settings.rebuild_fraction)
            if not parts.edits.outdated:
                engine.admit_backlog(writing)
                parts.results.restoring.admit(writing)
            waits = parts.stop.asked or parts.edits.outdated or pauses.first
            assigned = [] if waits else self._assign(writing)
            engine.work.ready.end(leaving=parts.stop.asked > 0 or pauses.first is not None)
            self._tell_notices(writing)
            writing.flush()
            pauses.store(connection)
            self._publish_status(connection)
            fault_point("before_commit")
        fault_point("after_commit")
        self._show(writing.told)
        after_commit(parts)
        for request in assigned:
            self._give(request)
        self._move_files(seconds=_SWEEP_S)
        if self._sweep is not None:
            self._sweep.go_on(alive=engine.work.running, seconds=_SWEEP_S)
        if parts.edits.outdated:
            self._to_tell += reload(parts)
            watch_again(parts)
            revisions = {step: revision.number for step, revision in engine.workflow.revisions.items()}
            log_event(_LOG, logging.INFO, "workflow replaced", revisions=revisions)
        if not parts.stop.asked:
            engine.sources.restart_due(engine.workflow)
        if self.on_change is not None:
            steps = engine.workflow.board.steps(engine.work.count_running())
            self.on_change(RunStatus(steps, tuple(self._notices), pauses.first))

    def _move_files(self, *, seconds: float) -> None:
        """Plan the removal that was asked for; move what was removed into the trash, and what is wanted back out of it."""
        self._commands.removal.look_up(self.engine.workflow.session)
        trash = self.parts.trash
        if trash.is_due() or self.engine.trash_waits:
            self.engine.trash_waits = trash.go_on(self.engine.workflow.session.folder, seconds=seconds)
            self._to_tell += trash.troubles
            trash.troubles.clear()

    def _listen(self) -> list[Answer]:
        """Wait for what workers say, at most until something else is due."""
        place, engine = self.parts.place, self.engine
        if self.parts.stop.asked:
            place.pool.ask_sources_to_stop()
        self.store.check_in_place()
        timeout_s = engine.sources.restart_in_s(RETRY_S if self.parts.broker.refused else _POLL_S)
        answers = hear([place.pool] if self.cluster is None else [place.pool, self.cluster], timeout_s)
        if self.cluster is not None:
            engine.work.ready.resize(self.cluster.capacity())
        elif not (answers or engine.work.running or self.parts.stop.asked):
            place.pool.prepare()
        return answers

    def _hear(self, writing: Writing, answer: Answer) -> None:
        message = answer.message
        if isinstance(message, SourceAnswer):
            self.parts.source_messages.hear(writing, answer.source or "", message)
        elif isinstance(message, CallAnswer | CallProgress):
            self.parts.results.hear(writing, message, answer.worker)
        elif isinstance(message, ExecutorNotice):
            writing.notify(Notify(message.level, message.message, cause=NoticeCause.WORKERS, subject=message.subject))
        else:
            fields = {"step": answer.source, **message.fields, "worker": answer.worker, "message": message.message}
            log_event(logging.getLogger(f"icestream.worker.{message.logger}"), message.level, "step log", **fields)

    def _show(self, notices: list[Notify]) -> None:
        """Show the notices that were stored, and log them."""
        for told in notices:
            self._notices.append(f"{told.level}: {told.message}")
            level = {"info": logging.INFO, "warning": logging.WARNING}.get(told.level, logging.ERROR)
            about = {"cause": told.cause, "subject": told.subject, "by": told.by, "step": told.step, "unit": told.unit}
            log_event(_LOG, level, "notice", message=told.message, **about)

    def _look_around(self, writing: Writing) -> None:
        if self.parts.pausing.look_around(writing):
            self.parts.edits.look_at_given_files(writing, self.engine.workflow)

    def _carry_out_commands(self, writing: Writing) -> None:
        parts, place = self.parts, self.parts.place
        controls = RunnerControls(
            writing, parts.engine, parts.edits, parts.pausing.pauses, parts.stop, place.executor, place.machine
        )
        if self._commands.carry_out(writing, parts.engine.workflow, controls):
            parts.engine.durable = True

    def _assign(self, writing: Writing) -> list[Request]:
        """Hand out what the free cores, memory and GPUs allow; it is given to workers after the commit."""
        work, tasks, executor = self.engine.work, self.engine.workflow.tasks, self.parts.place.executor
        work.ready.begin()
        assigned = []
        while (task := work.ready.take()) is not None:
            request = Request(
                task.attempt,
                task.step,
                tasks.call_for(writing.connection, task),
                cores=task.cores,
                memory_gb=task.memory_gb,
                gpu_gb=task.demand.gpu_gb,
                gpu=task.gpu,
                prefer=tasks.maker_of(task),
                time_limit_s=task.time_limit_s,
                grace_s=self.settings.cancel_grace_s,
            )
            worker = executor.book(request)
            work.start(task)
            writing.lease(task.step, task.lease_unit, attempt=task.attempt, worker=worker)
            assigned.append(request)
            if _LOG.isEnabledFor(logging.DEBUG):
                about = {"step": task.step, "unit": task.unit, "exposure": tasks.name_of(task.unit), "attempt": task.attempt}
                log_event(_LOG, logging.DEBUG, "dispatched", **about, worker=worker)
        return assigned

    def _give(self, request: Request) -> None:
        fault_point("before_give")
        self.parts.place.executor.submit(request)
        fault_point("after_give")

    def _tell_notices(self, writing: Writing) -> None:
        """Store what was found while the workflow was built, and what the broker has to say."""
        self._to_tell += [Notify(level, text, cause=NoticeCause.LEDGER) for level, text in self.parts.broker.notices]
        self.parts.broker.notices.clear()
        for notice in self._to_tell:
            writing.notify(notice)
        self._to_tell.clear()

    def _publish_status(self, connection: Connection) -> None:
        if self._status_table.is_due():
            engine = self.engine
            self._status_table.publish(connection, engine.workflow.board.steps(engine.work.count_running()))
