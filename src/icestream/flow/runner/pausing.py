"""Holding a session: by a person until a person lets it go, or by its surroundings until they are well again."""

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Literal

from sqlalchemy import Connection, select, update

from icestream.flow.storage import schema

Kind = Literal["person", "surroundings"]


@dataclass(frozen=True)
class Hold:
    """Why nothing is dispatched."""

    kind: Kind
    reason: str
    author: str | None = None
    since: float = field(default_factory=time.time)

    @property
    def sentence(self) -> str:
        """What people read."""
        if self.kind == "person":
            return f"paused by {self.author}" + (f": {self.reason}" if self.reason else "")
        return f"paused by itself: {self.reason}; goes on as soon as that is mended"


@dataclass
class Holds:
    """All that holds a session now; the row of the runner tells readers the first.

    ``met_by`` are the steps that met trouble which looking around does not show, as a quota, and have not worked since; ``met``
    counts how often in a row, and ``again_at`` is when they are tried again.
    """

    by_kind: dict[Kind, Hold] = field(default_factory=dict)
    changed: bool = False
    met: int = 0
    met_by: set[str] = field(default_factory=set)
    again_at: float = 0.0

    @property
    def first(self) -> Hold | None:
        """What holds the session, a person first."""
        return self.by_kind.get("person") or self.by_kind.get("surroundings")

    def put(self, hold: Hold) -> bool:
        """Hold; tell whether that is new."""
        known = self.by_kind.get(hold.kind)
        if known is not None and known.reason == hold.reason:
            return False
        self.by_kind[hold.kind] = hold
        self.changed = True
        return True

    def lift(self, kind: Kind) -> Hold | None:
        """Let go; return what held."""
        lifted = self.by_kind.pop(kind, None)
        self.changed = self.changed or lifted is not None
        return lifted

    def load(self, connection: Connection) -> None:
        """Take over a person's pause from an earlier run."""
        text = connection.execute(select(schema.runner.c.hold)).scalar()
        hold = Hold(**json.loads(text)) if text else None
        if hold is not None and hold.kind == "person":
            self.put(hold)
        self.changed = self.changed or hold is not None  # what the surroundings were like is looked at anew, and readers are told

    def store(self, connection: Connection) -> None:
        """Tell readers, if something changed."""
        if self.changed:
            text = json.dumps(asdict(self.first)) if self.first else None
            connection.execute(update(schema.runner).values(hold=text))
            self.changed = False
