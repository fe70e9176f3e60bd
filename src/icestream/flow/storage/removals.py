"""Which files of a session were removed, by which request, and until when that can be undone."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.dialects import is_there

_CHUNK = 400

MOVING, TRASH, UNDOING, UNDONE, EMPTYING, GONE = "moving", "trash", "undoing", "undone", "emptying", "gone"
UNFINISHED = (MOVING, UNDOING, EMPTYING)
"""Rows say that files are to be moved or deleted, and it is not known to have happened."""


@dataclass(frozen=True)
class Removal:
    """Files that were removed together; ``n_left`` of them are still away."""

    id: int
    what: dict[str, Any]
    author: str
    reason: str
    state: str
    n_files: int
    n_bytes: int
    at: float
    goes_at: float
    done_by: str | None
    n_left: int
    bytes_left: int

    @property
    def may_be_undone(self) -> bool:
        """Its files are in the trash."""
        return self.state in (MOVING, TRASH)


@dataclass(frozen=True)
class RemovedFile:
    """A file that is away."""

    ref: str
    key: str
    removal: int
    size_bytes: int
    state: str
    """Of its removal."""


def read_removals(connection: Connection) -> list[Removal]:
    """Return all removals, newest first; none where the store is of an older version."""
    if not is_there(connection, schema.removal):
        return []
    table, file = schema.removal, schema.removed_file
    left = func.coalesce(func.sum(file.c.size_bytes), 0)
    query = select(table, func.count(file.c.ref).label("n_left"), left.label("bytes_left"))
    rows = connection.execute(
        query.outerjoin(file, file.c.removal == table.c.id).group_by(table.c.id).order_by(table.c.id.desc())
    )
    return [
        Removal(
            row["id"],
            json.loads(row["what"]),
            row["author"],
            row["reason"],
            row["state"],
            row["n_files"],
            row["n_bytes"],
            row["at"],
            row["goes_at"],
            row["done_by"],
            int(row["n_left"]),
            int(row["bytes_left"]),
        )
        for row in rows.mappings()
    ]


def find_removed(connection: Connection, refs: Iterable[str]) -> list[RemovedFile]:
    """Return those of some files that are away."""
    table, of = schema.removed_file, schema.removal
    if connection.execute(select(table.c.ref).limit(1)).first() is None:
        return []
    columns = (table.c.ref, table.c.key, table.c.removal, table.c.size_bytes, of.c.state)
    found: list[RemovedFile] = []
    for some in _chunks(list(dict.fromkeys(refs))):
        query = select(*columns).join(of, of.c.id == table.c.removal).where(table.c.ref.in_(some))
        found += [RemovedFile(*row) for row in connection.execute(query)]
    return found


def removed_refs(connection: Connection) -> set[str]:
    """Return all files that are away."""
    if not is_there(connection, schema.removed_file):
        return set()
    return set(connection.execute(select(schema.removed_file.c.ref)).scalars())


def pages_of(connection: Connection, removal: int, *, after: str, size: int) -> list[str]:
    """Return the next files of a removal, in the order of their names."""
    table = schema.removed_file
    mine = (table.c.removal == removal) & (table.c.ref > after)
    return list(connection.execute(select(table.c.ref).where(mine).order_by(table.c.ref).limit(size)).scalars())


def wanted_keys(connection: Connection, *, limit: int) -> list[str]:
    """Return results of which somebody wants files computed again."""
    table = schema.removed_file
    return list(connection.execute(select(table.c.key).where(table.c.wanted).distinct().limit(limit)).scalars())


def forget_removed(connection: Connection, *, refs: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
    """Note that files are in their place again, or that nothing names them any more."""
    table = schema.removed_file
    for column, values in ((table.c.ref, refs), (table.c.key, keys)):
        for some in _chunks(values):
            connection.execute(delete(table).where(column.in_(some)))


def want_again(connection: Connection, refs: Sequence[str], *, wanted: bool) -> None:
    """Note that somebody wants files computed again, or no more."""
    table = schema.removed_file
    for some in _chunks(refs):
        connection.execute(update(table).where(table.c.ref.in_(some)).values(wanted=wanted))


def _chunks(values: Sequence[str]) -> Iterator[Sequence[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))


def set_state(connection: Connection, removal: int, state: str, *, by: str | None = None) -> None:
    """Note how far a removal is."""
    table = schema.removal
    values = {"state": state} | ({} if by is None else {"done_by": by})
    connection.execute(update(table).where(table.c.id == removal).values(**values))


def unfinished(connection: Connection) -> Iterator[tuple[int, str]]:
    """Give the removals whose files have not all been moved: first those to delete, as that frees the disk, then the oldest."""
    table = schema.removal
    rows = connection.execute(select(table.c.id, table.c.state).where(table.c.state.in_(UNFINISHED)).order_by(table.c.id))
    yield from sorted([(row.id, row.state) for row in rows], key=lambda one: one[1] != EMPTYING)
