"""The session at a glance, and a line for each step."""

import json
import socket
import time
from collections.abc import Sequence
from typing import Literal

import psutil
from sqlalchemy import Connection, func, select

from icestream.flow.scheduling import TAKEN
from icestream.flow.storage import Session, columns_there, is_alive, read_runner_row, schema
from icestream.observe.answers import Arrivals, Counts, Marks, Overview, Pace, RunnerState, StepSummary
from icestream.observe.catalog import Catalog, read_catalog
from icestream.observe.newest import read_newest
from icestream.observe.order import ActiveRevision, works_on_exposures
from icestream.observe.pace import LEAST_SPAN_S, median_cost, read_clock, read_paces
from icestream.observe.people import read_marks, read_pause

ARRIVALS_S = 3600.0
"""The rate of arrivals is that of so long before the newest exposure."""

MOST_ARRIVALS = 2000

_Stream = tuple[Literal["open", "closed"], str]


def empty_overview(session: Session) -> Overview:
    """Return the overview of a session that has not started."""
    return Overview(session.document.name, RunnerState("not started"), 0, None, None, 0, 0, 0, 0)


def read_overview(connection: Connection, session: Session, revisions: dict[str, ActiveRevision]) -> Overview:
    """Return the session at a glance."""
    totals = dict.fromkeys(("item", "rejected", "failed"), 0)
    for by_status in read_counts(connection, revisions).values():
        for status in totals:
            totals[status] += by_status.get(status, 0)
    clock = read_clock(connection, recent_minutes=0.0)
    streams = read_streams(connection)
    known = [revisions[name].id for name in session.document.steps if name in revisions]
    closed = len(known) == len(session.document.steps) and all(streams.get(one, ("open", ""))[0] == "closed" for one in known)
    runner = read_runner(connection, all_closed=closed)
    return Overview(
        name=session.document.name,
        runner=runner,
        last_seq=int(connection.execute(select(schema.runner.c.last_seq)).scalar_one()),
        started_at=clock.started_at,
        updated_at=clock.updated_at,
        exposures=count_exposures(connection),
        items=totals["item"],
        rejected=totals["rejected"],
        failed=totals["failed"],
        pause=read_pause(connection),
    )


def read_runner(connection: Connection, *, all_closed: bool = False) -> RunnerState:
    """Return who processes the session; one that ended has finished if ``all_closed`` streams have."""
    row = connection.execute(select(*columns_there(connection, schema.runner))).mappings().one()
    alive = is_alive(read_runner_row(connection))
    state: Literal["running", "finished", "stopped", "interrupted"] = "finished" if all_closed else "stopped"
    if row["state"] == "running":
        state = "running" if alive else "interrupted"
    age_s = None if row["heartbeat_at"] is None else max(0.0, time.time() - row["heartbeat_at"])
    suspended = alive and row["host"] == socket.gethostname() and is_suspended(row["pid"])
    return RunnerState(state, row["host"], row["pid"], alive, age_s, row["fence"], row["note"], suspended)


