"""Gates, batches and accumulators in the scheduler: what waits, and what happens when it has waited enough."""

from typing import TYPE_CHECKING

from icestream.flow import versions
from icestream.flow.joins import first_weight
from icestream.flow.moves import Absorbed, CloseBatch, Consume, DropEntry, Keys, Member, Notify, OpenGate, Outcome, Status
from icestream.flow.stage import Entry, Stage, Unit
from icestream.flow.step import Kind

if TYPE_CHECKING:
    from icestream.flow.scheduler import Scheduler


def judge(scheduler: "Scheduler", stage: Stage, *, stream_closed: bool = False) -> bool:
    """Ask a gate, batch or accumulator whether to act now, and act."""
    if stage.judge is None or stage.entry is not None:
        return False
    verdict = stage.judge(stage.progress(stream_closed=stream_closed))
    stage.wait_reason = verdict.reason or ""
    if not verdict.accepted:
        return False
    if stage.node.type.kind is Kind.GATE:
        open_gate(scheduler, stage, verdict.reason or "its condition was met")
    elif stage.node.type.kind is Kind.COLLECT:
        close_batch(scheduler, stage, remainder=False)
    elif stage.waiting:
        consume(scheduler, stage, closing=False)
    return True


def open_gate(scheduler: "Scheduler", stage: Stage, reason: str) -> None:
    """Open a gate for good and let everything through that waits."""
    stage.opened = True
    scheduler.out.append(OpenGate(stage.node.name, reason))
    members, _ = stage.take()
    for unit_id, keys in members:
        _settle_member(scheduler, stage, unit_id, {"out": keys["items"]})


def close_batch(scheduler: "Scheduler", stage: Stage, *, remainder: bool) -> None:
    """Close a batch of everything that waits; it never changes again."""
    members, weight = stage.take()
    number = stage.next_number
    stage.next_number += 1
    stage.passed += len(members)
    stage.passed_weight += weight
    scheduler.out.append(CloseBatch(stage.node.name, number, members, weight, remainder))
    for unit_id, keys in members:
        _settle_member(scheduler, stage, unit_id, {"batch": keys["items"]})
    scheduler.add_unit(batch_unit(stage.node.name, number, members, weight))


def batch_unit(step: str, number: int, members: tuple[Member, ...], weight: int) -> Unit:
    """Return the unit of a closed batch; its outcome at the collecting step lists the members' keys in order."""
    keys = {f"member{index:06d}": keys["items"] for index, (_, keys) in enumerate(members)}
    return Unit(f"{step}:{number:06d}", f"batch:{step}", {step: Outcome(Status.ITEM, keys, weight)})


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
    for unit_id, _ in entry.members:
        own = {"assignments": event.assignments[unit_id]} if unit_id in event.assignments else {}
        _settle_member(scheduler, stage, unit_id, own)
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
