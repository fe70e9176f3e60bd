"""From the store back to the scheduler's memory: only what is not settled is read."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, func, select

from icestream.flow.declaration import Outcome, Status
from icestream.flow.scheduling import (
    Accumulating,
    Batch,
    Entry,
    Gate,
    ManualVerdict,
    Scheduler,
    Source,
    Stage,
    Timed,
    Unit,
    VersionRuns,
    batch_id,
    batch_unit,
)
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.drains import load_drains
from icestream.flow.storage.revisions import Revision

_CHUNK = 500


def load_stages(connection: Connection, scheduler: Scheduler, revisions: Mapping[str, Revision]) -> None:
    """Fill in what every step remembers of itself: streams, gates, batches, logs, versions, drains, clocks."""
    for stage in scheduler.stages.values():
        revision = revisions[stage.node.name].id
        stage.marked = _stream_state(connection, revision)
        stage.decided = _count_outcomes(connection, revision)
        _load_version(connection, stage, revision)
        if isinstance(stage, Source):
            _load_troubles(connection, stage, revision)
        if isinstance(stage, Timed):
            _load_opening(connection, stage, revision)
        if isinstance(stage, Batch):
            stage.next_number = 1 + _count(connection, schema.batch, revision)
            if stage.node.type.cumulative:
                stage.gathered = _batch_keys(connection, revision, 1, stage.next_number)[0]
            _load_passed(connection, stage, revision, schema.batch.c.weight, schema.batch.c.revision == revision)
        elif isinstance(stage, Accumulating):
            _load_log(connection, stage, revision)
        stale = select(schema.stale.c.unit).where(schema.stale.c.revision == revision)
        stage.stale = set(connection.execute(stale).scalars())
    for step, why in load_drains(connection).items():
        if step in scheduler.stages:
            scheduler.stages[step].set_drained(why)


def _load_troubles(connection: Connection, stage: Source, revision: int) -> None:
    """Load what a source could not take when it was last heard: what failed there and is no exposure."""
    outcome, exposure = schema.outcome, schema.exposure
    known = select(exposure.c.unit).where(exposure.c.unit == outcome.c.unit).exists()
    mine = (outcome.c.revision == revision) & (outcome.c.status == Status.FAILED.value) & ~known
    for unit, reason in connection.execute(select(outcome.c.unit, outcome.c.reason).where(mine)):
        stage.troubles[unit] = reason or ""
    stage.decided[Status.FAILED] -= len(stage.troubles)


def _load_opening(connection: Connection, stage: Timed, revision: int) -> None:
    """Load whether a gate has opened or a batch step closed its last batch, and since when it waits."""
    gate, clock = schema.gate_opening, schema.gate_clock
    opening = connection.execute(select(gate.c.last, gate.c.reason).where(gate.c.revision == revision)).first()
    if opening is not None:
        stage.spent, stage.wait_reason = opening.last, opening.reason
        if isinstance(stage, Gate):
            stage.opened = True
    stage.clock_s = connection.execute(select(clock.c.started_uptime_s).where(clock.c.revision == revision)).scalar()


def _count_outcomes(connection: Connection, revision: int) -> Counter[Status]:
    table = schema.outcome
    rows = select(table.c.status, func.count()).where(table.c.revision == revision).group_by(table.c.status)
    return Counter({Status(row[0]): int(row[1]) for row in connection.execute(rows)})


def _count(connection: Connection, table: Any, revision: int) -> int:
    query = select(func.count()).select_from(table).where(table.c.revision == revision)
    return int(connection.execute(query).scalar_one())


def _stream_state(connection: Connection, revision: int) -> str:
    table = schema.stream
    query = select(table.c.state).where(table.c.revision == revision).order_by(table.c.seq.desc()).limit(1)
    return str(connection.execute(query).scalar() or "new")


def _load_version(connection: Connection, stage: Stage, revision: int) -> None:
    table = schema.snapshot
    query = select(table.c.version, table.c.key).where(table.c.revision == revision).order_by(table.c.version.desc()).limit(1)
    newest = connection.execute(query).first()
    if newest is not None:
        stage.version, stage.version_key = newest.version, newest.key


def _load_log(connection: Connection, stage: Accumulating, revision: int) -> None:
    table = schema.accumulator_log
    rows = select(table).where(table.c.revision == revision)
    last = connection.execute(rows.order_by(table.c.position.desc()).limit(1)).mappings().first()
    if last is None:
        return
    stage.next_number = last["position"] + 1
    _load_passed(connection, stage, revision, table.c.weight, (table.c.revision == revision) & table.c.absorbed)
    if last["absorbed"]:
        stage.owes_closing = not last["closing"]
    else:
        members = tuple((unit, keys) for unit, keys in json.loads(last["members"]))
        stage.entry = Entry(last["position"], members, last["weight"], last["closing"])


def _load_passed(
    connection: Connection, stage: Batch | Accumulating, revision: int, weight: Column[Any], taken: ColumnElement[bool]
) -> None:
    """Count what a batch step or accumulator has taken so far; ``taken`` chooses its rows."""
    weights = select(func.coalesce(func.sum(weight), 0)).where(taken)
    stage.passed_weight = int(connection.execute(weights).scalar_one())
    outcomes = schema.outcome
    passed = (outcomes.c.revision == revision) & (outcomes.c.status == Status.ITEM.value)
    stage.passed = int(connection.execute(select(func.count()).select_from(outcomes).where(passed)).scalar_one())


def load_derived(connection: Connection, scheduler: Scheduler, revisions: Mapping[str, Revision]) -> list[Unit]:
    """Return the batches and runs of versions that some step has not decided yet; exposures come from the backlog."""
    return _load_batches(connection, scheduler, revisions) + _load_versions(connection, scheduler, revisions)


def load_exposures(connection: Connection, revisions: Mapping[str, Revision], ids: list[str]) -> list[Unit]:
    """Return exposures with all their outcomes and bindings under the active revisions."""
    units = {unit: Unit(unit, "exposure") for unit in ids}
    _add_outcomes(connection, units, revisions)
    return list(units.values())


def load_unit(connection: Connection, revisions: Mapping[str, Revision], unit_id: str, *, domain: str) -> Unit:
    """Return one exposure, batch or version with all that is known of it."""
    unit = Unit(unit_id, domain)
    kind, _, step = domain.partition(":")
    if kind == "batch":
        number = int(unit_id.rpartition(":")[2])
        unit = _load_batch(connection, revisions[step], number)
    _add_outcomes(connection, {unit_id: unit}, revisions)
    return unit


def _load_batches(connection: Connection, scheduler: Scheduler, revisions: Mapping[str, Revision]) -> list[Unit]:
    """Return the batches that are not decided everywhere; members are read for these alone."""
    units: dict[str, Unit] = {}
    for stage in scheduler.stages.values():
        if isinstance(stage, Batch):
            for number in _open_batches(connection, scheduler, revisions, stage):
                unit = _load_batch(connection, revisions[stage.node.name], number)
                units[unit.id] = unit
    _add_outcomes(connection, units, revisions)
    return list(units.values())


def _open_batches(connection: Connection, scheduler: Scheduler, revisions: Mapping[str, Revision], stage: Stage) -> list[int]:
    """Return the batches of one step that are not decided everywhere; the others are not even read."""
    name, table, outcome = stage.node.name, schema.batch, schema.outcome
    mine = table.c.revision == revisions[name].id
    below = [revisions[one.name].id for one in scheduler.stages_of(f"batch:{name}")]
    counted = select(outcome.c.unit, func.count().label("n")).where(outcome.c.revision.in_(below)).group_by(outcome.c.unit)
    decided = {row.unit for row in connection.execute(counted) if row.n >= len(below)}
    numbers = connection.execute(select(table.c.number).where(mine).order_by(table.c.number)).scalars()
    return [number for number in numbers if batch_id(name, number) not in decided]


def _load_batch(connection: Connection, revision: Revision, number: int) -> Unit:
    keys, weight = _batch_keys(connection, revision.id, 1 if revision.cumulative else number, number)
    return batch_unit(revision.step, number, keys, weight)


def _batch_keys(connection: Connection, revision: int, first: int, last: int) -> tuple[list[str], int]:
    """Return the keys of the members of some batches, in order, and their weight."""
    table = schema.batch
    mine = (table.c.revision == revision) & table.c.number.between(first, last)
    rows = connection.execute(select(table.c.members, table.c.weight).where(mine).order_by(table.c.number)).all()
    return [keys["items"] for row in rows for _, keys in json.loads(row.members)], sum(row.weight for row in rows)


def _load_versions(connection: Connection, scheduler: Scheduler, revisions: Mapping[str, Revision]) -> list[Unit]:
    """Return the runs of steps fed by snapshots that are not decided everywhere; each keeps the versions it was bound to."""
    units: dict[str, Unit] = {}
    for stage in scheduler.stages.values():
        if not isinstance(stage, VersionRuns):
            continue
        bound = schema.binding
        mine = select(bound.c.unit).where(bound.c.revision == revisions[stage.node.name].id).distinct().order_by(bound.c.unit)
        found = {name: Unit(name, stage.node.domain) for name in connection.execute(mine).scalars()}
        _add_outcomes(connection, found, revisions)
        units |= found
        if found:
            stage.restore(list(found.values())[-1])
    return [unit for unit in units.values() if any(one.name not in unit.outcomes for one in scheduler.stages_of(unit.domain))]


def _add_outcomes(connection: Connection, units: dict[str, Unit], revisions: Mapping[str, Revision]) -> None:
    steps = {revision.id: revision.step for revision in revisions.values()}
    ids = list(units)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        outcomes = schema.outcome
        rows = select(outcomes).where(outcomes.c.unit.in_(chunk) & outcomes.c.revision.in_(steps))
        for row in connection.execute(rows).mappings():
            units[row["unit"]].outcomes[steps[row["revision"]]] = _outcome(row)
        bound = schema.binding
        bindings = select(bound).where(bound.c.unit.in_(chunk) & bound.c.revision.in_(steps))
        for row in connection.execute(bindings).mappings():
            units[row["unit"]].bound[steps[row["revision"]], row["port"]] = row["key"]


def _outcome(row: Mapping[Any, Any]) -> Outcome:
    missing = tuple(json.loads(row["missing"])) if row["missing"] else ()
    return Outcome(Status(row["status"]), json.loads(row["keys"]), row["weight"], row["reason"], row["root"], missing)


def load_failures(connection: Connection, scheduler: Scheduler, revisions: Mapping[str, Revision]) -> None:
    """Count the failures of items that are still to be tried, so that a restart does not forget them."""
    table = schema.failure
    steps = {revision.id: revision.step for revision in revisions.values()}
    counted = select(table.c.revision, table.c.unit, table.c.kind, func.count().label("n")).where(~table.c.cleared)
    counts: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for row in connection.execute(counted.group_by(table.c.revision, table.c.unit, table.c.kind)):
        if row.revision in steps:
            counts[steps[row.revision], row.unit][row.kind] = row.n
    for (step, unit), kinds in counts.items():
        stage = scheduler.stages[step]
        entry = stage.entry if isinstance(stage, Accumulating) else None
        entry_waits = entry is not None and str(entry.position) == unit
        known = scheduler.units.get(unit)
        if entry_waits or (known is not None and step not in known.outcomes):
            stage.failures[unit] = kinds


def load_overrides(connection: Connection) -> dict[tuple[str, str], ManualVerdict]:
    """Return what people decided by hand and did not take back."""
    table = schema.override
    rows = connection.execute(select(table).where(table.c.active).order_by(table.c.id)).mappings()
    return {(row["unit"], row["step"]): ManualVerdict(row["verdict"] == "accept", row["author"], row["reason"]) for row in rows}
