"""Watching a folder for files that have become complete: file events where they come, a rescan where they do not.

A file is ready at once when a close or rename event came and it has all the bytes that its header declares; otherwise when its
size and time have not changed for a stability time. A file that is still shorter than declared when it has not grown for long
enough is handed over as broken. What the operating system refuses is the trouble of that one path: it is looked at again, after
a pause that grows, until it can be read. Hidden files and the temporary names of copying programs are never looked at.
"""

import logging
import os
import queue
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from icestream.errors import FileFormatError, ItemError, TruncatedFile
from icestream.io.raw_folder import RawFolder, Scan, is_link

_DONE_EVENTS = ("closed", "moved")
_LONGEST_PAUSE_S = 60.0


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
    again_at_s: float = float("-inf")


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
    """Finds the files that a `RawFolder` wants; use it in a ``with`` block.

    ``check`` raises `TruncatedFile` while bytes are missing and another `ItemError` for a file that will never be readable.
    """

    wanted: RawFolder
    check: Callable[[Path], None]
    stable_s: float
    give_up_s: float
    rescan_s: float
    taken: Callable[[Path, Stamp], bool]
    clock: Callable[[], float] = time.monotonic
    candidates: dict[Path, Candidate] = field(default_factory=dict)
    seen: Scan = field(default_factory=Scan)
    """What the last scan found."""
    unreadable: str | None = None
    """Why the folder itself cannot be read."""
    no_events: str | None = None
    """Why the operating system gives no file events; the scans serve."""
    _refused: dict[Path, str] = field(default_factory=dict)
    _times: "Counter[Path]" = field(default_factory=Counter)
    """How often in a row the operating system refused a file."""
    _news: "queue.SimpleQueue[Path]" = field(default_factory=queue.SimpleQueue)
    _handed: set[tuple[Path, Stamp]] = field(default_factory=set)
    _scanned_at_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._observer = Observer()
        self._observed: set[Path] = set()

    @property
    def troubles(self) -> dict[Path, str]:
        """What cannot be read at present, with the reason: files, and folders below the one that is watched."""
        folders = {path: error.strerror or str(error) for path, error in self.seen.troubles.items() if path != self.wanted.root}
        return folders | self._refused

    def __enter__(self) -> Self:
        self._observe(self.wanted.base)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._observer.is_alive():
            logging.getLogger("watchdog.observers.inotify").addFilter(_is_no_stop_message)
            self._observer.stop()
            self._observer.join()

    def _observe(self, folder: Path) -> None:
        """Ask for file events; where there are none (network file systems, no inotify watches left), the rescan serves."""
        if folder in self._observed or not _is_folder(folder):
            return
        self._observed.add(folder)
        try:
            self._observer.schedule(_Events(self._news), str(folder), recursive=self.wanted.single_file is None)
            if not self._observer.is_alive():
                self._observer.start()
        except OSError as error:
            self.no_events = f"no file events for {folder}: {error}"

    def poll(self) -> list[Found]:
        """Return the files that became ready (or hopeless) since the last call, oldest first."""
        closed = list(self._drain())
        now_s = self.clock()
        if now_s - self._scanned_at_s >= self.rescan_s:
            self._scan(now_s)
        for path in closed:
            if self.wanted.matches(path) and path not in self.seen.left_out:
                self._look_at(path, now_s, closed=True)
        found = [ready for candidate in list(self.candidates.values()) if (ready := self._judge(candidate, now_s)) is not None]
        return sorted(found, key=lambda one: (one.stamp.modified_ns, one.path))

    def _drain(self) -> Iterator[Path]:
        while True:
            try:
                yield self._news.get_nowait()
            except queue.Empty:
                return

    def _scan(self, now_s: float) -> None:
        self._scanned_at_s = now_s
        self.seen = self.wanted.scan()
        root_trouble = self.seen.troubles.get(self.wanted.root)
        self.unreadable = None if root_trouble is None else str(root_trouble)
        there = set(self.seen.files)
        self._refused = {path: reason for path, reason in self._refused.items() if path in there}
        for path in self.seen.files:
            self._look_at(path, now_s)
        for folder in (self.wanted.base, *self.seen.linked):  # watching a folder does not reach into those that are links
            self._observe(folder)

    def _look_at(self, path: Path, now_s: float, *, closed: bool = False) -> None:
        try:
            status = path.stat()
        except OSError as error:
            self.candidates.pop(path, None)
            if is_link(path):
                self._refused[path] = f"is a link that leads nowhere: {error.strerror}"
            elif not isinstance(error, FileNotFoundError):
                self._refused[path] = error.strerror or str(error)
            return
        if not stat.S_ISREG(status.st_mode):
            return
        stamp = Stamp(status.st_size, status.st_mtime_ns)
        if (path, stamp) in self._handed or self.taken(path, stamp):
            self._refused.pop(path, None)
            return
        known = self.candidates.get(path)
        if known is None:
            age_s = max(0.0, time.time() - status.st_mtime)
            known = self.candidates[path] = Candidate(path, stamp, now_s - age_s)
        elif known.stamp != stamp:
            known.stamp, known.changed_at_s, known.closed, known.again_at_s = stamp, now_s, False, now_s
        known.closed = known.closed or closed

    def _judge(self, candidate: Candidate, now_s: float) -> Found | None:
        quiet_s = now_s - candidate.changed_at_s
        if now_s < candidate.again_at_s or (not candidate.closed and quiet_s < self.stable_s):
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
        except OSError as error:
            self._refuse(candidate, error.strerror or str(error))
            return None
        return self._hand_over(candidate, None)

    def _refuse(self, candidate: Candidate, reason: str) -> None:
        """Note that the operating system does not let a file be read; it is looked at again."""
        self._refused[candidate.path] = reason
        candidate.again_at_s = self.clock() + min(_LONGEST_PAUSE_S, self.rescan_s * 2.0 ** min(self._times[candidate.path], 10))
        self._times[candidate.path] += 1

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
        self._refused.pop(candidate.path, None)
        self._handed.add((candidate.path, candidate.stamp))
        return Found(candidate.path, candidate.stamp, error)

    def take_back(self, found: Found, reason: str) -> None:
        """Take a file back that was handed over and that the operating system then did not let be read."""
        self._handed.discard((found.path, found.stamp))
        candidate = self.candidates[found.path] = Candidate(found.path, found.stamp, self.clock() - self.give_up_s)
        self._refuse(candidate, reason)

    def give_up(self) -> list[Found]:
        """Hand over what is still incomplete: the stream is closing."""
        found = []
        for candidate in list(self.candidates.values()):
            try:
                self.check(candidate.path)
                reason = None
            except FileFormatError as error:
                reason = f"never finished: {error.reason}"
            except (ItemError, OSError):
                continue
            handed = self._hand_over(candidate, reason)
            found += [handed] if handed is not None else []
        return found


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - `Path.is_dir` raises where a folder may not be entered


def _is_no_stop_message(record: logging.LogRecord) -> bool:
    """Tell whether a message of watchdog is more than that its thread was reading when it was stopped."""
    return "when the thread is inactive" not in record.getMessage()
