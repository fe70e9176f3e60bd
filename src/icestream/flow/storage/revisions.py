"""Revisions: a step with one set of parameters. An edit gives it and every descendant a new one; the old one is frozen."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from icestream import __version__
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.descriptions import keep_descriptions
from icestream.flow.workflow import Graph, Node, as_pinned, default_of, digest, program_identity, settle_contents


@dataclass(frozen=True)
class Revision:
    """The active revision of a step; ``type_version`` is pinned when it is made."""

    id: int
    step: str
    number: int
    type_name: str
    type_version: int
    epoch: int
    params: Mapping[str, Any]
    """The parameters that make a difference to its results."""
    cumulative: bool = False
    """Of a batch step: a batch holds what the rows before it hold, too."""


def identity_params(node: Node, *, row: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the parameters that make a difference to results (operational ones, like a time-out, do not).

    With the ``row`` of the active revision, one that newer software has added counts only if it is not at its default.
    """
    fields = node.type.params.model_fields
    identity = {name: value for name, value in node.params.items() if not is_operational(fields[name].json_schema_extra)}
    if row is None:
        known = {name: content for name, content in node.contents.items() if content is not None}
        return identity | known | program_identity(node, None)
    pinned, version = json.loads(row["params"]), row["type_version"]
    added = {name for name in identity if name not in pinned and not fields[name].is_required()}
    kept = {name: value for name, value in identity.items() if name not in added or value != default_of(fields[name], version)}
    contents = {name: content for name, content in node.contents.items() if name in pinned}
    return kept | contents | program_identity(node, pinned)


def is_operational(extra: object) -> bool:
    """Tell from what a field says beside its type whether it makes no difference to results."""
    return isinstance(extra, dict) and bool(extra.get("operational"))


def activate_revisions(connection: Connection, graph: Graph, acquisition: Mapping[str, object]) -> dict[str, Revision]:
    """Return the active revision of every step of ``graph``; make new ones where the definition changed.

    The session's ``acquisition`` values are part of the definition of the steps that read them, and of no others. Steps whose
    revision is pinned to an earlier version of their type get the defaults of that version in ``graph``.

    Raises
    ------
    WorkflowError
        A file that a parameter names is not there, and no revision knows what it held.
    """
    table = schema.revision
    rows = connection.execute(select(table).where(table.c.state == "active")).mappings()
    active = {row["step"]: dict(row) for row in rows}
    definitions: dict[str, str] = {}
    revisions: dict[str, Revision] = {}
    for name in graph.nodes:
        row = active.pop(name, None)
        node = graph.nodes[name] = settle_contents(graph.nodes[name], row)
        as_before = as_pinned(node, row)
        params = identity_params(as_before, row=row)
        definition = definition_of(graph, node, params, acquisition=acquisition, definitions=definitions)
        if row is not None and row["definition"] == definition:
            graph.nodes[node.name] = as_before
        else:
            params = identity_params(node)
            definition = definition_of(graph, node, params, acquisition=acquisition, definitions=definitions)
            row = _new_revision(connection, node, _links_of(node), definition)
        definitions[node.name] = definition
        pinned = (row["type"], row["type_version"], row["epoch"])
        revisions[node.name] = Revision(row["id"], node.name, row["number"], *pinned, params, node.type.cumulative)
    for row in active.values():
        connection.execute(update(table).where(table.c.id == row["id"]).values(state="frozen"))
    keep_descriptions(connection, graph.nodes.values())
    return revisions


def definition_of(
    graph: Graph, node: Node, params: Mapping[str, Any], *, acquisition: Mapping[str, object], definitions: Mapping[str, str]
) -> str:
    """Return what a revision stands for: the step, its parameters and inputs, and the same of everything above it."""
    above = {step: definitions[step] for step in sorted(graph.inputs_of(node.name))}
    read = {name: value for name, value in acquisition.items() if name in node.type.reads}
    return digest(node.type.name, params, _links_of(node), node.values, node.min_inputs, above, read)


def _links_of(node: Node) -> dict[str, list[str]]:
    return {port: [str(link) for link in group] for port, group in node.links.items()}


def _new_revision(connection: Connection, node: Node, links: dict[str, list[str]], definition: str) -> dict[str, Any]:
    table = schema.revision
    earlier = connection.execute(select(table).where(table.c.step == node.name).order_by(table.c.number)).mappings().all()
    connection.execute(update(table).where(table.c.step == node.name).values(state="frozen"))
    if node.type.kind == "source":
        files = schema.source_file
        connection.execute(files.delete().where(files.c.step == node.name))
    row: dict[str, Any] = {
        "step": node.name,
        "number": earlier[-1]["number"] + 1 if earlier else 1,
        "use": node.use,
        "type": node.type.name,
        "type_version": node.type.version,
        "kind": node.type.kind.value,
        "params": json.dumps({**node.params, **node.contents, **program_identity(node, None)}),
        "links": json.dumps(links),
        "epoch": earlier[-1]["epoch"] if earlier else 0,
        "definition": definition,
        "software": __version__,
        "state": "active",
        "created_at": time.time(),
    }
    inserted = connection.execute(insert(table).values(**row))
    return row | {"id": int(inserted.inserted_primary_key[0]) if inserted.inserted_primary_key else 0}


def begin_anew(connection: Connection, graph: Graph, steps: Sequence[str], *, acquisition: Mapping[str, object]) -> None:
    """Freeze the active revision of each step, and give it a new one of the next epoch; sources see their files again.

    They keep the versions of their steps, but run the programs of other people as ``graph`` has found them.
    """
    table, files = schema.revision, schema.source_file
    definitions = {row.step: row.definition for row in connection.execute(select(table).where(table.c.state == "active"))}
    for name in steps:
        mine = table.c.step == name
        rows = connection.execute(select(table).where(mine).order_by(table.c.number)).mappings().all()
        active = next(dict(row) for row in rows if row["state"] == "active")
        connection.execute(update(table).where(mine).values(state="frozen"))
        values = {column: value for column, value in active.items() if column != "id"}
        values |= {"number": rows[-1]["number"] + 1, "epoch": max(row["epoch"] for row in rows) + 1, "created_at": time.time()}
        node = graph.nodes[name]
        values["params"] = json.dumps(json.loads(values["params"]) | program_identity(node, None))
        params = identity_params(node, row=values)
        values["definition"] = definition_of(graph, node, params, acquisition=acquisition, definitions=definitions)
        definitions[name] = values["definition"]
        connection.execute(insert(table).values(**values))
        connection.execute(delete(files).where(files.c.step == name))


def fingerprint_of(revisions: dict[str, Revision]) -> str:
    """Return what identifies a graph of revisions: a unit that was settled under it need not be looked at again."""
    return digest(sorted((revision.step, revision.id) for revision in revisions.values()))
