"""Where the session's acquisition values, which take precedence, contradict those in the files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from icestream.flow.scheduling.instructions import NoticeCause, Notify
from icestream.flow.storage import schema
from icestream.flow.storage.writing import Writing
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


def find_contradictions(session: Acquisition, told: Mapping[str, Any], exposure: str) -> list[Contradiction]:
    """Return the values that a file contradicts."""
    found = []
    for name, ours in session.model_dump(exclude_none=True).items():
        theirs = told.get(name)
        if theirs is None or abs(ours - theirs) <= _TOLERANCE.get(name, _ROUNDING) * max(abs(ours), abs(theirs)):
            continue
        found.append(Contradiction(name, ours, theirs, exposure))
    return found