def is_suspended(pid: int) -> bool:
    """Tell whether a process of this machine was stopped by a signal."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def count_exposures(connection: Connection) -> int:
    """Count the exposures of the session."""
    return int(connection.execute(select(func.count()).select_from(schema.exposure)).scalar_one())


def read_arrivals(connection: Connection) -> Arrivals:
    """Look at the newest exposures; the cost does not grow with the session."""
    table = schema.exposure
    newest = connection.execute(
        select(table.c.name, table.c.arrived_at).order_by(table.c.ordinal.desc()).limit(MOST_ARRIVALS)
    ).all()
    if not newest:
        return Arrivals()
    recent = recent_of([row.arrived_at for row in newest])
    last = max(recent)
    span_s = last - min(recent)
    per_hour = (len(recent) - 1) / span_s * 3600 if span_s >= LEAST_SPAN_S else None
    return Arrivals(newest[0].name, last, per_hour)


def recent_of(times: Sequence[float]) -> list[float]:
    """Return the arrivals in the hour before the newest, of which there must be one."""
    last = max(times)
    return [at for at in times if at > last - ARRIVALS_S]


def read_counts(connection: Connection, revisions: dict[str, ActiveRevision]) -> dict[int, dict[str, int]]:
    """Return revision → status → count, from the index alone; a source of snapshots counts its versions."""
    table = schema.outcome
    wanted = [revision.id for revision in revisions.values()]
    rows = connection.execute(
        select(table.c.revision, table.c.status, func.count())
        .where(table.c.revision.in_(wanted))
        .group_by(table.c.revision, table.c.status)
    )
    counts: dict[int, dict[str, int]] = {}
    for revision, status, count in rows:
        counts.setdefault(revision, {})[status] = count
    versions = schema.snapshot
    sources = [revision.id for revision in revisions.values() if revision.kind == "source"]
    published = select(versions.c.revision, func.count()).where(versions.c.revision.in_(sources)).group_by(versions.c.revision)
    for revision, count in connection.execute(published):
        counts.setdefault(revision, {})["item"] = count
    return counts


def read_not_taken(connection: Connection, revisions: dict[str, ActiveRevision]) -> dict[str, dict[str, str]]:
    """Return source → file or folder → why it cannot be taken: what failed there and is no exposure."""
    outcome, exposure = schema.outcome, schema.exposure
    sources = {revision.id: name for name, revision in revisions.items() if revision.kind == "source"}
    known = select(exposure.c.unit).where(exposure.c.unit == outcome.c.unit).exists()
    failed = outcome.c.revision.in_(sources) & (outcome.c.status == "failed") & ~known
    found: dict[str, dict[str, str]] = {}
    for revision, unit, reason in connection.execute(select(outcome.c.revision, outcome.c.unit, outcome.c.reason).where(failed)):
        found.setdefault(sources[revision], {})[unit] = reason or ""
    return found


def unseen_step(session: Session, name: str) -> StepSummary:
    """Return the line of a step that no runner has seen."""
    spec = session.document.steps[name]
    return StepSummary(
        name=name,
        label=spec.label or name,
        use=spec.use,
        kind=None,
        revision=None,
        revision_id=None,
        type_version=None,
        software=None,
        params=dict(spec.params),
        counts=Counts(),
        weight=0,
        stream=None,
        stream_reason=None,
        pace=Pace(),
        note=spec.note,
    )


def read_steps(
    connection: Connection,
    session: Session,
    order: list[str],
    revisions: dict[str, ActiveRevision],
    *,
    recent_minutes: float,
) -> list[StepSummary]:
    """Return a line for each step, in ``order``."""
    n_exposures = count_exposures(connection)
    counts = _complete_counts(connection, revisions, n_exposures)
    weights, streams = _read_weights(connection, revisions), read_streams(connection)
    clock = read_clock(connection, recent_minutes=recent_minutes, alive=read_runner(connection).alive)
    marks, catalog = read_marks(connection), read_catalog(connection)
    paces = read_paces(connection, revisions, counts, clock)
    lines = []
    for name in order:
        if name not in revisions:
            lines.append(unseen_step(session, name))
            continue
        spec, revision = session.document.steps[name], revisions[name]
        state, reason = streams.get(revision.id, (None, None))
        lines.append(
            StepSummary(
                name=name,
                label=spec.label or name,
                use=spec.use,
                kind=revision.kind,
                revision=revision.number,
                revision_id=revision.id,
                type_version=revision.type_version,
                software=revision.software,
                params=revision.params,
                counts=counts[revision.id],
                weight=weights.get(revision.id, 0),
                stream=state,
                stream_reason=reason,
                pace=_pace_of(connection, revision, paces[revision.id]),
                records=_record_types(connection, revision, catalog),
                marks=marks.get(name, Marks()),
                note=spec.note,
            )
        )
    return lines


def _pace_of(connection: Connection, revision: ActiveRevision, pace: Pace) -> Pace:
    wall_s, cpu_s = median_cost(connection, revision)
    return Pace(pace.per_minute, pace.mean_per_minute, pace.trend, wall_s, cpu_s)


def _complete_counts(connection: Connection, revisions: dict[str, ActiveRevision], n_exposures: int) -> dict[int, Counts]:
    decided = read_counts(connection, revisions)
    leases = schema.lease
    rows = connection.execute(select(leases.c.revision, func.count()).group_by(leases.c.revision))
    running: dict[int, int] = {row[0]: row[1] for row in rows}
    wholes = frozenset(connection.execute(select(schema.snapshot.c.revision).distinct()).scalars())
    not_taken = {name: len(reasons) for name, reasons in read_not_taken(connection, revisions).items()}
    complete = {}
    for name, revision in revisions.items():
        known = Counts(**decided.get(revision.id, {}), running=running.get(revision.id, 0))
        waiting = 0
        if works_on_exposures(name, revisions, wholes):
            at_work = known.running if revision.kind in ("map", "filter") else 0
            waiting = max(0, n_exposures - known.decided - at_work)
        left = not_taken.get(name, 0)
        complete[revision.id] = Counts(**decided.get(revision.id, {}), running=known.running, waiting=waiting, not_taken=left)
    return complete


def _read_weights(connection: Connection, revisions: dict[str, ActiveRevision]) -> dict[int, int]:
    table = schema.outcome
    rows = connection.execute(
        select(table.c.revision, func.sum(table.c.weight))
        .where(table.c.revision.in_([revision.id for revision in revisions.values()]) & (table.c.status == "item"))
        .group_by(table.c.revision)
    )
    return {revision: int(weight) for revision, weight in rows}


def read_streams(connection: Connection) -> dict[int, _Stream]:
    """Return revision → state of its stream, and why."""
    table = schema.stream
    newest = select(func.max(table.c.seq)).group_by(table.c.revision)
    rows = connection.execute(select(table.c.revision, table.c.state, table.c.reason).where(table.c.seq.in_(newest)))
    return {revision: (state, reason) for revision, state, reason in rows}


def _record_types(connection: Connection, revision: ActiveRevision, catalog: Catalog) -> dict[str, str]:
    if revision.kind in ("filter", "gate", "collect"):
        return {}
    keys: dict[str, str] = {}
    outcome, snapshot, result = schema.outcome, schema.snapshot, schema.result
    newest_item = read_newest(connection, (outcome.c["keys"],), revision.id, limit=1)
    named: dict[str, str] = json.loads(newest_item[0]["keys"]) if newest_item else {}
    keys.update({output: key for output, key in named.items() if not output.startswith(TAKEN)})
    newest_version = select(snapshot.c.key).where(snapshot.c.revision == revision.id).order_by(snapshot.c.version.desc()).limit(1)
    version_key = connection.execute(newest_version).scalar()
    if version_key:
        keys["out"] = version_key
    found = connection.execute(select(result.c.key, result.c.record_type).where(result.c.key.in_(keys.values())))
    types = {row[0]: catalog.name_of(row[1]) for row in found}
    return {output: types[key] for output, key in keys.items() if key in types}
