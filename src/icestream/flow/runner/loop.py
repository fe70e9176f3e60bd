"""The run loop: what workers say → scheduler → one transaction → what workers are told."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from icestream.files import sweep_temporaries
from icestream.flow.commands.cleaning import drop_file
from icestream.flow.commands.dispatch import carry_out_commands
from icestream.flow.commands.pausing import look_around
from icestream.flow.commands.restarting import rebuild_stale
from icestream.flow.declaration import outcomes
from icestream.flow.execution.executor import Executor, Request, hear
from icestream.flow.execution.pool import Pool
from icestream.flow.resources.broker import RETRY_S
from icestream.flow.runner.backlog import Backlog
from icestream.flow.runner.build import admit_backlog, reload, resume, take_up_workflow
from icestream.flow.runner.capacity import (
    broker_for,
    gpus_for,
    own_limits,
    ready_queue_for,
    reduce_after_exhaustion,
    tell_notices,
)
from icestream.flow.runner.clock import Clock
from icestream.flow.runner.fault_points import fault_point
from icestream.flow.runner.health import Health
from icestream.flow.runner.inflight import Inflight
from icestream.flow.runner.pausing import Holds
from icestream.flow.runner.results import ResultHandler
from icestream.flow.runner.source_messages import SourceMessages
from icestream.flow.runner.sources import Sources
from icestream.flow.runner.status import Board, RunReport, RunStatus
from icestream.flow.runner.status_table import StatusTable
from icestream.flow.runner.tasks import Task, TaskBuilder
from icestream.flow.scheduling import events, instructions
from icestream.flow.scheduling.instruction_queue import InstructionQueue
from icestream.flow.scheduling.scheduler import Scheduler
from icestream.flow.storage.contents import GivenFiles
from icestream.flow.storage.revisions import Revision
from icestream.flow.storage.session import Session
from icestream.flow.storage.store import Store
from icestream.flow.storage.writing import Writing, needs_durability
from icestream.flow.workflow.graph import Graph
from icestream.flow.workflow.requests import check_requests
from icestream.settings import Settings

_POLL_S = 0.5


@dataclass
class Runner:
    """Everything one run holds; `icestream.flow.runner.supervisor.run_session` is the way in."""

    session: Session
    settings: Settings
    on_change: Callable[[RunStatus], None] | None = None
    cluster: Executor | None = None
    stop_signals: int = 0
    stop_reason: str = "stopped by its operator"
    running: dict[str, tuple[Task, str]] = field(default_factory=dict)  # attempt → task and worker
    files_to_drop: list[str] = field(default_factory=list)
    durable: bool = False
    looked_at: float = 0.0
    postponed: list[Task] = field(default_factory=list)  # wait for an entry of an edited accumulator to end
    outdated: bool = False  # the workflow was edited: everything in memory is built anew after the commit
    instruction_queue: InstructionQueue = field(default_factory=InstructionQueue)
    given_files: GivenFiles = field(default_factory=GivenFiles)
    graph: Graph = field(init=False)
    revisions: dict[str, Revision] = field(init=False)
    fingerprint: str = field(init=False)
    scheduler: Scheduler = field(init=False)
    task_builder: TaskBuilder = field(init=False)
    board: Board = field(init=False)
    backlog: Backlog = field(init=False)

    def __post_init__(self) -> None:
        self.gpus = gpus_for(self.settings)
        check_requests(self.session.graph(), own_limits(self.settings, self.gpus), self.gpus)
        self.store = Store(self.session.store_at)
        self.store.claim()
        try:
            self._set_up()
        except BaseException as error:
            self.store.give_back(f"could not start: {error}")
            raise

    def _set_up(self) -> None:
        fault_point("claimed")
        self.pool = self._make_pool()
        self.executor: Executor = self.cluster or self.pool  # sources are always processes of this machine
        self.broker = broker_for(self)
        self.ready = ready_queue_for(self)
        self.inflight = Inflight()
        self.results = ResultHandler(self)
        self.source_messages = SourceMessages(self)
        self.sources = Sources(self)
        self.holds = Holds()
        self.health = Health(self.session, self.settings.min_free_gb)
        self.clock = Clock(self.store)
        self.status_table = StatusTable()
        with self.store.transaction(durable=True) as connection:
            self.holds.load(connection)
            take_up_workflow(self, connection)

    def _make_pool(self) -> Pool:
        return Pool(self.settings.cores, self.settings.usable_memory_gb, self.settings.image_memory_mb)

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

    def _begin(self) -> None:
        sweep_temporaries(self.health.results_folder)
        resume(self)
        self.sources.start_all()
        fault_point("source_started")

    def _finish(self) -> RunReport:
        finished = self.stop_signals == 0
        report = self.board.report(finished=finished, reason="every stream has closed" if finished else self.stop_reason)
        with self.store.transaction() as connection:
            self.status_table.publish(connection, self.board, final=True)
        fault_point("before_close")
        self._end_workers()
        self.broker.close()
        self.store.close(report.reason)
        return report

    def _give_up(self, error: BaseException) -> None:
        self._end_workers()
        self.broker.close()
        self.store.give_back(f"ended by {type(error).__name__}: {error}")

    def _end_workers(self) -> None:
        self.pool.shut_down()
        if self.cluster is not None:  # it outlives a runner that is built anew
            for attempt in self.running:
                self.cluster.cancel(attempt)

    def _done(self) -> bool:
        if self.stop_signals:
            waited = time.monotonic() - self.stopped_at > self.settings.drain_s
            return self.stop_signals > 1 or not self.running or waited
        busy = self.running or len(self.ready) or self.scheduler.delayed or self.backlog.more or self.holds.first
        return not busy and all(stage.closed for stage in self.scheduler.stages.values())

    def stop(self) -> None:
        """Stop after what is running; a second call stops at once. Called by signals, so it takes no lock."""
        self.stop_signals += 1
        self.stopped_at = time.monotonic()

    def writing(self, connection: Connection) -> Writing:
        """Return the writing side of one transaction."""
        ids = {step: revision.id for step, revision in self.revisions.items()}
        return Writing(self.store, connection, ids, self.fingerprint)

    def _cycle(self) -> None:
        if self.stop_signals:
            self.pool.ask_sources_to_stop()
        self.store.check_in_place()
        timeout_s = self.sources.restart_in_s(RETRY_S if self.broker.hungry else _POLL_S)
        answers = hear([self.pool] if self.cluster is None else [self.pool, self.cluster], timeout_s)
        if self.cluster is not None:
            self.ready.resize(self.cluster.capacity())
        with self.store.transaction() as connection:
            writing = self.writing(connection)
            self.clock.advance(counting=self.holds.first is None)
            for answer in answers:
                self.results.hear(writing, answer)
            self.handle(writing, events.Tick(time.monotonic(), self.clock.uptime_s))
            look_around(self, writing)
            carry_out_commands(self, writing)
            rebuild_stale(self, writing)
            if not self.outdated:
                admit_backlog(self, writing)
            waits = self.stop_signals or self.outdated or self.holds.first
            assigned = [] if waits else self._assign(writing)
            self.ready.end(leaving=self.stop_signals > 0 or self.holds.first is not None)
            tell_notices(self.broker, writing)
            writing.flush()
            self.holds.store(connection)
            self.status_table.publish(connection, self.board)
            fault_point("before_commit")
        fault_point("after_commit")
        self.status_table.notices.extend(writing.said)
        self.after_commit()
        self._give(assigned)
        if self.outdated:
            reload(self)
        self.sources.restart_fallen()
        if self.on_change is not None:
            self.on_change(self.board.status(hold=self.holds.first))

    def after_commit(self) -> None:
        """Do what only may be done once a transaction is committed."""
        if self.durable:
            with self.store.transaction(durable=True):
                self.durable = False
            fault_point("after_sync")
        if self.files_to_drop:
            fault_point("before_drop_files")
        for ref in self.files_to_drop:
            drop_file(self.session, ref)
        self.files_to_drop.clear()

    def handle(self, writing: Writing, event: events.Event) -> None:
        """Let the scheduler take an event, and carry out what it wants."""
        self.carry_out(writing, self.scheduler.handle(event))

    def carry_out(self, writing: Writing, wanted: list[instructions.Instruction]) -> None:
        """Store what instructions say and make tasks of those that call for work."""
        for instruction in self.instruction_queue.take(wanted):
            self.durable = self.durable or needs_durability(instruction)
            writing.apply(instruction)
            if isinstance(instruction, instructions.Dispatch):
                self._prepare(writing, instruction)
            elif isinstance(instruction, instructions.Consume):
                writing.flush()
                self._enqueue(self.task_builder.task_for_entry(writing.connection, instruction))
            elif isinstance(instruction, instructions.Release):
                self.task_builder.forget_unit(instruction.unit)
            elif isinstance(instruction, instructions.Drain):
                self._drain(writing, instruction.step)
            elif isinstance(instruction, instructions.Resume) and self.graph.nodes[instruction.step].type.is_source:
                self.sources.go_on(instruction.step)
            elif isinstance(instruction, instructions.Settle | instructions.Forget):
                self.board.count(instruction)

    def _drain(self, writing: Writing, step: str) -> None:
        """Take back the tasks of a step that have not begun; stop its source."""
        withdrawn = self.inflight.withdraw(step, running=set(self.running))
        self.ready.withdraw({task.attempt for task, _ in withdrawn if not task.waiters})
        for unit in [unit for _, units in withdrawn for unit in units]:
            self.handle(writing, events.Withdrawn(step, unit))
        if self.graph.nodes[step].type.is_source:
            self.sources.drain(step)

    def _prepare(self, writing: Writing, dispatch: instructions.Dispatch) -> None:
        """Queue a unit, unless a result with its key is there already: then it is taken over."""
        task = self.task_builder.task_for(dispatch)
        computes = self.graph.nodes[dispatch.step].type.computes
        weight = self.results.known_weight(writing, task.key) if computes else None
        if weight is None:
            self._enqueue(task)
        else:
            missing = self.results.missing_in(dispatch.step, dispatch.unit, dispatch.inputs)
            outcome = outcomes.Outcome(outcomes.Status.ITEM, {"out": task.key}, weight, missing=missing)
            self.handle(writing, events.Decided(dispatch.step, dispatch.unit, outcome))

    def _enqueue(self, task: Task) -> None:
        if self.inflight.join(task):
            return
        if task.entry is not None and any(other.step == task.step and other.entry for other, _ in self.running.values()):
            self.postponed.append(task)  # both might write to the same export
        else:
            self.make_ready(task)

    def make_ready(self, task: Task) -> None:
        """Queue a task."""
        reduce_after_exhaustion(task, self.scheduler.stages[task.step])
        self.ready.put(task, depth=self.graph.nodes[task.step].depth)

    def _assign(self, writing: Writing) -> list[Request]:
        self.ready.begin()
        assigned = []
        while (task := self.ready.take()) is not None:
            request = Request(
                task.attempt,
                task.step,
                self.task_builder.message(writing.connection, task),
                cores=task.cores,
                memory_gb=task.memory_gb,
                gpu_gb=task.demand.gpu_gb,
                gpu=task.gpu,
                prefer=self.task_builder.maker_of(task),
                time_limit_s=task.time_limit_s,
                grace_s=self.settings.cancel_grace_s,
            )
            worker = self.executor.book(request)
            self.running[task.attempt] = (task, worker)
            writing.lease(task.step, task.unit, attempt=task.attempt, worker=worker)
            assigned.append(request)
        return assigned

    def _give(self, assigned: list[Request]) -> None:
        for request in assigned:
            fault_point("before_give")
            self.executor.submit(request)
            fault_point("after_give")
