"""The steps that a workflow can be built of, in words: what each takes, gives and asks for, and where it comes from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from icestream.errors import IcestreamError
from icestream.flow.declaration import Port, StepType, find_step, plugin_of, step_names
from icestream.flow.workflow import outputs_of_type
from icestream.records import Record
from icestream.workflows.placeholders import LONGEST_TEXT, Placeholder

_BOUNDS = {"minimum": "ge", "exclusiveMinimum": "gt", "maximum": "le", "exclusiveMaximum": "lt"}
_TYPES = {"number": "float", "integer": "int", "boolean": "bool", "string": "str"}
_OWN, _EXTERNAL = "icestream.steps.", "icestream.external."
_FAMILIES = {"classify2d": "2D classes", "ctf": "CTF", "streams": "flow", "export": "export"}
ANY_RECORD = "any record"
SAME = "same as the input"


@dataclass(frozen=True)
class PaletteInput:
    """An input of a type of step."""

    name: str
    record: str
    many: bool
    optional: bool
    bound: bool
    """It takes a whole that is published in versions; each exposure keeps the version that it used first."""


@dataclass(frozen=True)
class PaletteStep:
    """A type of step; ``problem`` says why it cannot be used."""

    use: str
    title: str
    summary: str
    category: str
    kind: str
    version: int
    plugin: str
    """The plugin it comes from; empty for one of icestream's own."""
    inputs: tuple[PaletteInput, ...]
    outputs: dict[str, str]
    parameters: tuple[str, ...]
    problem: str | None = None


def list_palette() -> list[PaletteStep]:
    """Return all installed types of step, plugins' too, by category and name; one that cannot be loaded says why."""
    return sorted((_entry(name) for name in step_names()), key=lambda one: (one.category, one.use))


def describe_type(use: str) -> PaletteStep:
    """Return one type of step in words.

    Raises
    ------
    IcestreamError
        There is no such type, or it cannot be loaded.
    """
    step_type = find_step(use)
    ports = {port.name: port for port in step_type.ports}
    outputs = outputs_of_type(step_type, dict.fromkeys(ports), {})
    generic = any(port.generic for port in step_type.ports)
    return PaletteStep(
        use=use,
        title=title_of(step_type.name),
        summary=step_type.summary,
        category=_category(step_type, plugin_of(use)),
        kind=step_type.kind.value,
        version=step_type.version,
        plugin=plugin_of(use),
        inputs=tuple(PaletteInput(one.name, record_of(one), one.many, one.optional, one.bound) for one in step_type.ports),
        outputs={name: SAME if record is Record and generic else record.__name__ for name, record in outputs.items()},
        parameters=tuple(step_type.params.model_fields),
    )


def record_of(port: Port) -> str:
    """Return what an input takes, in words."""
    return ANY_RECORD if port.generic else port.record.__name__


def title_of(name: str) -> str:
    """Return the name of a type of step as people read it."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def _entry(name: str) -> PaletteStep:
    try:
        return describe_type(name)
    except IcestreamError as error:
        return PaletteStep(name, title_of(name), "", "cannot be used", "", 0, "", (), {}, (), problem=str(error))


def _category(step_type: StepType, plugin: str) -> str:
    module = getattr(step_type.call, "__module__", "")
    if module.startswith(_OWN):
        family = module.removeprefix(_OWN).partition(".")[0]
        return _FAMILIES.get(family, family)
    return "other programs" if module.startswith(_EXTERNAL) else plugin or "other"


def ask_for_parameter(use: str, parameter: str, *, label: str, default: Any = None, told: str | None = None) -> Placeholder:
    """Return the placeholder that asks for a parameter of a step, in its unit and within its range.

    Raises
    ------
    ValidationError
        The parameter is none that a form has a field for.
    """
    schema = find_step(use).params.model_json_schema()["properties"][parameter]
    branches = [branch for branch in schema.get("anyOf", [schema]) if branch.get("type") != "null"]
    one = branches[0]
    members = one.get("prefixItems") or ([one["items"]] if isinstance(one.get("items"), dict) else [one])
    unit = schema.get("unit") or one.get("unit") or members[0].get("unit")
    kind: dict[str, Any] = {"type": _TYPES.get(str(one.get("type")), "str")}
    if one.get("type") == "array":
        kind = {"type": "list", "of": _TYPES.get(str(members[0].get("type")), "float")}
    elif "enum" in one:
        kind = {"type": "choice", "choices": one["enum"]}
    bounds = {ours: one[theirs] for theirs, ours in _BOUNDS.items() if theirs in one} if kind["type"] in ("int", "float") else {}
    return Placeholder(
        label=label,
        unit=unit,
        default=default,
        optional=len(branches) < len(schema.get("anyOf", [schema])),
        help=told,
        group="Workflow",
        **kind,
        **bounds,
    )


def askable(use: str) -> Iterator[tuple[str, Placeholder]]:
    """Yield the parameters of a type of step that a template can ask for, each with its placeholder."""
    model = find_step(use).params
    properties = model.model_json_schema(mode="serialization").get("properties", {})
    for name in model.model_fields:
        described = properties.get(name, {})
        default, text = described.get("default"), str(described.get("description", ""))
        try:
            label = text[:200] if text.isprintable() and text else name
            yield name, ask_for_parameter(use, name, label=label, default=default if _fits(default) else None)
        except (ValueError, KeyError):
            continue


def _fits(default: Any) -> bool:
    return not isinstance(default, dict) and len(str(default)) <= LONGEST_TEXT
