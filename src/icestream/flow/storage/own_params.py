"""Parameters that an exposure has of its own at a step: set by a person, they override the common ones, through re-runs too."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, inspect, select

from icestream.errors import WorkflowError
from icestream.flow.declaration import Kind
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.revisions import identity_params, is_operational
from icestream.flow.workflow import (
    Graph,
    Node,
    StepSpec,
    check_params,
    content_name,
    program_identity,
    read_contents,
    run_own_check,
    unknown_parameter,
)
from icestream.records import Snapshot

_KINDS = {
    Kind.SOURCE: "it finds its items and computes none",
    Kind.FILTER: "it decides and computes nothing; accept or reject by hand, or `icestream set` its rule",
    Kind.GATE: "it lets exposures pass and computes nothing; accept or reject by hand",
    Kind.COLLECT: "it takes many exposures together; recompute at a step upstream of it",
    Kind.ACCUMULATE: "it takes many exposures together; recompute at a step upstream of it",
}


@dataclass(frozen=True)
class OwnParams:
    """What a person laid over the parameters of a step for one exposure."""

    params: Mapping[str, Any]
    author: str
    reason: str
    contents: Mapping[str, str | None] = field(default_factory=dict)
    """Those of the files that they name."""

    @property
    def sentence(self) -> str:
        """What people read."""
        made = f"computed with {describe_values(self.params)} of its own, by {self.author}"
        return made + (f": {self.reason}" if self.reason else "")


Owned = Mapping[tuple[str, str], OwnParams]
"""``(unit, step) → parameters of its own``."""


@dataclass(frozen=True)
class Effective:
    """The parameters that one result is made with."""

    identity: Mapping[str, Any]
    """Those that make a difference: they are part of the key, and stored with the result."""
    complete: Mapping[str, Any]
    """All of them, as the worker gets them."""


def describe_values(params: Mapping[str, Any]) -> str:
    """Write parameters as they are typed."""
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in params.items())


def lay_over(
    node: Node, pinned: Mapping[str, Any], own: Mapping[str, Any], contents: Mapping[str, str | None] | None = None
) -> Effective:
    """Return what ``own`` makes of the parameters of ``node``, whose revision counts those in ``pinned``.

    ``contents`` are those of the files that ``own`` names.

    The document may have been edited while nobody looked: names that the step does not have any more are left out, and values
    that it cannot have are laid over as they are, so that the step refuses them and the exposure fails with that reason.
    """
    known = {name: value for name, value in own.items() if name in node.type.params.model_fields}
    complete, problems = check_params(node.name, node.type, _merged(node, known), set(node.values) - set(known))
    if problems:
        complete = {**node.params, **known}
    made = identity_params(replace(node, params=complete, contents={}, programs={}))
    identity = {name: value for name, value in made.items() if name in pinned or value != node.params.get(name)}
    taken = {name: complete[name] for name in known if name in node.values}  # else another step gives them
    files = {name: pinned[name] for name in node.contents if name in pinned}
    programs = program_identity(node, pinned)
    files = {name: value for name, value in files.items() if name not in map(content_name, known)}
    files |= {name: value for name, value in (contents or {}).items() if value is not None}
    return Effective({**identity, **taken, **files, **programs}, complete)


def _merged(node: Node, own: Mapping[str, Any]) -> StepSpec:
    params = {**node.params, **own}
    return StepSpec(use=node.use, params={name: value for name, value in params.items() if name not in own or value is not None})


def may_recompute(node: Node) -> str | None:
    """Return why ``node`` cannot compute one exposure with parameters of its own, or None if it can."""
    named = f"{node.name} ({node.type.kind})"
    if not node.type.computes:
        return f"{named} cannot compute one exposure again: {_KINDS[node.type.kind]}"
    domain, _, above = node.domain.partition(":")
    if domain == "batch":
        return f"{named} works on the batches of {above}, not on single exposures; recompute at a step upstream of {above}"
    if domain == "version" or (node.type.output is not None and issubclass(node.type.output, Snapshot)):
        return f"{named} makes versions of a whole, not results of single exposures; change it with `icestream set`"
    return None


def check_own_params(node: Node, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check parameters against those of a step, and return them as they are stored; None stands for the default.

    Raises
    ------
    WorkflowError
        Naming every parameter, its value and what is allowed.
    """
    refusal = may_recompute(node)
    if refusal is not None:
        raise WorkflowError(refusal)
    fields = node.type.params.model_fields
    allowed = ", ".join(name for name in fields if not is_operational(fields[name].json_schema_extra)) or "none"
    if not given:
        raise WorkflowError(f"step {node.name!r}: no parameter was given; write name=value, with one of: {allowed}")
    problems = [f"step {node.name!r}: {unknown_parameter(node.type, name)}" for name in given if name not in fields]
    problems += [
        f"step {node.name!r}: parameter {name!r} makes no difference to a result; those that do: {allowed}"
        for name in given
        if name in fields and is_operational(fields[name].json_schema_extra)
    ]
    later = set(node.values) - set(given)
    complete: dict[str, Any] = {}
    if not problems:
        complete, refused = check_params(node.name, node.type, _merged(node, given), later)
        problems = [str(one) for one in refused]
    if problems:
        raise WorkflowError("\n".join(problems))
    if not later:
        run_own_check(node.name, node.type, complete, node.records)
    return {name: complete[name] for name in given}


