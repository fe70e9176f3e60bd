"""Snapshots in the scheduler: publishing versions, binding units to them, running what is fed by them alone."""

from typing import TYPE_CHECKING

from icestream.flow.declaration.outcomes import Outcome, Status
from icestream.flow.scheduling.instructions import Bind, Instruction, PublishVersion
from icestream.flow.scheduling.stage import Stage, Unit

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler


def publish(scheduler: "Scheduler", stage: Stage, key: str, *, version: int | None = None) -> None:
    """Store a new version of a snapshot; let those run that waited for it."""
    stage.version, stage.version_key = version or stage.version + 1, key
    scheduler.mark(stage, "open", "new data")
    scheduler.out.append(PublishVersion(stage.node.name, stage.version, key))
    wake_waiting_for(scheduler, stage.node.name)


def wake_waiting_for(scheduler: "Scheduler", step: str) -> None:
    """Decide the units that waited for a version of ``step``."""
    for node in scheduler.dependents(step):
        stage = scheduler.stages[node.name]
        for unit_id in list(stage.awaiting_version):
            if unit_id in scheduler.units:
                scheduler.decide(scheduler.units[unit_id], node)
        run_newest(scheduler, stage)


def bind(scheduler: "Scheduler", unit: Unit, stage: Stage) -> dict[str, tuple[str, ...]] | None:
    """Return port → keys of the snapshots ``unit`` uses: those bound before, else the newest; None while one has no version."""
    chosen: dict[str, tuple[str, ...]] = {}
    binds: list[Instruction] = []
    for port in sorted(stage.node.bound):
        keys: list[str] = []
        for index, link in enumerate(stage.node.links[port]):
            slot = f"{port}#{index}"
            producer = scheduler.stages[link.step]
            known = unit.bound.get((stage.node.name, slot))
            if known is None and producer.version_key is None:
                _hold(scheduler, unit, stage, producer)
                return None
            if known is None and producer.version_key is not None:
                known = producer.version_key
                unit.bound[stage.node.name, slot] = known
                binds.append(Bind(stage.node.name, unit.id, slot, producer.version, known))
            keys.append(str(known))
        chosen[port] = tuple(keys)
    stage.awaiting_version.pop(unit.id, None)
    scheduler.out.extend(binds)
    return chosen


def _hold(scheduler: "Scheduler", unit: Unit, stage: Stage, producer: Stage) -> None:
    if producer.closed:
        reason = f"{producer.node.name} closed without publishing anything"
        outcome = Outcome(Status.SKIPPED, root=producer.node.name, reason=reason, weight=0)
        scheduler.settle(unit, stage.node, outcome)
    else:
        stage.awaiting_version[unit.id] = None


def run_newest(scheduler: "Scheduler", stage: Stage) -> None:
    """Run a step that is fed by snapshots alone, on the newest versions, when it is idle; versions between are skipped."""
    if stage.node.domain != f"version:{stage.node.name}" or stage.version_unit is not None or stage.halted:
        return
    if any(scheduler.stages[step].marked != "closed" for step in stage.node.after):
        return
    producers = [scheduler.stages[link.step] for group in stage.node.links.values() for link in group]
    newest = ",".join(producer.version_key or "" for producer in producers)
    if newest == stage.used_versions or any(producer.version_key is None for producer in producers):
        return
    stage.used_versions = newest
    stage.version_unit = _version_unit(stage, stage.next_number)
    stage.next_number += 1
    scheduler.add_unit(Unit(stage.version_unit, stage.node.domain))


def bound_keys(stage: Stage, unit: Unit) -> str:
    """Return the snapshots a unit is bound to, in the order of the step's links."""
    slots = [f"{port}#{index}" for port, group in stage.node.links.items() for index in range(len(group))]
    return ",".join(unit.bound.get((stage.node.name, slot), "") for slot in slots)


def is_latest(stage: Stage, unit_id: str) -> bool:
    """Tell whether a unit is the last run of a step fed by snapshots; earlier ones were overtaken and stay as they are."""
    return unit_id == _version_unit(stage, stage.next_number - 1)


def note_retry(stage: Stage, unit: Unit) -> None:
    """Note that a step fed by snapshots is busy with its last run again."""
    if unit.domain == f"version:{stage.node.name}":
        stage.version_unit = unit.id


def _version_unit(stage: Stage, number: int) -> str:
    return f"{stage.node.name}:v{number:06d}"


def finish_version(scheduler: "Scheduler", stage: Stage, unit_id: str) -> None:
    """Note that a step fed by snapshots is idle again."""
    if stage.version_unit == unit_id:
        stage.version_unit = None
        run_newest(scheduler, stage)
