"""Steps that a gate drained and that an edit sets free, because the gate is asked anew: what they left out is computed then."""

from collections.abc import Iterable, Mapping

from icestream.flow.declaration.outcomes import Status
from icestream.flow.planning.planned_revisions import PlannedRevision
from icestream.flow.scheduling.draining import Cause, DrainReason
from icestream.flow.scheduling.stage import Unit
from icestream.flow.workflow.graph import Graph


def find_released(drains: Mapping[str, DrainReason], steps: Mapping[str, PlannedRevision]) -> dict[str, bool]:
    """Return the drained steps that go on, and for each whether the gate may drain it again."""
    gates = {name: step.node for name, step in steps.items() if step.node.type.is_gate and not step.kept}
    return {
        step: step in gates[why.by].closes
        for step, why in drains.items()
        if step in steps and why.cause is Cause.GATE and why.by in gates
    }


def set_free(graph: Graph, released: Iterable[str]) -> set[str]:
    """Return the steps that decide again what was left out: those that go on, and all below them."""
    return {name for step in released for name in graph.descendants(step)}


def forget_left_out(unit: Unit, graph: Graph, released: Iterable[str]) -> None:
    """Take back that steps left a unit out while they were drained, and that it was skipped below."""
    for step in released:
        known = unit.outcomes.get(step)
        if known is not None and known.status is Status.ABSENT:
            below = graph.descendants(step)
            for name in [name for name, outcome in unit.outcomes.items() if name in below and outcome.status is Status.SKIPPED]:
                del unit.outcomes[name]
            del unit.outcomes[step]
