"""What is checked about one step of a workflow, and about steps that name each other; every problem is reported as a line."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from icestream.errors import WorkflowError
from icestream.flow.declaration import Port, StepType
from icestream.flow.workflow.graph import Graph, Link, Node, StepSpec, Workflow
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


def check_links(name: str, step_type: StepType, links: Links, known: Nodes, *, min_inputs: int) -> list[str]:
    """Check that the inputs of a step exist, are of the type it wants, and that none is missing."""
    ports = {port.name: port for port in step_type.ports}
    problems = [
        f"step {name!r}: has no input {port!r}; {step_type.name} takes {', '.join(ports) or 'no input'}"
        for port in links
        if port not in ports
    ]
    for port in ports.values():
        given = links.get(port.name, ())
        may_be_empty = port.optional or (port.many and min_inputs == 0 and port.name in links)
        if not given and not may_be_empty:
            problems.append(
                f"step {name!r}: input {port.name!r} ({port.record.__name__}) is missing; write in: {{{port.name}: step}}"
            )
        if len(given) > 1 and not port.many:
            problems.append(f"step {name!r}: input {port.name!r} takes one stream, got {len(given)}")
        for link in given:
            if link.step in known:
                problems.extend(_check_type(name, step_type, port, link, known[link.step]))
    return problems or _check_same_type(name, step_type, links, known)


def _check_type(name: str, step_type: StepType, port: Port, link: Link, producer: Node) -> list[str]:
    try:
        offered = output_type(producer, link.output)
    except WorkflowError as error:
        return [f"step {name!r}: input {port.name!r}: {error}"]
    if not issubclass(offered, port.record):
        return [f"step {name!r}: input {port.name!r} wants {port.record.__name__}, but {link} gives {offered.__name__}"]
    generic_filter = step_type.is_filter and port.generic
    if producer.type.collects and (generic_filter or not port.many):
        return [f"step {name!r}: input {port.name!r} takes one item, but {link} gives batches (list[{port.record.__name__}])"]
    if generic_filter and issubclass(offered, Snapshot):
        return [f"step {name!r}: input {port.name!r} takes items of exposures, but {link} gives versions of a {offered.__name__}"]
    return []


def _check_same_type(name: str, step_type: StepType, links: Links, known: Nodes) -> list[str]:
    """Check that the streams of the first port are alike where a filter passes on one of several."""
    first = step_type.ports[0] if step_type.is_filter else None
    if first is None or not first.many:
        return []
    offered = {str(link): output_type(known[link.step], link.output) for link in links.get(first.name, ()) if link.step in known}
    if len(set(offered.values())) <= 1:
        return []
    told = ", ".join(f"{link} gives {record.__name__}" for link, record in offered.items())
    return [f"step {name!r}: input {first.name!r} takes streams of one type, but {told}"]


def check_params(name: str, step_type: StepType, spec: StepSpec, later: set[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the complete parameters of a step (without those in ``later``, which other steps give), and what is wrong."""
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
                problems.append(unknown_parameter(name, step_type, parameter))
            elif not parameter:
                problems.append(f"step {name!r}: {issue['msg'].removeprefix('Value error, ')}")
            else:
                got = "not given" if issue["type"] == "missing" else f"{issue['input']!r:.200}: {issue['msg']}"
                problems.append(f"step {name!r}: parameter {parameter!r} is {got}")
        return dict(given), problems


def unknown_parameter(name: str, step_type: StepType, parameter: str) -> str:
    """Say that a step has no such parameter."""
    allowed = ", ".join(step_type.params.model_fields) or "none"
    return f"step {name!r}: {step_type.name} has no parameter {parameter!r}; it has: {allowed}"


def run_own_check(name: str, step_type: StepType, params: Mapping[str, Any], records: Mapping[str, type[Record]]) -> None:
    """Let a step type check its parameters against the records that it will get.

    Raises
    ------
    WorkflowError
        Naming the step and what is wrong.
    """
    if step_type.check is None:
        return
    try:
        step_type.check(step_type.params.model_validate(params), records)
    except WorkflowError as error:
        raise WorkflowError(f"step {name!r}: {error}") from error


def check_after(workflow: Workflow) -> list[str]:
    """Check that steps wait for streams that exist."""
    allowed = ", ".join(workflow.steps)
    return [
        f"step {name!r}: waits for {awaited!r}, which is not a step of this workflow: {allowed}"
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


def check_closes(graph: Graph) -> list[str]:
    """Check that gates close steps that exist, neither themselves nor what is to take what they pass on."""
    problems = []
    for node in graph.nodes.values():
        below = graph.descendants(node.name)
        for name in node.closes:
            if name not in graph.nodes:
                problems.append(
                    f"step {node.name!r}: closes {name!r}, which is not a step of this workflow: {', '.join(graph.nodes)}"
                )
            elif name == node.name:
                problems.append(f"step {node.name!r}: closes itself; a trigger in static mode closes after what it passed")
            elif name in below:
                problems.append(
                    f"step {node.name!r}: closes {name!r}, which takes what {node.name!r} passes on: it would get nothing"
                )
    return problems
