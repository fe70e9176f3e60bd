"""Copying one file: in pieces that are remembered, read back, and published under its name only when all of it is right.

The bytes go into a hidden file beside the target, which no source takes. Of each piece the digest of what was read at the
source is noted, so that a copy that was interrupted goes on behind the last piece that is whole at the target. The file is
synced, read back, compared, and only then renamed. Before it is read back, the system is asked to forget what it keeps of it in
memory; on a network file system this empties the memory of this machine, not that of the server.
"""

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from icestream.errors import ItemError
from icestream.flow.runner.fault_points import fault_point
from icestream.io.metadata import SIDECAR_SUFFIXES
from icestream.transfer.anchored import (
    AnchoredFolder,
    FileRefused,
    FileStamp,
    open_regular,
    parts_of,
    stamp_of,
    status_in,
    sync_entries,
)
from icestream.transfer.throttle import Throttle
from icestream.transfer.two_places import is_same_file, is_same_folder

CHUNK_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
MOST_VERSIONS = 1000
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
_UNFINISHED = re.compile(r"\.icestream-[0-9a-f]{24}\.part")
POINTS = ("piece_noted", "copied", "synced", "read_back", "linked", "renamed", "published", "before_unlink", "after_unlink")
"""Where a test lets the process die."""
_ITSELF = "at the target is the file itself, reached by another path; it is no copy"


class SourceChanged(ItemError):
    """The file is not what it was when it was looked at; it is looked at again."""


class ItIsItself(FileRefused):
    """What is at the target is the file itself, reached by another path."""


class CopyDamaged(ItemError):
    """What was read back from the target is not what was read at the source."""


@dataclass(frozen=True)
class Published:
    """A copy that was verified: its name at the target, its time there, and the digest of source and copy alike."""

    target_name: str
    target_modified_ns: int
    digest: str
    note: str | None = None


def new_digest() -> "hashlib.blake2b":
    """Return an empty digest of a file, BLAKE2b of 256 bits: `b2sum -l 256` prints the same."""
    return hashlib.blake2b(digest_size=32)


def read_digest(handle: int, throttle: Throttle, *, from_disk: bool = True) -> str:
    """Return the digest of an open file; ``from_disk`` asks the system to forget first what it has of it in memory."""
    if from_disk and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    digest, at = new_digest(), 0
    while block := os.pread(handle, BLOCK_BYTES, at):
        throttle.take(len(block))
        digest.update(block)
        at += len(block)
    return digest.hexdigest()


def part_name(name: str, stamp: FileStamp) -> str:
    """Return the name of the unfinished copy of one version of a file: hidden, short, and known again after a restart."""
    told = f"{name}|{stamp.size_bytes}|{stamp.modified_ns}".encode(errors="surrogateescape")
    return f".icestream-{hashlib.blake2b(told, digest_size=12).hexdigest()}.part"


def name_of_version(name: str, number: int) -> str:
    """Return the name under which a later version of a file is put beside the first."""
    path = PurePosixPath(name)
    return path.name if number == 1 else f"{path.stem}_v{number}{path.suffix}"


