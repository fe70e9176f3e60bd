"""What sources bring, turned into exposures, snapshots and events."""

import json
from dataclasses import dataclass

from sqlalchemy import func, select, update

from icestream.flow.declaration import outcomes
from icestream.flow.declaration.source import SeenFile
from icestream.flow.execution.messages import (
    CallCost,
    ItemArrived,
    SourceAnswer,
    SourceDied,
    SourceEnded,
    SourceFailed,
    SourceWaits,
)
from icestream.flow.runner.contradictions import warn_of_contradictions, warn_of_missing_values
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.reopening import reopen_left_out
from icestream.flow.runner.results import StoredResult, store_result
from icestream.flow.runner.revising import key_of_record, revise, warn_of_files
from icestream.flow.runner.stopping import RunnerStop
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling import events
from icestream.flow.scheduling.instructions import NoticeCause, Notify
from icestream.flow.storage import resuming, schema
from icestream.flow.storage.database import insert_if_new
from icestream.flow.storage.writing import Writing
from icestream.flow.workflow.keys import origin_of, source_key
from icestream.records import Snapshot


@dataclass
class SourceMessages:
    """Hears the sources of one run."""

    engine: Engine
    stop: RunnerStop
    _reopened: bool = False

    def hear(self, writing: Writing, step: str, message: SourceAnswer) -> None:
        """Take one message of a source, or that its process ended."""
        sources = self.engine.sources
        match message:
            case ItemArrived():
                sources.recovered(step)
                self._arrival(writing, step, message)
            case SourceWaits(note):
                self.engine.workflow.board.notes[step] = note
            case SourceEnded(reason, stopped):
                if not stopped:
                    self.engine.handle(writing, sources.close(step, reason))
            case SourceFailed(text) if self._is_wanted(step):
                writing.notify(sources.failed(step, text))
            case SourceDied(text, reading) if self._is_wanted(step):
                writing.notify(sources.failed(step, text, reading=reading))

    def _is_wanted(self, step: str) -> bool:
        return not self.stop.asked and self.engine.workflow.scheduler.stages[step].drained is None

    def _arrival(self, writing: Writing, step: str, found: ItemArrived) -> None:
        workflow = self.engine.workflow
        if workflow.scheduler.stages[step].drained:
            return  # said before it heard that it is to stop; it is found again when it goes on
        node, revision = workflow.graph.nodes[step], workflow.revisions[step]
        unit = origin_of(found.identity)
        key = source_key(node.type.name, revision.type_version, found.identity)
        writing.flush()
        if found.file is not None:
            _note_file(writing, step, unit, found.file)
        for beside in found.beside:
            _note_file_beside(writing, step, unit, beside)
        task = Task(step, unit, key, {}, {}, 1, 0.0, revision)
        if node.type.output is not None and issubclass(node.type.output, Snapshot):
            self._snapshot_arrived(writing, task, found)
            return
        known = self._note_exposure(writing, step, unit, found)
        if known is None:
            revise(self.engine, writing, task, found)
            return
        if found.record is not None:
            task.key = key = key_of_record(writing.connection, key, found.record, known_before=False)
        self._reopen(writing)
        warn_of_missing_values(writing, workflow.session.document.acquisition, step, unit, found)
        warn_of_files(writing, step, unit, found)
        warn_of_contradictions(writing, workflow.session.document.acquisition, found.acquisition, found.name)
        weight = 1
        if found.record is not None:
            store_result(writing, workflow.tasks, task, StoredResult(key, unit, found.record), CallCost(plugin=found.plugin))
            weight = found.record.weight
        units, ordinal = workflow.scheduler.units, workflow.tasks.ordinals[unit]
        later = unit not in units and workflow.backlog.takes(ordinal, n_units=len(units))
        made = None if found.record is None else key
        self.engine.handle(writing, events.Arrived(step, unit, made, weight, found.error, known, later))
        if later:
            workflow.tasks.forget_unit(unit)

    def _note_exposure(self, writing: Writing, step: str, unit: str, found: ItemArrived) -> outcomes.Outcomes | None:
        """Note an exposure; return the outcomes it has already, or None if this or another source brought it before."""
        table, workflow = schema.exposure, self.engine.workflow
        acquisition = json.dumps(found.acquisition)
        row = writing.connection.execute(select(table.c.ordinal, table.c.source).where(table.c.unit == unit)).first()
        if row is not None:
            (known,) = resuming.load_exposures(writing.connection, workflow.revisions, [unit])
            if step in known.outcomes or row.source in known.outcomes:
                return None
            values = {"source": step, "acquisition": acquisition}
            writing.connection.execute(update(table).where(table.c.unit == unit).values(values))
            workflow.tasks.know_unit(unit, found.name, found.acquisition, row.ordinal)
            return known.outcomes
        last = writing.connection.execute(select(func.max(table.c.ordinal))).scalar() or 0
        workflow.tasks.know_unit(unit, found.name, found.acquisition, last + 1)
        writing.add(
            table,
            unit=unit,
            ordinal=last + 1,
            name=found.name,
            identity=found.identity,
            source=step,
            acquisition=acquisition,
            arrived_at=writing.now,
            settled_by=None,
            seq=writing.store.next_seq(),
        )
        return {}

    def _snapshot_arrived(self, writing: Writing, task: Task, found: ItemArrived) -> None:
        workflow = self.engine.workflow
        if found.record is None:
            text = f"{task.step}: {found.name}: {found.error}"
            writing.notify(Notify("warning", text, task.step, cause=NoticeCause.RAW_FILE, subject=found.name))
            return
        table = schema.snapshot
        mine = table.c.revision == workflow.revisions[task.step].id
        known = writing.connection.execute(select(table.c.key).where(mine & (table.c.key == task.key))).first()
        if known is None:
            self._reopen(writing)
            store_result(
                writing, workflow.tasks, task, StoredResult(task.key, task.unit, found.record), CallCost(plugin=found.plugin)
            )
            version = workflow.scheduler.stages[task.step].version + 1
            self.engine.handle(writing, events.Published(task.step, version, task.key))

    def _reopen(self, writing: Writing) -> None:
        """At the first new item of a run, let those wait again that an earlier closing left out."""
        if not self._reopened:
            self._reopened = True
            reopen_left_out(self.engine, writing)


def _note_file(writing: Writing, step: str, unit: str, file: SeenFile) -> None:
    table = schema.source_file
    mine = (table.c.step == step) & (table.c.ref == file.ref)
    rows = writing.connection.execute(select(table.c.unit, table.c.size_bytes, table.c.modified_ns).where(mine)).all()
    if any(row.unit != unit for row in rows):
        text = f"{file.ref}: its content has changed; it is processed as a new exposure"
        writing.notify(Notify("warning", text, step, unit, cause=NoticeCause.RAW_FILE, subject=file.ref))
    if not any(row.size_bytes == file.size_bytes and row.modified_ns == file.modified_ns for row in rows):
        values = {"ref": file.ref, "size_bytes": file.size_bytes, "modified_ns": file.modified_ns}
        writing.add(schema.source_file, step=step, unit=unit, **values)


def _note_file_beside(writing: Writing, step: str, unit: str, file: SeenFile) -> None:
    """Note a file that a record was read from beside that of the exposure; several exposures may share it."""
    table = schema.source_file
    writing.flush()
    values = {"ref": file.ref, "size_bytes": file.size_bytes, "modified_ns": file.modified_ns}
    writing.connection.execute(insert_if_new(writing.connection, table).values(step=step, unit=unit, **values))
