"""Which exposures were rejected: set aside by a filter or a person, with no other branch that uses them."""

from collections import defaultdict

from sqlalchemy import Connection, select

from icestream.flow.declaration import Kind, Status
from icestream.flow.storage import schema
from icestream.flow.workflow import Graph


def find_rejected(connection: Connection, graph: Graph, active: dict[str, int]) -> set[str]:
    """Return the exposures that were rejected under the active revisions (step → id).

    One that a step beside those which rejected it has taken is not, whether that step is a filter or not: its files are used
    there. Nor does a rejection count whose stream another step reads.
    """
    outcome = schema.outcome
    links = [link for node in graph.nodes.values() for group in node.item_links.values() for link in group]
    used = {link.step for link in links if link.output.startswith("rejected")}
    may_judge = {step for step in active if graph.nodes[step].type.kind is Kind.FILTER or graph.nodes[step].type.is_source}
    judges = {active[step]: step for step in may_judge - used}
    rejecting: dict[str, set[str]] = defaultdict(set)
    rejected = outcome.c.revision.in_(judges) & (outcome.c.status == Status.REJECTED.value)
    for revision, unit in connection.execute(select(outcome.c.revision, outcome.c.unit).where(rejected)):
        rejecting[unit].add(judges[revision])
    below = {step: graph.descendants(step) for step in graph.nodes}
    line = {step: below[step] | {name for name in graph.nodes if step in below[name]} for step in judges.values()}
    steps = {revision: step for step, revision in active.items()}
    taken = outcome.c.revision.in_(steps) & (outcome.c.status == Status.ITEM.value)
    chosen = taken & outcome.c.unit.in_(select(outcome.c.unit).where(rejected))
    for revision, unit in connection.execute(select(outcome.c.revision, outcome.c.unit).where(chosen)):
        if not any(steps[revision] in line[step] for step in rejecting.get(unit, ())):
            rejecting.pop(unit, None)
    return set(rejecting)