@dataclass
class FileCopy:
    """The copy of one version of a file.

    Parameters
    ----------
    chunks
        Digests of the pieces that were copied before, as they were read at the source.
    note_chunks
        Is told of the digests whenever another piece is safe at the target.
    replaces
        Names at the target that are earlier copies of this file: a sidecar takes their place.
    """

    source: AnchoredFolder
    target: AnchoredFolder
    name: str
    stamp: FileStamp
    throttle: Throttle
    chunks: Sequence[str] = ()
    note_chunks: Callable[[list[str]], None] = lambda _chunks: None
    replaces: Sequence[str] = ()
    chunk_bytes: int = CHUNK_BYTES
    _done: list[str] = field(default_factory=list, init=False)

    def run(self) -> Published:
        """Copy, verify and publish.

        Raises
        ------
        SourceChanged
            The file has changed since it was looked at.
        CopyDamaged
            The copy is not what was read; it was removed.
        FileRefused
            It is never transferred.
        Interrupted
            Somebody asked to stop; what was copied is kept.
        OSError
            Of the source or the target.
        """
        parts = parts_of(self.name)
        with (
            self.source.folder(parts[:-1]) as there,
            open_regular(there, parts[-1]) as handle,
            self.target.folder(parts[:-1], make=True) as here,
        ):
            self._check_same(handle)
            for known in self._versions_there(here, parts[-1]):
                if (same := self._compare(handle, here, known)) is not None:
                    if is_same_folder(here, there):
                        raise ItIsItself(_ITSELF)
                    return same
            try:
                return self._copy(handle, here, parts[-1])
            except SourceChanged:
                _forget(here, part_name(self.name, self.stamp))
                raise

    def _versions_there(self, here: int, last: str) -> Iterator[str]:
        """Yield the names at the target under which this file, of this size, may be already."""
        for number in range(1, MOST_VERSIONS):
            name = name_of_version(last, number)
            status = status_in(here, name)
            if status is None:
                return
            if status.st_size == self.stamp.size_bytes:
                yield name

    def _check_same(self, handle: int) -> None:
        if stamp_of(os.fstat(handle)) != self.stamp:
            raise SourceChanged("it has changed since it was looked at")

    def _compare(self, handle: int, here: int, there: str) -> Published | None:
        """Return what is at the target already, if it is the same file: put there by another program, or by us before we died."""
        try:
            with open_regular(here, there) as other:
                if is_same_file(os.fstat(handle), os.fstat(other)):
                    raise ItIsItself(_ITSELF)
                os.fsync(other)  # another program may have left it in memory
                copied = read_digest(other, Throttle(stopping=self.throttle.stopping))
                modified_ns = os.fstat(other).st_mtime_ns
        except ItIsItself:
            raise
        except FileRefused:
            return None
        sync_entries(here)
        if read_digest(handle, self.throttle, from_disk=False) != copied:
            return None
        self._check_same(handle)
        _forget(here, part_name(self.name, self.stamp))
        name = str(PurePosixPath(self.name).with_name(there))
        return Published(name, modified_ns, copied, "it was at the target already, and is the same")

    def _copy(self, handle: int, here: int, last: str) -> Published:
        part = part_name(self.name, self.stamp)
        with _open_part(here, part) as copy:
            digest = self._write(handle, copy)
            fault_point("copied")
            self._check_same(handle)
            os.utime(copy, ns=(self.stamp.modified_ns, self.stamp.modified_ns))
            os.fsync(copy)
            fault_point("synced")
            if read_digest(copy, Throttle(stopping=self.throttle.stopping)) != digest:
                _forget(here, part)
                raise CopyDamaged("what was read back from the target is not what was read at the source; it is copied again")
        fault_point("read_back")
        chosen = self._publish(here, part, last)
        fault_point("renamed")
        sync_entries(here)
        fault_point("published")
        modified_ns = os.stat(chosen, dir_fd=here, follow_symlinks=False).st_mtime_ns
        target_name = str(PurePosixPath(self.name).with_name(chosen))
        return Published(target_name, modified_ns, digest, self._say_where(last, chosen))

    @property
    def _replaces(self) -> bool:
        return self.name in self.replaces and self.name.lower().endswith(SIDECAR_SUFFIXES)

    def _publish(self, here: int, part: str, last: str) -> str:
        """Give the copy its name, and return it; what another program has put there meanwhile is never overwritten.

        Only on a file system without hard links could it be, between two calls.
        """
        while True:
            chosen = self._free_name(here, last)
            if not self._replaces:
                try:
                    os.link(part, chosen, src_dir_fd=here, dst_dir_fd=here, follow_symlinks=False)
                except FileExistsError:
                    continue
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                else:
                    fault_point("linked")
                    os.unlink(part, dir_fd=here)
                    return chosen
            if self._replaces or status_in(here, chosen) is None:
                os.rename(part, chosen, src_dir_fd=here, dst_dir_fd=here)
                return chosen

    def _say_where(self, last: str, chosen: str) -> str | None:
        if chosen != last:
            return f"{last} at the target is an earlier version or another file; this one is beside it"
        return "it has changed at the source, and replaced the earlier version" if self._replaces else None

    def _free_name(self, here: int, last: str) -> str:
        """Return a name that nothing has, so that nothing is overwritten; only the sidecar of an image follows its source."""
        if self._replaces:
            return last
        names = (name_of_version(self.name, number) for number in range(1, MOST_VERSIONS))
        free = next((name for name in names if status_in(here, name) is None), None)
        if free is None:
            raise FileRefused(f"there are {MOST_VERSIONS} versions of it at the target already")
        return free

    def _write(self, handle: int, copy: int) -> str:
        """Copy what is not there yet; return the digest of the whole."""
        digest = new_digest()
        at = self._keep_whole_pieces(copy, digest)
        os.ftruncate(copy, at)
        piece, in_piece = hashlib.blake2b(digest_size=16), 0
        while at < self.stamp.size_bytes:
            block = os.pread(handle, min(BLOCK_BYTES, self.chunk_bytes - in_piece, self.stamp.size_bytes - at), at)
            if not block:
                raise SourceChanged("it is shorter than when it was looked at")
            self.throttle.take(len(block))
            _write_all(copy, block, at)
            digest.update(block)
            piece.update(block)
            at, in_piece = at + len(block), in_piece + len(block)
            if in_piece == self.chunk_bytes:
                os.fsync(copy)
                self._done.append(piece.hexdigest())
                self.note_chunks(self._done)
                fault_point("piece_noted")
                piece, in_piece = hashlib.blake2b(digest_size=16), 0
        return digest.hexdigest()

    def _keep_whole_pieces(self, copy: int, digest: "hashlib.blake2b") -> int:
        """Return up to where the unfinished copy is what was read at the source, after reading it; the rest is copied again."""
        at = 0
        for expected in self.chunks:
            if at + self.chunk_bytes > self.stamp.size_bytes:
                break
            blocks = list(_blocks(copy, at, self.chunk_bytes))
            if hashlib.blake2b(b"".join(blocks), digest_size=16).hexdigest() != expected:
                break
            for block in blocks:
                digest.update(block)
            at += self.chunk_bytes
            self._done.append(expected)
        return at


