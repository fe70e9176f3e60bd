"""Carrying out removals: files are moved into the trash, back, or deleted, a page at a time, after the rows that say so.

Every page can be repeated, so a runner that dies anywhere is followed by one that finishes what its rows say.
"""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from icestream.errors import SessionError
from icestream.flow.runner.fault_points import fault_point
from icestream.flow.scheduling import NoticeCause, Notify
from icestream.flow.storage import (
    Store,
    delete_from_trash,
    forget_removed,
    move_back,
    move_to_trash,
    pages_of,
    schema,
    set_state,
    unfinished,
)
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)
_PAGE = 200
_LOOK_S = 60.0
_AFTER = {"moving": "trash", "undoing": "undone", "emptying": "gone"}


@dataclass
class TrashSweep:
    """Moves the files of one removal after the other."""

    store: Store
    troubles: list[Notify] = field(default_factory=list)
    """What people should know of files that could not be moved."""
    _stuck: set[tuple[int, str]] = field(default_factory=set)
    """Removals whose files could not be moved, which are tried again when it is time to look."""
    _told: set[str] = field(default_factory=set)
    _at: tuple[int, str] | None = None
    _after: str = ""
    _looked_at: float | None = None

    def go_on(self, folder: Path, *, seconds: float) -> bool:
        """Move files for about so long; tell whether some are left to move. A removal that meets trouble holds up no other."""
        until = time.monotonic() + seconds
        while self._page(folder):
            if time.monotonic() >= until:
                return True
        return False

    def is_due(self) -> bool:
        """Mark removals that can be undone no longer, when it is time to; tell whether there are any, or some to try again."""
        now = time.monotonic()
        if self._looked_at is not None and now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        again = bool(self._stuck)
        self._stuck.clear()
        table = schema.removal
        with self.store.transaction() as connection:
            over = (table.c.state == "trash") & (table.c.goes_at <= time.time())
            due = connection.execute(select(table.c.id).where(over)).scalars().all()
            for removal in due:
                set_state(connection, removal, "emptying")
        return bool(due) or again

    def _page(self, folder: Path) -> bool:
        with self.store.transaction() as connection:
            at = next((one for one in unfinished(connection) if one not in self._stuck), None)
            if at is None:
                return False
            if at != self._at:
                self._at, self._after = at, ""
            page = pages_of(connection, at[0], after=self._after, size=_PAGE)
        fault_point("before_trash")
        try:
            back = _move(folder, at, page)
        except (OSError, SessionError) as error:
            self._complain(str(error))
            self._stuck.add(at)
            return True
        fault_point("within_trash")
        with self.store.transaction(durable=True) as connection:
            forget_removed(connection, refs=back)
            if not page:
                set_state(connection, at[0], _AFTER[at[1]])
        fault_point("after_trash")
        self._after = page[-1] if page else ""
        return True

    def _complain(self, told: str) -> None:
        log_event(_LOG, logging.WARNING, "files not moved", reason=told)
        text = f"removed files could not be moved, which is tried again later: {told}"
        if text not in self._told:
            self._told.add(text)
            self.troubles.append(Notify("warning", text, cause=NoticeCause.REMOVED))


def _move(folder: Path, at: tuple[int, str], page: list[str]) -> list[str]:
    """Do with some files what the state of their removal says; return those that are in their place again."""
    removal, state = at
    if state == "undoing":
        return move_back(folder, removal, page)
    (move_to_trash if state == "moving" else delete_from_trash)(folder, removal, page)
    return []
