"""The placeholders of a template as JSON schema, from which a form can be drawn and checked."""

from pathlib import Path
from typing import Any

from icestream.workflows.filling import default_of
from icestream.workflows.placeholders import PATH_TYPES, Placeholder, read_value
from icestream.workflows.template import Template

_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "size_ang": "number",
    "duration_s": "number",
}


def placeholders_schema(template: Template) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of the values that a template asks for.

    ``unit``, ``group``, ``advanced`` and ``env`` are added to each value for the form.
    """
    placeholders = template.placeholders
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "description": template.description or "",
        "properties": {name: _property(one) for name, one in placeholders.items()},
        "required": [name for name, one in placeholders.items() if not one.optional and default_of(one) is None],
        "additionalProperties": False,
    }


def _property(placeholder: Placeholder) -> dict[str, Any]:
    told = {
        "title": placeholder.label,
        "description": placeholder.help,
        "default": _typed_default(placeholder),
        "unit": placeholder.shown_unit or None,
        "group": placeholder.group,
        "advanced": placeholder.advanced or None,
        "env": placeholder.env,
    }
    return {**_kind(placeholder), **{key: value for key, value in told.items() if value is not None}}


def _typed_default(placeholder: Placeholder) -> Any:
    """Return the default as a form shows it; what the environment says is left out where it is not allowed."""
    told = default_of(placeholder)
    try:
        return None if told is None else read_value(placeholder, told, base=Path.cwd())
    except ValueError:
        return placeholder.default


def _kind(placeholder: Placeholder) -> dict[str, Any]:
    bounds = {theirs: getattr(placeholder, ours) for ours, theirs in _BOUNDS.items() if getattr(placeholder, ours) is not None}
    choices = {} if placeholder.choices is None else {"enum": placeholder.choices}
    kind = placeholder.type
    if kind in ("range", "list"):
        member = {"type": "number" if kind == "range" else _TYPES[placeholder.of], **bounds, **choices}
        return {"type": "array", "items": member, **({"minItems": 2, "maxItems": 2} if kind == "range" else {})}
    if kind == "choice":
        return choices
    if kind in PATH_TYPES:
        return {"type": "string", "format": kind}
    least = {"size_ang": {"exclusiveMinimum": 0}, "duration_s": {"minimum": 0}}.get(kind, {})
    return {"type": _TYPES[kind], **least, **bounds, **choices}
