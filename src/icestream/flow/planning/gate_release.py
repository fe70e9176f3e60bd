"""Steps that a gate halted and that an edit sets free, because the gate is asked anew: what they left out is computed then."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from icestream.flow.declaration.outcomes import Status
from icestream.flow.declaration.step import Kind
from icestream.flow.planning.planned_revisions import PlannedRevision
from icestream.flow.scheduling.stage import Unit
from icestream.flow.storage import resuming
from icestream.flow.workflow.graph import Graph


def find_lifted(connection: Connection, steps: Mapping[str, PlannedRevision]) -> dict[str, bool]:
    """Return the halted steps that go on, and for each whether the gate may halt it again."""
    gates = [step.node for step in steps.values() if step.node.type.kind is Kind.GATE and not step.kept]
    halts = resuming.load_halts(connection)
    return {
        step: step in gate.halts
        for step, reason in halts.items()
        for gate in gates
        if step in steps and reason.startswith(f"{gate.name} opened: ")
    }


def set_free(graph: Graph, lifted: Iterable[str]) -> set[str]:
    """Return the steps that decide again what was left out: those that go on, and all below them."""
    return {name for step in lifted for name in graph.descendants(step)}


def forget_left_out(unit: Unit, graph: Graph, lifted: Iterable[str]) -> None:
    """Take back that steps left a unit out while they were halted, and that it was skipped below."""
    for step in lifted:
        known = unit.outcomes.get(step)
        if known is not None and known.status is Status.ABSENT:
            below = graph.descendants(step)
            for name in [name for name, outcome in unit.outcomes.items() if name in below and outcome.status is Status.SKIPPED]:
                del unit.outcomes[name]
            del unit.outcomes[step]
