"""What becomes of failures: when to try again, by rule or because a person asked, and when to alert."""

from typing import TYPE_CHECKING

from icestream.flow.declaration.outcomes import UNCOUNTED, FailureKind, Outcome, Status
from icestream.flow.declaration.step import Kind
from icestream.flow.scheduling import collecting, versions
from icestream.flow.scheduling.events import Failed, Retried
from icestream.flow.scheduling.instructions import Notify
from icestream.flow.scheduling.stage import Stage

if TYPE_CHECKING:
    from icestream.flow.scheduling.scheduler import Scheduler

ALERT_AFTER_FAILURES = 5

_DELAYS_S: dict[FailureKind, tuple[float, ...]] = {
    FailureKind.ITEM: (),  # the item itself is bad: trying again changes nothing
    FailureKind.ERROR: (1.0,),
    FailureKind.TRANSIENT: (1.0, 4.0, 16.0),
    FailureKind.GONE: (1.0,),  # a file is not there: tried once more, as its folder may have been away for a moment
    FailureKind.WORKER_DIED: (0.0, 0.5),  # the third death sets the item aside
    FailureKind.ENVIRONMENT: (2.0, 5.0, 10.0, 20.0) + 20 * (60.0,),  # a full disk is not the item's fault
    FailureKind.OUT_OF_MEMORY: (1.0,),  # tried once more, with fewer resources
}


def retry_delay_s(kind: FailureKind, count: int) -> float | None:
    """Return how long to wait after the ``count``-th failure of this kind, or None to give up."""
    if kind in UNCOUNTED:
        return 0.0
    delays = _DELAYS_S[kind]
    return delays[count - 1] if count <= len(delays) else None


def fail(scheduler: "Scheduler", event: Failed) -> None:
    """Take a bad end of an attempt: try again after a while, or give up on the unit."""
    stage = scheduler.stages[event.step]
    counts = stage.failures.setdefault(event.unit, {})
    counts[event.kind] = counts.get(event.kind, 0) + 1
    delay_s = retry_delay_s(event.kind, counts[event.kind])
    if delay_s is not None:
        scheduler.delayed.append((event.now_s + delay_s, event.step, event.unit))
        return
    stage.failures.pop(event.unit, None)
    if stage.node.type.kind is Kind.ACCUMULATE:
        collecting.split_entry(scheduler, stage, event.message)
        return
    unit = scheduler.units.get(event.unit)
    if unit is not None:
        count_failure(scheduler, stage, failed=True)
        scheduler.settle(unit, stage.node, Outcome(Status.FAILED, reason=event.message, weight=0))
    versions.finish_version(scheduler, stage, event.unit)


def try_what_is_due(scheduler: "Scheduler", now_s: float) -> None:
    """Run again what failed and has waited long enough."""
    due = [entry for entry in scheduler.delayed if entry[0] <= now_s]
    scheduler.delayed = [entry for entry in scheduler.delayed if entry[0] > now_s]
    for _, step, unit_id in due:
        stage = scheduler.stages[step]
        if stage.node.type.kind is Kind.ACCUMULATE:
            collecting.compute_entry(scheduler, stage)
        elif unit_id in scheduler.units:
            scheduler.run_again(scheduler.units[unit_id], stage.node)


def count_failure(scheduler: "Scheduler", stage: Stage, *, failed: bool) -> None:
    """Alert when a step fails for everything, once until it works again."""
    if not failed:
        stage.n_failed = 0
        return
    stage.n_failed += 1
    if stage.n_failed == ALERT_AFTER_FAILURES:
        message = f"{stage.node.name} failed for {stage.n_failed} exposures in a row"
        scheduler.out.append(Notify("alert", message, stage.node.name))


def alert_if_all_failed(scheduler: "Scheduler", stage: Stage) -> None:
    """Alert when a stream closes at a step that failed for all it had, too few for the alert that comes meanwhile."""
    failed = stage.decided[Status.FAILED]
    worked = stage.decided[Status.ITEM] + stage.decided[Status.REJECTED]
    if failed and not worked and stage.n_failed < ALERT_AFTER_FAILURES:
        one = stage.node.domain.partition(":")[0]
        many = {"batch": "batches"}.get(one, f"{one}s")
        what = f"the only {one} it had" if failed == 1 else f"all {failed} {many} it had"
        scheduler.out.append(Notify("alert", f"{stage.node.name} failed for {what}", stage.node.name))


def try_again(scheduler: "Scheduler", event: Retried) -> None:
    """Forget that a unit failed at a step (or was left out at a closing), and what was skipped below; decide it again."""
    unit = scheduler.units.get(event.unit)
    outcome = unit.outcomes.get(event.step) if unit else None
    if unit is None or outcome is None or outcome.status not in (Status.FAILED, Status.ABSENT, Status.SKIPPED):
        return
    versions.note_retry(scheduler.stages[event.step], unit)
    below = scheduler.graph.descendants(event.step)
    nodes = [node for node in scheduler.nodes_of(unit.domain) if node.name in below]
    for node in nodes:
        known = unit.outcomes.get(node.name)
        if known is not None and (node.name == event.step or known.status is Status.SKIPPED):
            scheduler.forget(unit, node)
            scheduler.stages[node.name].closed = False
            scheduler.mark(scheduler.stages[node.name], "open", f"{event.step} is decided again")
    for node in nodes:  # some below were skipped for another reason and are reached only from here
        if node.name not in unit.outcomes:
            scheduler.decide(unit, node)
