"""What workers and sources say, turned into results, failures and events."""

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from icestream import __version__
from icestream.flow.commands.pausing import blame_surroundings, hold_after, hold_for, note_success
from icestream.flow.declaration import outcomes
from icestream.flow.declaration.guard import CallFailure
from icestream.flow.execution.executor import Answer
from icestream.flow.execution.wire import Message
from icestream.flow.runner.retention import files_to_drop
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling import events, instructions
from icestream.flow.scheduling.joins import first_weight, passed_keys
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.keys import assignment_key

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner

_NAMES = {outcomes.FailureKind.WORKER_DIED: "WorkerDied", outcomes.FailureKind.OUT_OF_MEMORY: "OutOfMemory"}
"""What a failure is called that no exception of a step tells of."""


@dataclass
class ResultHandler:
    """Hears the workers of one run."""

    runner: "Runner"

    def hear(self, writing: Writing, answer: Answer) -> None:
        """Take one message of a worker, or of an executor about a worker."""
        message = answer.message
        if answer.source is not None:
            self.runner.source_messages.hear(writing, answer.source, message)
        elif message.body["status"] == "notice":
            writing.notify(instructions.Notify(message.body["level"], message.body["message"]))
        elif message.body["status"] == "progress":
            self.runner.board.notes[self._step_of(message)] = f"{message.body['fraction']:.0%} {message.body['text']}"
        else:
            self._from_task(writing, message, answer.worker)

    def _step_of(self, message: Message) -> str:
        known = self.runner.running.get(message.body["attempt"])
        return known[0].step if known else ""

    # Tasks -----------------------------------------------------------------------------------------------------------------

    def _end(self, writing: Writing, attempt: str) -> Task | None:
        known = self.runner.running.pop(attempt, None)
        if known is None:
            return None
        task, _ = known
        self.runner.ready.give_back(task)
        self.runner.inflight.end(task)
        self.runner.board.notes.pop(task.step, None)
        writing.end_lease(attempt)
        waiting = [other for other in self.runner.postponed if other.step == task.step]
        for other in waiting:
            self.runner.postponed.remove(other)
            self.runner.make_ready(other)
        return task

    def _ended(self, writing: Writing, task: Task, body: dict[str, Any]) -> None:
        """Take an attempt that ended without an answer of its step."""
        if self.runner.stop_signals:  # what stopped the runner may have ended its workers too
            return
        kind = outcomes.FailureKind(body["kind"])
        if kind in outcomes.UNCOUNTED:
            self._tell_waiters(writing, task, kind, body["message"])
        else:
            self._failed(writing, task, CallFailure(kind, _NAMES.get(kind, "TimeLimit"), body["message"], ""))

    def _from_task(self, writing: Writing, message: Message, worker: str) -> None:
        body = message.body
        task = self._end(writing, body["attempt"])
        if task is None:
            return
        if body["status"] == "ended":
            self._ended(writing, task, body)
        elif body["status"] == "failed":
            kind = outcomes.FailureKind(body["kind"])
            self._failed(writing, task, CallFailure(kind, body["error_type"], body["message"], body["traceback"]))
        elif (trouble := self.runner.health.results_trouble()) is not None:  # what it wrote may be lost
            hold_for(self.runner, writing, trouble)
            self._tell_waiters(writing, task, outcomes.FailureKind.PREEMPTED, trouble)
        else:
            note_success(self.runner, writing, task.step)
            (self._absorbed if body["status"] == "absorbed" else self._decided)(writing, task, message)
            if body["status"] == "item":
                self.runner.task_builder.note_maker(task.key, worker)

    def _failed(self, writing: Writing, task: Task, failure: CallFailure) -> None:
        if blame_surroundings(self.runner, writing, failure.kind):
            self._tell_waiters(writing, task, outcomes.FailureKind.PREEMPTED, failure.message)
            return
        if failure.kind is outcomes.FailureKind.ENVIRONMENT:
            hold_after(self.runner, writing, task.step, failure.message)
        for step, unit in task.waiters:
            writing.add_failure(step, unit, attempt=task.attempt, failure=failure)
        self._tell_waiters(writing, task, failure.kind, failure.message)

    def _tell_waiters(self, writing: Writing, task: Task, kind: outcomes.FailureKind, message: str) -> None:
        for step, unit in list(task.waiters):
            self.runner.handle(writing, events.Failed(step, unit, kind, message, time.monotonic()))

    def _decided(self, writing: Writing, task: Task, message: Message) -> None:
        body = message.body
        if "record" in body:
            self.store(writing, task, message, key=task.key, unit=task.unit, stored=body["record"])
        for step, unit in task.waiters:
            outcome = self._outcome(step, unit, task, body)
            if outcome is not None:
                self.runner.handle(writing, events.Decided(step, unit, outcome))

    def _outcome(self, step: str, unit_id: str, task: Task, body: dict[str, Any]) -> outcomes.Outcome | None:
        """Return what the answer to ``task`` means for one of those who waited for it."""
        node, unit = self.runner.graph.nodes[step], self.runner.scheduler.units.get(unit_id)
        if unit is None:
            return None
        missing = self.missing_in(step, unit_id, task.inputs)
        if node.type.computes:
            return outcomes.Outcome(outcomes.Status.ITEM, {"out": task.key}, body["record"]["weight"], missing=missing)
        accepted = body["status"] == "item"
        status = outcomes.Status.ITEM if accepted else outcomes.Status.REJECTED
        keys = passed_keys(node, task.inputs, accepted=accepted)
        return outcomes.Outcome(status, keys, first_weight(node, unit.outcomes), body["reason"], missing=missing)

    def missing_in(self, step: str, unit_id: str, inputs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """Return the inputs of ``step`` that had no item for a unit that runs on ``inputs``."""
        unit = self.runner.scheduler.units.get(unit_id)
        links = self.runner.graph.nodes[step].item_links
        if unit is None:
            return ()
        all_links = [link for group in links.values() for link in group]
        keys = {key for group in inputs.values() for key in group}
        return tuple(
            str(link)
            for link in all_links
            if link.step in unit.outcomes and not keys.intersection(unit.outcomes[link.step].keys.values())
        )

    def _absorbed(self, writing: Writing, task: Task, message: Message) -> None:
        body = message.body
        entry = task.entry
        if entry is None or not task.waiters:  # nobody waits: the step was edited meanwhile
            return
        self.store(writing, task, message, key=task.key, unit=f"{task.step}:{entry.position}", stored=body["record"])
        assignments = {unit: assignment_key(task.key, unit) for unit in body["assignments"]}
        for unit, stored in body["assignments"].items():
            self.store(writing, task, message, key=assignments[unit], unit=unit, stored=stored)
        writing.store_state(
            task.step, entry.position, state_key=task.key, state=body["state"], state_version=body["state_version"]
        )
        self.runner.handle(writing, events.Absorbed(task.step, entry.position, task.key, assignments))
        writing.flush()
        revision = self.runner.revisions[task.step]
        folder = f"steps/{task.step}/{revision.number}"
        self.runner.files_to_drop += files_to_drop(
            writing.connection, revision=revision.id, folder=folder, position=entry.position
        )

    def store(self, writing: Writing, task: Task, message: Message, *, key: str, unit: str, stored: dict[str, Any]) -> None:
        """Store one result of ``task``."""
        revision = task.revision
        block = message.block(stored["block"])
        writing.put_result(
            key=key,
            revision=revision.id,
            unit=unit,
            record_type=stored["type"],
            record_version=stored["version"],
            record=stored["json"],
            block=block,
            weight=stored["weight"],
            inputs=json.dumps(self.runner.task_builder.inputs_to_store(task)),
            params=json.dumps(dict(task.params)),
            acquisition=json.dumps(task.acquisition),
            wall_s=message.body.get("wall_s", 0.0),
            cpu_s=message.body.get("cpu_s", 0.0),
            host=message.body.get("host") or socket.gethostname(),
            software=f"icestream {__version__}, {revision.type_name} {message.body.get('version', revision.type_version)}",
        )
        self.runner.task_builder.remember(key, {"json": stored["json"], "version": stored["version"], "block": block})

    def known_weight(self, writing: Writing, key: str) -> int | None:
        """Return the weight of the result with this key, if there is one."""
        writing.flush()
        return writing.connection.execute(select(schema.result.c.weight).where(schema.result.c.key == key)).scalar()

    def learn_units(self, connection: Connection, ids: list[str]) -> None:
        """Remember names and acquisition values of units that are resumed."""
        table = schema.exposure
        for start in range(0, len(ids), 500):
            rows = connection.execute(select(table).where(table.c.unit.in_(ids[start : start + 500]))).mappings()
            for row in rows:
                acquisition = json.loads(row["acquisition"])
                self.runner.task_builder.know_unit(row["unit"], row["name"], acquisition, row["ordinal"])
