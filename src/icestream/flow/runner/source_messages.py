"""What sources bring, turned into exposures, snapshots and events."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from icestream.flow.declaration import outcomes
from icestream.flow.execution.wire import Message
from icestream.flow.runner.contradictions import warn_of_contradictions
from icestream.flow.runner.reopening import reopen_left_out
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling import events, instructions
from icestream.flow.storage import resuming, schema
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.keys import origin_of, source_key
from icestream.records import Snapshot

if TYPE_CHECKING:
    from icestream.flow.runner.loop import Runner


@dataclass
class SourceMessages:
    """Hears the sources of one run."""

    runner: "Runner"
    reopened: bool = False

    def hear(self, writing: Writing, step: str, message: Message) -> None:
        """Take one message of a source, or that its process ended."""
        body = message.body
        match body["status"]:
            case "arrival":
                self.runner.sources.recovered(step)
                self._arrival(writing, step, message)
            case "pulse":
                self.runner.board.notes[step] = body["note"]
            case "source_closed":
                self.runner.sources.close(writing, step, body["reason"])
            case "source_failed":
                self.runner.sources.fell(writing, step, body["message"])
            case "ended":
                self.runner.sources.fell(writing, step, body["message"], reading=body["reading"])

    def _arrival(self, writing: Writing, step: str, message: Message) -> None:
        if self.runner.scheduler.stages[step].drained:
            return  # said before it heard that it is to stop; it is found again when it goes on
        body = message.body
        node = self.runner.graph.nodes[step]
        unit = origin_of(body["identity"])
        key = source_key(node.type.name, self.runner.revisions[step].type_version, body["identity"])
        writing.flush()
        if body["file"] is not None:
            self._note_file(writing, step, unit, body["file"])
        task = Task(step, unit, key, {}, {}, 1, 0.0, self.runner.revisions[step])
        if node.type.output is not None and issubclass(node.type.output, Snapshot):
            self._snapshot_arrived(writing, task, message)
            return
        known = self._note_exposure(writing, step, unit, body)
        if known is None:
            return
        self._reopen(writing)
        ours = self.runner.session.document.acquisition
        warn_of_contradictions(writing, ours, body["acquisition"] or {}, body["name"])
        weight = 1
        if body["record"] is not None:
            self.runner.results.store(writing, task, message, key=key, unit=unit, stored=body["record"])
            weight = body["record"]["weight"]
        units, ordinal = self.runner.scheduler.units, self.runner.task_builder.ordinals[unit]
        later = unit not in units and self.runner.backlog.takes(ordinal, n_units=len(units))
        found = key if body["record"] else None
        self.runner.handle(writing, events.Arrived(step, unit, found, weight, body["error"], known, later))
        if later:
            self.runner.task_builder.forget_unit(unit)

    def _note_file(self, writing: Writing, step: str, unit: str, file: list[Any]) -> None:
        ref, size_bytes, modified_ns = file
        table = schema.source_file
        mine = (table.c.step == step) & (table.c.ref == ref)
        rows = writing.connection.execute(select(table.c.unit, table.c.size_bytes, table.c.modified_ns).where(mine)).all()
        if any(row.unit != unit for row in rows):
            text = f"{ref}: its content changed; it is processed as a new exposure"
            writing.notify(instructions.Notify("warning", text, step, unit))
        if not any(row.size_bytes == size_bytes and row.modified_ns == modified_ns for row in rows):
            values = {"ref": ref, "size_bytes": size_bytes, "modified_ns": modified_ns}
            writing.add(schema.source_file, step=step, unit=unit, **values)

    def _note_exposure(self, writing: Writing, step: str, unit: str, body: dict[str, Any]) -> outcomes.Outcomes | None:
        """Note an exposure; return the outcomes it has already, or None if this or another source brought it before."""
        table = schema.exposure
        acquisition = json.dumps(body["acquisition"] or {})
        row = writing.connection.execute(select(table.c.ordinal, table.c.source).where(table.c.unit == unit)).first()
        if row is not None:
            (known,) = resuming.load_exposures(writing.connection, self.runner.revisions, [unit])
            if step in known.outcomes or row.source in known.outcomes:
                return None
            values = {"source": step, "acquisition": acquisition}
            writing.connection.execute(update(table).where(table.c.unit == unit).values(values))
            self.runner.task_builder.know_unit(unit, body["name"], body["acquisition"] or {}, row.ordinal)
            return known.outcomes
        last = writing.connection.execute(select(func.max(table.c.ordinal))).scalar() or 0
        self.runner.task_builder.know_unit(unit, body["name"], body["acquisition"] or {}, last + 1)
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
            writing.notify(instructions.Notify("warning", f"{task.step}: {body['name']}: {body['error']}", task.step))
            return
        table = schema.snapshot
        mine = table.c.revision == self.runner.revisions[task.step].id
        known = writing.connection.execute(select(table.c.key).where(mine & (table.c.key == task.key))).first()
        if known is None:
            self._reopen(writing)
            self.runner.results.store(writing, task, message, key=task.key, unit=task.unit, stored=body["record"])
            version = self.runner.scheduler.stages[task.step].version + 1
            self.runner.handle(writing, events.Published(task.step, version, task.key))

    def _reopen(self, writing: Writing) -> None:
        """At the first new item of a run, let those wait again that an earlier closing left out."""
        if not self.reopened:
            self.reopened = True
            reopen_left_out(self.runner, writing)
