"""The workflow as a checked graph: names, types, cycles and parameters are refused before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import IcestreamError, WorkflowError
from icestream.flow.declaration.registry import find_step
from icestream.flow.declaration.step import StepType
from icestream.flow.workflow.graph_checks import (
    check_after,
    check_closes,
    check_links,
    check_params,
    closed_steps,
    output_type,
    run_own_check,
    unknown_parameter,
)
from icestream.flow.workflow.requests import StepResources
from icestream.records import Record, Snapshot

RecordType = type[Record]


class StepSpec(BaseModel):
    """One step of a workflow document."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    use: str = Field(description="Step type")
    inputs: dict[str, str | list[str]] = Field(default_factory=dict, alias="in", description="Port: step, or step.output")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters; {from: step.field} takes another step's value")
    label: str | None = Field(None, description="What people call this step")
    min_inputs: int | None = Field(
        None, ge=0, description="How many streams of a list input must have an item; unset: as its type says, mostly 1"
    )
    after: list[str] = Field(default_factory=list, description="Start nothing until the streams of these steps have closed")
    resources: StepResources = Field(default_factory=StepResources, description="Cores, memory and GPUs, pinned by hand")


class Workflow(BaseModel):
    """A workflow document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: dict[str, StepSpec]


@dataclass(frozen=True)
class Link:
    """One output of one step: ``out``, ``rejected``, ``assignments``, a filter's port, or ``rejected.<port>``."""

    step: str
    output: str

    def __str__(self) -> str:
        return self.step if self.output == "out" else f"{self.step}.{self.output}"


@dataclass(frozen=True)
class Node:
    """One step of a checked workflow."""

    name: str
    use: str
    type: StepType
    params: dict[str, Any]
    links: dict[str, tuple[Link, ...]]
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    min_inputs: int = 1
    depth: int = 0
    domain: str = "exposure"
    outputs: dict[str, RecordType] = field(default_factory=dict)
    bound: frozenset[str] = frozenset()  # the ports that take a version of a snapshot
    records: dict[str, RecordType] = field(default_factory=dict)  # what the ports take that take any record
    after: tuple[str, ...] = ()  # start nothing until these streams have closed
    closes: tuple[str, ...] = ()  # the steps that a gate drains when it opens
    resources: StepResources = field(default_factory=StepResources)
    contents: Mapping[str, str | None] = field(default_factory=dict)  # of files that parameters name; see flow.contents
    given: frozenset[str] = frozenset()  # the parameters that the workflow gives; the others are at their defaults

    @cached_property
    def item_links(self) -> dict[str, tuple[Link, ...]]:
        """The inputs that come per unit (not bound snapshots)."""
        return {port: links for port, links in self.links.items() if port not in self.bound}

    @cached_property
    def item_steps(self) -> frozenset[str]:
        """The steps whose outputs come per unit."""
        return frozenset(link.step for links in self.item_links.values() for link in links)

    @cached_property
    def list_ports(self) -> frozenset[str]:
        """The ports that take any number of streams."""
        return frozenset(port.name for port in self.type.ports if port.many)

    @property
    def publishes_versions(self) -> bool:
        """Its output is a snapshot."""
        return self.type.output is not None and issubclass(self.type.output, Snapshot)

    @property
    def publishes_only(self) -> bool:
        """It is a source of versions: it decides about no unit."""
        return self.type.is_source and self.publishes_versions

    @property
    def fed_by_versions(self) -> bool:
        """All its inputs are snapshots: its units are its own runs."""
        return self.domain == f"version:{self.name}"

    def takes_items_of(self, step: str) -> bool:
        """Tell whether an input that comes per unit is from ``step``."""
        return step in self.item_steps


