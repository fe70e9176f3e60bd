"""A workflow that is being built: what is wrong with it and where, what its inputs could be connected to, and finishing it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from icestream.documents import LARGEST_BYTES
from icestream.errors import WorkflowError
from icestream.flow.storage import Session
from icestream.flow.workflow import GraphProblem, Offers, StepSpec, Workflow, examine_workflow, find_offers
from icestream.workflows.alternatives import take_first_inputs
from icestream.workflows.export import export_template
from icestream.workflows.palette import title_of
from icestream.workflows.placeholders import PATH_TYPES, read_value
from icestream.workflows.scipion.parse import parse_scipion
from icestream.workflows.scipion.template import make_template
from icestream.workflows.scipion.translate import Row, translate_scipion
from icestream.workflows.template import Template, TemplateStep, asks_in, check_template, plain_step, read_template

LONGEST_NOTE = 2000


@dataclass(frozen=True)
class DraftInput:
    """An input of a step: what it takes, and the outputs that fit it by type, the step's own and those below it left out."""

    name: str
    record: str
    many: bool
    optional: bool
    offers: tuple[str, ...]


@dataclass(frozen=True)
class DraftStep:
    """A step of a draft as its type declares it; a type that is not installed has neither inputs nor outputs."""

    name: str
    title: str
    kind: str | None
    inputs: tuple[DraftInput, ...]
    outputs: dict[str, str]
    values: tuple[str, ...]
    """Numbers of what it makes, which parameters of steps below may be taken from."""


@dataclass(frozen=True)
class CheckedDraft:
    """What is wrong with a draft, of one step and field where that is known, and how its steps could be connected."""

    problems: tuple[GraphProblem, ...]
    steps: tuple[DraftStep, ...]


@dataclass(frozen=True)
class ImportedWorkflow:
    """A workflow that somebody brought, as a template; ``told`` is what became of each part that is not as it was."""

    template: Template
    summary: str
    told: tuple[str, ...] = ()


def read_draft(data: Mapping[str, Any]) -> Template:
    """Return a draft as a template, however unfinished it is.

    Raises
    ------
    WorkflowError
        It has not the form of a template; all problems with the fields they are of.
    """
    try:
        return Template.model_validate(data)
    except ValidationError as error:
        issues = [f"{'.'.join(map(str, issue['loc'])) or 'document'}: {issue['msg']}" for issue in error.errors()[:50]]
        raise WorkflowError("; ".join(issues)) from None


def check_draft(template: Template, *, more: Iterable[GraphProblem] = ()) -> CheckedDraft:
    """Check a draft with all its optional steps and the defaults of its placeholders, and say what fits what.

    ``more`` are problems that were found elsewhere.
    """
    placeholders = template.placeholders
    given = {name: one.default for name, one in placeholders.items() if one.default is not None}
    typed = {name: read_value(placeholders[name], value, base=Path("/")) for name, value in given.items()}
    optional = {name: bool(spec.conditions) for name, spec in template.steps.items()}
    steps = {name: take_first_inputs(plain_step(spec, typed), optional=optional) for name, spec in template.steps.items()}
    later = {name: frozenset(_unanswered(spec, steps[name])) for name, spec in template.steps.items()}
    workflow = Workflow(steps=steps)
    examined = examine_workflow(workflow, later=later)
    offers = find_offers(workflow, examined)
    found = [*more, *(GraphProblem(text, None, "placeholders") for text in check_template(template)), *examined.problems]
    found += [
        GraphProblem(f"input {key!r} ({one.record}, read by {', '.join(one.read_by)}) is open", None, "open")
        for key, one in template.open_inputs.items()
    ]
    return CheckedDraft(tuple(dict.fromkeys(found)), tuple(_describe(name, spec, offers) for name, spec in steps.items()))


def _unanswered(spec: TemplateStep, filled: StepSpec) -> set[str]:
    """Return the parameters that ask for what nobody has given yet."""
    return {name for name, value in spec.params.items() if name not in filled.params and any(asks_in(value))}


