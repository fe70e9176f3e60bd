"""Checking what is shown of a record against its fields, when the record is declared."""

import re
import types
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from string import Formatter
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from icestream.errors import DeclarationError
from icestream.records.shown import (
    Curve,
    Density,
    Gallery,
    Image,
    Measure,
    MotionField,
    Number,
    Overlay,
    Path,
    Picture,
    Shown,
    StagePlace,
    Tally,
    Text,
    When,
    parts_of,
)

_PATHS: dict[type, tuple[str, ...]] = {
    When: ("field",),
    Number: ("field", "second"),
    Measure: ("field", "second"),
    Picture: ("field",),
    Density: ("field",),
    Curve: ("x", "measured", "fitted", "mark", "error"),
    Path: ("field",),
    MotionField: ("coefficients",),
    Image: ("picture", "height", "width", "full"),
    Overlay: ("diameter_ang", "count"),
    Gallery: ("count", "rows"),
    StagePlace: ("y", "x", "square", "hole", "beam_y", "beam_x", "image_y", "image_x"),
    Tally: ("field",),
}
"""Which attributes of a part of a description name fields of the record."""

_METRIC = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")

PartT = TypeVar("PartT")


def settle_shown(shown: Shown, record: type[BaseModel]) -> Shown:
    """Check every field that is named, and return what is shown with the unit of every number.

    Raises
    ------
    DeclarationError
        The record has no such field, or it is of another kind.
    """
    check_shown(shown, record)
    return _settle_units(shown, record)


def check_shown(part: object, record: type[BaseModel]) -> None:
    """Check the fields that a part of a description names.

    Raises
    ------
    DeclarationError
        The record has no such field, or it is of another kind.
    """
    for one in parts_of(part):
        _check(one, record)


def _settle_units(part: PartT, record: type[BaseModel]) -> PartT:
    """Return a part of a description in which every number says its unit; where it does not, it is that of the field."""
    if isinstance(part, tuple):
        return typing.cast("PartT", tuple(_settle_units(inner, record) for inner in part))
    if not is_dataclass(part) or isinstance(part, type):
        return part
    settled = replace(part, **{one.name: _settle_units(getattr(part, one.name), record) for one in fields(part)})
    if isinstance(settled, Number) and settled.unit is None:
        unit = unit_of(find_field(record, settled.field)) if settled.field else ""
        return typing.cast("PartT", replace(settled, unit=unit))
    return settled


def _check(part: object, record: type[BaseModel]) -> None:
    for path in _paths_of(part):
        find_field(record, path)
    if isinstance(part, Picture | Density) and not _is_marked(find_field(record, part.field), "file"):
        raise DeclarationError(
            f"{record.__name__}: shows the {type(part).__name__.lower()} {part.field!r}, which is not a FileRef"
        )
    if isinstance(part, Measure) and (part.how == "length" or not _METRIC.fullmatch(part.metric)):
        raise DeclarationError(
            f"{record.__name__}: cannot follow {part.label!r} ({part.how}) as {part.metric!r}; a metric is of small letters, as "
            "ctf_resolution_angstroms, and the length of a list is none"
        )
    if isinstance(part, Gallery):
        rows = _model_in(find_field(record, part.rows).annotation)
        for column in (*(column.field for column in part.columns), part.order, *([part.density] if part.density else [])):
            if rows is None or column not in rows.model_fields:
                raise DeclarationError(f"{record.__name__}: the parts in {part.rows!r} have no field {column!r}")
    if isinstance(part, Tally):
        counted = _model_in(find_field(record, part.field).annotation)
        if counted is None or not {"reason", "count"} <= counted.model_fields.keys():
            raise DeclarationError(f"{record.__name__}: the parts in {part.field!r} have no reason or no count to add up")
    if isinstance(part, Overlay):
        names = [column.name for column in getattr(record, "block_columns", ())]
        for column in (part.y, part.x):
            if column not in names:
                raise DeclarationError(f"{record.__name__}: its table has no column {column!r}; it has {', '.join(names)}")


def _paths_of(part: object) -> Iterator[str]:
    for name in _PATHS.get(type(part), ()):
        if getattr(part, name):
            yield getattr(part, name)
    if isinstance(part, Number) and not part.field and part.how != "weight":
        raise DeclarationError(f"{part.label!r}: names no field")
    if isinstance(part, Number) and part.pixels == "own":
        yield "bin"
    if isinstance(part, Text):
        yield from fields_in(part.template)


def fields_in(template: str) -> list[str]:
    """Return the fields that a `Text` names."""
    return [name for _, name, _, _ in Formatter().parse(template) if name]


def find_field(record: type[BaseModel], path: str) -> FieldInfo:
    """Return the field of a record at a path.

    Raises
    ------
    DeclarationError
        The record has none there.
    """
    model: type[BaseModel] | None = record
    info: FieldInfo | None = None
    for name in path.split("."):
        info = None if model is None else model.model_fields.get(name)
        if info is None:
            allowed = ", ".join([] if model is None else model.model_fields)
            raise DeclarationError(
                f"{record.__name__}: shows {path!r}, but there is no field {name!r}; its fields are {allowed or 'none'}"
            )
        model = _model_in(info.annotation)
    if info is None:
        raise DeclarationError(f"{record.__name__}: shows a field without a name")
    return info


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the record within ``X``, ``X | None`` or ``list[X]``."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in typing.get_args(annotation) if (found := _model_in(inner)) is not None), None)


def unit_of(info: FieldInfo) -> str:
    """Return the unit that a field is declared with; nothing if it has none."""
    return str(_marked(info, "unit") or "")


def _is_marked(info: FieldInfo, mark: str) -> bool:
    return bool(_marked(info, mark))


def _marked(info: FieldInfo, mark: str) -> object:
    """Return what the schema of a field says under ``mark``, whether it stands at the field or within its type."""
    if isinstance(info.json_schema_extra, dict) and mark in info.json_schema_extra:
        return info.json_schema_extra[mark]
    return _marked_within(info.annotation, mark)


def _marked_within(annotation: Any, mark: str) -> object:
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, FieldInfo) and isinstance(extra.json_schema_extra, dict) and mark in extra.json_schema_extra:
            return extra.json_schema_extra[mark]
    return next((found for inner in typing.get_args(annotation) if (found := _marked_within(inner, mark))), None)
