"""What the microscope did: the session's values, and where those are unset, what the newest file says."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from sqlalchemy import select

from icestream.flow.storage import schema
from icestream.observe.queries import SessionView
from icestream.records import Acquisition


@dataclass(frozen=True)
class Condition:
    """One acquisition value, with its unit and who said it."""

    name: str
    label: str
    value: float | None
    unit: str
    said_by: Literal["session", "files", "nobody"]


def read_conditions(view: SessionView) -> tuple[Condition, ...]:
    """Return every acquisition value."""
    given = view.session.document.acquisition.model_dump()
    in_files = _newest_in_files(view)
    found = []
    schemas = _schemas()
    for name in Acquisition.model_fields:
        said_by: Literal["session", "files", "nobody"] = "nobody"
        if given[name] is not None:
            said_by = "session"
        elif in_files.get(name) is not None:
            said_by = "files"
        value = given[name] if said_by == "session" else in_files.get(name)
        numbers = schemas[name]["anyOf"][0]
        found.append(Condition(name, schemas[name]["description"], value, numbers.get("unit", ""), said_by))
    return tuple(found)


@cache
def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = Acquisition.model_json_schema()["properties"]
    return found


def _newest_in_files(view: SessionView) -> dict[str, float]:
    table = schema.exposure
    with view.reading() as connection:
        if connection is None:
            return {}
        stored = connection.execute(select(table.c.acquisition).order_by(table.c.ordinal.desc()).limit(1)).scalar()
    values: dict[str, float] = json.loads(stored) if stored else {}
    return values
