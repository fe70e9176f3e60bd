"""The scheduler's edge: it is given what happened, and what it wants done is written and queued."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from icestream.flow.declaration import outcomes
from icestream.flow.runner.build import ActiveWorkflow
from icestream.flow.runner.held import Held
from icestream.flow.runner.sources import Sources
from icestream.flow.runner.tasks import Task
from icestream.flow.runner.work import Work
from icestream.flow.scheduling import InstructionQueue, events, instructions
from icestream.flow.storage import Store, Writing, needs_durability, resuming, schema
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)

LOW_WATER = 200
"""With fewer tasks ready, more of what earlier runs left unsettled is taken up."""


@dataclass
class Engine:
    """Carries out what the scheduler of the active workflow wants."""

    store: Store
    workflow: ActiveWorkflow
    work: Work
    sources: Sources
    durable: bool = False
    """What this transaction decides must survive a power cut: it is synced after the commit."""
    files_to_drop: list[str] = field(default_factory=list)
    """What nothing refers to once this transaction is committed."""
    trash_waits: bool = True
    """Files may have to be moved into the trash, or out of it."""
    held: Held = field(default_factory=lambda: Held(more=True))
    """What waits for files that are computed again."""
    _instructions: InstructionQueue = field(default_factory=InstructionQueue)

    def replace(self, workflow: ActiveWorkflow) -> None:
        """Go on with an edited workflow: what runs goes on, everything else is asked for again."""
        self.workflow = workflow
        self.work.let_go()
        self.held.clear()

    def writing(self, connection: Connection) -> Writing:
        """Return the writing side of one transaction."""
        ids = {step: revision.id for step, revision in self.workflow.revisions.items()}
        return Writing(self.store, connection, ids, self.workflow.fingerprint)

    def handle(self, writing: Writing, event: events.Event) -> None:
        """Let the scheduler take an event, and carry out what it wants."""
        self.carry_out(writing, self.workflow.scheduler.handle(event))

    def carry_out(self, writing: Writing, wanted: Iterable[instructions.Instruction]) -> None:
        """Store what instructions say and make tasks of those that call for work."""
        for instruction in self._instructions.take(wanted):
            self.durable = self.durable or needs_durability(instruction)
            writing.apply(instruction)
            if isinstance(instruction, instructions.Dispatch):
                self._prepare(writing, instruction)
            elif isinstance(instruction, instructions.Consume):
                writing.flush()
                self.enqueue(self.workflow.tasks.task_for_entry(writing.connection, instruction))
            elif isinstance(instruction, instructions.Release):
                self.workflow.tasks.forget_unit(instruction.unit)
            elif isinstance(instruction, instructions.Drain):
                self._drain(writing, instruction.step)
            elif isinstance(instruction, instructions.Resume) and self.workflow.graph.nodes[instruction.step].type.is_source:
                self.sources.go_on(instruction.step)
            elif isinstance(instruction, instructions.Settle | instructions.Forget):
                self.workflow.board.count(instruction)

    def _drain(self, writing: Writing, step: str) -> None:
        """Take back the tasks of a step that have not begun; stop its source."""
        for unit in self.work.withdraw(step):
            self.handle(writing, events.Withdrawn(step, unit))
        if self.workflow.graph.nodes[step].type.is_source:
            self.sources.stop(step)

    def _prepare(self, writing: Writing, dispatch: instructions.Dispatch) -> None:
        """Queue a unit, unless a result with its key is there already: then it is taken over."""
        task = self.workflow.tasks.task_for(dispatch)
        computes = self.workflow.graph.nodes[dispatch.step].type.computes
        weight = _known_weight(writing, task.key) if computes else None
        if weight is None:
            self.enqueue(task)
        else:
            missing = self.missing_in(dispatch.step, dispatch.unit, dispatch.inputs)
            outcome = outcomes.Outcome(outcomes.Status.ITEM, {"out": task.key}, weight, missing=missing)
            self.handle(writing, events.Decided(dispatch.step, dispatch.unit, outcome))

    def missing_in(self, step: str, unit_id: str, inputs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """Return the inputs of ``step`` that had no item for a unit that runs on ``inputs``."""
        unit = self.workflow.scheduler.units.get(unit_id)
        links = self.workflow.graph.nodes[step].item_links
        if unit is None:
            return ()
        all_links = [link for group in links.values() for link in group]
        keys = {key for group in inputs.values() for key in group}
        return tuple(
            str(link)
            for link in all_links
            if link.step in unit.outcomes and not keys.intersection(unit.outcomes[link.step].keys.values())
        )

    def enqueue(self, task: Task) -> None:
        """Queue a task, unless its result is computed already."""
        if not self.work.join(task) and not self.work.postpone(task):
            self.make_ready(task)

    def make_ready(self, task: Task) -> None:
        """Let a task run when there is room, and what it lacks is there; one that nobody waits for any more is dropped."""
        if self.held.take(task):
            return
        if not task.waiters and task.folder is None:
            self.work.forget(task)
            return
        failures = self.workflow.scheduler.stages[task.step].failures.get(task.unit, {})
        if failures:
            about = {"step": task.step, "unit": task.unit, "exposure": self.workflow.tasks.name_of(task.unit)}
            log_event(_LOG, logging.INFO, "tried again", **about, attempt=task.attempt, failures=sum(failures.values()))
        task.reduce_after(failures)
        self.work.ready.put(task, depth=self.workflow.graph.nodes[task.step].depth)

    def end_attempt(self, writing: Writing, attempt: str) -> Task | None:
        """Note that an attempt ended, and queue what waited for that; return its task, or None if it is not ours."""
        ended = self.work.end(attempt)
        if ended is None:
            return None
        task, freed = ended
        self.workflow.board.notes.pop(task.step, None)
        writing.end_lease(attempt)
        for other in freed:
            self.make_ready(other)
        return task

    def admit_backlog(self, writing: Writing) -> None:
        """Take the next page of what earlier runs left unsettled, whenever little is ready to run."""
        workflow, backlog = self.workflow, self.workflow.backlog
        while backlog.more and len(self.work.ready) < LOW_WATER:
            writing.flush()
            units = backlog.next_page(writing.connection, workflow.revisions)
            workflow.learn_units(writing.connection, [unit.id for unit in units])
            wanted = workflow.scheduler.admit(units, more=backlog.more)
            resuming.load_failures(writing.connection, workflow.scheduler, workflow.revisions)
            self.carry_out(writing, wanted)


def _known_weight(writing: Writing, key: str) -> int | None:
    """Return the weight of the result with this key, if there is one."""
    writing.flush()
    return writing.connection.execute(select(schema.result.c.weight).where(schema.result.c.key == key)).scalar()
