"""From a workflow document to its graph: names, types, cycles and parameters are refused before anything starts."""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from icestream.errors import IcestreamError, WorkflowError
from icestream.flow.declaration import StepType, find_step
from icestream.flow.workflow.graph import Graph, Link, Node, RecordType, StepSpec, Workflow
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


def build_graph(workflow: Workflow) -> Graph:
    """Check a workflow and return its graph.

    Raises
    ------
    WorkflowError
        Naming every step, value and what was allowed; all problems at once.
    """
    if not workflow.steps:
        raise WorkflowError("the workflow has no steps, so there is nothing to run; add some under steps:")
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
            f"step {name!r}: takes input from {missing!r}, which is not a step of this workflow: {allowed}"
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
        problems.append(f"steps {', '.join(circle)}: {how} in a circle")
    order: list[str] = []
    while ready := sorter.get_ready():  # all at once, in the order of the document
        order += sorted(ready, key=list(needs).index)
        sorter.done(*ready)
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
        problems.append(f"step {name!r}: a source cannot wait for another step")
    for parameter, (source, path) in values.items():
        if parameter not in step_type.params.model_fields:
            problems.append(unknown_parameter(name, step_type, parameter))
        if not step_type.works_on_units:
            problems.append(f"step {name!r}: parameter {parameter!r}: a {step_type.kind} cannot take a value from another step")
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
