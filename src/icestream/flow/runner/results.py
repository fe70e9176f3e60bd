"""What workers say of calls, turned into results, failures and events."""

import json
import logging
import socket
import time
from dataclasses import dataclass, replace

from icestream import __version__
from icestream.flow.declaration import CallFailure, FailureKind, outcomes
from icestream.flow.execution.messages import (
    CallAnswer,
    CallCost,
    CallEnded,
    CallFailed,
    CallProgress,
    EntryAbsorbed,
    ItemJudged,
    ItemMade,
    StoredRecord,
)
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.pausing import SelfPausing
from icestream.flow.runner.restoring import Restoring
from icestream.flow.runner.retention import files_to_drop
from icestream.flow.runner.stopping import RunnerStop
from icestream.flow.runner.tasks import Task, TaskBuilder
from icestream.flow.scheduling import events, first_weight, passed_keys
from icestream.flow.storage import Writing
from icestream.flow.workflow import assignment_key
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)

_NAMES = {FailureKind.WORKER_DIED: "WorkerDied", FailureKind.OUT_OF_MEMORY: "OutOfMemory"}
"""What a failure is called that no exception of a step tells of."""


@dataclass
class ResultHandler:
    """Hears the workers of one run about their calls."""

    engine: Engine
    pausing: SelfPausing
    stop: RunnerStop
    restoring: Restoring

    def hear(self, writing: Writing, message: CallAnswer | CallProgress, worker: str) -> None:
        """Take one message of a worker, or of an executor about a call."""
        if isinstance(message, CallProgress):
            task = self.engine.work.running.get(message.attempt)
            self.engine.workflow.board.notes["" if task is None else task.step] = f"{message.fraction:.0%} {message.text}"
            return
        task = self.engine.end_attempt(writing, message.attempt)
        if task is None:
            return
        if task.folder is not None:
            self._restored(writing, task, message)
        elif isinstance(message, CallEnded):
            self._ended(writing, task, message)
        elif isinstance(message, CallFailed):
            failure = CallFailure(message.kind, message.error_type, message.message, message.traceback)
            self._failed(writing, task, failure)
        elif (trouble := self.pausing.health.results_trouble()) is not None:  # what it wrote may be lost
            self.pausing.pause_for(writing, trouble)
            self._tell_waiters(writing, task, FailureKind.PREEMPTED, trouble)
        else:
            self._log(logging.DEBUG, "finished", task, wall_s=round(message.cost.wall_s, 3), worker=worker)
            self.pausing.note_success(writing, task.step)
            self._finished(writing, task, message, worker)

    def _restored(self, writing: Writing, task: Task, message: CallAnswer) -> None:
        """Take what came of a result that is computed again."""
        if isinstance(message, CallEnded) and self.stop.asked:
            return
        self.restoring.hear(writing, task, message, lost=self.pausing.health.results_trouble() is not None)

    def _log(self, level: int, event: str, task: Task, **fields: object) -> None:
        if _LOG.isEnabledFor(level):
            about = {"step": task.step, "unit": task.unit, "attempt": task.attempt}
            log_event(_LOG, level, event, **(about | {"exposure": self.engine.workflow.tasks.name_of(task.unit)} | fields))

    def _finished(self, writing: Writing, task: Task, message: ItemMade | ItemJudged | EntryAbsorbed, worker: str) -> None:
        if isinstance(message, EntryAbsorbed):
            self._absorbed(writing, task, message)
            return
        if isinstance(message, ItemMade):
            stored = StoredResult(task.key, task.unit, message.record)
            store_result(writing, self.engine.workflow.tasks, task, stored, message.cost)
        for step, unit in task.waiters:
            outcome = self._outcome(step, unit, task, message)
            if outcome is not None:
                self.engine.handle(writing, events.Decided(step, unit, outcome))
        if isinstance(message, ItemMade) or message.accepted:
            self.engine.workflow.tasks.note_maker(task.key, worker)

    def _ended(self, writing: Writing, task: Task, message: CallEnded) -> None:
        """Take an attempt that ended without an answer of its step."""
        if self.stop.asked:  # what stopped the runner may have ended its workers too
            return
        kind = message.kind
        if kind in outcomes.UNCOUNTED:
            self._log(logging.INFO, "taken back", task, kind=kind, message=message.message)
            self._tell_waiters(writing, task, kind, message.message)
        else:
            self._failed(writing, task, CallFailure(kind, _NAMES.get(kind, "TimeLimit"), message.message, ""))

    def _failed(self, writing: Writing, task: Task, failure: CallFailure) -> None:
        if failure.kind is FailureKind.REMOVED:
            lost = self.restoring.lacks(writing, task, failure.message)
            if lost is None:
                self._tell_waiters(writing, task, failure.kind, failure.message)
                return
            failure = CallFailure(FailureKind.ITEM, "FileRemoved", lost, "")
        if self.pausing.is_to_blame(writing, failure.kind):
            self._tell_waiters(writing, task, FailureKind.PREEMPTED, failure.message)
            return
        if failure.kind is FailureKind.ENVIRONMENT:
            self.pausing.pause_after(writing, task.step, failure.message)
        about = {"kind": failure.kind, "error": failure.error_type, "message": failure.message}
        for step, unit in task.waiters:
            writing.add_failure(step, unit, attempt=task.attempt, failure=failure)
            self._log(logging.WARNING, "failed", task, step=step, unit=unit, traceback_of=task.attempt, **about)
        waited_for = [step for step, _ in task.waiters] if failure.kind is FailureKind.NOT_YET else []
        self._tell_waiters(writing, task, failure.kind, failure.message)
        for step in waited_for:  # said at once, and no more when the next attempt of the step ends
            if not self._has_given_up(step, task.unit):
                self.engine.workflow.board.notes[step] = f"waiting for what is not there yet: {failure.message}"

    def _has_given_up(self, step: str, unit_id: str) -> bool:
        unit = self.engine.workflow.scheduler.units.get(unit_id)
        return unit is None or step in unit.outcomes

    def _tell_waiters(self, writing: Writing, task: Task, kind: FailureKind, message: str) -> None:
        for step, unit in list(task.waiters):
            self.engine.handle(writing, events.Failed(step, unit, kind, message, time.monotonic()))

    def _outcome(self, step: str, unit_id: str, task: Task, message: ItemMade | ItemJudged) -> outcomes.Outcome | None:
        """Return what the answer to ``task`` means for one of those who waited for it."""
        workflow = self.engine.workflow
        node, unit = workflow.graph.nodes[step], workflow.scheduler.units.get(unit_id)
        if unit is None:
            return None
        missing = self.engine.missing_in(step, unit_id, task.inputs)
        if isinstance(message, ItemMade):
            return outcomes.Outcome(outcomes.Status.ITEM, {"out": task.key}, message.record.weight, missing=missing)
        status = outcomes.Status.ITEM if message.accepted else outcomes.Status.REJECTED
        keys = passed_keys(node, task.inputs, accepted=message.accepted)
        return outcomes.Outcome(status, keys, first_weight(node, unit.outcomes), message.reason, missing=missing)

    def _absorbed(self, writing: Writing, task: Task, message: EntryAbsorbed) -> None:
        entry, workflow = task.entry, self.engine.workflow
        if entry is None or not task.waiters:  # nobody waits: the step was edited meanwhile
            return
        published = None if message.record is None else task.key
        snapshot = [StoredResult(task.key, f"{task.step}:{entry.position}", message.record)] if message.record else []
        made = snapshot + [StoredResult(assignment_key(task.key, unit), unit, one) for unit, one in message.assignments.items()]
        for number, stored in enumerate(made):  # what the entry took is counted once
            cost = message.cost if number == 0 else replace(message.cost, wall_s=0.0, cpu_s=0.0)
            store_result(writing, workflow.tasks, task, stored, cost)
        assignments = {stored.unit: stored.key for stored in made[len(snapshot) :]}
        writing.store_state(
            task.step, entry.position, state_key=task.key, state=message.state, state_version=message.state_version
        )
        self.engine.handle(writing, events.Absorbed(task.step, entry.position, published, assignments, message.reason))
        writing.flush()
        revision = workflow.revisions[task.step]
        folder = f"steps/{task.step}/{revision.number}"
        unneeded = files_to_drop(writing.connection, revision=revision.id, folder=folder, position=entry.position)
        self.engine.files_to_drop.extend(unneeded)


@dataclass(frozen=True)
class StoredResult:
    """A record, the key it has, and the unit it is of."""

    key: str
    unit: str
    record: StoredRecord


def store_result(writing: Writing, tasks: TaskBuilder, task: Task, made: StoredResult, cost: CallCost) -> None:
    """Store one result of ``task``, and keep its record at hand for the steps that follow."""
    revision, record = task.revision, made.record
    version = revision.type_version if cost.version is None else cost.version
    writing.put_result(
        key=made.key,
        revision=revision.id,
        unit=made.unit,
        record_type=record.type,
        record_version=record.version,
        record=record.json,
        block=record.block,
        weight=record.weight,
        inputs=json.dumps(tasks.inputs_to_store(task)),
        params=json.dumps(dict(task.params)),
        acquisition=json.dumps(task.acquisition),
        wall_s=cost.wall_s,
        cpu_s=cost.cpu_s,
        host=cost.host or socket.gethostname(),
        software=", ".join(
            filter(None, [f"icestream {__version__}", cost.plugin, f"{revision.type_name} {version}", *cost.programs])
        ),
    )
    tasks.records.put(made.key, record)
