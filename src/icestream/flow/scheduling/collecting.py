"""Gates, batches and accumulators in the scheduler: what waits, and what happens when it has waited enough."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from icestream.flow.declaration.context import Verdict
from icestream.flow.declaration.outcomes import Keys, Member, Outcome, Status
from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling import draining, versions
from icestream.flow.scheduling.events import Absorbed
from icestream.flow.scheduling.instructions import CloseBatch, Consume, DropEntry, Notify, OpenGate, StartClock
from icestream.flow.scheduling.joins import first_weight
from icestream.flow.scheduling.stage import Entry, Stage, Unit
from icestream.flow.scheduling.stale_inputs import note_frozen, note_taken

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler


def judge(scheduler: "Scheduler", stage: Stage, *, stream_closed: bool = False, released: bool = False) -> bool:
    """Ask a gate, batch or accumulator whether to act now, and act."""
    if stage.judge is None or stage.entry is not None or stage.opened or stage.shut:
        return False
    _start_clock(scheduler, stage)
    verdict = stage.judge(stage.progress(stream_closed=stream_closed, uptime_s=scheduler.uptime_s, released=released))
    stage.wait_reason = verdict.reason or ""
    stage.ask_at_s = None
    if not verdict.accepted:
        if verdict.until_s is not None:
            stage.ask_at_s = verdict.until_s + (scheduler.uptime_s if stage.clock_s is None else stage.clock_s)
        return False
    if stage.node.type.kind is Kind.GATE:
        open_gate(scheduler, stage, verdict)
    elif not stage.waiting:
        return stage.node.type.kind is Kind.ACCUMULATE
    elif stage.node.type.kind is Kind.COLLECT:
        close_batch(scheduler, stage, remainder=False, last=verdict.last)
    else:
        consume(scheduler, stage, closing=False)
    return True


def ask_by_time(scheduler: "Scheduler", stages: Sequence[Stage]) -> None:
    """Ask the gates and batches whose rule wanted to be asked at this time."""
    for stage in stages:
        if stage.ask_at_s is not None and stage.ask_at_s <= scheduler.uptime_s:
            closed = all(scheduler.stages[step].closed for step in scheduler.inputs_of(stage.node.name))
            judge(scheduler, stage, stream_closed=closed)


def _start_clock(scheduler: "Scheduler", stage: Stage) -> None:
    if stage.clock_s is None and stage.waiting and stage.node.type.kind is not Kind.ACCUMULATE:
        stage.clock_s = scheduler.uptime_s
        scheduler.out.append(StartClock(stage.node.name, stage.clock_s))


def open_gate(scheduler: "Scheduler", stage: Stage, verdict: Verdict) -> None:
    """Open a gate for good and let everything through that waits; then halt the steps that it closes."""
    stage.opened, stage.spent = True, verdict.last
    reason = verdict.reason or "its condition was met"
    scheduler.out.append(OpenGate(stage.node.name, reason, verdict.last))
    members, _ = stage.take()
    for unit_id, keys in members:
        _settle_member(scheduler, stage, unit_id, {"out": keys["items"]})
    if stage.spent:
        draining.leave_out(scheduler, stage)
    for step in stage.node.halts:
        draining.halt_step(scheduler, step, f"{stage.node.name} opened: {reason}")


def close_batch(scheduler: "Scheduler", stage: Stage, *, remainder: bool, last: bool = False) -> None:
    """Close a batch of everything that waits (if cumulative, and of all before); it never changes again."""
    members, weight = stage.take()
    number = stage.next_number
    stage.next_number += 1
    stage.passed += len(members)
    stage.passed_weight += weight
    stage.clock_s = stage.ask_at_s = None
    scheduler.out.append(CloseBatch(stage.node.name, number, members, weight, remainder))
    keys = [keys["items"] for _, keys in members]
    if stage.node.type.cumulative:
        stage.gathered += keys
        keys, weight = stage.gathered, stage.passed_weight
    if last:
        stage.spent = True
        scheduler.out.append(OpenGate(stage.node.name, f"batch {number} was the last", last=True))
    for unit_id, own in members:
        _settle_member(scheduler, stage, unit_id, {"batch": own["items"]})
    scheduler.add_unit(batch_unit(stage.node.name, number, keys, weight))
    if last:
        draining.leave_out(scheduler, stage)


def batch_unit(step: str, number: int, keys: Sequence[str], weight: int) -> Unit:
    """Return the unit of a closed batch; its outcome at the collecting step lists the members' keys in order."""
    members = {f"member{index:06d}": key for index, key in enumerate(keys)}
    return Unit(batch_id(step, number), f"batch:{step}", {step: Outcome(Status.ITEM, members, weight)})


