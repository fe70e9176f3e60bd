"""What the sources that import files have in common: parameters, identity, and the loop."""

import hashlib
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from icestream.errors import SourceGone
from icestream.flow import Arrival, Field, Params, Pulse, SeenFile, SourceContext, Watch
from icestream.flow.declaration.guard import CallFailure, call_step
from icestream.io.ready import check_complete
from icestream.records import Acquisition, Record
from icestream.steps.movies.folder_watch import FolderWatch, Found, Stamp
from icestream.steps.movies.sidecar_watch import SidecarWatch
from icestream.units import Second

_MIB = 1 << 20
_OPERATIONAL = {"operational": True}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")

ReadRecord = Callable[[Path, str], tuple[Record, Acquisition | None]]
"""``(path, reference) → (record, what the file says about the acquisition)``."""


class FileSourceParams(Params):
    """Which files are taken, and when a file counts as complete."""

    root: str = Field("movies", pattern=r"^[a-z][a-z0-9_]*$", description="Named folder of the session to watch")
    pattern: str = Field("**/*", min_length=1, description="Which files: a glob relative to the root; **/ matches any depth")
    idle_s: Second = Field(
        43200.0,
        gt=0,
        description="Close the stream after this long without a new file (while the folder is readable)",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    max_files: int | None = Field(
        None, ge=1, description="Close the stream after this many files", json_schema_extra={**_OPERATIONAL}
    )
    stable_s: Second = Field(
        10.0,
        ge=0,
        description="Without a close event, a file is complete when it has not changed for this long",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    give_up_s: Second = Field(
        600.0,
        ge=0,
        description="A file that is shorter than its header declares counts as broken after this long without growth",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    sidecar_s: Second = Field(
        30.0,
        ge=0,
        description="Wait this long for the sidecar of a file if those before it had one; later ones are read when they come",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )
    rescan_s: Second = Field(
        5.0,
        gt=0,
        description="Scan the whole folder this often, in addition to events",
        json_schema_extra={**_OPERATIONAL, "unit": "s"},
    )


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


def watch_files(
    params: FileSourceParams,
    ctx: SourceContext,
    read: ReadRecord,
    *,
    suffixes: frozenset[str] | None,
    count_broken: bool = True,
    sidecars: bool = False,
) -> Watch:
    """Watch a folder and yield its files as they become complete.

    Parameters
    ----------
    read
        Makes the record of a complete file.
    suffixes
        Only files with these endings are looked at, possibly followed by one of a compression; all if unset.
    count_broken
        Files that arrive broken count towards ``max_files``.
    sidecars
        The record is read from sidecars, too: wait for them, and read again what comes late.
    """
    folder = ctx.path(f"{params.root}:.")
    renames = _Renames(ctx, params.root, folder)
    beside = SidecarWatch(ctx, partial(_ref, params.root, folder), params.sidecar_s if sidecars else 0.0, params.rescan_s)
    with FolderWatch(
        folder,
        params.pattern,
        partial(_check, ctx, params.root, folder),
        stable_s=params.stable_s,
        give_up_s=params.give_up_s,
        rescan_s=params.rescan_s,
        taken=beside.remembering(renames.taken),
        suffixes=suffixes,
    ) as watch:
        count, idle_s, looked_at = 0, 0.0, time.monotonic()
        while not ctx.stopping():
            found = beside.release(watch.poll())
            wanted = len(found) if params.max_files is None else max(0, params.max_files - count - renames.before)
            for one in found[:wanted]:
                arrival = _arrival(ctx, params.root, folder, one, read, beside)
                yield arrival
                renames.note(one)
                count += count_broken or arrival.error is None
            revised = list(beside.changed()) if sidecars else []
            for one in revised:
                arrival = _arrival(ctx, params.root, folder, one, read, beside)
                if arrival.error is None:
                    yield arrival
            if params.max_files is not None and count + renames.before >= params.max_files and not beside.pending:
                return f"{params.max_files} files arrived"
            now = time.monotonic()
            idle_s = 0.0 if found or revised or watch.unreadable else idle_s + (now - looked_at)
            looked_at = now
            if idle_s >= params.idle_s:
                for one in beside.release(watch.give_up(), closing=True):
                    yield _arrival(ctx, params.root, folder, one, read, beside)
                return f"no new file for {params.idle_s:g} s"
            waiting = f", {beside.n_waiting} wait for their sidecars" if beside.n_waiting else ""
            yield Pulse(watch.unreadable or f"{len(watch.candidates)} files are being written{waiting}")
            ctx.wait(0.05 if watch.candidates or found else 0.1)
    return "stopping"


def _check(ctx: SourceContext, root: str, folder: Path, path: Path) -> None:
    """Check that a file is complete, on the record: a broken header may kill the process."""
    try:
        status = path.stat()
    except OSError as error:
        raise SourceGone(f"{path}: {error}") from error
    with ctx.reading(SeenFile(_ref(root, folder, path), status.st_size, status.st_mtime_ns)):
        check_complete(path)


def _read_on_the_record(ctx: SourceContext, file: SeenFile, path: Path, read: ReadRecord) -> tuple[Record, Acquisition | None]:
    with ctx.reading(file):
        return read(path, file.ref)


def _ref(root: str, folder: Path, path: Path) -> str:
    return f"{root}:{_text(path.relative_to(folder))}"


def _arrival(ctx: SourceContext, root: str, folder: Path, found: Found, read: ReadRecord, sidecars: SidecarWatch) -> Arrival:
    """Read a file; whatever is wrong with it becomes the reason why it arrives broken."""
    relative = _text(found.path.relative_to(folder))
    beside = sidecars.stamp(found.path)
    ref = f"{root}:{relative}"
    file = SeenFile(ref, found.stamp.size_bytes, found.stamp.modified_ns)
    identity: str | CallFailure = call_step(content_identity, relative, found.path, found.stamp.size_bytes)
    answer: tuple[Record, Acquisition | None] | CallFailure | None = None
    error = found.error
    if isinstance(identity, CallFailure):
        error, identity = identity.message, f"{relative}|{found.stamp.size_bytes}|unreadable"
    elif not _text(found.path.relative_to(folder)).isprintable() or not _is_text(found.path.relative_to(folder)):
        error = "its name has unprintable characters; rename it"
    elif error is None:
        answer = call_step(_read_on_the_record, ctx, file, found.path, read)
    if isinstance(answer, CallFailure):
        error, answer = answer.message, None
    record, acquisition = answer or (None, None)
    told = None if error is None else error.replace(f"{folder}/", "").encode(errors="backslashreplace").decode()
    warnings = () if record is None else record.warnings
    arrival = Arrival(identity, safe_name(found.path), record, file, acquisition, told, warnings=warnings)
    return sidecars.complete(arrival, found, beside)


def _is_text(path: Path) -> bool:
    return _text(path) == path.as_posix()


def _text(path: Path) -> str:
    """Return a path as text that can be stored: bytes that are no UTF-8 are written out."""
    return path.as_posix().encode(errors="backslashreplace").decode()


class _Renames:
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
        relative = _text(path.relative_to(self._folder))
        if self._ctx.seen(SeenFile(f"{self._root}:{relative}", stamp.size_bytes, stamp.modified_ns)):
            if stamp not in self._by_stamp:
                self._by_stamp[stamp] = path
                self.before += 1
            return True
        earlier = self._by_stamp.get(stamp)
        return earlier is not None and earlier != path and not earlier.exists()
