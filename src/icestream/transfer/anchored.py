"""Files below a folder, reached without following a link: a disk that others write to may have links anywhere in it."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from icestream.errors import ItemError
from icestream.files import SESSION_DOCUMENT

_A_LINK = (errno.ELOOP, errno.ENOTDIR)


class FileRefused(ItemError):
    """A file is not transferred, whatever happens to it: its name, its kind, or where it would be written forbids it."""


@dataclass(frozen=True)
class FileStamp:
    """Size and time of a file: while they stay the same, so does the file."""

    size_bytes: int
    modified_ns: int


def stamp_of(status: os.stat_result) -> FileStamp:
    """Return size and time of a file from its status."""
    return FileStamp(status.st_size, status.st_mtime_ns)


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of a name relative to a root.

    Raises
    ------
    FileRefused
        It leads out of the root, or has characters that cannot be printed, or that are no UTF-8.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise FileRefused("its name leads out of the folder")
    if not name.isprintable():
        raise FileRefused("its name has characters that cannot be printed; rename it")
    if parts[-1] == SESSION_DOCUMENT:
        raise FileRefused("it is the document of a session, and would make one of the folder at the target")
    return parts


class AnchoredFolder:
    """A folder; everything below it is opened part by part, never through a link. The folder itself may be one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """Give the descriptor of a folder below the root; ``make`` those that are missing, but never in the folder of a session.

        Raises
        ------
        FileRefused
            A part is a link or no folder, or it is the folder of a session.
        OSError
            It cannot be entered or made.
        """
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in parts:
                if make:
                    _refuse_session(handle)
                    _make_folder(part, handle)
                below = self._enter(part, handle)
                os.close(handle)
                handle = below
            if make:
                _refuse_session(handle)
            yield handle
        finally:
            os.close(handle)

    def _enter(self, part: str, handle: int) -> int:
        try:
            return os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
        except OSError as error:
            if error.errno in _A_LINK:
                raise FileRefused(f"{part} in {self.root} is a link or no folder, and links are not followed") from None
            raise

    def status(self, name: str) -> os.stat_result | None:
        """Return the status of a file or of a link itself; None if there is none.

        Raises
        ------
        FileRefused
            A folder on the way is a link.
        OSError
            It cannot be looked at.
        """
        parts = parts_of(name)
        try:
            with self.folder(parts[:-1]) as folder:
                return status_in(folder, parts[-1])
        except FileNotFoundError:
            return None


def status_in(folder: int, name: str) -> os.stat_result | None:
    """Return the status of an entry of an open folder, of a link itself; None if there is none."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


@contextmanager
def open_regular(folder: int, name: str) -> Iterator[int]:
    """Give the descriptor of a regular file of an open folder, to be read.

    Raises
    ------
    FileRefused
        It is a link, a pipe, a device or the like.
    """
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileRefused("it is a link, and links are not followed") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise FileRefused(kind_refused(os.fstat(handle)) or "it is no regular file")
        yield handle
    finally:
        os.close(handle)


def kind_refused(status: os.stat_result) -> str | None:
    """Return why a thing of this kind is never transferred; None for a regular file."""
    if stat.S_ISREG(status.st_mode):
        return None
    if stat.S_ISLNK(status.st_mode):
        return "it is a link, and links are not followed"
    return "it is no regular file but a pipe, a socket, a device or the like"


def _make_folder(part: str, handle: int) -> None:
    try:
        os.mkdir(part, dir_fd=handle)
    except FileExistsError:
        return
    sync_entries(handle)


def sync_entries(folder: int) -> None:
    """Make new, renamed and removed entries of an open folder durable; some network file systems cannot be asked."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise


def _refuse_session(handle: int) -> None:
    if status_in(handle, SESSION_DOCUMENT) is not None:
        raise FileRefused("it would be written into the folder of a session; transfer into a folder of raw data")
