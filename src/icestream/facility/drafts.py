"""Workflows that are being built, kept in the facility's database; nobody overwrites what somebody else has changed."""

import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icestream.errors import SessionError
from icestream.facility.database import FacilityDatabase

MOST_DRAFTS = 500
"""In a facility; further ones are refused until some are deleted."""
MOST_BYTES_OF_ONE = 32 << 20
"""So much the drafts that one person has begun may have together."""


class DraftChanged(SessionError):
    """Somebody else has changed or deleted a draft meanwhile; ``draft`` is what it is now, if it is still there."""

    def __init__(self, draft: "Draft | None") -> None:
        told = "has been deleted meanwhile" if draft is None else f"was changed by {draft.changed_by} meanwhile"
        super().__init__(f"the draft {told}; what you have is kept on your page")
        self.draft = draft


@dataclass(frozen=True)
class NewDraft:
    """What a draft begins as.

    ``session`` is the session whose workflow is edited, ``base`` its steps at that time; unset for a template. ``trusted``
    is what the draft may use because it came from a place that the facility trusts. ``told`` is what became of an import.
    ``origin`` is the session whose workflow a template was begun with.
    """

    title: str
    document: Mapping[str, Any]
    summary: str = ""
    session: str | None = None
    base: Mapping[str, Any] | None = None
    trusted: Mapping[str, Any] | None = None
    told: tuple[str, ...] = ()
    origin: str | None = None


@dataclass(frozen=True)
class DraftEntry:
    """What a list says of a draft; ``version`` counts its changes."""

    id: int
    version: int
    title: str
    summary: str
    session: str | None
    origin: str | None
    author: str
    changed_by: str
    created_at: float
    changed_at: float


@dataclass(frozen=True)
class Draft(DraftEntry):
    """A workflow that is being built."""

    document: dict[str, Any]
    base: dict[str, Any] | None
    trusted: dict[str, Any]
    told: tuple[str, ...]


_ENTRY = "id, version, title, summary, session, origin, author, changed_by, created_at, changed_at"
_COLUMNS = f"{_ENTRY}, document, base, trusted, told"
_BYTES = "length(CAST(document || base || trusted || told AS BLOB))"


class Drafts:
    """The drafts of a facility."""

    def __init__(self, database: FacilityDatabase) -> None:
        self._database = database

    def entries(self) -> list[DraftEntry]:
        """Return all drafts without their documents, the one that was changed last first."""
        rows = self._database.read(f"SELECT {_ENTRY} FROM draft ORDER BY changed_at DESC, id DESC", ())  # noqa: S608 - our own text
        return [DraftEntry(**row) for row in rows]

    def find(self, number: int) -> Draft | None:
        """Return a draft by its number."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM draft WHERE id = ?", (number,))  # noqa: S608 - our own text
        return _draft(rows[0]) if rows else None

    def add(self, new: NewDraft, *, author: str) -> Draft:
        """Begin a draft.

        Raises
        ------
        SessionError
            There are too many, or those of its author are too large together.
        """
        at = time.time()
        texts = (json.dumps(new.document), json.dumps(new.base), json.dumps(new.trusted or {}), json.dumps(new.told))
        values = (new.title, new.summary, new.session, new.origin, author, author, at, at, *texts)
        with self._database.writing() as connection:
            if connection.execute("SELECT count(*) FROM draft").fetchone()[0] >= MOST_DRAFTS:
                raise SessionError(f"there are {MOST_DRAFTS} drafts; delete some that nobody needs")
            _check_room(connection, author, more=sum(len(text.encode()) for text in texts), but=0)
            columns = _COLUMNS.removeprefix("id, version, ")
            marks = ", ".join("?" * len(values))
            number = connection.execute(f"INSERT INTO draft ({columns}, version) VALUES ({marks}, 1)", values).lastrowid  # noqa: S608
        found = self.find(number or 0)
        if found is None:
            raise DraftChanged(None)
        return found

    def save(self, number: int, *, version: int, title: str, summary: str, document: Mapping[str, Any], author: str) -> Draft:
        """Change a draft that has still this version.

        Raises
        ------
        DraftChanged
            It has another one, or is no more.
        SessionError
            The drafts of its author are too large together.
        """
        text = json.dumps(document)
        values = (title, summary, text, author, time.time(), number, version)
        with self._database.writing() as connection:
            begun = connection.execute("SELECT author FROM draft WHERE id = ?", (number,)).fetchone()
            if begun is not None:
                _check_room(connection, begun[0], more=len(text.encode()), but=number)
            changed = connection.execute(
                "UPDATE draft SET title = ?, summary = ?, document = ?, changed_by = ?, changed_at = ?, version = version + 1 "
                "WHERE id = ? AND version = ?",
                values,
            ).rowcount
        found = self.find(number)
        if not changed or found is None:
            raise DraftChanged(found)
        return found

    def delete(self, number: int, *, version: int) -> None:
        """Delete a draft that has still this version.

        Raises
        ------
        DraftChanged
            It has another one, or is no more.
        """
        with self._database.writing() as connection:
            deleted = connection.execute("DELETE FROM draft WHERE id = ? AND version = ?", (number, version)).rowcount
        if not deleted:
            raise DraftChanged(self.find(number))


def _check_room(connection: sqlite3.Connection, author: str, *, more: int, but: int) -> None:
    """Check that the drafts of one author, without one, may have so many more bytes."""
    query = f"SELECT coalesce(sum({_BYTES}), 0) FROM draft WHERE author = ? AND id != ?"  # noqa: S608 - our own text
    (present,) = connection.execute(query, (author, but)).fetchone()
    if present + more > MOST_BYTES_OF_ONE:
        told = f"{(present + more) / 1e6:.1f} MB, and {MOST_BYTES_OF_ONE / 1e6:.1f} MB are allowed"
        raise SessionError(f"the drafts that {author} has begun would have {told}; delete some of them")


def _draft(row: Mapping[str, Any]) -> Draft:
    read = {name: json.loads(row[name]) for name in ("document", "base", "trusted")}
    return Draft(**{**row, **read, "told": tuple(json.loads(row["told"]))})
