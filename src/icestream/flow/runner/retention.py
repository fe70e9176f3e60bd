"""Which files of an accumulator may go: old states, and all but the newest and every tenth of the old snapshots."""

from sqlalchemy import Connection, select, update

from icestream.flow.declaration import files_named_in
from icestream.flow.storage import schema

KEPT_SNAPSHOTS = 10
KEPT_EVERY = 10


def files_to_drop(connection: Connection, *, revision: int, folder: str, position: int) -> list[str]:
    """Return the files that no state and no kept snapshot of this accumulator needs after ``position``, and note them as pruned.

    Only files in the revision's own ``folder`` are ever dropped: what a state names elsewhere belongs to other results.
    """
    log = schema.accumulator_log
    mine = log.c.revision == revision
    old = connection.execute(select(log.c.state).where(mine & (log.c.position == position - 2))).scalar()
    states = connection.execute(select(log.c.state).where(mine & (log.c.position >= position - 1) & log.c.state.is_not(None)))
    needed = {name for state in states.scalars() for name in files_named_in(state)}
    dropped = set(files_named_in(old)) if old else set()
    dropped |= _prune_snapshot(connection, revision=revision, version=position - KEPT_SNAPSHOTS)
    needed |= _kept_snapshot_files(connection, revision=revision, around=position - 2)
    connection.execute(update(log).where(mine & (log.c.position == position - 2)).values(state=None))
    gone = sorted(name for name in dropped - needed if name.startswith(f"session:{folder}/"))
    return [name for name in gone if not _is_named(connection, name, revision=revision)]


def _prune_snapshot(connection: Connection, *, revision: int, version: int) -> set[str]:
    table = schema.snapshot
    row = connection.execute(
        select(table.c.key).where((table.c.revision == revision) & (table.c.version == version) & ~table.c.pruned)
    ).first()
    if row is None or version % KEPT_EVERY == 0 or _is_bound(connection, row.key):
        return set()
    connection.execute(update(table).where((table.c.revision == revision) & (table.c.version == version)).values(pruned=True))
    return _record_files(connection, row.key)


def _is_bound(connection: Connection, key: str) -> bool:
    table = schema.binding
    return connection.execute(select(table.c.unit).where(table.c.key == key).limit(1)).first() is not None


def _kept_snapshot_files(connection: Connection, *, revision: int, around: int) -> set[str]:
    table = schema.snapshot
    rows = select(table.c.key).where((table.c.revision == revision) & (table.c.version >= around) & ~table.c.pruned)
    return {name for key in connection.execute(rows).scalars() for name in _record_files(connection, key)}


def _is_named(connection: Connection, name: str, *, revision: int) -> bool:
    """Tell whether a snapshot that is kept names a file: versions may share files that did not change between them."""
    table, result = schema.snapshot, schema.result
    kept = (table.c.revision == revision) & ~table.c.pruned & (result.c.key == table.c.key)
    found = connection.execute(select(table.c.version).where(kept & result.c.record.contains(name, autoescape=True)).limit(1))
    return found.first() is not None


def _record_files(connection: Connection, key: str) -> set[str]:
    record = connection.execute(select(schema.result.c.record).where(schema.result.c.key == key)).scalar()
    return set(files_named_in(record)) if record else set()
