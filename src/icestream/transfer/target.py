"""The folder that is transferred to: its mark, by which it is known again, the lock on it, and the space on its disk.

Where a disk is not mounted, the folder on which it should be is empty and lies on another disk; without the mark, that one
would be filled. The mark is also what is locked, so that two transfers never write into one folder, also from two machines
where the file system has locks.
"""

import fcntl
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from icestream.errors import SessionBusy, SessionError
from icestream.files import open_unlinked
from icestream.transfer.two_places import are_one_folder

MARKER = ".icestream-transfer"
_GB = 10**9


class LinkBroken(SessionError):
    """The source or the target cannot be used now; the transfer pauses and looks again."""


@dataclass
class TargetFolder:
    """A target and what is known of it; ``marker`` is unset before the first transfer."""

    root: Path
    marker: str | None
    keep_free_bytes: int
    fallback: Path
    """What is locked where the file system of the target has no locks; it keeps other transfers of this ledger away."""
    source: Path | None = None
    """Where files come from; it must not lead to the target, as by another mount of the same disk."""
    _held: int | None = field(default=None, init=False)
    _fallback_held: int | None = field(default=None, init=False)

    def hold(self) -> str:
        """Lock the target for this process, and return its mark, which is made at the first transfer.

        Raises
        ------
        SessionBusy
            Another transfer writes into it.
        LinkBroken
            It is not there, or not the one that it was, or the source leads to it as well.
        """
        self.release()
        try:
            if self.marker is None:
                self.root.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR if self.marker is not None else os.O_RDWR | os.O_CREAT
            handle = open_unlinked(self.root / MARKER, flags)
        except FileNotFoundError:
            raise LinkBroken(self._say_missing()) from None
        except OSError as error:
            raise LinkBroken(f"{self.root}: cannot be written: {error.strerror}") from error
        self._held = handle
        self._lock(handle)
        found = os.pread(handle, 100, 0).decode(errors="replace").strip()
        if not found:
            found = self.marker or secrets.token_hex(8)
            os.pwrite(handle, f"{found}\n".encode(), 0)
            os.fsync(handle)
        if self.marker not in (None, found):
            self.release()
            raise LinkBroken(self._say_other(found))
        self._refuse_source()
        self.marker = found
        return found

    def _refuse_source(self) -> None:
        """Refuse a target that is the source by another path: its files would pass as copies of themselves."""
        if self.source is None:
            return
        try:
            same = are_one_folder(self.root, self.source)
        except OSError as error:
            self.release()
            raise LinkBroken(f"{self.root} and {self.source}: cannot be told apart: {error.strerror}") from error
        if same:
            self.release()
            raise LinkBroken(f"{self.root}: is the same folder as {self.source}, by another path; transfer to another folder")

    def check(self) -> None:
        """Check that the target is there and is the one that is locked.

        Raises
        ------
        LinkBroken
            It is not.
        SessionBusy
            Another transfer has taken it meanwhile.
        """
        try:
            status = (self.root / MARKER).lstat()
            mine = None if self._held is None else os.fstat(self._held)
        except OSError:
            status, mine = None, None
        if status is None or mine is None or (status.st_dev, status.st_ino) != (mine.st_dev, mine.st_ino):
            self.hold()

    def check_space(self, needed_bytes: int) -> None:
        """Check that a file fits, and leaves free what is to stay free.

        Raises
        ------
        LinkBroken
            It does not.
        """
        try:
            disk = os.statvfs(self.root)
        except OSError as error:
            raise LinkBroken(f"{self.root}: cannot be looked at: {error.strerror}") from error
        free = disk.f_bavail * disk.f_frsize
        if free < needed_bytes + self.keep_free_bytes:
            raise LinkBroken(
                f"{self.root}: has {free / _GB:.1f} GB of free space; the next file needs {needed_bytes / _GB:.1f} GB, "
                f"and {self.keep_free_bytes / _GB:.1f} GB are to stay free"
            )

    def release(self) -> None:
        """Let others write into the target."""
        for handle in (self._held, self._fallback_held):
            if handle is not None:
                os.close(handle)
        self._held = self._fallback_held = None

    def _lock(self, handle: int) -> None:
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # a file system without locks
                self._fallback_held = open_unlinked(self.fallback, os.O_RDWR | os.O_CREAT)
                fcntl.flock(self._fallback_held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise SessionBusy(f"{self.root}: another transfer writes into it; one folder has one transfer at a time") from None

    def _say_missing(self) -> str:
        if not self.root.is_dir():
            return f"{self.root}: is not there"
        return (
            f"{self.root}: has no file {MARKER}, so its disk may not be mounted; if it is the right folder, write "
            f"{self.marker} into that file"
        )

    def _say_other(self, found: str) -> str:
        return (
            f"{self.root}: is marked {found[:40]!r} and was {self.marker!r}, so another disk is mounted there; if it is the "
            f"right folder, write {self.marker} into its file {MARKER}"
        )