@dataclass(frozen=True)
class Graph:
    """All nodes, inputs before those that use them."""

    nodes: dict[str, Node]

    def inputs_of(self, name: str) -> set[str]:
        """Return the steps that ``name`` reads."""
        return {link.step for links in self.nodes[name].links.values() for link in links}

    def dependents(self, name: str) -> list[Node]:
        """Return the nodes that read an output of ``name``."""
        return [node for node in self.nodes.values() if name in self.inputs_of(node.name)]

    def followers(self, name: str) -> list[str]:
        """Return the steps that start nothing before the stream of ``name`` has closed."""
        return [node.name for node in self.nodes.values() if name in node.after]

    def descendants(self, name: str) -> set[str]:
        """Return all nodes below ``name``, itself among them."""
        found = {name}
        for node in self.nodes.values():
            if self.inputs_of(node.name) & found:
                found.add(node.name)
        return found


def build_graph(workflow: Workflow) -> Graph:
    """Check a workflow and return its graph.

    Raises
    ------
    WorkflowError
        Naming every step, value and what was allowed; all problems at once.
    """
    problems = check_after(workflow)
    order = _topological_order(workflow, problems)
    nodes: dict[str, Node] = {}
    for name in order:
        try:
            if not _sources_of(workflow.steps[name]) <= set(nodes):
                spec = workflow.steps[name]  # what is above it was told already
                problems.extend(check_params(name, find_step(spec.use), spec, set(_values_of(spec)))[1])
                continue
            nodes[name] = _build_node(name, workflow.steps[name], nodes)
        except IcestreamError as error:
            problems.extend(str(error).split("\n"))
    problems = problems or check_closes(Graph(nodes))
    if problems:
        raise WorkflowError("\n".join(problems))
    return Graph(nodes)


def _split_link(text: str) -> Link:
    step, _, output = text.partition(".")
    return Link(step, output or "out")


def _links_of(spec: StepSpec) -> dict[str, tuple[Link, ...]]:
    return {
        port: tuple(_split_link(text) for text in ([targets] if isinstance(targets, str) else targets))
        for port, targets in spec.inputs.items()
    }


def _values_of(spec: StepSpec) -> dict[str, tuple[str, str]]:
    values = {}
    for name, value in spec.params.items():
        if isinstance(value, Mapping) and set(value) == {"from"}:
            step, _, path = str(value["from"]).partition(".")
            values[name] = (step, path)
    return values


def _sources_of(spec: StepSpec) -> set[str]:
    """Return the steps whose outputs or values ``spec`` takes."""
    return {link.step for links in _links_of(spec).values() for link in links} | {step for step, _ in _values_of(spec).values()}


def _topological_order(workflow: Workflow, problems: list[str]) -> list[str]:
    needs = {name: _sources_of(spec) for name, spec in workflow.steps.items()}
    for name, wanted in needs.items():
        allowed = ", ".join(workflow.steps)
        problems.extend(
            f"step {name!r}: takes input from {missing!r}, which is no step of this workflow: {allowed}"
            for missing in sorted(wanted - set(workflow.steps))
        )
        needs[name] = (wanted | set(workflow.steps[name].after)) & set(workflow.steps)
    order: list[str] = []
    while len(order) < len(needs):
        ready = [name for name in needs if name not in order and needs[name] <= set(order)]
        if not ready:
            circle = sorted(set(needs) - set(order))
            waiting = any(workflow.steps[name].after for name in circle)
            how = "take input from each other, or wait for each other," if waiting else "take their input from each other"
            problems.append(f"steps {', '.join(circle)}: {how} in a circle")
            break
        order.extend(ready)
    return order


