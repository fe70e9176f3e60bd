"""What a revision keeps of the version of its step type: the defaults that parameters had then."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic.config import JsonDict
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

if TYPE_CHECKING:
    from icestream.flow.workflow.graph import Node

_BEFORE = "before"


def before(version: int, value: Any) -> JsonDict:
    """Say, as ``json_schema_extra`` of a parameter, what stood for its default before ``version`` of its step type.

    For a parameter that came with ``version`` it is the value with which the step does what it did without it. Sessions that were
    begun with earlier versions keep that value until a person gives another.
    """
    return {_BEFORE: [version, value]}


def default_of(field: FieldInfo, version: int | None = None) -> Any:
    """Return the default of a parameter as JSON: that of a version of its step type, or of today."""
    extra = field.json_schema_extra
    change = extra.get(_BEFORE) if isinstance(extra, dict) else None
    if isinstance(change, list) and version is not None and version < int(str(change[0])):
        return change[1]
    return to_jsonable_python(field.get_default(call_default_factory=True))


def as_pinned(node: "Node", row: Mapping[str, Any] | None) -> "Node":
    """Return a step with the defaults of the version that its active revision, a row of the store, is pinned to."""
    if row is None or row["type"] != node.type.name or row["type_version"] >= node.type.version:
        return node
    fields = node.type.params.model_fields
    kept = {
        name: value if name in node.given or fields[name].is_required() else default_of(fields[name], row["type_version"])
        for name, value in node.params.items()
    }
    return replace(node, params=kept)
