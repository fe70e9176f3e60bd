"""The run loop: what workers say → scheduler → one transaction → what workers are told."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from sqlalchemy import Connection

from icestream.files import sweep_temporaries
from icestream.flow import moves, resuming
from icestream.flow.backlog import find_backlog
from icestream.flow.bulletin import Bulletin
from icestream.flow.clock import Clock
from icestream.flow.control.cleaning import drop_file
from icestream.flow.control.commands import carry_out_commands
from icestream.flow.control.holds import look_around
from icestream.flow.deciding import judge_for
from icestream.flow.faults import fault_point
from icestream.flow.hearing import Hearing
from icestream.flow.holding import Holds
from icestream.flow.inflight import Inflight
from icestream.flow.pool import Answer, Pool, Worker
from icestream.flow.ready import ReadyQueue
from icestream.flow.revisions import activate_revisions, fingerprint_of
from icestream.flow.scheduler import Scheduler
from icestream.flow.session import Session
from icestream.flow.sources import Sources
from icestream.flow.status import Board, RunReport, RunStatus
from icestream.flow.step import Kind
from icestream.flow.store import Store
from icestream.flow.surroundings import Surroundings
from icestream.flow.tasks import Task, Workshop
from icestream.flow.writing import Writing, needs_durability
from icestream.settings import Settings

_POLL_S = 0.5
_LOW_WATER = 200


@dataclass
class Runner:
    """Everything one run holds; `icestream.flow.running.run_session` is the way in."""

    session: Session
    settings: Settings
    on_change: Callable[[RunStatus], None] | None = None
    stop_signals: int = 0
    stop_reason: str = "stopped by its operator"
    running: dict[str, tuple[Task, Worker]] = field(default_factory=dict)
    files_to_drop: list[str] = field(default_factory=list)
    durable: bool = False
    looked_at: float = 0.0
    outdated: bool = False  # the workflow was edited: everything in memory is built anew after the commit

    def __post_init__(self) -> None:
        self.store = Store(self.session.store_path)
        self.store.claim()
        fault_point("claimed")
        self.pool = Pool(self.settings.image_memory_mb)
        self.ready = ReadyQueue(self.settings.cores, self.settings.usable_memory_gb, self.settings.newest_first)
        self.inflight = Inflight()
        self.hearing = Hearing(self)
        self.sources = Sources(self)
        self.holds = Holds()
        self.surroundings = Surroundings(self.session, self.settings.min_free_gb)
        self.clock = Clock(self.store)
        self.bulletin = Bulletin()
        with self.store.transaction(durable=True) as connection:
            self.holds.load(connection)
            self.workflow(connection)

    def workflow(self, connection: Connection) -> None:
        """Take up the session's workflow: a new graph, its revisions, and a scheduler that knows nothing yet."""
        self.graph = self.session.graph()
        acquisition = self.session.document.acquisition.model_dump(exclude_none=True)
        self.revisions = activate_revisions(connection, self.graph, acquisition)
        self.fingerprint = fingerprint_of(self.revisions)
        self.scheduler = Scheduler(self.graph, judge_for, resuming.load_overrides(connection))
        self.workshop = Workshop(self.session, self.graph, self.revisions)
        self.board = Board(self.scheduler, self.running, notices=self.bulletin.notices)

    def run(self) -> RunReport:
        """Run until every stream has closed, or until somebody stops it."""
        sweep_temporaries(self.session.folder / "steps")
        try:
            self.resume()
            self.sources.start_all()
            fault_point("source_started")
            while not self._done():
                self._cycle()
            report = self.board.report(finished=self.stop_signals == 0, reason=self._reason())
            with self.store.transaction() as connection:
                self.bulletin.publish(connection, self.board, final=True)
            fault_point("before_close")
            self.pool.shut_down()
            self.store.close(report.reason)
            return report
        finally:
            self.pool.shut_down()
            self.store.dispose()

    def _reason(self) -> str:
        return self.stop_reason if self.stop_signals else "every stream has closed"

    def _done(self) -> bool:
        if self.stop_signals:
            waited = time.monotonic() - self.stopped_at > self.settings.drain_s
            return self.stop_signals > 1 or not self.running or waited
        busy = self.running or len(self.ready) or self.scheduler.delayed or self.backlog.more or self.holds.first
        return not busy and all(stage.closed for stage in self.scheduler.stages.values())

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Stop after what is running; a second call stops at once."""
        self.stop_signals += 1
        self.stopped_at = time.monotonic()

    def answer_commands(self) -> None:
        """Carry out what was asked while no runner was there; nothing is processed."""
        try:
            self.resume()
            again = True
            while again:
                with self.store.transaction() as connection:
                    writing = self.writing(connection)
                    carry_out_commands(self, writing)
                    writing.flush()
                    self.holds.store(connection)
                again = self.outdated
                self._after_commit()
                if self.outdated:
                    self.reload(watch=False)
            self.store.close("commands were carried out; nothing was processed")
        finally:
            self.store.dispose()

    def resume(self) -> None:
        """Take up what earlier runs left unsettled."""
        with self.store.transaction() as connection:
            writing = self.writing(connection)
            resuming.load_stages(connection, self.scheduler, self.revisions)
            newest_first = self.settings.newest_first
            self.backlog = find_backlog(connection, fingerprint=self.fingerprint, newest_first=newest_first)
            self.scheduler.backlog = self.backlog.more
            self.board.load(connection, self.revisions)
            instructions = self.scheduler.resume(resuming.load_derived(connection, self.scheduler, self.revisions))
            resuming.load_failures(connection, self.scheduler, self.revisions)
            self.carry_out(writing, instructions)
            self._admit(writing)
            writing.flush()
        self._after_commit()

    def _admit(self, writing: Writing) -> None:
        """Take the next page of what earlier runs left unsettled, whenever little is ready to run."""
        while self.backlog.more and len(self.ready) < _LOW_WATER:
            writing.flush()
            units = self.backlog.next_page(writing.connection, self.revisions)
            self.hearing.learn_units(writing.connection, [unit.id for unit in units])
            instructions = self.scheduler.admit(units, more=self.backlog.more)
            resuming.load_failures(writing.connection, self.scheduler, self.revisions)
            self.carry_out(writing, instructions)

    def reload(self, *, watch: bool = True) -> None:
        """Go on with an edited workflow: what is running goes on, everything else is looked at anew."""
        self.outdated = False
        self.inflight.let_go(running=set(self.running))
        self.ready.clear()
        self.surroundings.session = self.session
        with self.store.transaction(durable=True) as connection:
            self.workflow(connection)
        self.resume()
        if watch:
            self.sources.reconcile()

    def writing(self, connection: Connection) -> Writing:
        """Return the writing side of one transaction."""
        ids = {step: revision.id for step, revision in self.revisions.items()}
        return Writing(self.store, connection, ids, self.fingerprint)

    def _cycle(self) -> None:
        if self.stop_signals:
            self.pool.ask_sources_to_stop()
        self.store.check_in_place()
        timeout_s = self.sources.restart_in_s(_POLL_S)
        answers = list(self.pool.answers(timeout_s)) if self.pool.workers else self._sleep(timeout_s)
        with self.store.transaction() as connection:
            writing = self.writing(connection)
            self.clock.advance(counting=self.holds.first is None)
            for answer in answers:
                self.hearing.hear(writing, answer)
            self.handle(writing, moves.Tick(time.monotonic()))
            look_around(self, writing)
            carry_out_commands(self, writing)
            if not self.outdated:
                self._admit(writing)
            assigned = self._assign(writing) if self._may_assign() else []
            writing.flush()
            self.holds.store(connection)
            self.bulletin.publish(connection, self.board)
            fault_point("before_commit")
        fault_point("after_commit")
        self.bulletin.notices.extend(writing.said)
        self._after_commit()
        self._give(assigned)
        if self.outdated:
            self.reload()
        self.sources.restart_fallen()
        if self.on_change is not None:
            self.on_change(self.board.status(hold=self.holds.first))

    def _may_assign(self) -> bool:
        return not (self.stop_signals or self.outdated or self.holds.first)

    def _sleep(self, seconds: float) -> list[Answer]:
        time.sleep(seconds)
        return []

    def _after_commit(self) -> None:
        if self.durable:
            with self.store.transaction(durable=True):
                self.durable = False
            fault_point("after_sync")
        if self.files_to_drop:
            fault_point("before_drop_files")
        for ref in self.files_to_drop:
            drop_file(self.session, ref)
        self.files_to_drop.clear()

    def handle(self, writing: Writing, event: moves.Event) -> None:
        """Let the scheduler take an event, and carry out what it wants."""
        self.carry_out(writing, self.scheduler.handle(event))

    def carry_out(self, writing: Writing, instructions: list[moves.Instruction]) -> None:
        """Store what instructions say and make tasks of those that call for work."""
        for instruction in instructions:
            self.durable = self.durable or needs_durability(instruction)
            writing.apply(instruction)
            if isinstance(instruction, moves.Dispatch):
                self._prepare(writing, instruction)
            elif isinstance(instruction, moves.Consume):
                writing.flush()
                self._enqueue(self.workshop.task_for_entry(writing.connection, instruction))
            elif isinstance(instruction, moves.Release):
                self.workshop.forget_unit(instruction.unit)
            elif isinstance(instruction, moves.Settle | moves.Forget):
                self.board.count(instruction)

    def _prepare(self, writing: Writing, dispatch: moves.Dispatch) -> None:
        """Queue a unit, unless a result with its key is there already: then it is taken over."""
        task = self.workshop.task_for(dispatch)
        node = self.graph.nodes[dispatch.step]
        weight = self.hearing.known_weight(writing, task.key) if node.type.kind is Kind.MAP else None
        if weight is None:
            self._enqueue(task)
        else:
            missing = self.hearing.missing_in(dispatch.step, dispatch.unit, dispatch.inputs)
            outcome = moves.Outcome(moves.Status.ITEM, {"out": task.key}, weight, missing=missing)
            self.handle(writing, moves.Decided(dispatch.step, dispatch.unit, outcome))

    def _enqueue(self, task: Task) -> None:
        if not self.inflight.join(task):
            self.ready.put(task, depth=self.graph.nodes[task.step].depth)

    def _assign(self, writing: Writing) -> list[Task]:
        assigned = []
        while (task := self.ready.take()) is not None:
            cores = self.ready.tokens(task)
            worker = self.pool.idle_worker(cores, prefer=self.workshop.maker_of(task)) or self.pool.start(cores)
            worker.task = task.attempt
            self.running[task.attempt] = (task, worker)
            writing.lease(task.step, task.unit, attempt=task.attempt, worker=worker.name)
            task.message = self.workshop.message(writing.connection, task)
            assigned.append(task)
        return assigned

    def _give(self, assigned: list[Task]) -> None:
        for task in assigned:
            _, worker = self.running[task.attempt]
            fault_point("before_give")
            if task.message is not None:
                self.pool.give(worker, task.message)
            task.message = None
            fault_point("after_give")