def _describe(name: str, spec: StepSpec, offers: Offers) -> DraftStep:
    step_type = offers.types.get(name)
    title = title_of(spec.use.rpartition(":")[2])
    if step_type is None:
        return DraftStep(name, title, None, (), {}, ())
    inputs = tuple(
        DraftInput(
            port.name,
            "any record" if port.generic else port.record.__name__,
            port.many,
            port.optional,
            tuple(map(str, offers.inputs[name][port.name])),
        )
        for port in step_type.ports
    )
    outputs = {output: record.__name__ for output, record in offers.outputs[name].items()}
    return DraftStep(name, title, step_type.kind.value, inputs, outputs, offers.values[name])


def template_of_session(session: Session) -> Template:
    """Return the workflow of a session as a template for others: its folders are asked for, and not named."""
    template = export_template(session)
    kept = {
        name: one.model_copy(update={"default": None}) if one.type in PATH_TYPES else one
        for name, one in template.placeholders.items()
    }
    return template.model_copy(update={"placeholders": kept})


def steps_as_draft(steps: Mapping[str, StepSpec]) -> Template:
    """Return the workflow of a session as it is."""
    plain = {name: {key: getattr(spec, key) for key in StepSpec.model_fields} for name, spec in steps.items()}
    return Template(steps={name: TemplateStep(**one) for name, one in plain.items()})


def drafted_steps(template: Template) -> dict[str, StepSpec]:
    """Return the steps of a draft that asks for nothing, as a session has them."""
    return {name: plain_step(spec, {}) for name, spec in template.steps.items()}


def import_workflow(text: str, *, file_name: str) -> ImportedWorkflow:
    """Read a workflow that somebody brings: a template or workflow of icestream (YAML), or an export of Scipion (JSON).

    Raises
    ------
    WorkflowError
        It is neither; with the field and line where that is known.
    """
    if len(text) > LARGEST_BYTES:
        raise WorkflowError(f"{file_name}: is larger than {LARGEST_BYTES >> 20} MiB")
    is_template = file_name.endswith(".template")
    if is_template or "object.className" in text or file_name.endswith(".json"):
        return _import_scipion(text, file_name, is_template=is_template)
    summary = text.partition("\n")[0].lstrip("# ") if text.startswith("#") else ""
    return ImportedWorkflow(read_template(text, origin=file_name), summary)


def _import_scipion(text: str, file_name: str, *, is_template: bool) -> ImportedWorkflow:
    translation = translate_scipion(parse_scipion(text, name=file_name, template=is_template))
    if not translation.steps:
        raise WorkflowError(f"{file_name}: {'; '.join(translation.problems)}")
    template = make_template(translation).template
    rows = {row.step: row for row in translation.rows if row.step is not None}
    steps = {
        name: spec.model_copy(update={"note": _note(rows[name])}) if name in rows else spec
        for name, spec in template.steps.items()
    }
    told = [_tell(row) for row in translation.rows if row.outcome != "mapped" or row.notes or row.kept]
    whole = template.model_copy(update={"steps": steps})
    return ImportedWorkflow(whole, f"Imported from Scipion's {file_name}", tuple(told))


def _tell(row: Row) -> str:
    label = " ".join(row.protocol.label.split())
    named = f"{row.protocol.id} {row.protocol.class_name}" + (f" ({label})" if label else "")
    kept = [f"kept in the note of the step: {', '.join(row.kept)}"] if row.kept and row.step else []
    return _printable(f"{named}: {'; '.join([row.outcome, *row.notes, *kept])}")


def _note(row: Row) -> str | None:
    """Return what is written down with a step: its protocol, what changed, and the parameters without a counterpart."""
    lines = [f"Scipion {row.protocol.id}, {row.protocol.class_name}: {' '.join(row.protocol.label.split())}".rstrip(": ")]
    lines += [row.protocol.comment] if row.protocol.comment else []
    lines += [f"- {note}" for note in row.notes]
    lines += [f"parameters without a counterpart: {json.dumps(row.kept)}"] if row.kept else []
    text = "\n".join(map(_printable, lines))
    return text if len(text) <= LONGEST_NOTE else f"{text[: LONGEST_NOTE - 1]}…"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
