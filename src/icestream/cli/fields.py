"""The fields of a declared model (parameters, records, settings) in words that tables and documentation show."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
_TYPES = {"integer": "whole number", "string": "text", "boolean": "yes/no", "null": "unset", "object": "mapping"}


@dataclass(frozen=True)
class FieldText:
    """One field, every part as text; an empty text means that there is nothing to say."""

    name: str
    type: str
    unit: str
    default: str
    range: str
    description: str


def describe_fields(model: type[BaseModel]) -> list[FieldText]:
    """Return the fields of ``model`` in the order they were declared."""
    schema = model.model_json_schema(mode="validation")
    properties, definitions = schema.get("properties", {}), schema.get("$defs", {})
    named = [(info.alias or name, info) for name, info in model.model_fields.items()]
    return [_describe(name, info, properties[name], definitions) for name, info in named]


def _describe(name: str, info: FieldInfo, schema: dict[str, Any], definitions: dict[str, Any]) -> FieldText:
    branches = [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]
    return FieldText(
        name=name,
        type=_type_of(schema, definitions),
        unit=schema.get("unit") or next(filter(None, map(_unit_of, branches)), ""),
        default=_default_of(info, schema),
        range=", ".join(filter(None, map(_range_of, branches))),
        description=(info.description or "").rstrip("."),
    )


def _type_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        return _type_of(definitions[name], definitions) if "enum" in definitions[name] else name
    if "enum" in schema or "const" in schema:
        return " | ".join(map(str, schema.get("enum", [schema.get("const")])))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type_of(branch, definitions) for branch in schema["anyOf"]))
    if schema.get("type") == "array":
        return _array_type(schema, definitions)
    marked = next((word for word, mark in (("file", "file"), ("table", "block"), ("path", "format")) if schema.get(mark)), None)
    return marked or _TYPES.get(str(schema.get("type")), str(schema.get("type", "anything")))


def _array_type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        return "(" + ", ".join(_type_of(member, definitions) for member in schema["prefixItems"]) + ")"
    return f"list of {_type_of(schema.get('items', {}), definitions)}"


def _unit_of(schema: dict[str, Any]) -> str:
    members = [schema, *schema.get("prefixItems", []), *([schema["items"]] if isinstance(schema.get("items"), dict) else [])]
    return next((str(member["unit"]) for member in members if "unit" in member), "")


def _range_of(schema: dict[str, Any]) -> str:
    own = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
    members = {_range_of(member) for member in schema.get("prefixItems", [])} - {""}
    return ", ".join(own or sorted(members))


def _default_of(info: FieldInfo, schema: dict[str, Any]) -> str:
    if info.is_required():
        return "required"
    if "default" in schema:
        value: Any = schema["default"]
        return (
            "unset"
            if value is None
            else str(value)
            if isinstance(value, str) and value
            else json.dumps(value, ensure_ascii=False)
        )
    return "empty" if isinstance(info.default_factory, type) else "from the machine"
