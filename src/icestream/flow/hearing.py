"""What workers and sources say, turned into results, failures and events."""

import json
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select, update

from icestream import __version__
from icestream.flow import moves, resuming, schema
from icestream.flow.guard import CallFailure
from icestream.flow.joins import first_weight, passed_keys
from icestream.flow.keys import assignment_key, origin_of, source_key
from icestream.flow.pool import Answer, Worker
from icestream.flow.reopening import reopen_left_out
from icestream.flow.retention import files_to_drop
from icestream.flow.step import Kind
from icestream.flow.tasks import Task
from icestream.flow.wire import Message
from icestream.flow.writing import Writing
from icestream.records import Snapshot

if TYPE_CHECKING:
    from icestream.flow.runner import Runner


@dataclass
class Hearing:
    """Hears the workers of one run."""

    runner: "Runner"
    reopened: bool = False

    def hear(self, writing: Writing, answer: Answer) -> None:
        """Take one message, or a worker's death."""
        worker, message = answer.worker, answer.message
        if message is None:
            self._died(writing, worker)
        elif worker.source is not None:
            self._from_source(writing, worker, message)
        elif message.body["status"] == "progress":
            self.runner.board.notes[self._step_of(message)] = f"{message.body['fraction']:.0%} {message.body['text']}"
        else:
            self._from_task(writing, message)

    def _step_of(self, message: Message) -> str:
        known = self.runner.running.get(message.body["attempt"])
        return known[0].step if known else ""

    # Tasks -----------------------------------------------------------------------------------------------------------------

    def _end(self, writing: Writing, attempt: str) -> Task | None:
        known = self.runner.running.pop(attempt, None)
        if known is None:
            return None
        task, worker = known
        worker.task = None
        self.runner.ready.give_back(task)
        self.runner.board.notes.pop(task.step, None)
        writing.end_lease(attempt)
        return task

    def _died(self, writing: Writing, worker: Worker) -> None:
        if worker.source is not None:
            self.runner.sources.fell(writing, worker.source, "its process died")
        elif worker.task is not None:
            task = self._end(writing, worker.task)
            if task is not None and not self.runner.stop_signals:  # what stopped the runner may have ended its workers too
                code = worker.process.returncode
                kind, text = moves.FailureKind.WORKER_DIED, f"its worker died (exit status {code})"
                self._failed(writing, task, CallFailure(kind, "WorkerDied", text, ""))

    def _from_task(self, writing: Writing, message: Message) -> None:
        body = message.body
        worker = self.runner.running.get(body["attempt"], (None, None))[1]
        task = self._end(writing, body["attempt"])
        if task is None:
            return
        if body["status"] == "failed":
            kind = moves.FailureKind(body["kind"])
            self._failed(writing, task, CallFailure(kind, body["error_type"], body["message"], body["traceback"]))
        elif body["status"] == "absorbed":
            self._absorbed(writing, task, message)
        else:
            self._decided(writing, task, message)
            if worker is not None and body["status"] == "item":
                self.runner.workshop.note_maker(task.key, worker.name)

    def _failed(self, writing: Writing, task: Task, failure: CallFailure) -> None:
        writing.add_failure(task.step, task.unit, attempt=task.attempt, failure=failure)
        event = moves.Failed(task.step, task.unit, failure.kind, failure.message, time.monotonic())
        self.runner.handle(writing, event)

    def _decided(self, writing: Writing, task: Task, message: Message) -> None:
        node = self.runner.graph.nodes[task.step]
        accepted = message.body["status"] == "item"
        if node.type.kind is Kind.MAP:
            stored = message.body["record"]
            self._store(writing, task, message, key=task.key, unit=task.unit, stored=stored)
            outcome = moves.Outcome(moves.Status.ITEM, {"out": task.key}, stored["weight"], missing=self.missing_in(task))
        else:
            unit = self.runner.scheduler.units[task.unit]
            status = moves.Status.ITEM if accepted else moves.Status.REJECTED
            keys = passed_keys(node, task.inputs, accepted=accepted)
            weight = first_weight(node, unit.outcomes)
            outcome = moves.Outcome(status, keys, weight, message.body["reason"], missing=self.missing_in(task))
        self.runner.handle(writing, moves.Decided(task.step, task.unit, outcome))

    def missing_in(self, task: Task) -> tuple[str, ...]:
        """Return the inputs that had no item for ``task``."""
        unit = self.runner.scheduler.units.get(task.unit)
        links = self.runner.graph.nodes[task.step].item_links
        if unit is None:
            return ()
        all_links = [link for group in links.values() for link in group]
        keys = {key for group in task.inputs.values() for key in group}
        return tuple(
            str(link)
            for link in all_links
            if link.step in unit.outcomes and not keys.intersection(unit.outcomes[link.step].keys.values())
        )

    def _absorbed(self, writing: Writing, task: Task, message: Message) -> None:
        body = message.body
        entry = task.entry
        if entry is None:
            return
        self._store(writing, task, message, key=task.key, unit=f"{task.step}:{entry.position}", stored=body["record"])
        assignments = {unit: assignment_key(task.key, unit) for unit in body["assignments"]}
        for unit, stored in body["assignments"].items():
            self._store(writing, task, message, key=assignments[unit], unit=unit, stored=stored)
        writing.store_state(
            task.step, entry.position, state_key=task.key, state=body["state"], state_version=body["state_version"]
        )
        self.runner.handle(writing, moves.Absorbed(task.step, entry.position, task.key, assignments))
        writing.flush()
        revision = self.runner.revisions[task.step]
        folder = f"steps/{task.step}/{revision.number}"
        self.runner.files_to_drop += files_to_drop(
            writing.connection, revision=revision.id, folder=folder, position=entry.position
        )

    def _store(self, writing: Writing, task: Task, message: Message, *, key: str, unit: str, stored: dict[str, Any]) -> None:
        node = self.runner.graph.nodes[task.step]
        block = message.block(stored["block"])
        writing.put_result(
            key=key,
            revision=self.runner.revisions[task.step].id,
            unit=unit,
            record_type=stored["type"],
            record_version=stored["version"],
            record=stored["json"],
            block=block,
            weight=stored["weight"],
            inputs=json.dumps(self.runner.workshop.inputs_to_store(task)),
            params=json.dumps(dict(self.runner.revisions[task.step].params)),
            acquisition=json.dumps(task.acquisition),
            wall_s=message.body.get("wall_s", 0.0),
            cpu_s=message.body.get("cpu_s", 0.0),
            host=socket.gethostname(),
            software=f"icestream {__version__}, {node.type.name} {message.body.get('version', node.type.version)}",
        )
        self.runner.workshop.remember(key, {"json": stored["json"], "version": stored["version"], "block": block})

    def known_weight(self, writing: Writing, key: str) -> int | None:
        """Return the weight of the result with this key, if there is one."""
        writing.flush()
        return writing.connection.execute(select(schema.result.c.weight).where(schema.result.c.key == key)).scalar()

    # Sources ---------------------------------------------------------------------------------------------------------------

    def _from_source(self, writing: Writing, worker: Worker, message: Message) -> None:
        step = str(worker.source)
        body = message.body
        match body["status"]:
            case "arrival":
                self.runner.sources.recovered(step)
                self._arrival(writing, step, message)
            case "pulse":
                self.runner.board.notes[step] = body["note"]
            case "source_closed":
                worker.source = None
                self.runner.handle(writing, moves.SourceClosed(step, body["reason"]))
            case "source_stopped":
                worker.source = None
            case "source_failed":
                worker.source = None
                self.runner.sources.fell(writing, step, body["message"])

    def _arrival(self, writing: Writing, step: str, message: Message) -> None:
        if self.runner.scheduler.stages[step].halted:
            return  # said before it heard that it is to stop; it is found again when it goes on
        body = message.body
        node = self.runner.graph.nodes[step]
        unit = origin_of(body["identity"])
        key = source_key(node.type.name, self.runner.revisions[step].type_version, body["identity"])
        writing.flush()
        if body["file"] is not None:
            self._note_file(writing, step, unit, body["file"])
        task = Task(step, unit, key, {}, {}, 1, 0.0)
        if node.type.output is not None and issubclass(node.type.output, Snapshot):
            self._snapshot_arrived(writing, task, message)
            return
        known = self._note_exposure(writing, step, unit, body)
        if known is None:
            return
        self._reopen(writing)
        weight = 1
        if body["record"] is not None:
            self._store(writing, task, message, key=key, unit=unit, stored=body["record"])
            weight = body["record"]["weight"]
        self.runner.handle(writing, moves.Arrived(step, unit, key if body["record"] else None, weight, body["error"], known))

    def _note_file(self, writing: Writing, step: str, unit: str, file: list[Any]) -> None:
        ref, size_bytes, modified_ns = file
        table = schema.source_file
        mine = (table.c.step == step) & (table.c.ref == ref)
        rows = writing.connection.execute(select(table.c.unit, table.c.size_bytes, table.c.modified_ns).where(mine)).all()
        if any(row.unit != unit for row in rows):
            text = f"{ref}: its content changed; it is processed as a new exposure"
            writing.notify(moves.Notify("warning", text, step, unit))
        if not any(row.size_bytes == size_bytes and row.modified_ns == modified_ns for row in rows):
            values = {"ref": ref, "size_bytes": size_bytes, "modified_ns": modified_ns}
            writing.add(schema.source_file, step=step, unit=unit, **values)

    def _note_exposure(self, writing: Writing, step: str, unit: str, body: dict[str, Any]) -> moves.Outcomes | None:
        """Note an exposure; return the outcomes it has already, or None if this source brought it before."""
        table = schema.exposure
        acquisition = json.dumps(body["acquisition"] or {})
        row = writing.connection.execute(select(table.c.ordinal).where(table.c.unit == unit)).first()
        if row is not None:
            (known,) = resuming.load_exposures(writing.connection, self.runner.revisions, [unit])
            if step in known.outcomes:
                return None
            values = {"source": step, "acquisition": acquisition}
            writing.connection.execute(update(table).where(table.c.unit == unit).values(values))
            self.runner.workshop.know_unit(unit, body["name"], body["acquisition"] or {}, row.ordinal)
            return known.outcomes
        last = writing.connection.execute(select(func.max(table.c.ordinal))).scalar() or 0
        self.runner.workshop.know_unit(unit, body["name"], body["acquisition"] or {}, last + 1)
        writing.add(
            table,
            unit=unit,
            ordinal=last + 1,
            name=body["name"],
            identity=body["identity"],
            source=step,
            acquisition=acquisition,
            arrived_at=writing.now,
            settled_by=None,
            seq=writing.store.next_seq(),
        )
        return {}

    def _snapshot_arrived(self, writing: Writing, task: Task, message: Message) -> None:
        body = message.body
        if body["record"] is None:
            writing.notify(moves.Notify("warning", f"{task.step}: {body['name']}: {body['error']}", task.step))
            return
        table = schema.snapshot
        mine = table.c.revision == self.runner.revisions[task.step].id
        known = writing.connection.execute(select(table.c.key).where(mine & (table.c.key == task.key))).first()
        if known is None:
            self._reopen(writing)
            self._store(writing, task, message, key=task.key, unit=task.unit, stored=body["record"])
            version = self.runner.scheduler.stages[task.step].version + 1
            self.runner.handle(writing, moves.Published(task.step, version, task.key))

    def _reopen(self, writing: Writing) -> None:
        """At the first new item of a run, let those wait again that an earlier closing left out."""
        if not self.reopened:
            self.reopened = True
            reopen_left_out(self.runner, writing)

    def learn_units(self, connection: Connection, ids: list[str]) -> None:
        """Remember names and acquisition values of units that are resumed."""
        table = schema.exposure
        for start in range(0, len(ids), 500):
            rows = connection.execute(select(table).where(table.c.unit.in_(ids[start : start + 500]))).mappings()
            for row in rows:
                acquisition = json.loads(row["acquisition"])
                self.runner.workshop.know_unit(row["unit"], row["name"], acquisition, row["ordinal"])