def find_misfits(connection: Connection, graph: Graph, owned: Owned) -> list[str]:
    """Return what exposures have of their own that does not go with the steps of ``graph``, a line each.

    Steps that the graph does not have are left out: what exposures have there waits until the step is back.
    """
    lines = []
    names = _load_names(connection, owned)
    for (unit, step), own in owned.items():
        if step in graph.nodes:
            try:
                check_own_params(graph.nodes[step], own.params)
            except WorkflowError as error:
                whose = f"{names.get(unit, unit)} has {describe_values(own.params)} of its own at {step}"
                lines.append(f"{whose}, which is incompatible with it: {error}; withdraw it (`icestream withdraw`)")
    return lines


def check_owned(connection: Connection, graph: Graph, owned: Owned) -> None:
    """Check, before an edit, that what exposures have of their own goes with the steps as they would be.

    Raises
    ------
    WorkflowError
        Naming the exposures; nothing has changed yet.
    """
    misfits = find_misfits(connection, graph, owned)
    if misfits:
        raise WorkflowError("\n".join(misfits))


def load_owned(connection: Connection) -> dict[tuple[str, str], OwnParams]:
    """Return what exposures have of their own now; nothing in a store that is older than this."""
    table = schema.recompute
    if not inspect(connection).has_table(table.name):
        return {}
    rows = connection.execute(select(table).where(table.c.active).order_by(table.c.id)).mappings()
    return {(row["unit"], row["step"]): OwnParams(json.loads(row["params"]), row["author"], row["reason"]) for row in rows}


def _load_names(connection: Connection, owned: Owned) -> dict[str, str]:
    """Return unit → name of the exposures that have something of their own."""
    table = schema.exposure
    units = sorted({unit for unit, _ in owned})
    found: dict[str, str] = {}
    for start in range(0, len(units), 500):
        rows = connection.execute(select(table.c.unit, table.c.name).where(table.c.unit.in_(units[start : start + 500])))
        found |= {row[0]: row[1] for row in rows}
    return found


def with_own_contents(owned: Owned, graph: Graph, roots: dict[str, str]) -> dict[tuple[str, str], OwnParams]:
    """Return the same with the contents of the files that they name."""
    return {
        (unit, step): replace(own, contents=read_contents(graph.nodes[step].type, own.params, roots))
        if step in graph.nodes
        else own
        for (unit, step), own in owned.items()
    }


def load_replaced(connection: Connection) -> set[str]:
    """Return the keys of the results whose place is taken now; they are used again when a person takes that back."""
    table = schema.recompute
    if not inspect(connection).has_table(table.name):
        return set()
    texts = connection.execute(select(table.c.replaced).where(table.c.active)).scalars()
    return {key for text in texts for key in json.loads(text)}
