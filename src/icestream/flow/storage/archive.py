"""Where a packed session goes: a folder, or a compressed archive; either appears under its name only when it is whole."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from icestream.errors import SessionError
from icestream.files import publish, temporary_path

if sys.version_info >= (3, 14):
    import tarfile
else:
    from backports.zstd import tarfile

SUFFIX = ".tar.zst"

Add = Callable[[Path, str], int]
"""Takes a file (or link) and its name in the session, returns the bytes it has; raises `FileNotFoundError`."""


def open_archive(target: Path, *, name: str) -> AbstractContextManager[Add]:
    """Open a new archive (``….tar.zst``, with one folder ``name`` in it) or a new folder.

    Raises
    ------
    SessionError
        There is something of that name already.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise SessionError(f"{target}: already exists; choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    return _open_tar(target, name) if target.name.endswith(SUFFIX) else _open_folder(target)


@contextmanager
def _open_tar(target: Path, name: str) -> Iterator[Add]:
    with publish(target) as temporary, tarfile.open(temporary, "w:zst") as tar:

        def add(source: Path, relative: str) -> int:
            entry = tar.gettarinfo(source, arcname=f"{name}/{relative}")
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            if entry.issym():
                tar.addfile(entry)
            else:
                with source.open("rb") as content:
                    tar.addfile(entry, content)
            return entry.size

        yield add


@contextmanager
def _open_folder(target: Path) -> Iterator[Add]:
    temporary = temporary_path(target, attempt="pack")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:

        def add(source: Path, relative: str) -> int:
            place = temporary / relative
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place, follow_symlinks=False)
            return 0 if place.is_symlink() else place.stat().st_size

        yield add
        os.sync()
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
