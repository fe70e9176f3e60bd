"""When to try again: by rule after a failure, or because a person asked."""

from typing import TYPE_CHECKING

from icestream.flow import versions
from icestream.flow.moves import UNCOUNTED, FailureKind, Retried, Status

if TYPE_CHECKING:
    from icestream.flow.scheduler import Scheduler

_DELAYS_S: dict[FailureKind, tuple[float, ...]] = {
    FailureKind.ITEM: (),  # the item itself is bad: trying again changes nothing
    FailureKind.ERROR: (1.0,),
    FailureKind.TRANSIENT: (1.0, 4.0, 16.0),
    FailureKind.WORKER_DIED: (0.0, 0.5),  # the third death sets the item aside
}


def retry_delay_s(kind: FailureKind, count: int) -> float | None:
    """Return how long to wait after the ``count``-th failure of this kind, or None to give up."""
    if kind in UNCOUNTED:
        return 0.0
    delays = _DELAYS_S[kind]
    return delays[count - 1] if count <= len(delays) else None


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
