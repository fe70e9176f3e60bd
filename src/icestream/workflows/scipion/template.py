"""The template of a translated workflow: what Scipion's template asked for, and what every session is asked for."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from icestream.flow.declaration import find_step
from icestream.workflows.implied import imply_template
from icestream.workflows.palette import ask_for_parameter
from icestream.workflows.placeholders import NAME, Placeholder, read_value
from icestream.workflows.scipion.translation import AskedField, Translation
from icestream.workflows.template import Template, TemplateStep

_VARIABLE = re.compile(r"%\((\w+)\)s")


@dataclass
class AskedTemplate:
    """A template, and the placeholder that each field of Scipion's template became: (protocol, parameter) → name."""

    template: Template
    names: dict[tuple[str, str], str] = field(default_factory=dict)


def make_template(translation: Translation) -> AskedTemplate:
    """Return the workflow as a template.

    Folders, pattern, gain and the microscope are asked for as in every template, with Scipion's values as defaults. A field of
    Scipion's template is asked for under its own label and name, in our unit.
    """
    base = imply_template(translation.steps)
    made = AskedTemplate(base.model_copy(update={"disabled": translation.disabled, "alarms": translation.alarms}))
    placeholders = dict(base.placeholders)
    for option, value in translation.options.items():
        given = _placeholder_of(option)
        if given in placeholders and value is not None:
            placeholders[given] = _with_default(placeholders[given], value)
    steps = dict(base.steps)
    for asked in translation.fields:
        name = _own_placeholder(asked, placeholders)
        if name is not None:
            placeholders[name] = _relabelled(placeholders[name], asked)
        elif asked.target is not None and asked.target.startswith("--set "):
            name = _ask_for_parameter(asked, placeholders, steps)
        if name is not None:
            made.names[asked.protocol, asked.parameter] = name
    made.template = made.template.model_copy(update={"placeholders": placeholders, "steps": steps})
    return made


def _placeholder_of(option: str) -> str:
    return option.removeprefix("--root ").removeprefix("--").replace("-", "_")


def _own_placeholder(asked: AskedField, placeholders: dict[str, Placeholder]) -> str | None:
    if asked.target is None or asked.target.startswith("--set "):
        return None
    name = _placeholder_of(asked.target)
    return name if name in placeholders else None


def _with_default(placeholder: Placeholder, value: str) -> Placeholder:
    """Return a placeholder with a default; a path with environment variables in it is told, not taken."""
    variable = _VARIABLE.fullmatch(value)
    if variable is not None:
        return placeholder.model_copy(update={"env": variable[1]})
    if _VARIABLE.search(value) or not value.isprintable():
        told = " ".join(value.encode("unicode_escape").decode().split())[:200]
        return placeholder.model_copy(update={"help": f"In Scipion: {told}"})
    try:
        return placeholder.model_copy(update={"default": read_value(placeholder, value, base=Path("/"))})
    except ValueError:
        return placeholder


def _relabelled(placeholder: Placeholder, asked: AskedField) -> Placeholder:
    return placeholder.model_copy(update={"label": _label(asked), "optional": placeholder.optional and not _needed(asked)})


def _needed(asked: AskedField) -> bool:
    return asked.asked.default is None and asked.target not in ("--gain", "--pattern")


def _label(asked: AskedField) -> str:
    text = "".join(char if char.isprintable() else " " for char in asked.asked.label)
    return " ".join(text.split())[:200] or asked.parameter


def _ask_for_parameter(asked: AskedField, placeholders: dict[str, Placeholder], steps: dict[str, TemplateStep]) -> str | None:
    """Ask for a parameter of a step; return the name of the placeholder, None where our form has none for it."""
    step, _, parameter = str(asked.target).removeprefix("--set ").partition(".")
    present = steps[step].params.get(parameter)
    if isinstance(present, dict):
        return str(present.get("ask"))
    try:
        placeholder = _placeholder_for(asked, steps[step].use, parameter, present)
    except ValidationError:
        return None
    name = _free(asked.asked.cmd_id or f"{step}_{parameter}", placeholder, placeholders)
    placeholders[name] = placeholder
    params = {**steps[step].params, parameter: {"ask": name}}
    steps[step] = steps[step].model_copy(update={"params": params})
    return name


def _placeholder_for(asked: AskedField, use: str, parameter: str, present: Any) -> Placeholder:
    description = find_step(use).params.model_fields[parameter].description
    told = f"{description}. In our units; in Scipion it was {asked.parameter}." if description else None
    return ask_for_parameter(use, parameter, label=_label(asked), default=present, told=told)


def _free(wanted: str, placeholder: Placeholder, placeholders: dict[str, Placeholder]) -> str:
    """Return a name for a placeholder: fields of one name and meaning share one."""
    plain = re.sub(r"[^a-z0-9_]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", wanted).lower()).strip("_")[:60]
    plain = plain if NAME.fullmatch(plain) else f"value_{plain}".rstrip("_")
    name, number = plain, 2
    while name in placeholders and placeholders[name] != placeholder:
        name, number = f"{plain}_{number}", number + 1
    return name