def batch_id(step: str, number: int) -> str:
    """Return the id of the unit of a closed batch."""
    return f"{step}:{number:06d}"


def consume(scheduler: "Scheduler", stage: Stage, *, closing: bool, count: int | None = None) -> None:
    """Append the first waiting members (at most a portion) to an accumulator's log."""
    members, weight = stage.take(count or stage.portion)
    stage.entry = Entry(stage.next_number, members, weight, closing)
    stage.next_number += 1
    scheduler.mark(stage, "open", "new data")
    scheduler.out.append(Consume(stage.node.name, stage.entry.position, members, weight, closing))


def compute_entry(scheduler: "Scheduler", stage: Stage) -> None:
    """Compute an entry that is in the log already (again)."""
    if stage.entry is not None:
        entry = stage.entry
        scheduler.out.append(
            Consume(stage.node.name, entry.position, entry.members, entry.weight, entry.closing, stored=True),
        )


def absorb(scheduler: "Scheduler", event: Absorbed) -> None:
    """Settle the members of an entry that was computed, and publish the new version."""
    stage = scheduler.stages[event.step]
    entry = stage.entry
    if entry is None or entry.position != event.position:
        return
    stage.entry = None
    stage.passed += len(entry.members)
    stage.passed_weight += entry.weight
    stage.owes_closing = not entry.closing
    stage.failures.pop(str(entry.position), None)
    for unit_id, keys in entry.members:
        own = {"assignments": event.assignments[unit_id]} if unit_id in event.assignments else {}
        unit = scheduler.units[unit_id]
        _settle_member(scheduler, stage, unit_id, {**own, **note_taken(keys)})
        note_frozen(scheduler, unit, stage)  # it may have been decided again meanwhile
    versions.publish(scheduler, stage, event.key, version=entry.position)
    if stage.waiting:
        judge(scheduler, stage)


def split_entry(scheduler: "Scheduler", stage: Stage, message: str) -> None:
    """Halve an entry that cannot be computed until the culprit stands alone and is marked failed."""
    entry = stage.entry
    if entry is None:
        return
    stage.entry = None
    stage.next_number = entry.position
    scheduler.out.append(DropEntry(stage.node.name, entry.position))
    if len(entry.members) > 1:
        _put_first(scheduler, stage, entry.members)
        consume(scheduler, stage, closing=False, count=len(entry.members) // 2)
        return
    if not entry.members:
        stage.owes_closing = False
        scheduler.out.append(Notify("alert", f"{stage.node.name} could not finish: {message}", stage.node.name))
    for unit_id, _ in entry.members:
        scheduler.settle(scheduler.units[unit_id], stage.node, Outcome(Status.FAILED, reason=message, weight=0))
    if stage.waiting:
        judge(scheduler, stage)


def _put_first(scheduler: "Scheduler", stage: Stage, members: tuple[Member, ...]) -> None:
    later = stage.waiting
    stage.waiting, stage.waiting_weight = {}, 0
    for unit_id, keys in members:
        stage.put(unit_id, keys, _weight(scheduler, stage, unit_id))
    for unit_id, (keys, weight) in later.items():
        stage.put(unit_id, keys, weight)


def _weight(scheduler: "Scheduler", stage: Stage, unit_id: str) -> int:
    return first_weight(stage.node, scheduler.units[unit_id].outcomes)


def _settle_member(scheduler: "Scheduler", stage: Stage, unit_id: str, keys: Keys) -> None:
    outcome = Outcome(Status.ITEM, keys, _weight(scheduler, stage, unit_id))
    scheduler.settle(scheduler.units[unit_id], stage.node, outcome)
