"""Where the session's acquisition values, which win, are not those that the files say."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from icestream.flow.scheduling import instructions
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing
from icestream.records import Acquisition

_TOLERANCE = {"dose_per_frame_e_per_ang2": 0.05, "pre_exposure_e_per_ang2": 0.05}
_ROUNDING = 0.01
"""Relative difference of two values that are the same but for rounding; doses are rounded more coarsely."""


def warn_of_contradictions(writing: Writing, session: Acquisition, told: Mapping[str, Any], exposure: str) -> None:
    """Warn, once for each value of the session, that a file says something else."""
    for begins, ends in describe_contradictions(session, told, exposure):
        table = schema.notice
        writing.flush()
        known = select(table.c.seq).where(table.c.message.startswith(begins, autoescape=True)).limit(1)
        if writing.connection.execute(known).first() is None:
            writing.notify(instructions.Notify("warning", begins + ends))


def describe_contradictions(session: Acquisition, told: Mapping[str, Any], exposure: str) -> list[tuple[str, str]]:
    """Return a sentence in two parts, of which the first names value and session, for each value that a file contradicts."""
    found = []
    properties = Acquisition.model_json_schema()["properties"]
    for name, ours in session.model_dump(exclude_none=True).items():
        theirs = told.get(name)
        if theirs is None or abs(ours - theirs) <= _TOLERANCE.get(name, _ROUNDING) * max(abs(ours), abs(theirs)):
            continue
        unit = f" {said}" if (said := properties[name]["anyOf"][0].get("unit")) else ""
        begins = f"{properties[name]['description']}: the session says {ours:g}{unit}, but "
        found.append((begins, f"{exposure} says {theirs:g}{unit}; the value of the session is used for all movies"))
    return found
