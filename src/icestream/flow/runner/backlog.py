"""Unsettled exposures of earlier runs, admitted page by page: a session of any size resumes at once and in little memory."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from icestream.flow.scheduling import Unit
from icestream.flow.storage import Revision, resuming, schema

PAGE = 200
MOST_UNITS = 2000
"""With so many exposures in memory, what arrives waits in the store until its turn comes."""


@dataclass
class Backlog:
    """Which exposures of earlier runs have not been admitted yet, by the number they arrived with."""

    fingerprint: str
    newest_first: bool
    first: int
    last: int

    def takes(self, ordinal: int, *, n_units: int) -> bool:
        """Tell whether an exposure that arrived is to wait in the store; newest-first needs it at once."""
        later = n_units >= MOST_UNITS and not self.newest_first
        if later:
            self.first, self.last = (min(self.first, ordinal), max(self.last, ordinal)) if self.more else (ordinal, ordinal)
        return later

    @property
    def more(self) -> bool:
        """Some may be left."""
        return self.first <= self.last

    def next_page(self, connection: Connection, revisions: Mapping[str, Revision]) -> list[Unit]:
        """Return the next exposures with all that is known of them."""
        table = schema.exposure
        unsettled = table.c.settled_by.is_(None) | (table.c.settled_by != self.fingerprint)
        waiting = unsettled & table.c.ordinal.between(self.first, self.last)
        order = table.c.ordinal.desc() if self.newest_first else table.c.ordinal
        rows = connection.execute(
            select(table.c.unit, table.c.source, table.c.ordinal).where(waiting).order_by(order).limit(PAGE)
        ).all()
        self._advance([row.ordinal for row in rows])
        units = resuming.load_exposures(connection, revisions, [row.unit for row in rows])
        return [unit for unit, row in zip(units, rows, strict=True) if row.source in unit.outcomes]

    def _advance(self, ordinals: list[int]) -> None:
        if len(ordinals) < PAGE:
            self.first = self.last + 1
        elif self.newest_first:
            self.last = ordinals[-1] - 1
        else:
            self.first = ordinals[-1] + 1


def find_backlog(connection: Connection, *, fingerprint: str, newest_first: bool) -> Backlog:
    """Return the backlog of a session: all that arrived until now and is not settled under the present workflow."""
    last = connection.execute(select(func.max(schema.exposure.c.ordinal))).scalar()
    return Backlog(fingerprint, newest_first, 1, int(last or 0))
