"""Which revisions an edit would make, without making them."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, select

from icestream.flow.storage import Revision, definition_of, identity_params, schema
from icestream.flow.workflow import Graph, Node, as_pinned, settle_contents


@dataclass(frozen=True)
class PlannedRevision:
    """One step as it would be."""

    node: Node
    revision: Revision
    """The revision it would have; its id is 0 where it would be a new one."""
    before: Revision | None
    """The revision it has now; unset for a step that is new."""
    alike: tuple[int, ...] = ()
    """Earlier revisions of any step that decided by the same rule: the same type, version and parameters."""

    @property
    def kept(self) -> bool:
        """The step keeps its revision: nothing changes for it."""
        return self.revision.id != 0


def plan_revisions(
    connection: Connection, graph: Graph, acquisition: Mapping[str, object], *, afresh: frozenset[str] = frozenset()
) -> dict[str, PlannedRevision]:
    """Return what `activate_revisions` would make of ``graph``, with the steps in ``afresh`` computed from the start."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in connection.execute(select(schema.revision).order_by(schema.revision.c.number)).mappings():
        rows[row["step"]].append(dict(row))
    everything = [row for mine in rows.values() for row in mine]
    definitions: dict[str, str] = {}
    found = {}
    for name in graph.nodes:
        earlier = rows[name]
        active = next((row for row in earlier if row["state"] == "active"), None)
        node = graph.nodes[name] = settle_contents(graph.nodes[name], active)
        as_before = as_pinned(node, active)
        params = identity_params(as_before, row=active)
        definition = definition_of(graph, node, params, acquisition=acquisition, definitions=definitions)
        same = active is not None and active["definition"] == definition
        if not same:
            params = identity_params(node)
            definition = definition_of(graph, node, params, acquisition=acquisition, definitions=definitions)
        definitions[node.name] = definition
        before = None if active is None else _revision(active, params)
        if before is not None and same:
            epoch = 1 + max(row["epoch"] for row in earlier)
            revision = replace(before, id=0, number=earlier[-1]["number"] + 1, epoch=epoch) if node.name in afresh else before
        else:
            number, epoch = (earlier[-1]["number"] + 1, earlier[-1]["epoch"]) if earlier else (1, 0)
            epoch += node.name in afresh
            revision = Revision(0, node.name, number, node.type.name, node.type.version, epoch, params)
        found[node.name] = PlannedRevision(as_before if same else node, revision, before, _alike(node, revision, everything))
    return found


def _revision(row: Mapping[str, Any], params: Mapping[str, Any]) -> Revision:
    return Revision(row["id"], row["step"], row["number"], row["type"], row["type_version"], row["epoch"], params)


def _alike(node: Node, revision: Revision, rows: list[dict[str, Any]]) -> tuple[int, ...]:
    """Return the revisions that decided by the same rule; a rule that reads the microscope's values is not looked up."""
    if node.type.kind != "filter" or node.type.reads or node.values:
        return ()
    fields = node.type.params.model_fields
    found = []
    for row in rows:
        if (row["type"], row["type_version"]) == (revision.type_name, revision.type_version):
            stored = {name: value for name, value in json.loads(row["params"]).items() if name in fields}
            if identity_params(replace(node, params=stored)) == dict(revision.params):
                found.append(row["id"])
    return tuple(found)
