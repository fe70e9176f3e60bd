"""Which exposures were rejected: set aside by a filter or a person, with no other branch that keeps them."""

from collections import defaultdict

from sqlalchemy import Connection, select

from icestream.flow.declaration import Kind, Status
from icestream.flow.storage import schema
from icestream.flow.workflow import Graph


def find_rejected(connection: Connection, graph: Graph, active: dict[str, int]) -> set[str]:
    """Return the exposures that were rejected under the active revisions (step → id).

    One that a filter of another branch has accepted is not; nor does a rejection count whose stream another step reads.
    """
    outcome = schema.outcome
    links = [link for node in graph.nodes.values() for group in node.item_links.values() for link in group]
    used = {link.step for link in links if link.output.startswith("rejected")}
    filters = {step for step in active if graph.nodes[step].type.kind is Kind.FILTER}
    judges = {active[step]: step for step in active if (step in filters or graph.nodes[step].type.is_source) and step not in used}
    rejecting: dict[str, set[str]] = defaultdict(set)
    rejected = outcome.c.revision.in_(judges) & (outcome.c.status == Status.REJECTED.value)
    for revision, unit in connection.execute(select(outcome.c.revision, outcome.c.unit).where(rejected)):
        rejecting[unit].add(judges[revision])
    above = {step: {name for name in graph.nodes if step in graph.descendants(name)} for step in judges.values()}
    accepting = {active[step]: step for step in filters}
    accepted = outcome.c.revision.in_(accepting) & (outcome.c.status == Status.ITEM.value)
    chosen = accepted & outcome.c.unit.in_(select(outcome.c.unit).where(rejected))
    for revision, unit in connection.execute(select(outcome.c.revision, outcome.c.unit).where(chosen)):
        if not any(accepting[revision] in above[step] for step in rejecting[unit]):
            rejecting.pop(unit, None)
    return {unit for unit, steps in rejecting.items() if steps}
