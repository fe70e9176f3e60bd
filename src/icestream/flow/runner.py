"""The run loop: what workers say → scheduler → one transaction → what workers are told."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from sqlalchemy import Connection

from icestream.errors import SessionError
from icestream.files import sweep_temporaries
from icestream.flow import moves, resuming
from icestream.flow.commands import carry_out_commands
from icestream.flow.deciding import judge_for
from icestream.flow.faults import fault_point
from icestream.flow.halting import HALTED
from icestream.flow.hearing import Hearing
from icestream.flow.pool import Answer, Pool, Worker
from icestream.flow.ready import ReadyQueue
from icestream.flow.revisions import activate_revisions, fingerprint_of
from icestream.flow.scheduler import Scheduler
from icestream.flow.session import Session
from icestream.flow.sources import Sources
from icestream.flow.status import Board, RunReport, RunStatus
from icestream.flow.step import Kind
from icestream.flow.store import Store
from icestream.flow.tasks import Task, Workshop
from icestream.flow.uptime import Uptime, store_uptime
from icestream.flow.writing import Writing, needs_durability
from icestream.settings import Settings

_POLL_S = 0.5
_HEARTBEAT_S = 2.0


@dataclass
class Runner:
    """Everything one run holds; `run_session` is the way in."""

    session: Session
    settings: Settings
    on_change: Callable[[RunStatus], None] | None = None
    stop_signals: int = 0
    running: dict[str, tuple[Task, Worker]] = field(default_factory=dict)
    files_to_drop: list[str] = field(default_factory=list)
    durable: bool = False

    def __post_init__(self) -> None:
        self.graph = self.session.graph()
        self.store = Store(self.session.store_path)
        self.store.claim()
        fault_point("claimed")
        self.pool = Pool(self.settings.image_memory_mb)
        self.ready = ReadyQueue(self.settings.cores, self.settings.usable_memory_gb, self.settings.newest_first)
        self.scheduler = Scheduler(self.graph, judge_for)
        with self.store.transaction(durable=True) as connection:
            acquisition = self.session.document.acquisition.model_dump(exclude_none=True)
            self.revisions = activate_revisions(connection, self.graph, acquisition)
            self.fingerprint = fingerprint_of(self.revisions)
        self.workshop = Workshop(self.session, self.graph, self.revisions)
        self.board = Board(self.scheduler, self.running)
        self.hearing = Hearing(self)
        self.sources = Sources(self)

    def run(self) -> RunReport:
        """Run until every stream has closed, or until somebody stops it."""
        sweep_temporaries(self.session.folder / "steps")
        try:
            self._resume()
            self.sources.start_all()
            fault_point("source_started")
            while not self._done():
                self._cycle()
            report = self.board.report(finished=self.stop_signals == 0, reason=self._reason())
            fault_point("before_close")
            self.pool.shut_down()
            self.store.close(report.reason)
            return report
        finally:
            self.pool.shut_down()
            self.store.dispose()

    def _reason(self) -> str:
        return "stopped by its operator" if self.stop_signals else "every stream has closed"

    def _done(self) -> bool:
        if self.stop_signals:
            waited = time.monotonic() - self.stopped_at > self.settings.drain_s
            return self.stop_signals > 1 or not self.running or waited
        busy = self.running or len(self.ready) or self.scheduler.delayed
        return not busy and all(stage.closed for stage in self.scheduler.stages.values())

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Stop after what is running; a second call stops at once."""
        self.stop_signals += 1
        self.stopped_at = time.monotonic()

    def _resume(self) -> None:
        with self.store.transaction() as connection:
            writing = self.writing(connection)
            resuming.load_stages(connection, self.scheduler, self.revisions)
            self.uptime = Uptime(self.scheduler.uptime_s, time.monotonic())
            units = resuming.load_units(connection, self.scheduler, self.revisions, self.fingerprint)
            self.hearing.learn_units(connection, [unit.id for unit in units])
            self.board.load(connection, self.revisions)
            instructions = self.scheduler.resume(units)
            resuming.load_failures(connection, self.scheduler, self.revisions)
            self.carry_out(writing, instructions)
            writing.flush()
        self._after_commit()

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
            for answer in answers:
                self.hearing.hear(writing, answer)
            now_s = time.monotonic()
            self.handle(writing, moves.Tick(now_s, self.uptime.advance(now_s)))
            store_uptime(connection, self.uptime.total_s)
            carry_out_commands(self, writing)
            assigned = [] if self.stop_signals else self._assign(writing)
            writing.flush()
            fault_point("before_commit")
        fault_point("after_commit")
        self.board.notices.extend(writing.said)
        self._after_commit()
        self._give(assigned)
        self.sources.restart_fallen()
        if self.on_change is not None:
            self.on_change(self.board.status())

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
            (self.session.folder / ref.removeprefix("session:")).unlink(missing_ok=True)
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
            elif isinstance(instruction, moves.Halt):
                self._carry_out_halt(writing, instruction)
            elif isinstance(instruction, moves.Settle | moves.Forget):
                self.board.count(instruction)

    def _carry_out_halt(self, writing: Writing, halt: moves.Halt) -> None:
        """Take back the tasks of a step that have not begun; stop or start its source."""
        if halt.state == HALTED:
            for unit in self.ready.withdraw(halt.step):
                self.handle(writing, moves.Withdrawn(halt.step, unit))
        if self.graph.nodes[halt.step].type.kind is Kind.SOURCE:
            (self.sources.halt if halt.state == HALTED else self.sources.go_on)(halt.step)

    def _prepare(self, writing: Writing, dispatch: moves.Dispatch) -> None:
        """Queue a unit, unless a result with its key is there already: then it is taken over."""
        task = self.workshop.task_for(dispatch)
        node = self.graph.nodes[dispatch.step]
        weight = self.hearing.known_weight(writing, task.key) if node.type.kind is Kind.MAP else None
        if weight is None:
            self._enqueue(task)
        else:
            missing = self.hearing.missing_in(task)
            outcome = moves.Outcome(moves.Status.ITEM, {"out": task.key}, weight, missing=missing)
            self.handle(writing, moves.Decided(dispatch.step, dispatch.unit, outcome))

    def _enqueue(self, task: Task) -> None:
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


def run_session(session: Session, settings: Settings, *, on_change: Callable[[RunStatus], None] | None = None) -> RunReport:
    """Process a session until every stream has closed, or until SIGINT or SIGTERM.

    Raises
    ------
    WorkflowError
        The workflow cannot run; nothing was started.
    SessionBusy
        Another runner holds the session.
    SessionError
        The store cannot be used.
    """
    runner = Runner(session, settings, on_change)
    if threading.current_thread() is not threading.main_thread():
        return runner.run()
    earlier = {name: signal.signal(name, runner.stop) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        return runner.run()
    except OSError as error:
        raise SessionError(f"{session.folder}: {error}") from error
    finally:
        for name, handler in earlier.items():
            signal.signal(name, handler)
