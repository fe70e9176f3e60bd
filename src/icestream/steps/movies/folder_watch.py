"""Watching a folder for files that have become complete: file events where they come, a rescan where they do not.

A file is ready at once when a close or rename event came and it has all the bytes that its header declares; otherwise when its
size and time have not changed for a stability time. A file that is still shorter than declared when it has not grown for long
enough is handed over as broken. Hidden files and the temporary names of copying programs are never looked at.
"""

import fnmatch
import logging
import os
import queue
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from icestream.errors import FileFormatError, ItemError, TruncatedFile
from icestream.io.raw import COMPRESSED_SUFFIXES

_TEMPORARY_SUFFIXES = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp", "~")
_DONE_EVENTS = ("closed", "moved")


@dataclass(frozen=True)
class Stamp:
    """Size and time of a file."""

    size_bytes: int
    modified_ns: int


@dataclass
class Candidate:
    """A file that is not ready yet."""

    path: Path
    stamp: Stamp
    changed_at_s: float
    closed: bool = False


@dataclass(frozen=True)
class Found:
    """A file that is ready, or (with ``error``) broken for good."""

    path: Path
    stamp: Stamp
    error: str | None = None


class _Events(FileSystemEventHandler):
    def __init__(self, news: "queue.SimpleQueue[Path]") -> None:
        self._news = news

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _DONE_EVENTS and not event.is_directory:
            self._news.put(Path(os.fsdecode(event.dest_path or event.src_path)))


@dataclass
class FolderWatch:
    """Finds files below ``folder`` that match ``pattern``; use it in a ``with`` block.

    ``pattern`` is a glob relative to the folder (``**/`` for any depth). ``check`` raises `TruncatedFile` while bytes are missing
    and another `ItemError` for a file that will never be readable.
    """

    folder: Path
    pattern: str
    check: Callable[[Path], None]
    stable_s: float
    give_up_s: float
    rescan_s: float
    taken: Callable[[Path, Stamp], bool]
    suffixes: frozenset[str] | None = None
    clock: Callable[[], float] = time.monotonic
    candidates: dict[Path, Candidate] = field(default_factory=dict)
    unreadable: str | None = None
    _news: "queue.SimpleQueue[Path]" = field(default_factory=queue.SimpleQueue)
    _handed: set[tuple[Path, Stamp]] = field(default_factory=set)
    _scanned_at_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._observer = Observer()
        self._watching = False

    def __enter__(self) -> Self:
        self._observe()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._watching:
            logging.getLogger("watchdog.observers.inotify").addFilter(_is_no_stop_message)
            self._observer.stop()
            self._observer.join()

    def _observe(self) -> None:
        """Ask for file events; where there are none (network file systems, no inotify watches left), the rescan serves."""
        if self._watching or not self.folder.is_dir():
            return
        try:
            self._observer.schedule(_Events(self._news), str(self.folder), recursive=True)
            self._observer.start()
            self._watching = True
        except OSError as error:
            self.unreadable = f"no file events for {self.folder}: {error}"

    def poll(self) -> list[Found]:
        """Return the files that became ready (or hopeless) since the last call, oldest first."""
        closed = list(self._drain())
        now_s = self.clock()
        if now_s - self._scanned_at_s >= self.rescan_s:
            self._scan(now_s)
        for path in closed:
            if self.matches(path):
                self._look_at(path, now_s, closed=True)
        found = [ready for candidate in list(self.candidates.values()) if (ready := self._judge(candidate, now_s)) is not None]
        return sorted(found, key=lambda one: (one.stamp.modified_ns, one.path))

    def _drain(self) -> Iterator[Path]:
        while True:
            try:
                yield self._news.get_nowait()
            except queue.Empty:
                return

    def matches(self, path: Path) -> bool:
        """Tell whether a path is one that this watch looks for."""
        try:
            relative = path.relative_to(self.folder)
        except ValueError:
            return False
        if any(part.startswith(".") for part in relative.parts) or path.name.endswith(_TEMPORARY_SUFFIXES):
            return False
        if self.suffixes is not None and not _has_suffix(path, self.suffixes):
            return False
        name = relative.as_posix()
        flat = self.pattern.removeprefix("**/")
        return fnmatch.fnmatch(name, self.pattern) or (flat != self.pattern and fnmatch.fnmatch(path.name, flat))

    def _scan(self, now_s: float) -> None:
        self._scanned_at_s = now_s
        problem: list[OSError] = []
        for folder, subfolders, names in os.walk(self.folder, onerror=problem.append):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            for name in names:
                path = Path(folder) / name
                if self.matches(path):
                    self._look_at(path, now_s)
        root_problem = [error for error in problem if error.filename is None or Path(error.filename) == self.folder]
        self.unreadable = str(root_problem[0]) if root_problem else None
        if not root_problem:
            self._observe()

    def _look_at(self, path: Path, now_s: float, *, closed: bool = False) -> None:
        try:
            status = path.stat()
        except OSError:
            self.candidates.pop(path, None)
            return
        if not stat.S_ISREG(status.st_mode):
            return
        stamp = Stamp(status.st_size, status.st_mtime_ns)
        if (path, stamp) in self._handed or self.taken(path, stamp):
            return
        known = self.candidates.get(path)
        if known is None:
            age_s = max(0.0, time.time() - status.st_mtime)
            known = self.candidates[path] = Candidate(path, stamp, now_s - age_s)
        elif known.stamp != stamp:
            known.stamp, known.changed_at_s, known.closed = stamp, now_s, False
        known.closed = known.closed or closed

    def _judge(self, candidate: Candidate, now_s: float) -> Found | None:
        quiet_s = now_s - candidate.changed_at_s
        if not candidate.closed and quiet_s < self.stable_s:
            return None
        try:
            self.check(candidate.path)
        except TruncatedFile as error:
            patience_s = self.stable_s if candidate.closed else self.give_up_s
            return self._hand_over(candidate, error.reason) if quiet_s >= patience_s else None
        except FileFormatError as error:
            return self._hand_over(candidate, error.reason) if quiet_s >= self.stable_s else None
        except ItemError:
            del self.candidates[candidate.path]
            return None
        return self._hand_over(candidate, None)

    def _hand_over(self, candidate: Candidate, error: str | None) -> Found | None:
        """Give a file away if it has not changed while it was looked at."""
        del self.candidates[candidate.path]
        try:
            status = candidate.path.stat()
        except OSError:
            return None
        if Stamp(status.st_size, status.st_mtime_ns) != candidate.stamp:
            self._look_at(candidate.path, self.clock())
            return None
        self._handed.add((candidate.path, candidate.stamp))
        return Found(candidate.path, candidate.stamp, error)

    def give_up(self) -> list[Found]:
        """Hand over what is still incomplete: the stream is closing."""
        found = []
        for candidate in list(self.candidates.values()):
            try:
                self.check(candidate.path)
                reason = None
            except FileFormatError as error:
                reason = f"never finished: {error.reason}"
            except ItemError:
                continue
            handed = self._hand_over(candidate, reason)
            found += [handed] if handed is not None else []
        return found


def _is_no_stop_message(record: logging.LogRecord) -> bool:
    """Tell whether a message of watchdog is more than that its thread was reading when it was stopped."""
    return "when the thread is inactive" not in record.getMessage()


def _has_suffix(path: Path, suffixes: frozenset[str]) -> bool:
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSED_SUFFIXES else path
    return plain.suffix.lower() in suffixes
