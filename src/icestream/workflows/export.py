"""The workflow of a session, or a part of it, as a file to make other sessions of."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from icestream.errors import WorkflowError
from icestream.flow.storage import Session
from icestream.flow.workflow import Graph, StepSpec, Workflow, build_graph
from icestream.workflows.implied import imply_template
from icestream.workflows.template import OpenInput, Template, TemplateStep

_SECTIONS = ("description", "placeholders", "acquisition", "roots", "open", "steps", "disabled")


def choose_steps(session: Session, *, steps: Iterable[str] | None = None, start: str | None = None) -> list[str]:
    """Return the steps to export, in the order of the workflow: those named, and ``start`` with all below it; else all.

    Raises
    ------
    WorkflowError
        The session has no such step.
    """
    known, wanted = session.document.steps, set(steps or ())
    for name in [*wanted, *([start] if start else [])]:
        if name not in known:
            raise WorkflowError(f"{session.folder}: has no step {name!r}; it has {', '.join(known)}")
    if start is not None:
        wanted |= session.graph().descendants(start)
    return [name for name in known if name in wanted] if wanted else list(known)


def export_template(session: Session, chosen: Iterable[str] | None = None, *, ask: bool = True) -> Template:
    """Return the workflow of a session as a template.

    Parameters
    ----------
    chosen
        Names of the steps; all if left out. Inputs that are cut off become open inputs.
    ask
        Folders, file patterns, diameter and microscope values become placeholders with the present values as defaults;
        else they stay out (the microscope, the folders) or as they are (parameters).
    """
    document = session.document
    names = list(document.steps if chosen is None else chosen)
    steps = {name: _inside(document.steps[name], names) for name in names}
    graph = build_graph(Workflow(steps=document.steps))
    open_inputs = find_open_inputs(graph, {name: document.steps[name] for name in names})
    whole = not open_inputs
    if not ask:
        plain = {
            name: TemplateStep(**{field: getattr(spec, field) for field in StepSpec.model_fields}) for name, spec in steps.items()
        }
        return Template(steps=plain, open_inputs=open_inputs)
    roots = {name: path for name, path in session.roots.items() if name in document.roots}
    acquisition = document.acquisition.model_dump(exclude_none=True)
    asked = imply_template(steps, acquisition=acquisition, roots=roots if whole else _roots_of(steps, graph, roots))
    if not whole:
        asked = _without_acquisition(asked)
    return asked.model_copy(update={"open_inputs": open_inputs})


def find_open_inputs(graph: Graph, steps: Mapping[str, StepSpec]) -> dict[str, OpenInput]:
    """Return what some steps of a workflow read of others: ``step.output`` or ``step.field`` → who reads it."""
    found: dict[str, OpenInput] = {}
    for name, spec in steps.items():
        for reader, link, field in _links(name, spec):
            step, _, output = link.partition(".")
            if step in steps:
                continue
            node = graph.nodes[step]
            record = field or node.outputs[output or "out"].__name__
            earlier = found.get(link)
            found[link] = OpenInput(record=record, read_by=[*(earlier.read_by if earlier else []), reader])
    return found


def _links(name: str, spec: StepSpec) -> Iterable[tuple[str, str, str | None]]:
    for port, targets in spec.inputs.items():
        for link in [targets] if isinstance(targets, str) else targets:
            yield f"{name}.{port}", link, None
    for parameter, value in spec.params.items():
        if isinstance(value, Mapping) and set(value) == {"from"}:
            yield f"{name}.{parameter}", str(value["from"]), "a value"


def _inside(spec: StepSpec, names: list[str]) -> StepSpec:
    """Return a step that waits only for steps that are exported with it."""
    after = getattr(spec, "after", None)
    return spec.model_copy(update={"after": [name for name in after if name in names]}) if after else spec


def _roots_of(steps: Mapping[str, StepSpec], graph: Graph, roots: Mapping[str, str]) -> dict[str, str]:
    """Return the folders that sources among some steps read."""
    read = {str(graph.nodes[name].params.get("root")) for name in steps}
    return {name: path for name, path in roots.items() if name in read}


def _without_acquisition(template: Template) -> Template:
    asked = {value["ask"] for value in template.acquisition.values()}
    kept = {name: one for name, one in template.placeholders.items() if name not in asked}
    return template.model_copy(update={"placeholders": kept, "acquisition": {}})


def dump_template(template: Template, *, summary: str) -> str:
    """Write a template as YAML under one line of comment; what is unset is left out."""
    data, steps = template_data(template), template_data(template)["steps"]
    order = ("use", "only_with", "only_without", "label", "note", "in", "params")
    data["steps"] = {name: {key: step[key] for key in (*order, *step) if key in step} for name, step in steps.items()}
    head = f"# {' '.join(summary.split())}\n"
    parts = [
        yaml.safe_dump({section: data[section]}, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
        for section in _SECTIONS
        if data.get(section) or section == "steps"
    ]
    return head + "".join(f"\n{part}" for part in parts)


def template_data(template: Template) -> dict[str, Any]:
    """Return a template as plain data, in which what is unset is left out; parameters that are given as nothing stay."""
    data: dict[str, Any] = template.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return data | {"steps": template.model_dump(mode="json", by_alias=True, exclude_defaults=True)["steps"]}
