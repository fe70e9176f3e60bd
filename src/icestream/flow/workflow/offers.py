"""Which outputs each input of a workflow could be connected to, as far as their types say; the workflow may be unfinished."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from icestream.errors import IcestreamError
from icestream.flow.declaration import StepType, find_step
from icestream.flow.workflow.building import Examined, links_of, outputs_of_type, values_of
from icestream.flow.workflow.graph import Link, Node, RecordType, StepSpec, Workflow
from icestream.flow.workflow.graph_checks import why_not_linked


@dataclass(frozen=True)
class Offers:
    """What is offered in a workflow: the types of its steps, their outputs, and what each input can be connected to.

    A step whose type is not installed is none of them.
    """

    types: dict[str, StepType]
    outputs: dict[str, dict[str, RecordType]]
    inputs: dict[str, dict[str, tuple[Link, ...]]]
    values: dict[str, tuple[str, ...]]
    """The numbers that parameters of other steps may be taken from, by step: names of fields."""


def find_offers(workflow: Workflow, examined: Examined) -> Offers:
    """Return what fits what by type; a step is never offered what it feeds itself."""
    nodes = _all_nodes(workflow, examined.nodes)
    below = {name: _descendants(workflow, name) for name in nodes}
    inputs = {
        name: {
            port.name: tuple(
                link
                for other, producer in nodes.items()
                if other not in below[name]
                for link in (Link(other, output) for output in producer.outputs)
                if not _is_double(producer, link) and why_not_linked(node.type, port, link, producer) is None
            )
            for port in node.type.ports
        }
        for name, node in nodes.items()
    }
    outputs = {name: node.outputs for name, node in nodes.items()}
    types = {name: node.type for name, node in nodes.items()}
    return Offers(types, outputs, inputs, {name: _numbers_of(node.type.output) for name, node in nodes.items()})


def _all_nodes(workflow: Workflow, sound: Mapping[str, Node]) -> dict[str, Node]:
    """Return a node of each step whose type is installed, those included with which something is still wrong."""
    nodes = dict(sound)
    waiting = [name for name in workflow.steps if name not in nodes]
    for _ in range(2):  # what is above another one may come after it in the document
        for name in waiting:
            made = _guess(name, workflow.steps[name], nodes)
            if made is not None:
                nodes[name] = made
    return {name: nodes[name] for name in workflow.steps if name in nodes}


def _guess(name: str, spec: StepSpec, known: Mapping[str, Node]) -> Node | None:
    try:
        step_type = find_step(spec.use)
    except IcestreamError:
        return None
    links = links_of(spec)
    carried = {
        port: known[group[0].step].outputs[group[0].output]
        for port, group in links.items()
        if group and group[0].step in known and group[0].output in known[group[0].step].outputs
    }
    generic = {port.name: carried[port.name] for port in step_type.ports if port.generic and port.name in carried}
    return Node(name, spec.use, step_type, {}, links, outputs=outputs_of_type(step_type, links, generic))


def _is_double(producer: Node, link: Link) -> bool:
    """Tell whether an output is another name of one that is offered: what a filter passes on of its first input."""
    if not producer.type.is_filter:
        return False
    first = producer.type.ports[0].name
    return link.output in (first, f"rejected.{first}")


def _descendants(workflow: Workflow, name: str) -> set[str]:
    found = {name}
    while True:
        more = {
            other
            for other, spec in workflow.steps.items()
            if other not in found and not found.isdisjoint({link.step for group in links_of(spec).values() for link in group})
        }
        more |= {
            other for other, spec in workflow.steps.items() if not found.isdisjoint(step for step, _ in values_of(spec).values())
        }
        if more <= found:
            return found
        found |= more


@cache
def _numbers_of(record: RecordType | None) -> tuple[str, ...]:
    """Return the fields of a record that are one number each."""
    if record is None:
        return ()
    schema = record.model_json_schema().get("properties", {})
    kinds = {name: one.get("anyOf", [one]) for name, one in schema.items()}
    return tuple(name for name, branches in kinds.items() if any(one.get("type") in ("number", "integer") for one in branches))