def _build_node(name: str, spec: StepSpec, known: dict[str, Node]) -> Node:
    if not name.isidentifier() or name != name.lower():
        raise WorkflowError(f"step {name!r}: a step's name is made of a-z, 0-9 and _, and starts with a letter")
    try:
        step_type = find_step(spec.use)
    except IcestreamError as error:
        raise WorkflowError(f"step {name!r}: {error}") from error
    values = _values_of(spec)
    links = _links_of(spec)
    min_inputs = step_type.min_inputs if spec.min_inputs is None else spec.min_inputs
    problems = check_links(name, step_type, links, known, min_inputs=min_inputs)
    params, more = check_params(name, step_type, spec, set(values))
    problems += more
    if spec.after and step_type.is_source:
        problems.append(f"step {name!r}: a source waits for no other step")
    for parameter, (source, path) in values.items():
        if parameter not in step_type.params.model_fields:
            problems.append(unknown_parameter(name, step_type, parameter))
        if not step_type.works_on_units:
            problems.append(f"step {name!r}: parameter {parameter!r}: a {step_type.kind} takes no value from another step")
        if source in known and not path:
            problems.append(f"step {name!r}: parameter {parameter!r} takes {source!r} as a value; write {{from: {source}.field}}")
        if source in known:
            links[f"@{parameter}"] = (Link(source, "out"),)
    if problems:
        raise WorkflowError("\n".join(problems))
    depth = 1 + max((known[link.step].depth for group in links.values() for link in group), default=-1)
    bound = frozenset(
        port for port, group in links.items() if group and all(_is_snapshot(known[link.step], link) for link in group)
    )
    domain = _domain(name, step_type, links, known)
    records = _generic_records(step_type, links, known)
    if not values:
        run_own_check(name, step_type, params, records)
    outputs = _outputs(step_type, links, records)
    closes, after = closed_steps(step_type, params), tuple(dict.fromkeys(spec.after))
    found = (min_inputs, depth, domain, outputs, bound, records, after, closes, spec.resources)
    return Node(name, spec.use, step_type, params, links, values, *found, given=frozenset(spec.params))


def _generic_records(step_type: StepType, links: dict[str, tuple[Link, ...]], known: dict[str, Node]) -> dict[str, RecordType]:
    """Return what the ports take that take any record: what they are linked to."""
    ports = [port.name for port in step_type.ports if port.generic and links.get(port.name)]
    return {port: output_type(known[links[port][0].step], links[port][0].output) for port in ports}


def _outputs(step_type: StepType, links: dict[str, tuple[Link, ...]], records: dict[str, RecordType]) -> dict[str, RecordType]:
    if step_type.is_filter:
        types = {port.name: records.get(port.name, port.record) for port in step_type.ports}
        ports = {port.name: types[port.name] for port in step_type.ports if not port.many and port.name in links}
        first = types[step_type.ports[0].name]
        return {"out": first, "rejected": first, **ports, **{f"rejected.{port}": record for port, record in ports.items()}}
    if step_type.holds_units:
        own = {"out": records["items"]}
        return own if step_type.admit is None else {**own, "rejected": records["items"]}
    outputs: dict[str, RecordType] = {"out": step_type.output or Record}
    if step_type.assigns is not None:
        outputs["assignments"] = step_type.assigns
    return outputs


def _domain(name: str, step_type: StepType, links: dict[str, tuple[Link, ...]], known: dict[str, Node]) -> str:
    """Return what the step works on: exposures, the batches of one step, or the versions of its own snapshots."""
    domains = set()
    for link in (link for group in links.values() for link in group):
        producer = known[link.step]
        if not _is_snapshot(producer, link):
            domains.add(f"batch:{producer.name}" if producer.type.collects else producer.domain)
    if len(domains) > 1:
        raise WorkflowError(f"step {name!r}: its inputs come per {' and per '.join(sorted(domains))}; they must be of one kind")
    if domains:
        return domains.pop()
    if step_type.has_rule:
        raise WorkflowError(f"step {name!r}: a {step_type.kind} takes items of exposures, not only versions of a snapshot")
    return "exposure" if step_type.is_source else f"version:{name}"


def _is_snapshot(producer: Node, link: Link) -> bool:
    """Tell whether a link carries versions of a whole rather than items of exposures."""
    return issubclass(output_type(producer, link.output), Snapshot)
