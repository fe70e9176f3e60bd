"""A folder that is deposited: files placed in it, and checksums of all."""

import hashlib
import os
import shutil
from pathlib import Path

from icestream.errors import SessionError
from icestream.files import publish, publish_text

CHECKSUMS = "checksums.sha256"
_PIECE = 1 << 20


def begin_package(folder: Path) -> None:
    """Make the folder of a package.

    Raises
    ------
    SessionError
        It has files already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SessionError(f"{folder}: is there already and not empty; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)


def copy_into(source: Path, target: Path) -> None:
    """Copy a file into a package.

    Raises
    ------
    SessionError
        It is not there any more.
    """
    if not source.is_file():
        raise SessionError(
            f"{source}: is not there any more; it may have been removed to free the disk, and can be computed again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with publish(target) as temporary:
        shutil.copyfile(source, temporary)


def link_into(source: Path, target: Path) -> bool:
    """Place a relative link to a file in a package; tell whether the file is there."""
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(os.path.relpath(source.resolve(), target.parent.resolve()))
    return True


def write_checksums(folder: Path) -> int:
    """Write the SHA-256 of every file of a package in the form of ``sha256sum``, links followed; return how many there are."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    publish_text(folder / CHECKSUMS, "".join(lines))
    return len(lines)


def _digest(path: Path) -> str:
    hashed = hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE):
            hashed.update(piece)
    return hashed.hexdigest()