def sweep_unfinished(target: AnchoredFolder, parts: tuple[str, ...], *, older_than_s: float) -> int:
    """Remove unfinished copies in one folder of the target that nobody has gone on with for long; return how many.

    Their files have changed or vanished at the source, or they would have been finished.
    """
    removed = 0
    try:
        with target.folder(parts) as here:
            for name in os.listdir(here):  # noqa: PTH208 - of an open folder
                if _UNFINISHED.fullmatch(name):
                    status = status_in(here, name)
                    if status is not None and time.time() - status.st_ctime > older_than_s:
                        _forget(here, name)
                        removed += 1
    except FileNotFoundError:  # nothing was copied there yet
        return 0
    return removed


def _blocks(handle: int, start: int, n_bytes: int) -> Iterator[bytes]:
    at = start
    while at < start + n_bytes and (block := os.pread(handle, min(BLOCK_BYTES, start + n_bytes - at), at)):
        yield block
        at += len(block)


@contextmanager
def _open_part(folder: int, part: str) -> Iterator[int]:
    """Open an unfinished copy, or begin one; what is no file of ours in its place is removed."""
    status = status_in(folder, part)
    if status is not None and status.st_nlink != 1:  # another name leads to the same file: it would be written through this one
        _forget(folder, part)
    handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def _forget(folder: int, name: str) -> None:
    if status_in(folder, name) is not None:
        os.unlink(name, dir_fd=folder)


def _write_all(handle: int, block: bytes, at: int) -> None:
    left = memoryview(block)
    while left:
        written = os.pwrite(handle, left, at)
        left, at = left[written:], at + written
