"""The workflow as a checked graph: names, types, cycles and parameters are refused before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icestream.errors import IcestreamError, WorkflowError
from icestream.flow.registry import find_step
from icestream.flow.requests import StepResources
from icestream.flow.step import Kind, Port, StepType
from icestream.records import Record, Snapshot

RecordType = type[Record]


class StepSpec(BaseModel):
    """One step of a workflow document."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    use: str = Field(description="Step type")
    inputs: dict[str, str | list[str]] = Field(default_factory=dict, alias="in", description="Port: step, or step.output")
    params: dict[str, Any] = Field(default_factory=dict, description="Parameters; {from: step.field} takes another step's value")
    label: str | None = Field(None, description="What people call this step")
    min_inputs: int = Field(1, ge=1, description="How many streams of a list input must have an item")
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
    resources: StepResources = field(default_factory=StepResources)

    @property
    def item_links(self) -> dict[str, tuple[Link, ...]]:
        """The inputs that come per unit (not bound snapshots)."""
        return {port: links for port, links in self.links.items() if port not in self.bound}


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
    problems: list[str] = []
    order = _topological_order(workflow, problems)
    nodes: dict[str, Node] = {}
    for name in order:
        try:
            if not _sources_of(workflow.steps[name]) <= set(nodes):
                problems.extend(_check_params(name, workflow.steps[name])[1])  # what is above it was told already
                continue
            nodes[name] = _build_node(name, workflow.steps[name], nodes)
        except IcestreamError as error:
            problems.extend(str(error).split("\n"))
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
        needs[name] = wanted & set(workflow.steps)
    order: list[str] = []
    while len(order) < len(needs):
        ready = [name for name in needs if name not in order and needs[name] <= set(order)]
        if not ready:
            circle = sorted(set(needs) - set(order))
            problems.append(f"steps {', '.join(circle)}: take their input from each other in a circle")
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
    values, links = _values_of(spec), _links_of(spec)
    problems = _check_links(name, step_type, links, known)
    params, more = _check_params(name, spec)
    problems += more
    for parameter, (source, path) in values.items():
        if parameter not in step_type.params.model_fields:
            problems.append(_unknown_parameter(name, step_type, parameter))
        if step_type.kind not in (Kind.MAP, Kind.FILTER):
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
    known_parts = (depth, domain, _outputs(step_type, links, known), bound, spec.resources)
    return Node(name, spec.use, step_type, params, links, values, spec.min_inputs, *known_parts)


def _check_links(name: str, step_type: StepType, links: dict[str, tuple[Link, ...]], known: dict[str, Node]) -> list[str]:
    ports = {port.name: port for port in step_type.ports}
    problems = [
        f"step {name!r}: has no input {port!r}; {step_type.name} takes {', '.join(ports) or 'no input'}"
        for port in links
        if port not in ports
    ]
    for port in ports.values():
        given = links.get(port.name, ())
        if not given and not port.optional:
            problems.append(
                f"step {name!r}: input {port.name!r} ({port.record.__name__}) is missing; write in: {{{port.name}: step}}"
            )
        if len(given) > 1 and not port.many:
            problems.append(f"step {name!r}: input {port.name!r} takes one stream, got {len(given)}")
        for link in given:
            if link.step in known:
                problems.extend(_check_type(name, port, link, known[link.step]))
    return problems


def _check_type(name: str, port: Port, link: Link, producer: Node) -> list[str]:
    try:
        offered = output_type(producer, link.output)
    except WorkflowError as error:
        return [f"step {name!r}: input {port.name!r}: {error}"]
    if not issubclass(offered, port.record):
        return [f"step {name!r}: input {port.name!r} wants {port.record.__name__}, but {link} gives {offered.__name__}"]
    if producer.type.kind is Kind.COLLECT and not port.many:
        return [f"step {name!r}: input {port.name!r} takes one item, but {link} gives batches (list[{port.record.__name__}])"]
    return []


def output_type(node: Node, output: str) -> RecordType:
    """Return the record type of one output of ``node``.

    Raises
    ------
    WorkflowError
        The step has no such output.
    """
    if output not in node.outputs:
        raise WorkflowError(f"{node.name} ({node.type.kind}) has no output {output!r}; it has {', '.join(node.outputs)}")
    return node.outputs[output]


def _outputs(step_type: StepType, links: dict[str, tuple[Link, ...]], known: dict[str, Node]) -> dict[str, RecordType]:
    if step_type.kind is Kind.FILTER:
        ports = {port.name: port.record for port in step_type.ports if not port.many and port.name in links}
        first = step_type.ports[0].record
        return {"out": first, "rejected": first, **ports, **{f"rejected.{port}": record for port, record in ports.items()}}
    if step_type.kind in (Kind.GATE, Kind.COLLECT):
        (link,) = links["items"]
        return {"out": output_type(known[link.step], link.output)}
    outputs: dict[str, RecordType] = {"out": step_type.output or Record}
    if step_type.assigns is not None:
        outputs["assignments"] = step_type.assigns
    return outputs


def _check_params(name: str, spec: StepSpec) -> tuple[dict[str, Any], list[str]]:
    step_type, later = find_step(spec.use), set(_values_of(spec))
    given = {key: value for key, value in spec.params.items() if key not in later}
    try:
        complete = step_type.params.model_validate(given).model_dump(mode="json")
        return {key: value for key, value in complete.items() if key not in later}, []
    except ValidationError as error:
        problems = []
        for issue in error.errors():
            parameter = ".".join(str(part) for part in issue["loc"])
            if issue["type"] == "missing" and parameter in later:
                continue
            if issue["type"] == "extra_forbidden":
                problems.append(_unknown_parameter(name, step_type, parameter))
            else:
                got = "not given" if issue["type"] == "missing" else f"{issue['input']!r}: {issue['msg']}"
                problems.append(f"step {name!r}: parameter {parameter!r} is {got}")
        return dict(given), problems


def _unknown_parameter(name: str, step_type: StepType, parameter: str) -> str:
    allowed = ", ".join(step_type.params.model_fields) or "none"
    return f"step {name!r}: {step_type.name} has no parameter {parameter!r}; it has: {allowed}"


def _domain(name: str, step_type: StepType, links: dict[str, tuple[Link, ...]], known: dict[str, Node]) -> str:
    """Return what the step works on: exposures, the batches of one step, or the versions of its own snapshots."""
    domains = set()
    for link in (link for group in links.values() for link in group):
        producer = known[link.step]
        if not _is_snapshot(producer, link):
            domains.add(f"batch:{producer.name}" if producer.type.kind is Kind.COLLECT else producer.domain)
    if len(domains) > 1:
        raise WorkflowError(f"step {name!r}: its inputs come per {' and per '.join(sorted(domains))}; they must be of one kind")
    if domains:
        return domains.pop()
    if step_type.kind in (Kind.GATE, Kind.COLLECT, Kind.ACCUMULATE):
        raise WorkflowError(f"step {name!r}: a {step_type.kind} takes items of exposures, not only versions of a snapshot")
    return "exposure" if step_type.kind is Kind.SOURCE else f"version:{name}"


def _is_snapshot(producer: Node, link: Link) -> bool:
    """Tell whether a link carries versions of a whole rather than items of exposures."""
    return issubclass(output_type(producer, link.output), Snapshot)
