"""Adding a part of a workflow to another one, its open inputs connected."""

from collections.abc import Mapping
from typing import Any

from icestream.errors import WorkflowError
from icestream.workflows.implied import ACQUISITION_NAMES
from icestream.workflows.template import OpenInput, Template, TemplateStep, asks_in


def join_templates(whole: Template, part: Template, connections: Mapping[str, str]) -> Template:
    """Return a template with the steps of both.

    ``connections`` pairs an open input of the part with ``step`` or ``step.output`` of the whole. An open input whose step the
    whole has by the same name is connected with it by itself. Whether the types fit is told when the template is filled.

    Raises
    ------
    WorkflowError
        Both have a step, placeholder or root of one name but not the same, an input stays open, or a connection leads nowhere.
    """
    problems = [f"step {name!r}: both workflows have one; rename it in the part" for name in part.steps if name in whole.steps]
    targets = {}
    for key, one in part.open_inputs.items():
        target = connections.get(key, key)
        if target.partition(".")[0] not in whole.steps:
            problems.append(_open(key, one, target, whole))
        targets[key] = target
    shared = _asked_for_alike(whole, part)
    own = {name: one for name, one in part.placeholders.items() if name not in shared}
    placeholders, more = _merge("placeholder", whole.placeholders, own)
    problems += more
    acquisition, more = _merge("acquisition value", whole.acquisition, part.acquisition)
    problems += more
    roots, more = _merge("root", whole.roots, part.roots)
    problems += more
    if problems:
        raise WorkflowError("\n".join(problems))
    added = {name: connect(spec, targets) for name, spec in part.steps.items()}
    return Template(
        description=whole.description,
        placeholders=placeholders,
        acquisition=acquisition,
        roots=roots,
        steps={**whole.steps, **added},
        open_inputs=whole.open_inputs,
        alarms=whole.alarms or part.alarms,
        disabled={**whole.disabled, **part.disabled},
    )


def _asked_for_alike(whole: Template, part: Template) -> set[str]:
    """Return the placeholders by which both ask for the same value of the microscope; the words of the whole hold."""
    return {
        name
        for value, name in ACQUISITION_NAMES.items()
        if {name} == set(asks_in(part.acquisition.get(value))) == set(asks_in(whole.acquisition.get(value)))
        and name not in {ask for spec in part.steps.values() for ask in asks_in(spec.params)}
    }


def _open(key: str, one: OpenInput, target: str, whole: Template) -> str:
    told = f"{target!r} is not a step of the workflow" if target != key else "is open"
    return (
        f"input {key!r} ({one.record}, read by {', '.join(one.read_by)}) {told}; write --connect {key}=STEP, "
        f"STEP being one of {', '.join(whole.steps)}"
    )


def _merge(what: str, whole: Mapping[str, Any], part: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    differ = [name for name in part if name in whole and part[name] != whole[name]]
    merged = {**part, **whole}
    ordered = [*whole, *(name for name in part if name not in whole)]
    problems = [f"{what} {name!r}: the two workflows have different ones; rename it in the part" for name in differ]
    return {name: merged[name] for name in ordered}, problems


def connect(spec: TemplateStep, targets: Mapping[str, str]) -> TemplateStep:
    """Return a step whose open inputs and values read other steps."""
    inputs: dict[str, Any] = {
        port: targets.get(link, link) if isinstance(link, str) else [targets.get(one, one) for one in link]
        for port, link in spec.inputs.items()
    }
    return spec.model_copy(update={"inputs": inputs, "params": _connect_values(spec.params, targets)})


def _connect_values(params: Mapping[str, Any], targets: Mapping[str, str]) -> dict[str, Any]:
    """Return parameters whose ``{from: step.field}`` reads another step; the field stays."""
    done = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and set(value) == {"from"} and str(value["from"]) in targets:
            done[name] = {"from": targets[str(value["from"])]}
        else:
            done[name] = value
    return done
