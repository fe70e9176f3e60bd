"""A template: a workflow with typed placeholders, which describes a whole session.

One rule says where a value goes: a map with the single key ``ask``, as ``{ask: voltage}``, stands for the value of the
placeholder of that name. It may stand for a parameter of a step (or a part of one), for a value of ``acquisition`` and for a
folder of ``roots``. A placeholder of type path or file has two parts: ``{ask: gain.folder}`` is the folder that the file lies in,
``{ask: gain.pattern}`` the pattern that finds just this file. An optional placeholder without a value leaves out what it is for.
"""

import glob
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icestream.alarms.document import AlarmsDocument
from icestream.documents import LARGEST_BYTES, find_line, parse_document
from icestream.errors import WorkflowError
from icestream.flow.workflow import StepSpec, Workflow
from icestream.records import Acquisition
from icestream.workflows.alternatives import take_first_inputs
from icestream.workflows.placeholders import NAME, Placeholder, read_value

PARTS = ("folder", "pattern")
MOST_ISSUES = 20
"""So many mistakes of a document are told at once."""


class TemplateStep(StepSpec):
    """A step of a template; its parameters may have ``{ask: name}`` in them."""

    only_with: str | None = Field(
        None, description="Placeholder without which (or with no) the step is left out, and the inputs it feeds"
    )
    only_without: str | None = Field(
        None, description="Placeholder with which (unless it is no) the step is left out, and the inputs it feeds"
    )

    @property
    def conditions(self) -> dict[str, str]:
        """The conditions by their keys, and the placeholders that decide them."""
        found = {"only_with": self.only_with, "only_without": self.only_without}
        return {key: name for key, name in found.items() if name is not None}

    def is_wanted(self, given: Mapping[str, Any]) -> bool:
        """Tell whether the step is part of a session with these values of placeholders."""
        needed = self.only_with is None or bool(given.get(self.only_with))
        return needed and not (self.only_without is not None and given.get(self.only_without))


class OpenInput(BaseModel):
    """An input of a part of a workflow that has to be connected before it can run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: str = Field(description="What it takes")
    read_by: list[str] = Field(description="The inputs and parameters that read it, as step.input")


class DisabledStep(BaseModel):
    """A step that is kept for people to read and is never run."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    use: str = Field(description="Step type, or what it was elsewhere")
    reason: str = Field(description="Why it is not run")
    inputs: dict[str, Any] = Field(default_factory=dict, alias="in", description="What it read")
    params: dict[str, Any] = Field(default_factory=dict, description="Its parameters, as they were")
    label: str | None = Field(None, description="Name of this step for people")
    after: list[str] = Field(default_factory=list, description="Steps that it waited for")


