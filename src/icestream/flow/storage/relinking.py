"""Changing where a root of raw data is: after the data were moved, or a session was brought to another machine."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import DBAPIError

from icestream.counting import counted
from icestream.errors import SessionError
from icestream.files import publish_text
from icestream.flow.declaration import resolve_ref
from icestream.flow.storage import claiming
from icestream.flow.storage import store_schema as schema
from icestream.flow.storage.claiming import LEASE_S, RunnerRow, read_runner_row
from icestream.flow.storage.database import engine_for
from icestream.flow.storage.exported_links import mend_exported_links
from icestream.flow.storage.session import DOCUMENT, Session, check_roots_apart, dump_document
from icestream.flow.storage.store_trouble import explain

_SHOWN = 5


@dataclass(frozen=True)
class RelinkReport:
    """What was found under the new folder, of the files that the store knows."""

    name: str
    folder: Path
    n_found: int
    missing: tuple[str, ...]
    changed: tuple[str, ...]
    """Files of another size: they would be taken for new exposures."""
    n_links: int = 0
    """Links in exported projects that now lead to the new folder."""


def relink_root(
    session: Session, name: str, folder: Path, *, force: bool = False, lease_s: float = LEASE_S
) -> tuple[Session, RelinkReport]:
    """Let the root ``name`` be ``folder``, as `relink_roots` does."""
    relinked, reports = relink_roots(session, {name: folder}, force=force, lease_s=lease_s)
    return relinked, reports[name]


def relink_roots(
    session: Session, folders: Mapping[str, Path], *, force: bool = False, lease_s: float = LEASE_S
) -> tuple[Session, dict[str, RelinkReport]]:
    """Let roots, by name, be other folders: all, or none. Return the session as it is now, and what was found there.

    Links of exported projects into the root follow it.

    Raises
    ------
    SessionBusy
        A runner processes the session.
    SessionError
        There is no such root or folder, or none of the known files is there (and not ``force``).
    """
    checked = {name: _check(session, name, folder, force=force, lease_s=lease_s) for name, folder in folders.items()}
    roots = {**session.document.roots, **{name: str(report.folder) for name, (report, _) in checked.items()}}
    document = session.document.model_copy(update={"roots": roots})
    check_roots_apart(session.folder, document)
    publish_text(session.folder / DOCUMENT, dump_document(document))
    reports = {}
    for name, (report, known) in checked.items():
        old = Path(session.roots[name])
        n_links = mend_exported_links(session.folder, old_root=old, new_root=report.folder, known=known)
        reports[name] = replace(report, n_links=n_links)
    return Session(session.folder, document), reports


def _check(session: Session, name: str, folder: Path, *, force: bool, lease_s: float) -> tuple[RelinkReport, set[str]]:
    """Return what is found of a root in a folder, and the names in the root of all files that the session knows."""
    known_roots = session.document.roots
    if name not in known_roots:
        raise SessionError(f"{session.folder}: has no root {name!r}; it has {', '.join(sorted(known_roots)) or 'none'}")
    folder = folder.absolute()
    if not folder.is_dir():
        raise SessionError(f"{folder}: is not a folder")
    known = _known_files(session, name, lease_s=lease_s)
    report = _look(name, folder, known)
    if not force and not report.n_found and (report.missing or report.changed):
        examples = ", ".join((*report.missing, *report.changed)[:_SHOWN])
        raise SessionError(
            f"{folder}: has none of {counted(len(report.missing) + len(report.changed), 'file')} that the session knows "
            f"({examples}, …); --force makes it the root anyway"
        )
    return report, {ref.partition(":")[2] for ref in known}


def _known_files(session: Session, name: str, *, lease_s: float) -> dict[str, int]:
    """Return reference → size of the files that sources have taken from a root, after making sure that no runner lives."""
    location = session.store_at
    if isinstance(location, Path) and not location.is_file():
        return {}
    reader = engine_for(location, read_only=True)

    def look() -> RunnerRow:
        with reader.begin() as connection:
            return read_runner_row(connection)

    try:
        with reader.begin() as connection:
            if not inspect(connection).has_table("runner"):
                return {}
        row = look()
        state = claiming.look_up(row, location)
        if state == "alive":
            raise claiming.busy(row, location)
        if state == "unknown":
            claiming.watch(row, look, location=location, lease_s=lease_s)
        with reader.begin() as connection:
            return _read_files(connection, name)
    except DBAPIError as error:
        raise explain(location, error, "cannot be read as a store") from error
    finally:
        reader.dispose()


def _read_files(connection: Connection, name: str) -> dict[str, int]:
    """Return the newest size of each file of a root, where its exposure is still one of the session's."""
    table = schema.source_file
    query = select(table.c.ref, table.c.size_bytes).where(table.c.ref.startswith(f"{name}:", autoescape=True))
    return {row.ref: row.size_bytes for row in connection.execute(query.order_by(table.c.modified_ns))}


def _look(name: str, folder: Path, known: dict[str, int]) -> RelinkReport:
    found, missing, changed = 0, [], []
    for ref, size_bytes in sorted(known.items()):
        path = resolve_ref({name: str(folder)}, ref)
        if not path.is_file():
            missing.append(ref)
        elif path.stat().st_size != size_bytes:
            changed.append(ref)
        else:
            found += 1
    return RelinkReport(name, folder, found, tuple(missing), tuple(changed))
