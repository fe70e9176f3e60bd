"""The trash of a session: files that were removed wait there, on the file system of the results, until they go for good.

All of it can be repeated: what has been moved already is left where it is, so that a crash in the middle costs nothing. Nothing
is done through a link: a folder of results may have come from somebody else.
"""

import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from icestream.errors import SessionError
from icestream.files import sync_folder
from icestream.flow.declaration import RESULTS, resolve_ref

TRASH = ".trash"
"""Below the folder of results, as that may be on another disk than the session; no step can be called so."""


@dataclass
class PlainResults:
    """The plain files of a session's own results, with no link on the way to them; for one look at very many."""

    folder: Path
    _straight: dict[Path, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._real = os.path.realpath(self.folder / RESULTS)

    def size_of(self, ref: str) -> int | None:
        """Return the size of a file in bytes; None where there is none, or a link leads to it."""
        if not ref.startswith(f"session:{RESULTS}/") or f"/{TRASH}/" in ref:
            return None
        path = _place(self.folder, ref)
        try:
            found = path.lstat()
        except OSError:
            return None
        if path.parent not in self._straight:
            self._straight[path.parent] = _leads_straight(self.folder, path.parent)
        return found.st_size if stat.S_ISREG(found.st_mode) and self._straight[path.parent] else None

    def changed_at(self, ref: str) -> float:
        """Return when a file that has a size here was written or put back, in seconds since 1970; nobody can set that moment."""
        return _place(self.folder, ref).lstat().st_ctime

    def real(self, ref: str) -> str:
        """Return the real path of a file that has a size here."""
        return f"{self._real}/{_place(self.folder, ref).relative_to(self.folder / RESULTS)}"


def move_to_trash(folder: Path, removal: int, refs: Iterable[str]) -> None:
    """Move files into the trash; one that is not in its place, or not a plain file any more, is left out.

    Raises
    ------
    OSError
        The file system refuses.
    SessionError
        The trash is a link.
    """
    plain = PlainResults(folder)
    for ref in refs:
        if plain.size_of(ref) is not None:
            _rename(folder, _place(folder, ref), _place_in_trash(folder, removal, ref))


def move_back(folder: Path, removal: int, refs: Iterable[str]) -> list[str]:
    """Move files back to where they were, unless there is one again; return those that are in their place now.

    Raises
    ------
    OSError
        The file system refuses.
    SessionError
        The trash, or a folder of results, is a link.
    """
    there, changed = [], set()
    for ref in refs:
        target, source = _place(folder, ref), _place_in_trash(folder, removal, ref)
        if not os.path.lexists(target) and source.is_file() and not source.is_symlink():
            _rename(folder, source, target)
            seen = target.lstat()  # its moment of change becomes now on every file system; its age is counted from there
            os.utime(target, ns=(seen.st_atime_ns, seen.st_mtime_ns), follow_symlinks=False)
            changed.add(target.parent)
        if target.is_file():
            there.append(ref)
    for one in changed:  # before a row says that they are back
        sync_folder(one)
    return there


def delete_from_trash(folder: Path, removal: int, refs: Iterable[str]) -> None:
    """Delete files of one removal for good; where no ``refs`` are left, all that is in its trash. Links are not followed.

    Raises
    ------
    OSError
        The file system refuses.
    SessionError
        The trash is a link.
    """
    place = folder / RESULTS / TRASH / str(removal)
    if not place.is_dir():
        return
    if not _leads_straight(folder, place):
        raise SessionError(f"{place}: is reached through a link, so nothing is deleted there; remove it by hand")
    left = list(refs)
    if not left:
        shutil.rmtree(place)
    for path in [_place_in_trash(folder, removal, ref) for ref in left]:
        if _leads_straight(folder, path.parent):
            path.unlink(missing_ok=True)


def _place(folder: Path, ref: str) -> Path:
    return resolve_ref({"session": str(folder)}, ref)


def _place_in_trash(folder: Path, removal: int, ref: str) -> Path:
    relative = _place(folder, ref).relative_to(folder / RESULTS)
    return folder / RESULTS / TRASH / str(removal) / relative


def _leads_straight(folder: Path, below: Path) -> bool:
    """Tell whether no link is on the way from the folder of results to one below it; that folder itself may be one."""
    results = folder / RESULTS
    return Path(os.path.realpath(below)) == Path(os.path.realpath(results)) / below.relative_to(results)


def _rename(folder: Path, source: Path, target: Path) -> None:
    for one in (source.parent, target.parent):
        if not _leads_straight(folder, one):
            raise SessionError(f"{one}: is reached through a link, so nothing is moved there or from there")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