class Template(BaseModel):
    """A template document; a workflow without placeholders is one as well."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    description: str | None = Field(None, description="What it does, for people who choose among templates")
    placeholders: dict[str, Placeholder] = Field(default_factory=dict, description="What is asked for, in this order")
    acquisition: dict[str, Any] = Field(default_factory=dict, description="Values of the microscope")
    roots: dict[str, Any] = Field(default_factory=dict, description="Named folders of raw data")
    steps: dict[str, TemplateStep] = Field(description="The workflow")
    open_inputs: dict[str, OpenInput] = Field(
        default_factory=dict, alias="open", description="Inputs of a part of a workflow that have to be connected"
    )
    alarms: AlarmsDocument | None = Field(None, description="Rules of alarms of the session: what its alarms.yaml holds at first")
    disabled: dict[str, DisabledStep] = Field(default_factory=dict, description="Steps that are kept and never run")

    def workflow(self) -> Workflow:
        """Return all steps, with default values; what has no default is left out."""
        values = {name: one.default for name, one in self.placeholders.items() if one.default is not None}
        typed = {name: read_value(self.placeholders[name], value, base=Path("/")) for name, value in values.items()}
        optional = {name: bool(spec.conditions) for name, spec in self.steps.items()}
        filled = {name: plain_step(spec, typed) for name, spec in self.steps.items()}
        return Workflow(steps={name: take_first_inputs(spec, optional=optional) for name, spec in filled.items()})


def read_template(text: str, *, origin: str) -> Template:
    """Read a template or workflow document; ``origin`` names it in messages.

    Raises
    ------
    WorkflowError
        The text is not YAML, or not a template; all problems at once.
    """
    if len(text) > LARGEST_BYTES:
        raise WorkflowError(f"workflow {origin}: is larger than {LARGEST_BYTES >> 20} MiB")
    try:
        written = parse_document(text)
    except ValueError as error:
        raise WorkflowError(f"workflow {origin}: {error}") from None
    try:
        template = Template.model_validate(written)
    except ValidationError as error:
        issues = [
            f"{'.'.join(map(str, issue['loc'])) or 'document'}: {issue['msg']} (line {find_line(text, issue['loc'])})"
            for issue in error.errors()[:MOST_ISSUES]
        ]
        raise WorkflowError(f"workflow {origin}: " + "; ".join(issues)) from error
    problems = check_template(template)
    if problems:
        raise WorkflowError(f"workflow {origin}: " + "; ".join(problems))
    return template


def check_template(template: Template) -> list[str]:
    """Return what is wrong with the placeholders of a template."""
    known = template.placeholders
    problems = [
        f"placeholder {name!r}: a name is made of a-z, 0-9 and _, and starts with a letter"
        for name in known
        if not NAME.fullmatch(name)
    ]
    problems += [
        f"acquisition: there is no value {name!r}; the values are {', '.join(Acquisition.model_fields)}"
        for name in template.acquisition
        if name not in Acquisition.model_fields
    ]
    asked = set()
    for where, ask in _asks(template):
        name, _, part = ask.partition(".")
        asked.add(name)
        if name not in known:
            problems.append(f"{where}: asks for {ask!r}, which is not a placeholder{closest(name, known)}")
        elif part and (part not in PARTS or known[name].type not in ("path", "file")):
            problems.append(f"{where}: asks for {ask!r}; only a path or file has parts, which are {', '.join(PARTS)}")
    for step, spec in template.steps.items():
        for key, name in spec.conditions.items():
            asked.add(name)
            if name not in known:
                problems.append(f"step {step!r}: {key} {name!r} is not a placeholder{closest(name, known)}")
    problems += [
        f"placeholder {name!r}: nothing asks for it; write {{ask: {name}}} where its value goes"
        for name in known
        if name not in asked
    ]
    return problems


def _asks(template: Template) -> Iterator[tuple[str, str]]:
    places: list[tuple[str, Any]] = [("acquisition", template.acquisition), ("roots", template.roots)]
    places += [(f"step {name!r}", spec.params) for name, spec in template.steps.items()]
    for where, value in places:
        for ask in asks_in(value):
            yield where, ask


def asks_in(value: Any) -> Iterator[str]:
    """Yield what is asked for inside a value."""
    if is_ask(value):
        yield str(value["ask"])
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from asks_in(member)
    elif isinstance(value, list | tuple):
        for member in value:
            yield from asks_in(member)


def is_ask(value: Any) -> bool:
    """Tell whether a value is ``{ask: name}``."""
    return isinstance(value, Mapping) and set(value) == {"ask"}


def closest(name: str, known: Mapping[str, Any]) -> str:
    """Return the end of a message: the names there are, or the one that was probably meant."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known) or 'none'}"


class UnsetError(Exception):
    """A value is asked for that nobody gave."""


def substitute(value: Any, values: Mapping[str, Any]) -> Any:
    """Return a value with every ``{ask: name}`` replaced.

    Raises
    ------
    UnsetError
        One of them has no value.
    """
    if is_ask(value):
        name, _, part = str(value["ask"]).partition(".")
        if values.get(name) is None:
            raise UnsetError(name)
        return _part(str(values[name]), part) if part else values[name]
    if isinstance(value, Mapping):
        return {key: substitute(member, values) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(member, values) for member in value]
    return value


def _part(path: str, part: str) -> str:
    folder = path.endswith("/") or Path(path).is_dir()
    if part == "folder":
        return str(Path(path) if folder else Path(path).parent)
    if folder:
        raise UnsetError(part)
    return glob.escape(Path(path).name)


def substitute_all(entries: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map with every ``{ask: name}`` replaced; entries whose value nobody gave are left out."""
    done = {}
    for key, value in entries.items():
        try:
            done[key] = substitute(value, values)
        except UnsetError:
            continue
    return done


def plain_step(spec: TemplateStep, values: Mapping[str, Any]) -> StepSpec:
    """Return a step of a workflow, its parameters filled in."""
    own = {name: getattr(spec, name) for name in StepSpec.model_fields}
    return StepSpec(**{**own, "params": substitute_all(spec.params, values)})
