"""A file that is ready becomes an arrival: its identity, its name, its record, and what is wrong with it."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from icestream.flow import Arrival, OtherKind, SeenFile, SourceContext, SourceGone
from icestream.flow.declaration import CallFailure, FailureKind, call_step
from icestream.io.raw_folder import plain_text
from icestream.io.ready import check_complete
from icestream.records import Acquisition, Record
from icestream.steps.movies.folder_watch import Found, Stamp

_MIB = 1 << 20
_NOT_THE_FILE = (FailureKind.GONE, FailureKind.TRANSIENT, FailureKind.ENVIRONMENT, FailureKind.OUT_OF_MEMORY)
"""How reading ends badly through no fault of the file: it is read again."""
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")

ReadRecord = Callable[[Path, str], tuple[Record, Acquisition | None]]
"""``(path, reference) → (record, what the file says about the acquisition)``."""


def content_identity(name: str, path: Path, size_bytes: int) -> str:
    """Return the identity of a file: name relative to its root, size, and a hash of its first and last MiB."""
    hashed = hashlib.sha256()
    with path.open("rb") as handle:
        hashed.update(handle.read(_MIB))
        if size_bytes > _MIB:
            handle.seek(max(_MIB, size_bytes - _MIB))
            hashed.update(handle.read(_MIB))
    return f"{name}|{size_bytes}|{hashed.hexdigest()}"


def safe_name(path: Path) -> str:
    """Return the file's stem as a name that is harmless in file names, STAR files and shells."""
    stem = path.name.split(".")[0] if path.name.count(".") == 1 else path.name.rsplit(".", 1)[0]
    return _UNSAFE.sub("_", stem).lstrip(".-")[:120] or "unnamed"


def check_on_record(ctx: SourceContext, root: str, folder: Path, path: Path) -> None:
    """Check that a file is complete, on the record: a broken header may kill the process."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise SourceGone(f"{path}: {error}") from error
    with ctx.reading(SeenFile(ref_of(root, folder, path), status.st_size, status.st_mtime_ns)):
        check_complete(path)


def ref_of(root: str, folder: Path, path: Path) -> str:
    """Return how a file below the folder of a root is named: ``root:relative``."""
    return f"{root}:{plain_text(path.relative_to(folder))}"


def _read_on_the_record(
    ctx: SourceContext, file: SeenFile, path: Path, read: ReadRecord
) -> tuple[Record, Acquisition | None] | OtherKind:
    with ctx.reading(file):
        try:
            return read(path, file.ref)
        except OtherKind as error:
            return error


def make_arrival(
    ctx: SourceContext, ref: str, found: Found, read: ReadRecord, *, folder: Path
) -> Arrival | OtherKind | CallFailure:
    """Read a file; whatever is wrong with it becomes the reason why it arrives broken.

    Returns
    -------
    Arrival, OtherKind or CallFailure
        The last where the file is not to blame.
    """
    relative = ref.partition(":")[2]
    file = SeenFile(ref, found.stamp.size_bytes, found.stamp.modified_ns)
    answer: tuple[Record, Acquisition | None] | OtherKind | CallFailure | None = None
    error = found.error
    if not relative.isprintable() or relative != found.path.relative_to(folder).as_posix():
        error = "its name has unprintable characters; rename it"
    elif error is None:
        answer = call_step(_read_on_the_record, ctx, file, found.path, read)
    identity: str | CallFailure = call_step(content_identity, relative, found.path, found.stamp.size_bytes)
    for failure in (answer, identity):
        if isinstance(failure, CallFailure) and failure.kind in _NOT_THE_FILE:
            return failure
    if isinstance(answer, OtherKind):
        return answer
    if isinstance(identity, CallFailure):
        error, identity = identity.message, f"{relative}|{found.stamp.size_bytes}|unreadable"
    if isinstance(answer, CallFailure):
        error, answer = answer.message, None
    record, acquisition = answer or (None, None)
    told = None if error is None else error.replace(f"{folder}/", "").encode(errors="backslashreplace").decode()
    return Arrival(identity, safe_name(found.path), None if told else record, file, acquisition, told)


class Renames:
    """Recognises files that were taken before, also under another name."""

    def __init__(self, ctx: SourceContext, root: str, folder: Path) -> None:
        self._ctx, self._root, self._folder = ctx, root, folder
        self._by_stamp: dict[Stamp, Path] = {}
        self.before = 0

    def note(self, found: Found) -> None:
        """Remember a file that was taken in this run."""
        self._by_stamp[found.stamp] = found.path

    def taken(self, path: Path, stamp: Stamp) -> bool:
        """Tell whether this file was taken in an earlier run, or is one that was taken and then renamed."""
        if self._ctx.seen(SeenFile(ref_of(self._root, self._folder, path), stamp.size_bytes, stamp.modified_ns)):
            if stamp not in self._by_stamp:
                self._by_stamp[stamp] = path
                self.before += 1
            return True
        earlier = self._by_stamp.get(stamp)
        return earlier is not None and earlier != path and not os.path.lexists(earlier)
