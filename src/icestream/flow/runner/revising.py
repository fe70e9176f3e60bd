"""Another record of an exposure that arrived before: a file beside its own came late, or has changed (decision 0024)."""

import json
import logging

from sqlalchemy import Connection, select, update

from icestream.flow.execution.messages import CallCost, ItemArrived, StoredRecord
from icestream.flow.runner.contradictions import warn_of_contradictions
from icestream.flow.runner.engine import Engine
from icestream.flow.runner.reopening import decide_again
from icestream.flow.runner.results import StoredResult, store_result
from icestream.flow.runner.tasks import Task
from icestream.flow.scheduling import NoticeCause, Notify, events
from icestream.flow.storage import Writing, schema
from icestream.flow.workflow import meaning_of, revised_key
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)


def key_of_record(connection: Connection, key: str, record: StoredRecord, *, known_before: bool) -> str:
    """Return the key of a record that a source made of a file whose content has ``key``.

    It is ``key`` itself for the first record, and for one that says the same; another one has a key of its own.
    """
    stored = _record_of(connection, key)
    if stored is None:
        return revised_key(key, record.json) if known_before else key
    return key if meaning_of(stored) == meaning_of(record.json) else revised_key(key, record.json)


def _record_of(connection: Connection, key: str) -> str | None:
    found = connection.execute(select(schema.result.c.record).where(schema.result.c.key == key)).scalar()
    return None if found is None else str(found)


def revise(engine: Engine, writing: Writing, task: Task, found: ItemArrived) -> None:
    """Put a record in the place of the one that an exposure arrived with, and decide again what depends on it.

    Nothing happens where it says the same, or where the exposure came from another source or arrived broken.
    """
    workflow, connection, record = engine.workflow, writing.connection, found.record
    outcome = schema.outcome
    mine = (outcome.c.revision == workflow.revisions[task.step].id) & (outcome.c.unit == task.unit)
    keys = json.loads(connection.execute(select(outcome.c["keys"]).where(mine)).scalar() or "{}")
    held = keys.get("out") or keys.get("rejected")
    before = None if held is None else _record_of(connection, held)
    if record is None or before is None or meaning_of(before) == meaning_of(record.json):
        return
    task.key = key_of_record(connection, task.key, record, known_before=True)
    table = schema.exposure
    values = {"acquisition": json.dumps(found.acquisition)}
    connection.execute(update(table).where(table.c.unit == task.unit).values(values))
    workflow.learn_units(connection, [task.unit])
    warn_of_contradictions(writing, workflow.session.document.acquisition, found.acquisition, found.name)
    _tell(writing, task, found)
    store_result(writing, workflow.tasks, task, StoredResult(task.key, task.unit, record), CallCost(plugin=found.plugin))
    decide_again(engine, writing, events.Revised(task.step, task.unit, task.key, record.weight))


def _tell(writing: Writing, task: Task, found: ItemArrived) -> None:
    """Tell of the first exposure of a step that is revised, and of each that was warned of; log all."""
    refs = [file.ref for file in found.beside]
    log_event(_LOG, logging.INFO, "revised", step=task.step, unit=task.unit, exposure=found.name, beside=refs)
    name = ", ".join(refs) or "what lies beside it"
    text = f"{found.name}: {name} came late or has changed; what depends on it is computed again"
    table = schema.notice
    about = (table.c.cause == NoticeCause.REVISED.value) & (table.c.step == task.step)
    first = writing.connection.execute(select(table.c.seq).where(about).limit(1)).first() is None
    warned = (table.c.cause == NoticeCause.FILE_BESIDE.value) & (table.c.unit == task.unit)
    was_warned = writing.connection.execute(select(table.c.seq).where(warned).limit(1)).first() is not None
    if first or was_warned:
        more = " (the same for others is in the log)" if first else ""
        writing.notify(Notify("info", text + more, task.step, task.unit, cause=NoticeCause.REVISED, subject=task.unit))
    warn_of_files(writing, task.step, task.unit, found)


def warn_of_files(writing: Writing, step: str, unit: str, found: ItemArrived) -> None:
    """Warn of what a source has to say about the files that a record was read from, once for each thing to say."""
    table = schema.notice
    for warning in found.warnings:
        writing.flush()
        about = (table.c.cause == NoticeCause.FILE_BESIDE.value) & (table.c.step == step) & (table.c.subject == warning)
        if writing.connection.execute(select(table.c.seq).where(about).limit(1)).first() is None:
            text = f"{found.name}: {warning}"
            writing.notify(Notify("warning", text, step, unit, cause=NoticeCause.FILE_BESIDE, subject=warning))
