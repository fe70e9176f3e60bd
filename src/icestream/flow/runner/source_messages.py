"""What sources bring, turned into exposures, snapshots and events."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select, update

from icestream.flow.declaration import CallFailure, FailureKind, SeenFile, outcomes
from icestream.flow.execution.messages import (
    CallCost,
    ItemArrived,
    SourceAnswer,
    SourceDied,
    SourceEnded,
    SourceFailed,
    SourceTroubles,
    SourceWaits,
)
from icestream.flow.runner.contradictions import warn_of_contradictions, warn_of_missing_values
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.reopening import readmit, reopen_left_out
from icestream.flow.runner.results import StoredResult, store_result
from icestream.flow.runner.revising import key_of_record, revise, warn_of_files
from icestream.flow.runner.stopping import RunnerStop
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling import NoticeCause, Notify, Source, events
from icestream.flow.storage import Writing, insert_if_new, resuming, schema
from icestream.flow.workflow import origin_of, source_key
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
                self._note_works(writing, step)
                self._arrival(writing, step, message)
            case SourceWaits(note):
                self._note_works(writing, step)
                self.engine.workflow.board.notes[step] = note
            case SourceTroubles(reasons):
                self._troubled(writing, step, reasons)
            case SourceEnded(reason, stopped):
                self.engine.workflow.board.notes.pop(step, None)
                if not stopped:
                    self.engine.handle(writing, sources.close(step, reason))
            case SourceFailed(text) if self._is_wanted(step):
                self._failed(writing, step, sources.failed(step, text))
            case SourceDied(text, reading) if self._is_wanted(step):
                self._failed(writing, step, sources.failed(step, text, reading=reading))

    def _is_wanted(self, step: str) -> bool:
        return not self.stop.asked and self.engine.workflow.scheduler.stages[step].drained is None

    def _failed(self, writing: Writing, step: str, notice: Notify) -> None:
        """Tell that a source failed; one that fails again and again is listed as failed itself."""
        writing.notify(notice)
        if self.engine.sources.keeps_failing(step):
            self.engine.handle(writing, events.Troubled(step, {**self._troubles_of(step), step: notice.message}))

    def _note_works(self, writing: Writing, step: str) -> None:
        troubles = self._troubles_of(step)
        if troubles.pop(step, None) is not None:
            self.engine.handle(writing, events.Troubled(step, troubles))

    def _troubled(self, writing: Writing, step: str, reasons: Mapping[str, str]) -> None:
        """Note what a source cannot take; tell what is new in it, once for each reason."""
        known, node = self._troubles_of(step), self.engine.workflow.graph.nodes[step]
        if self.engine.workflow.scheduler.stages[step].drained:
            return
        self.engine.handle(writing, events.Troubled(step, reasons))
        new: dict[str, list[str]] = {}
        for subject, reason in reasons.items():
            if known.get(subject) != reason:
                new.setdefault(reason, []).append(subject)
        level = "alert" if node.publishes_only else "warning"  # exposures wait for what it would publish
        for reason, subjects in new.items():
            more = f" (and {len(subjects) - 1} more)" if len(subjects) > 1 else ""
            text = f"{step}: {subjects[0]}: {reason}{more}"
            writing.notify(Notify(level, text, step, cause=NoticeCause.RAW_FILE, subject=subjects[0]))

    def _troubles_of(self, step: str) -> dict[str, str]:
        stage = self.engine.workflow.scheduler.stages[step]
        return dict(stage.troubles) if isinstance(stage, Source) else {}

    def _arrival(self, writing: Writing, step: str, found: ItemArrived) -> None:
        workflow = self.engine.workflow
        if workflow.scheduler.stages[step].drained:
            return  # said before it heard that it is to stop; it is found again when it goes on
        node, revision = workflow.graph.nodes[step], workflow.revisions[step]
        key = source_key(node.type.name, revision.type_version, found.identity)
        writing.flush()
        unit, again = self._unit_of(writing, step, found)
        if found.file is not None:
            _note_file(writing, step, unit, found.file)
        for beside in found.beside:
            _note_file_beside(writing, step, unit, beside)
        task = Task(step, unit, key, {}, {}, 1, 0.0, revision)
        if node.type.output is not None and issubclass(node.type.output, Snapshot):
            self._snapshot_arrived(writing, task, found)
            return
        known = self._note_again(writing, step, unit, found) if again else self._note_exposure(writing, step, unit, found)
        if known is None:
            revise(self.engine, writing, task, found)
            return
        if found.record is not None:
            task.key = key = key_of_record(writing.connection, key, found.record, known_before=False)
        self._reopen(writing)
        if found.error is None:
            session = workflow.session.document.acquisition
            warn_of_missing_values(writing, session, step, unit, found.name, found.acquisition)
        warn_of_files(writing, step, unit, found)
        warn_of_contradictions(writing, workflow.session.document.acquisition, found.acquisition, found.name)
        weight = 1
        if found.record is not None:
            store_result(writing, workflow.tasks, task, StoredResult(key, unit, found.record), CallCost(plugin=found.plugin))
            weight = found.record.weight
        elif found.error is not None:
            writing.add_failure(step, unit, attempt="", failure=CallFailure(FailureKind.ITEM, "Broken", found.error, ""))
        units, ordinal = workflow.scheduler.units, workflow.tasks.ordinals[unit]
        later = unit not in units and workflow.backlog.takes(ordinal, n_units=len(units))
        made = None if found.record is None else key
        self.engine.handle(writing, events.Arrived(step, unit, made, weight, found.error, known, later))
        if later:
            workflow.tasks.forget_unit(unit)

    def _unit_of(self, writing: Writing, step: str, found: ItemArrived) -> tuple[str, bool]:
        """Return which exposure a file is, and whether it is one whose file had arrived broken and was written again.

        An exposure is its content. What arrived broken has none yet: it gets that of the file which is written in its place.
        """
        origin = origin_of(found.identity)
        if found.file is None:
            return origin, False
        exposure, files, outcome = schema.exposure, schema.source_file, schema.outcome
        mine = (files.c.step == step) & (files.c.ref == found.file.ref)
        asked = select(exposure.c.unit, exposure.c.identity, exposure.c.source).where(exposure.c.unit == files.c.unit)
        rows = writing.connection.execute(asked.where(mine).distinct()).all()
        same = [row.unit for row in rows if row.identity == found.identity]
        for row in [] if same else rows:
            revision = self.engine.workflow.revisions.get(row.source)
            its_own = (outcome.c.unit == row.unit) & (outcome.c.revision == (None if revision is None else revision.id))
            keys = writing.connection.execute(select(outcome.c["keys"]).where(its_own)).scalar()
            if keys is not None and not json.loads(keys):
                return str(row.unit), True
        return (same[0] if same else origin), False

    def _note_again(self, writing: Writing, step: str, unit: str, found: ItemArrived) -> outcomes.Outcomes:
        """Give an exposure that arrived broken the content that was written in its place."""
        table, workflow = schema.exposure, self.engine.workflow
        values = {"source": step, "acquisition": json.dumps(found.acquisition), "identity": found.identity}
        writing.connection.execute(update(table).where(table.c.unit == unit).values(values))
        readmit(self.engine, writing, unit, domain="exposure")
        workflow.tasks.know_unit(unit, found.name, found.acquisition, workflow.tasks.ordinals[unit])
        text = f"{found.name}: its file was broken and was written again; {found.error or 'it is processed now'}"
        subject = None if found.file is None else found.file.ref
        writing.notify(Notify("info", text, step, unit, cause=NoticeCause.RAW_FILE, subject=subject))
        return workflow.scheduler.units[unit].outcomes

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
            subject = found.name if found.file is None else found.file.ref
            reasons = {**self._troubles_of(task.step), subject: found.error or "it is no record"}
            self._troubled(writing, task.step, reasons)
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
