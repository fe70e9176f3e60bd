"""Why a session is paused: by a person until a person resumes it, or by itself until its surroundings are well again."""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Literal

from sqlalchemy import Connection, select, update

from icestream.flow.storage import store_schema as schema

PauseCause = Literal["person", "surroundings"]


@dataclass(frozen=True)
class ActivePause:
    """Why nothing is dispatched; stored as JSON in the row of the runner."""

    kind: PauseCause
    reason: str
    author: str | None = None
    since: float = field(default_factory=time.time)

    @property
    def sentence(self) -> str:
        """What people read."""
        if self.kind == "person":
            return f"paused by {self.author}" + (f": {self.reason}" if self.reason else "")
        return f"paused by itself: {self.reason}; resumes as soon as that is fixed"


@dataclass
class Pauses:
    """All that pauses a session now; the row of the runner tells readers the first."""

    _by_cause: dict[PauseCause, ActivePause] = field(default_factory=dict)
    _changed: bool = False

    def __contains__(self, cause: PauseCause) -> bool:
        return cause in self._by_cause

    @property
    def first(self) -> ActivePause | None:
        """What pauses the session, a person first."""
        return self._by_cause.get("person") or self._by_cause.get("surroundings")

    def begin(self, pause: ActivePause) -> bool:
        """Pause; tell whether that is new."""
        known = self._by_cause.get(pause.kind)
        if known is not None and known.reason == pause.reason:
            return False
        self._by_cause[pause.kind] = pause
        self._changed = True
        return True

    def end(self, cause: PauseCause) -> ActivePause | None:
        """End a pause; return what it was."""
        ended = self._by_cause.pop(cause, None)
        self._changed = self._changed or ended is not None
        return ended

    def load(self, connection: Connection) -> None:
        """Take over a person's pause from an earlier run."""
        text = connection.execute(select(schema.runner.c.hold)).scalar()
        known = ActivePause(**json.loads(text)) if text else None
        if known is not None and known.kind == "person":
            self.begin(known)
        self._changed = (
            self._changed or known is not None
        )  # what the surroundings were like is looked at again, and readers are told

    def store(self, connection: Connection) -> None:
        """Tell readers, if something changed."""
        if self._changed:
            text = json.dumps(asdict(self.first)) if self.first else None
            connection.execute(update(schema.runner).values(hold=text))
            self._changed = False
