"""What filters would drop with other limits, before they are applied: their own rule is asked about what is stored.

A filter looks at records and at nothing else, so its function can be called again with other parameters. Of a long session every
n-th exposure is asked, as series are thinned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from json import loads
from typing import Any, Literal

from sqlalchemy import select

from icestream.errors import SessionError, WorkflowError
from icestream.flow.declaration import CallFailure, Verdict, call_step, limit_of
from icestream.flow.storage import schema
from icestream.flow.workflow import Graph, Node, StepSpec, check_params, checked_acquisition
from icestream.observe.measured import list_measures
from icestream.observe.queries import SessionView, StepSummary, StoredRecord
from icestream.observe.sampling import stride_for
from icestream.records import Record

MOST_ASKED = 2000
MOST_WITH_TABLES = 200
"""So many where the filter reads tables of particles, which are large."""


@dataclass(frozen=True)
class Threshold:
    """A parameter that limits a measure: ``most``, ``least``, or a ``range``; the measure is ``factor`` times the parameter."""

    parameter: str
    measure: str
    """The id of the measure."""
    side: Literal["most", "least", "range"]
    factor: float
    value: float | tuple[float, float] | None
    """As it is now, in the unit of the parameter; unset where the limit is not applied."""


@dataclass(frozen=True)
class FilterOfSession:
    """A filter of a session and its thresholds; ``why_not`` says why what it would drop cannot be told."""

    step: str
    label: str
    summary: str
    thresholds: tuple[Threshold, ...]
    why_not: str | None


@dataclass(frozen=True)
class DropCount:
    """What a filter would do with other parameters, of the exposures that it has decided."""

    decided: int
    """How many it has decided."""
    asked: int
    """How many of them were asked: every ``stride``-th exposure."""
    stride: int
    kept: int
    dropped: int
    newly_dropped: int
    newly_kept: int
    failed: int
    """For these the filter cannot decide."""


@dataclass(frozen=True)
class Case:
    """One exposure as a filter sees it, without the parameters."""

    arguments: Mapping[str, Any]
    accepted: bool
    by_hand: bool


@dataclass(frozen=True)
class FilterMaterial:
    """What a filter has decided about."""

    node: Node
    decided: int
    stride: int
    cases: tuple[Case, ...] = field(repr=False, default=())


def list_filters(view: SessionView, steps: Sequence[StepSummary]) -> list[FilterOfSession]:
    """Return the filters of a session that have parameters, in workflow order; none where its workflow cannot run here."""
    try:
        graph = view.session.graph()
    except WorkflowError:
        return []
    measures = {(one.step, one.declared.metric): one.id for one in list_measures(view, steps) if not one.whole}
    found = []
    for step in steps:
        node = graph.nodes.get(step.name)
        if node is None or not node.type.is_filter or not node.type.params.model_fields:
            continue
        thresholds = _thresholds(graph, node, measures)
        found.append(FilterOfSession(node.name, step.label, node.type.summary, tuple(thresholds), why_not_foreseen(node)))
    return found


def _thresholds(graph: Graph, node: Node, measures: Mapping[tuple[str, str], str]) -> list[Threshold]:
    above = [name for name in graph.nodes if node.name in graph.descendants(name)]
    found = []
    for name, info in node.type.params.model_fields.items():
        limit = limit_of(info)
        if limit is None or name in node.values:
            continue
        near = [measures[step, limit.metric] for step in reversed(above) if (step, limit.metric) in measures]
        if near:
            value = node.params.get(name)
            given = (float(value[0]), float(value[1])) if isinstance(value, list | tuple) else value
            found.append(Threshold(name, near[0], limit.side, limit.factor, given))
    return found


def why_not_foreseen(node: Node) -> str | None:
    """Return why what a filter would drop cannot be told, or None if it can."""
    if {"context", "names"} & set(node.type.arguments.values()):
        return "its rule looks at more than records"
    if node.values:
        return f"it takes {', '.join(node.values)} from another step"
    return None


def read_material(view: SessionView, step: str) -> FilterMaterial:
    """Return what a filter has decided about so far.

    Raises
    ------
    SessionError
        No step is called so, it is no filter, or what it would drop cannot be told.
    """
    node = view.session.graph().nodes.get(step)
    if node is None or not node.type.is_filter:
        raise SessionError(f"{step!r}: is no filter of this session")
    refusal = why_not_foreseen(node)
    if refusal is not None:
        raise SessionError(f"{step}: what it would drop cannot be told: {refusal}")
    types = {port.name: node.records.get(port.name, port.record) for port in node.type.ports}
    most = MOST_WITH_TABLES if any("block" in one.model_fields for one in types.values()) else MOST_ASKED
    decided, stride, statuses, acquisition = _read_decided(view, step, most)
    units = list(statuses)
    hands = {one.unit for one in view.decisions(units) if one.step == step and one.params is None} if units else set()
    inputs = _read_inputs(view, node, types, units)
    cases = [
        Case(_arguments(node, inputs, unit, acquisition[unit]), statuses[unit] == "item", unit in hands)
        for unit in units
        if all(unit in inputs[port.name] for port in node.type.ports if not (port.optional or port.many))
    ]
    return FilterMaterial(node, decided, stride, tuple(cases))


def _read_decided(view: SessionView, step: str, most: int) -> tuple[int, int, dict[str, str], dict[str, dict[str, Any]]]:
    """Return how many exposures a step has decided, and of every ``stride``-th its verdict and acquisition values."""
    outcome, exposure = schema.outcome, schema.exposure
    common = view.session.document.acquisition.model_dump(exclude_none=True)
    with view.reading() as connection:
        revision = None if connection is None else view.revisions(connection).get(step)
        if connection is None or revision is None:
            return 0, 1, {}, {}
        mine = (outcome.c.revision == revision.id) & outcome.c.status.in_(("item", "rejected"))
        query = (
            select(outcome.c.unit, outcome.c.status, exposure.c.acquisition, exposure.c.ordinal)
            .select_from(outcome.join(exposure, exposure.c.unit == outcome.c.unit))
            .where(mine)
            .order_by(exposure.c.ordinal)
        )
        rows = connection.execute(query).all()
    stride = stride_for(len(rows), most=most)
    chosen = rows[::stride]
    statuses = {row.unit: str(row.status) for row in chosen}
    return len(rows), stride, statuses, {row.unit: {**loads(row.acquisition), **common} for row in chosen}


def _read_inputs(
    view: SessionView, node: Node, types: Mapping[str, type[Record]], units: Sequence[str]
) -> dict[str, dict[str, list[Record]]]:
    """Return port → unit → the records that the filter gets there."""
    found: dict[str, dict[str, list[Record]]] = {port.name: {} for port in node.type.ports}
    for port, links in node.links.items():
        for link in links:
            for start in range(0, len(units), 500):
                stored = view.records_of(link.step, units[start : start + 500], output=link.output)
                for unit, one in stored.items():
                    record = _restore(types[port], one)
                    if record is not None:
                        found[port].setdefault(unit, []).append(record)
    return found


def _restore(kind: type[Record], stored: StoredRecord) -> Record | None:
    """Return a record as a step gets it; None for one that this version cannot read."""
    tables = stored.tables if "block" in kind.model_fields else {}
    try:
        return kind.model_validate({**stored.record, **tables})
    except ValueError:
        return None


def _arguments(
    node: Node, inputs: Mapping[str, Mapping[str, list[Record]]], unit: str, acquisition: Mapping[str, Any]
) -> dict[str, Any]:
    many = {port.name for port in node.type.ports if port.many}
    arguments: dict[str, Any] = {}
    for name, role in node.type.arguments.items():
        if role == "port":
            records = inputs[name].get(unit, [])
            arguments[name] = records if name in many else records[0] if records else None
        elif role == "acquisition":
            arguments[name] = checked_acquisition({key: value for key, value in acquisition.items() if key in node.type.reads})
    return arguments


def count_drops(material: FilterMaterial, changes: Mapping[str, Any]) -> DropCount:
    """Return what a filter would do with other parameters, one that is None at its default; without any, what it has done.

    Raises
    ------
    SessionError
        The parameters are none that it can have.
    """
    node = material.node
    merged = {name: value for name, value in {**node.params, **changes}.items() if value is not None or name not in changes}
    complete, problems = check_params(node.name, node.type, StepSpec(use=node.use, params=merged), set())
    if problems:
        raise SessionError("\n".join(map(str, problems)))
    params = node.type.params.model_validate(complete)
    names = {role: name for name, role in node.type.arguments.items()}
    given = {names["params"]: params} if "params" in names else {}
    kept = dropped = newly_dropped = newly_kept = failed = 0
    for case in material.cases:
        accepted = case.accepted
        if changes and not case.by_hand:
            verdict = call_step(node.type.call, **case.arguments, **given)
            if isinstance(verdict, CallFailure) or not isinstance(verdict, Verdict):
                failed += 1
                continue
            accepted = verdict.accepted
        kept, dropped = kept + accepted, dropped + (not accepted)
        newly_dropped += case.accepted and not accepted
        newly_kept += accepted and not case.accepted
    return DropCount(material.decided, len(material.cases), material.stride, kept, dropped, newly_dropped, newly_kept, failed)
