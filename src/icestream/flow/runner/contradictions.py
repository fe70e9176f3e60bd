"""Where the session's acquisition values, which take precedence, contradict those in the files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from icestream.flow.scheduling import NoticeCause, Notify
from icestream.flow.storage import Writing, schema
from icestream.records import Acquisition

_TOLERANCE = {"dose_per_frame_e_per_ang2": 0.05, "pre_exposure_e_per_ang2": 0.05}
_ROUNDING = 0.01
"""Relative difference of two values that are the same but for rounding; doses are rounded more coarsely."""


@dataclass(frozen=True)
class Contradiction:
    """A value of the session, and another one that a file says."""

    name: str
    ours: float
    theirs: float
    exposure: str

    @property
    def subject(self) -> str:
        """What it is about: the value of the session, whatever file contradicts it."""
        return f"{self.name}={self.ours:g}"

    @property
    def sentence(self) -> str:
        """What people read."""
        said = Acquisition.model_json_schema()["properties"][self.name]
        unit = f" {said['anyOf'][0]['unit']}" if said["anyOf"][0].get("unit") else ""
        ours = f"{said['description']}: the session says {self.ours:g}{unit}"
        return f"{ours}, but {self.exposure} says {self.theirs:g}{unit}; the session's value is used for all movies"


def warn_of_contradictions(writing: Writing, session: Acquisition, told: Mapping[str, Any], exposure: str) -> None:
    """Warn, once for each value of the session, that a file says something else."""
    table = schema.notice
    for found in find_contradictions(session, told, exposure):
        writing.flush()
        about = (table.c.cause == NoticeCause.ACQUISITION.value) & (table.c.subject == found.subject)
        if writing.connection.execute(select(table.c.seq).where(about).limit(1)).first() is None:
            writing.notify(Notify("warning", found.sentence, cause=NoticeCause.ACQUISITION, subject=found.subject))


def warn_of_missing_values(
    writing: Writing, session: Acquisition, step: str, unit: str, name: str, told: Mapping[str, Any]
) -> None:
    """Warn where one of two exposures that came one after the other lacks values that the other has from its own files.

    It is processed without them among others that have them: unweighted among weighted ones. Values of the session are for all.
    """
    table, outcome = schema.exposure, schema.outcome
    earlier = (table.c.source == step) & (table.c.unit != unit)
    asked = select(table.c.unit, table.c.acquisition, table.c.name).where(earlier).order_by(table.c.ordinal.desc()).limit(1)
    before = writing.connection.execute(asked).first()
    if before is None:
        return
    mine = (outcome.c.unit == before.unit) & (outcome.c.revision == writing.revisions[step]) & (outcome.c["keys"] != "{}")
    if writing.connection.execute(select(outcome.c.unit).where(mine)).first() is None:
        return  # it arrived broken
    ours = set(session.model_dump(exclude_none=True))
    one, other = (before.unit, before.name, set(json.loads(before.acquisition))), (unit, name, set(told))
    for (poor, lacking, values), (_, rich, more) in ((one, other), (other, one)):
        missing = [value for value in Acquisition.model_fields if value in more - values - ours]
        if missing:
            text = f"{lacking}: its files give no {', '.join(missing)}, unlike those of {rich}; it is processed without"
            writing.notify(Notify("warning", text, step, poor, cause=NoticeCause.FILE_BESIDE, subject=poor))


def find_contradictions(session: Acquisition, told: Mapping[str, Any], exposure: str) -> list[Contradiction]:
    """Return the values that a file contradicts."""
    found = []
    for name, ours in session.model_dump(exclude_none=True).items():
        theirs = told.get(name)
        if theirs is None or abs(ours - theirs) <= _TOLERANCE.get(name, _ROUNDING) * max(abs(ours), abs(theirs)):
            continue
        found.append(Contradiction(name, ours, theirs, exposure))
    return found
