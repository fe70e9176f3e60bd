"""Workflows that are being built, kept in the facility's database; nobody overwrites what somebody else has changed."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from icestream.errors import SessionError
from icestream.facility.database import FacilityDatabase

MOST_DRAFTS = 500
"""In a facility; further ones are refused until some are deleted."""


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
    """

    title: str
    document: Mapping[str, Any]
    summary: str = ""
    session: str | None = None
    base: Mapping[str, Any] | None = None
    trusted: Mapping[str, Any] | None = None
    told: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A workflow that is being built; ``version`` counts its changes."""

    id: int
    version: int
    title: str
    summary: str
    session: str | None
    document: dict[str, Any]
    base: dict[str, Any] | None
    trusted: dict[str, Any]
    told: tuple[str, ...]
    author: str
    changed_by: str
    created_at: float
    changed_at: float


_COLUMNS = "id, version, title, summary, session, document, base, trusted, told, author, changed_by, created_at, changed_at"


class Drafts:
    """The drafts of a facility."""

    def __init__(self, database: FacilityDatabase) -> None:
        self._database = database

    def all(self) -> list[Draft]:
        """Return all drafts, the one that was changed last first."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM draft ORDER BY changed_at DESC, id DESC", ())  # noqa: S608 - our own text
        return [_draft(row) for row in rows]

    def find(self, number: int) -> Draft | None:
        """Return a draft by its number."""
        rows = self._database.read(f"SELECT {_COLUMNS} FROM draft WHERE id = ?", (number,))  # noqa: S608 - our own text
        return _draft(rows[0]) if rows else None

    def add(self, new: NewDraft, *, author: str) -> Draft:
        """Begin a draft.

        Raises
        ------
        SessionError
            There are too many.
        """
        at = time.time()
        texts = (json.dumps(new.document), json.dumps(new.base), json.dumps(new.trusted or {}), json.dumps(new.told))
        values = (new.title, new.summary, new.session, *texts, author, author, at, at)
        with self._database.writing() as connection:
            if connection.execute("SELECT count(*) FROM draft").fetchone()[0] >= MOST_DRAFTS:
                raise SessionError(f"there are {MOST_DRAFTS} drafts; delete some that nobody needs")
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
        """
        values = (title, summary, json.dumps(document), author, time.time(), number, version)
        with self._database.writing() as connection:
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


def _draft(row: Mapping[str, Any]) -> Draft:
    read = {name: json.loads(row[name]) for name in ("document", "base", "trusted")}
    return Draft(**{**row, **read, "told": tuple(json.loads(row["told"]))})
