"""From what a person types to the two ends of a transfer: folders, or sessions, which stand for their folder of raw data."""

import os
from dataclasses import dataclass
from pathlib import Path

from icestream.errors import SessionError
from icestream.files import SESSION_DOCUMENT, SESSION_FOLDERS
from icestream.flow.storage import Session, open_session
from icestream.io.raw_folder import session_around
from icestream.transfer.ledger import Ledger, account_ledger, session_ledger


@dataclass(frozen=True)
class Ends:
    """The two ends of a transfer, and the ledger that is kept of it."""

    source: Path
    target: Path
    ledger: Ledger


def find_ends(source: Path, target: Path, *, root: str | None, state_folder: Path) -> Ends:
    """Return the folders that are meant, and the ledger: that of the session that one of them belongs to, or of the account.

    ``root`` names the folder of raw data of a session that has several.

    Raises
    ------
    SessionError
        The source is no folder, a session has no such folder of raw data, or both ends belong to sessions.
    """
    if not source.is_dir():
        raise SessionError(f"{source}: is no folder; give the folder on which the microscope's disk is mounted")
    (from_folder, from_session), (to_folder, to_session) = _raw_folder(source, root), _raw_folder(target, root)
    if from_session is not None and to_session is not None:
        raise SessionError(f"{source} and {target}: both belong to sessions; a transfer has a session at one end at most")
    session = to_session or from_session
    return Ends(from_folder, to_folder, account_ledger(state_folder) if session is None else session_ledger(session))


def refuse_removal(source: Path, target: Path) -> None:
    """Refuse to remove at a source that holds a session's raw data: those are deleted by rules of their own.

    Sessions are found around, beside and directly in the source and the target, and beside every folder that these are in.

    Raises
    ------
    SessionError
        The source is a session, or holds raw data of one.
    """
    real = source.resolve()
    for folder in sessions_near(real, target.resolve()):
        if real.is_relative_to(folder) or any(
            real.is_relative_to(root) or root.is_relative_to(real) for root in _raw_folders_of(folder)
        ):
            raise SessionError(
                f"{source}: has raw data of the session {folder}, which are never removed by --remove-after; "
                f"they are deleted by `icestream storage {folder.name} --delete-raw`, with a verified copy, and time to withdraw"
            )


def _raw_folders_of(folder: Path) -> list[Path]:
    """Return the folders of raw data of a session; none where nobody can open it, and so nobody knows them."""
    try:
        roots = open_session(folder).roots
    except (SessionError, OSError):
        return []
    return [Path(root).resolve() for name, root in roots.items() if name != "session"]


def sessions_near(*places: Path) -> list[Path]:
    """Return the sessions that places are in, or that are beside or below them or beside the folders that they are in."""
    found: dict[Path, None] = {}
    for place in places:
        for folder in (place, *place.parents):
            found |= dict.fromkeys(_sessions_in(folder))
    return list(found)


def _sessions_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            inside = [Path(one.path) for one in entries if not one.is_file(follow_symlinks=False)]
    except OSError:  # a folder on the way that may not be listed, or a file: what is in it cannot be found
        inside = []
    return [one.resolve() for one in (folder, *inside) if os.path.isfile(one / SESSION_DOCUMENT)]  # noqa: PTH113 - never raises


def _raw_folder(path: Path, root: str | None) -> tuple[Path, Session | None]:
    """Return the folder of raw data that a path means, and the session that it belongs to."""
    real = path.resolve()
    if (real / SESSION_DOCUMENT).is_file():
        session = open_session(real)
        return _root_of(session, root), session
    around = session_around(real)
    if around is None:
        return path.absolute(), None
    if real.relative_to(around).parts[0] in SESSION_FOLDERS:
        raise SessionError(f"{path}: the session {around} writes into it; transfer folders of raw data")
    return path.absolute(), open_session(around)


def _root_of(session: Session, wanted: str | None) -> Path:
    roots = {name: Path(folder) for name, folder in session.roots.items() if name != "session"}
    if wanted is None and len(roots) != 1:
        named = ", ".join(roots) or "none"
        raise SessionError(f"{session.folder}: its folders of raw data are {named}; choose one with --root, or give the folder")
    if wanted is not None and wanted not in roots:
        raise SessionError(f"--root {wanted}: {session.folder} has {', '.join(roots) or 'none'}")
    folder = roots[wanted] if wanted is not None else next(iter(roots.values()))
    if folder == session.folder.resolve():
        raise SessionError(f"{folder}: is the folder of the session itself; keep raw data in a folder of their own")
    return folder
