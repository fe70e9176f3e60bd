"""From a workflow document to its graph: names, types, cycles and parameters are refused before anything starts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from icestream.errors import IcestreamError
from icestream.flow.declaration import StepType, find_step
from icestream.flow.workflow.graph import Graph, GraphProblem, Link, Node, RecordType, StepSpec, UnsoundWorkflow, Workflow
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
from icestream.records import Record, Snapshot


@dataclass(frozen=True)
class Examined:
    """What is right and wrong with a workflow: the nodes of the steps that are sound, and every problem."""

    nodes: dict[str, Node]
    problems: tuple[GraphProblem, ...]


def build_graph(workflow: Workflow) -> Graph:
    """Check a workflow and return its graph.

    Raises
    ------
    UnsoundWorkflow
        Naming every step, value and what was allowed; all problems at once.
    """
    examined = examine_workflow(workflow)
    if examined.problems:
        raise UnsoundWorkflow(examined.problems)
    return Graph(examined.nodes)


def examine_workflow(workflow: Workflow, *, later: Mapping[str, frozenset[str]] | None = None) -> Examined:
    """Check a workflow; ``later`` are parameters of steps whose values are still to be given (a template asks for them)."""
    if not workflow.steps:
        empty = "the workflow has no steps, so there is nothing to run; add some under steps:"
        return Examined({}, (GraphProblem(empty),))
    problems, awaited = check_after(workflow), later or {}
    order = _topological_order(workflow, problems)
    nodes: dict[str, Node] = {}
    for name in order:
        spec, missing = workflow.steps[name], awaited.get(name, frozenset())
        try:
            if not _sources_of(spec) <= set(nodes):  # what is above it was told already
                problems.extend(check_params(name, find_step(spec.use), spec, set(values_of(spec)) | missing)[1])
                continue
            nodes[name] = _build_node(name, spec, nodes, missing)
        except UnsoundWorkflow as error:
            problems.extend(error.problems)
        except IcestreamError as error:
            problems.append(GraphProblem(str(error), name, "use"))
    return Examined(nodes, tuple(problems or check_closes(Graph(nodes))))


def _split_link(text: str) -> Link:
    step, _, output = text.partition(".")
    return Link(step, output or "out")


def links_of(spec: StepSpec) -> dict[str, tuple[Link, ...]]:
    """Return the outputs that each input of a step names."""
    return {
        port: tuple(_split_link(text) for text in ([targets] if isinstance(targets, str) else targets))
        for port, targets in spec.inputs.items()
    }


def values_of(spec: StepSpec) -> dict[str, tuple[str, str]]:
    """Return the parameters whose values are taken from other steps: parameter → step and field."""
    values = {}
    for name, value in spec.params.items():
        if isinstance(value, Mapping) and set(value) == {"from"}:
            step, _, path = str(value["from"]).partition(".")
            values[name] = (step, path)
    return values


def _sources_of(spec: StepSpec) -> set[str]:
    """Return the steps whose outputs or values ``spec`` takes."""
    return {link.step for links in links_of(spec).values() for link in links} | {step for step, _ in values_of(spec).values()}


def _topological_order(workflow: Workflow, problems: list[GraphProblem]) -> list[str]:
    needs = {name: _sources_of(spec) for name, spec in workflow.steps.items()}
    for name, wanted in needs.items():
        allowed = ", ".join(workflow.steps)
        problems.extend(
            GraphProblem(
                f"takes input from {missing!r}, which is not a step of this workflow: {allowed}",
                name,
                _where(workflow.steps[name], missing),
            )
            for missing in sorted(wanted - set(workflow.steps))
        )
        needs[name] = (wanted | set(workflow.steps[name].after)) & set(workflow.steps)
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = sorted(set(error.args[1]))
        waiting = any(workflow.steps[name].after for name in circle)
        how = "take input from each other, or wait for each other," if waiting else "take their input from each other"
        problems.append(GraphProblem(f"steps {', '.join(circle)}: {how} in a circle"))
    order: list[str] = []
    while ready := sorter.get_ready():  # all at once, in the order of the document
        order += sorted(ready, key=list(needs).index)
        sorter.done(*ready)
    return order


def _where(spec: StepSpec, step: str) -> str | None:
    """Return the input or parameter of a step that reads another one."""
    ports = [f"in.{port}" for port, links in links_of(spec).items() if any(link.step == step for link in links)]
    return next(iter([*ports, *(f"params.{name}" for name, source in values_of(spec).items() if source[0] == step)]), None)


def _build_node(name: str, spec: StepSpec, known: dict[str, Node], later: frozenset[str]) -> Node:
    if not name.isidentifier() or name != name.lower():
        told = "a step's name is made of a-z, 0-9 and _, and starts with a letter"
        raise UnsoundWorkflow([GraphProblem(told, name, "name")])
    step_type = find_step(spec.use)
    values = values_of(spec)
    links = links_of(spec)
    min_inputs = step_type.min_inputs if spec.min_inputs is None else spec.min_inputs
    problems = check_links(name, step_type, links, known, min_inputs=min_inputs)
    params, more = check_params(name, step_type, spec, set(values) | later)
    problems += more
    if spec.after and step_type.is_source:
        problems.append(GraphProblem("a source cannot wait for another step", name, "after"))
    for parameter, (source, path) in values.items():
        problems += [GraphProblem(text, name, f"params.{parameter}") for text in _wrong_value(step_type, parameter, source, path)]
        if source in known:
            links[f"@{parameter}"] = (Link(source, "out"),)
    if problems:
        raise UnsoundWorkflow(problems)
    depth = 1 + max((known[link.step].depth for group in links.values() for link in group), default=-1)
    bound = frozenset(
        port for port, group in links.items() if group and all(_is_snapshot(known[link.step], link) for link in group)
    )
    domain = _domain(name, step_type, links, known)
    records = _generic_records(step_type, links, known)
    if not values and not later:
        run_own_check(name, step_type, params, records)
    outputs = outputs_of_type(step_type, links, records)
    closes, after = closed_steps(step_type, params), tuple(dict.fromkeys(spec.after))
    found = (min_inputs, depth, domain, outputs, bound, records, after, closes, spec.resources)
    return Node(name, spec.use, step_type, params, links, values, *found, given=frozenset(spec.params))


def _wrong_value(step_type: StepType, parameter: str, source: str, path: str) -> Iterator[str]:
    """Yield what is wrong with a parameter that takes a value of another step."""
    if parameter not in step_type.params.model_fields:
        yield unknown_parameter(step_type, parameter)
    if not step_type.works_on_units:
        yield f"parameter {parameter!r}: a {step_type.kind} cannot take a value from another step"
    if not path:
        yield f"parameter {parameter!r} takes {source!r} as a value; write {{from: {source}.field}}"


def _generic_records(step_type: StepType, links: dict[str, tuple[Link, ...]], known: dict[str, Node]) -> dict[str, RecordType]:
    """Return what the ports take that take any record: what they are linked to."""
    ports = [port.name for port in step_type.ports if port.generic and links.get(port.name)]
    return {port: output_type(known[links[port][0].step], links[port][0].output) for port in ports}


def outputs_of_type(step_type: StepType, links: Mapping[str, object], records: Mapping[str, RecordType]) -> dict[str, RecordType]:
    """Return the outputs of a step; ``records`` are what its inputs carry, as far as that is known."""
    ports = {port.name: records.get(port.name, port.record) for port in step_type.ports}
    first = next(iter(ports.values()), Record)
    if step_type.is_filter:
        passed = {port.name: ports[port.name] for port in step_type.ports if not port.many and port.name in links}
        return {"out": first, "rejected": first, **passed, **{f"rejected.{name}": record for name, record in passed.items()}}
    if step_type.holds_units:
        return {"out": first} if step_type.admit is None else {"out": first, "rejected": first}
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
        told = f"its inputs come per {' and per '.join(sorted(domains))}; they must be of one kind"
        raise UnsoundWorkflow([GraphProblem(told, name, "in")])
    if domains:
        return domains.pop()
    if step_type.has_rule:
        told = f"a {step_type.kind} takes items of exposures, not only versions of a snapshot"
        raise UnsoundWorkflow([GraphProblem(told, name, "in")])
    return "exposure" if step_type.is_source else f"version:{name}"


def _is_snapshot(producer: Node, link: Link) -> bool:
    """Tell whether a link carries versions of a whole rather than items of exposures."""
    return issubclass(output_type(producer, link.output), Snapshot)
