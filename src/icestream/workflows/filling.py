"""From a template and values to the document of a session, with every problem told at once."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from icestream.errors import WorkflowError
from icestream.flow.storage import SessionDocument
from icestream.flow.workflow import StepSpec, Workflow, build_graph, describe_refused
from icestream.records import PossibleAcquisition
from icestream.workflows.alternatives import take_first_inputs
from icestream.workflows.implied import OPTIONS, given_roots, type_of
from icestream.workflows.placeholders import Placeholder, describe_allowed, read_value
from icestream.workflows.template import Template, TemplateStep, asks_in, closest, plain_step, substitute_all

Settings = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a template as it was filled in, of one placeholder or of the whole; ``hint`` says what to type."""

    text: str
    placeholder: str | None = None
    subject: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.subject, self.text))) + (f"; {self.hint}" if self.hint else "")


class UnfilledTemplate(WorkflowError):
    """Values of a template are missing or not allowed, or its workflow cannot run; `problems` are all of them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def fill_template(
    template: Template,
    values: Mapping[str, Any],
    *,
    name: str = "session",
    settings: Settings | None = None,
    roots: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> SessionDocument:
    """Return the document of a session: the template with its values in place, checked as a whole.

    Parameters
    ----------
    values
        Value of each placeholder, typed or as text; one that is None is unset, also where there is a default.
    settings
        Further parameters: step → parameter → value. They win over what the template says.
    roots
        Further named folders of raw data.
    base
        Folder that relative paths are below; the current one if left out.

    Raises
    ------
    UnfilledTemplate
        A value is missing or not allowed, or the workflow cannot run; all problems, one a line.
    """
    typed, refused = _typed_values(template, values, base or Path.cwd())
    steps = {step: spec for step, spec in template.steps.items() if spec.is_wanted(typed)}
    left_out = set(template.steps) - set(steps)
    steps, unknown = _with_settings(steps, settings or {})
    problems = [Problem(text) for text in unknown] + refused
    known = {*typed, *(one.placeholder for one in refused)}
    problems += _missing(template, steps, known, roots or {})
    more = [
        f"input {key!r} ({one.record}, read by {', '.join(one.read_by)}) is open; add this part to a workflow that has it"
        for key, one in template.open_inputs.items()
    ]
    optional = {step: bool(spec.conditions) for step, spec in steps.items()}
    filled = {
        step: take_first_inputs(_without(plain_step(spec, typed), left_out), optional=optional) for step, spec in steps.items()
    }
    folders = {**substitute_all(template.roots, typed), **(roots or {})}
    acquisition, impossible = _acquisition(substitute_all(template.acquisition, typed))
    more += impossible + _check_graph(filled)
    if not any("is not given" in str(problem) for problem in (*problems, *more)):
        more += _check_sources(filled, folders)
    if problems or more:
        raise UnfilledTemplate([*problems, *map(Problem, more)])
    return SessionDocument(name=name, acquisition=acquisition, roots=folders, steps=filled)


def read_values(template: Template, values: Mapping[str, Any], *, base: Path) -> dict[str, Any]:
    """Return the typed values of all placeholders that have one: given, from the environment, or the default.

    Raises
    ------
    UnfilledTemplate
        A value is not allowed or has no placeholder; all problems, one a line.
    """
    typed, problems = _typed_values(template, values, base)
    if problems:
        raise UnfilledTemplate(problems)
    return typed


def default_of(placeholder: Placeholder) -> Any:
    """Return what is taken where nobody gives a value: what the environment says, else the default."""
    told = os.environ.get(placeholder.env, "") if placeholder.env else ""
    return told or placeholder.default


def describe_placeholder(name: str, placeholder: Placeholder) -> str:
    """Return a placeholder as messages name it."""
    return f"{name!r} ({placeholder.label})"


def _typed_values(template: Template, values: Mapping[str, Any], base: Path) -> tuple[dict[str, Any], list[Problem]]:
    known = template.placeholders
    unknown = [name for name in values if name not in known]
    problems = [Problem(f"is not a value that is asked for{closest(name, known)}", name, repr(name)) for name in unknown]
    typed = {}
    for name, placeholder in known.items():
        value = values[name] if name in values else default_of(placeholder)
        if value is None or value == "":
            continue
        try:
            typed[name] = read_value(placeholder, value, base=base)
        except ValueError as error:
            source = f" from {placeholder.env}" if name not in values and placeholder.env else ""
            hint = f"write {_how(name, placeholder)}" if name in OPTIONS else ""
            problems.append(Problem(str(error), name, f"{describe_placeholder(name, placeholder)}{source}", hint))
    return typed, problems


def _missing(
    template: Template, steps: Mapping[str, TemplateStep], known: set[str | None], roots: Mapping[str, str]
) -> list[Problem]:
    """Tell which values are missing; one that only a parameter asks for which was set otherwise is not."""
    places: list[Any] = [spec.params for spec in steps.values()]
    places += [template.acquisition, {root: value for root, value in template.roots.items() if root not in roots}]
    asked = {ask.partition(".")[0] for place in places for ask in asks_in(place)}
    return [
        Problem(
            f"is not given; it must be {describe_allowed(one)}", name, describe_placeholder(name, one), f"write {_how(name, one)}"
        )
        for name, one in template.placeholders.items()
        if name in asked and not one.optional and name not in known
    ]


def _how(name: str, placeholder: Placeholder) -> str:
    value = {"folder": "FOLDER", "file": "FILE", "path": "FILE", "range": "SMALLEST LARGEST"}.get(placeholder.type, "VALUE")
    if name in OPTIONS:
        return f"{OPTIONS[name]} {value}"
    return f"--set {name}={value.replace(' ', ',')}"


def _with_settings(steps: Mapping[str, TemplateStep], settings: Settings) -> tuple[dict[str, TemplateStep], list[str]]:
    made, problems = dict(steps), []
    for step, values in settings.items():
        if step in made:
            made[step] = made[step].model_copy(update={"params": {**made[step].params, **values}})
        else:
            problems.append(f"--set {step}.{next(iter(values), '')}: no step {step!r} in this session; it has {', '.join(steps)}")
    return made, problems


def _without(spec: StepSpec, dropped: set[str]) -> StepSpec:
    """Return a step without the inputs that steps fed which are left out."""

    def kept(target: str) -> bool:
        return target.partition(".")[0] not in dropped

    inputs: dict[str, str | list[str]] = {}
    for port, targets in spec.inputs.items():
        if isinstance(targets, str):
            if kept(targets):
                inputs[port] = targets
        elif remaining := [target for target in targets if kept(target)]:
            inputs[port] = remaining
    return spec.model_copy(update={"inputs": inputs})


def _acquisition(values: dict[str, Any]) -> tuple[PossibleAcquisition, list[str]]:
    try:
        return PossibleAcquisition.model_validate(values), []
    except ValidationError as error:
        return PossibleAcquisition(), describe_refused(error)


def _check_graph(steps: dict[str, StepSpec]) -> list[str]:
    try:
        build_graph(Workflow(steps=steps))
    except WorkflowError as error:
        return str(error).split("\n")
    return []


def _check_sources(steps: Mapping[str, StepSpec], roots: Mapping[str, str]) -> list[str]:
    problems = []
    for name, spec in steps.items():
        step_type = type_of(spec)
        problems += [
            f"step {name!r} ({spec.use}) is given a file in the folder {root!r}, which is not given; write --root {root}=FOLDER"
            for root in (given_roots(step_type, spec.params) if step_type is not None else ())
            if root not in roots
        ]
        field = None if step_type is None or not step_type.is_source else step_type.params.model_fields.get("root")
        wanted = None if field is None else spec.params.get("root", field.default)
        if wanted is not None and wanted not in roots:
            option = f"--{wanted} FOLDER" if wanted in ("movies", "micrographs") else f"--root {wanted}=FOLDER"
            problems.append(
                f"step {name!r} ({spec.use}) looks for files in the folder {wanted!r}, which is not given; write {option}"
            )
    return problems
