"""What is checked about one step of a workflow, and about steps that name each other; every problem is reported as a line."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from icestream.errors import WorkflowError
from icestream.flow.declaration import Port, StepType
from icestream.flow.workflow.graph import Graph, GraphProblem, Link, Node, StepSpec, UnsoundWorkflow, Workflow
from icestream.records import Record, Snapshot

Links = Mapping[str, tuple[Link, ...]]
Nodes = Mapping[str, Node]


def output_type(node: Node, output: str) -> type[Record]:
    """Return the record type of one output of ``node``.

    Raises
    ------
    WorkflowError
        The step has no such output.
    """
    if output not in node.outputs:
        raise WorkflowError(f"{node.name} ({node.type.kind}) has no output {output!r}; it has {', '.join(node.outputs)}")
    return node.outputs[output]


def check_links(name: str, step_type: StepType, links: Links, known: Nodes, *, min_inputs: int) -> list[GraphProblem]:
    """Check that the inputs of a step exist, are of the type it wants, and that none is missing."""
    ports = {port.name: port for port in step_type.ports}
    problems = [
        GraphProblem(f"has no input {port!r}; {step_type.name} takes {', '.join(ports) or 'no input'}", name, f"in.{port}")
        for port in links
        if port not in ports
    ]
    for port in ports.values():
        given, where = links.get(port.name, ()), f"in.{port.name}"
        may_be_empty = port.optional or (port.many and min_inputs == 0 and port.name in links)
        if not given and not may_be_empty:
            text = f"input {port.name!r} ({port.record.__name__}) is missing; write in: {{{port.name}: step}}"
            problems.append(GraphProblem(text, name, where))
        if len(given) > 1 and not port.many:
            problems.append(GraphProblem(f"input {port.name!r} takes one stream, got {len(given)}", name, where))
        refused = [why_not_linked(step_type, port, link, known[link.step]) for link in given if link.step in known]
        problems += [GraphProblem(text, name, where) for text in refused if text is not None]
    return problems or _check_same_type(name, step_type, links, known)


def why_not_linked(step_type: StepType, port: Port, link: Link, producer: Node) -> str | None:
    """Return why an input cannot take an output; None if it can."""
    try:
        offered = output_type(producer, link.output)
    except WorkflowError as error:
        return f"input {port.name!r}: {error}"
    if not issubclass(offered, port.record):
        return f"input {port.name!r} wants {port.record.__name__}, but {link} gives {offered.__name__}"
    generic_filter = step_type.is_filter and port.generic
    if producer.type.collects and (generic_filter or not port.many):
        return f"input {port.name!r} takes one item, but {link} gives batches (list[{port.record.__name__}])"
    if generic_filter and issubclass(offered, Snapshot):
        return f"input {port.name!r} takes items of exposures, but {link} gives versions of a {offered.__name__}"
    return None


def _check_same_type(name: str, step_type: StepType, links: Links, known: Nodes) -> list[GraphProblem]:
    """Check that the streams of the first port are alike where a filter passes on one of several."""
    first = step_type.ports[0] if step_type.is_filter else None
    if first is None or not first.many:
        return []
    offered = {str(link): output_type(known[link.step], link.output) for link in links.get(first.name, ()) if link.step in known}
    if len(set(offered.values())) <= 1:
        return []
    told = ", ".join(f"{link} gives {record.__name__}" for link, record in offered.items())
    return [GraphProblem(f"input {first.name!r} takes streams of one type, but {told}", name, f"in.{first.name}")]


def check_params(name: str, step_type: StepType, spec: StepSpec, later: set[str]) -> tuple[dict[str, Any], list[GraphProblem]]:
    """Return the complete parameters of a step (without those in ``later``, which are given later), and what is wrong."""
    given = {key: value for key, value in spec.params.items() if key not in later}
    try:
        complete = step_type.params.model_validate(given).model_dump(mode="json")
        return {key: value for key, value in complete.items() if key not in later}, []
    except ValidationError as error:
        problems = []
        for issue in error.errors():
            parameter = ".".join(str(part) for part in issue["loc"])
            where = f"params.{issue['loc'][0]}" if issue["loc"] else "params"
            if issue["type"] == "missing" and parameter in later:
                continue
            if issue["type"] == "extra_forbidden":
                text = unknown_parameter(step_type, parameter)
            elif not parameter:
                text = issue["msg"].removeprefix("Value error, ")
            else:
                got = "not given" if issue["type"] == "missing" else f"{issue['input']!r:.200}: {issue['msg']}"
                text = f"parameter {parameter!r} is {got}"
            problems.append(GraphProblem(text, name, where))
        return dict(given), problems


def unknown_parameter(step_type: StepType, parameter: str) -> str:
    """Say that a step has no such parameter."""
    allowed = ", ".join(step_type.params.model_fields) or "none"
    return f"{step_type.name} has no parameter {parameter!r}; it has: {allowed}"


def run_own_check(name: str, step_type: StepType, params: Mapping[str, Any], records: Mapping[str, type[Record]]) -> None:
    """Let a step type check its parameters against the records that it will get.

    Raises
    ------
    UnsoundWorkflow
        Naming the step and what is wrong.
    """
    if step_type.check is None:
        return
    try:
        step_type.check(step_type.params.model_validate(params), records)
    except WorkflowError as error:
        raise UnsoundWorkflow([GraphProblem(str(error), name, "params")]) from error


def check_after(workflow: Workflow) -> list[GraphProblem]:
    """Check that steps wait for streams that exist."""
    allowed = ", ".join(workflow.steps)
    return [
        GraphProblem(f"waits for {awaited!r}, which is not a step of this workflow: {allowed}", name, "after")
        for name, spec in workflow.steps.items()
        for awaited in spec.after
        if awaited not in workflow.steps
    ]


def closed_steps(step_type: StepType, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the steps that a gate drains when it opens: the values of its parameters that are marked ``drains``."""
    names: list[str] = []
    for name, field in step_type.params.model_fields.items():
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("drains"):
            names += params.get(name) or []
    return tuple(dict.fromkeys(names))


def check_closes(graph: Graph) -> list[GraphProblem]:
    """Check that gates close steps that exist, neither themselves nor what is to take what they pass on."""
    problems = []
    for node in graph.nodes.values():
        below = graph.descendants(node.name)
        for name in node.closes:
            text = None
            if name not in graph.nodes:
                text = f"closes {name!r}, which is not a step of this workflow: {', '.join(graph.nodes)}"
            elif name == node.name:
                text = "closes itself; a trigger in static mode closes after what it passed"
            elif name in below:
                text = f"closes {name!r}, which takes what {node.name!r} passes on: it would get nothing"
            if text is not None:
                problems.append(GraphProblem(text, node.name, "params"))
    return problems
