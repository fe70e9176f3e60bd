"""What a session writes, and publishing files: under a temporary name, synced, renamed; so a name that exists is whole.

A session may come from somebody else, with links in it: what icestream writes of itself, such as logs and locks, follows none.
"""

import grp
import os
import stat
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from icestream.errors import SessionError

SESSION_DOCUMENT = "session.yaml"
"""The file that makes a folder the folder of a session."""

SESSION_ALARMS = "alarms.yaml"
"""The rules of alarms of a session, beside its document; it may be edited while the session runs."""

SESSION_STORAGE = "storage.yaml"
"""The rules by which files of a session are removed, beside its document."""

SESSION_FOLDERS = frozenset({"steps", "exports", "report", "logs", "work"})
"""What icestream writes below the folder of a session: never raw data."""

TEMPORARY_MARK = ".part~"
"""Every temporary name starts with a dot and ends with this mark and an attempt id."""


def temporary_path(target: Path, *, attempt: str) -> Path:
    """Return the name under which ``target`` is written before it is published."""
    return target.with_name(f".{target.stem}{TEMPORARY_MARK}{attempt}{target.suffix}")


def is_temporary(path: Path) -> bool:
    """Tell whether ``path`` is a temporary name of ours."""
    return path.name.startswith(".") and TEMPORARY_MARK in path.name


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def publish(target: Path, *, attempt: str = "0", durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``target`` and rename it to ``target`` on success.

    On an error the temporary file is removed and ``target`` stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(target, attempt=attempt)
    if os.path.islink(temporary):  # noqa: PTH114 - where that cannot be seen, nothing can be written either
        temporary.unlink()
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync_folder(target.parent)


def publish_text(target: Path, text: str) -> None:
    """Publish ``text`` (UTF-8) as ``target``."""
    with publish(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def folder_in_session(session: Path, name: str) -> Path:
    """Return a folder directly in that of a session, which is made if it is missing.

    Raises
    ------
    SessionError
        It is a link that leads out of the session.
    """
    folder = session / name
    if not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(session)):
        raise SessionError(f"{folder}: is a link that leads out of the session, so nothing is written there; make it a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def make_folder_for(group: str | None, mode: int | None, folder: Path) -> None:
    """Make a folder, unless it exists, that belongs to a group, as all that is made in it later will, with these permissions.

    Raises
    ------
    SessionError
        There is no such group, this account is not in it, or the file system does not let the folder have it; what was made is
        removed again.
    OSError
        The folder cannot be made.
    """
    number = None if group is None else _number_of(group)
    there = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    if number is None and mode is None:
        return
    wanted = (stat.S_IMODE(folder.stat().st_mode) if mode is None else mode) | (0 if number is None else stat.S_ISGID)
    try:
        if number is not None:
            os.chown(folder, -1, number)
        folder.chmod(wanted)
        found, trouble = folder.stat(), "the file system does not keep it"
        kept = stat.S_IMODE(found.st_mode) == wanted and number in (None, found.st_gid)
    except OSError as error:
        kept, trouble = False, error.strerror or type(error).__name__
    if not kept:
        if not there:
            folder.rmdir()
        owner = "" if group is None else f"group {group!r} and "
        raise SessionError(f"{folder}: cannot have {owner}permissions {wanted:o}: {trouble}")


def make_shared(path: Path) -> None:
    """Make an empty file for a database, unless it exists, with what the umask allows: SQLite would let nobody else write.

    What cannot be made is left to SQLite, which says why. A file that exists is not opened: closing it would end SQLite's locks.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))


def _number_of(group: str) -> int:
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise SessionError(f"ICESTREAM_SESSION_GROUP is {group!r}: this machine has no such group") from None
    if os.geteuid() != 0 and number not in (os.getegid(), *os.getgroups()):
        raise SessionError(
            f"ICESTREAM_SESSION_GROUP is {group!r}: the account that makes the session must be in this group; "
            "whoever runs the machine adds it (`usermod --append --groups`), and it signs in again"
        )
    return number


def open_unlinked(path: Path, flags: int) -> int:
    """Open a file by the flags of `os.open`, make it where they say so, and return its descriptor; never what a link leads to.

    Raises
    ------
    SessionError
        It is a link, or no file.
    OSError
        It cannot be opened.
    """
    if os.path.islink(path):  # noqa: PTH114 - said in words; who puts one there meanwhile meets the flag
        raise SessionError(f"{path}: is a link, which is not followed; remove it")
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise SessionError(f"{path}: is no file")
    return handle


class TemporarySweep:
    """Removes the temporary files of dead attempts below a folder, a few folders at a time: there may be very many."""

    def __init__(self, folder: Path) -> None:
        self._waiting = [folder]

    def go_on(self, *, alive: Container[str], seconds: float) -> int:
        """Look into folders for about so long; return how many files of attempts that are not ``alive`` were removed."""
        until, removed = time.monotonic() + seconds, 0
        while self._waiting and time.monotonic() < until:
            folder = self._waiting.pop()
            try:
                entries = list(os.scandir(folder))
            except OSError:  # it was removed meanwhile, or may not be read: whoever needs it is told
                continue
            self._waiting += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
            for path in [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]:
                if is_temporary(path) and _attempt_of(path) not in alive:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed


def _attempt_of(path: Path) -> str:
    return path.name.partition(TEMPORARY_MARK)[2].partition(".")[0]
