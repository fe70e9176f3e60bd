"""The file in which a watch remembers what it did, and the lock that keeps a second watch of the same root away."""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from icestream.errors import SessionBusy, SessionError
from icestream.facility.watch_decisions import WatchState, Wish
from icestream.files import is_temporary, publish_text
from icestream.logs import log_event

_LOG = logging.getLogger(__name__)
MOST_WISHES = 500
"""Requests that wait for a watch, one for each folder: while none runs nobody does them."""
_PATIENCE_S = 2.0
"""Who asks for the holder has the lock for a moment, and so has a process that a killed watch was just about to start."""


class StateFile:
    """What is known about one root, on disk."""

    def __init__(self, state_folder: Path, root: Path) -> None:
        key = _digest(str(root.resolve()))
        self.state_folder = state_folder
        self.path = state_folder / "watch" / f"{key}.json"
        self.root = root

    def read(self) -> WatchState | None:
        """Return what was written last; None where nothing was.

        Raises
        ------
        SessionError
            The file is damaged or was written by another version.
        """
        if not self.path.is_file():
            return None
        try:
            return WatchState.model_validate_json(self.path.read_bytes())
        except (OSError, ValidationError) as error:
            raise SessionError(f"{self.path}: cannot be read as the state of a watch: {error}") from error

    def write(self, state: WatchState) -> None:
        """Write the state so that it survives anything from now on."""
        publish_text(self.path, state.model_dump_json(indent=1, exclude_defaults=True))

    def ask(self, wish: Wish) -> None:
        """Ask the watch for something; it is done at its next look, also if it is started only later.

        What was asked of the same folder before, and is not done yet, is replaced.

        Raises
        ------
        SessionBusy
            Too much waits for the watch.
        """
        mark = _digest(wish.folder)
        target = self._asked / f"{time.time_ns()}-{os.getpid()}-{mark}.json"
        waiting = _published(self._asked)
        if len(waiting) >= MOST_WISHES and not any(path.stem.endswith(f"-{mark}") for path in waiting):
            raise SessionBusy(f"{self.root}: {len(waiting)} requests wait for the watch already; is it running?")
        publish_text(target, wish.model_dump_json())
        for path in _published(self._asked):
            if path.stem.endswith(f"-{mark}") and path.name < target.name:  # never a newer one
                path.unlink(missing_ok=True)

    def wishes(self) -> list[tuple[Path, Wish]]:
        """Return what people asked for, the oldest first; the watch, and nobody else, removes the file of what it has done."""
        return [(path, wish) for path in _published(self._asked) if isinstance(wish := _read_wish(path), Wish)]

    def drop_unreadable_wishes(self) -> None:
        """Remove requests that are whole and yet none; only the watch does this. Those that cannot be read now stay."""
        for path in _published(self._asked):
            if isinstance(wrong := _read_wish(path), ValidationError):
                log_event(_LOG, logging.WARNING, "request to a watch dropped", file=str(path), reason=str(wrong))
                path.unlink(missing_ok=True)

    @property
    def _asked(self) -> Path:
        return self.path.with_suffix(".asked")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other watches of this root away; the kernel lets go when this process ends, however it ends.

        Raises
        ------
        SessionBusy
            Another watch holds it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("a+", encoding="utf-8") as handle:
            if not _lock(handle):
                handle.seek(0)
                raise SessionBusy(f"{self.root}: is already watched by process {handle.read().strip() or 'unknown'}")
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def holder(self) -> int | None:
        """Return the process that watches the root now, or None."""
        path = self.path.with_suffix(".lock")
        if not path.is_file():
            return None
        with path.open("r", encoding="utf-8") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(handle.read().strip() or 0)
        return None


def list_watches(state_folder: Path) -> list[tuple[StateFile, WatchState]]:
    """Return what is known of every root that this account has watched on this machine, by name, but for damaged files.

    A root is there once: what is not in the file of its root, such as a copy, does not count.
    """
    found = []
    for path in _published(state_folder / "watch"):
        try:
            state = WatchState.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            log_event(_LOG, logging.WARNING, "state of a watch not read", file=str(path), reason=str(error))
            continue
        file = StateFile(state_folder, Path(state.root))
        if file.path == path:
            found.append((file, state))
    return sorted(found, key=lambda one: one[1].root)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def _published(folder: Path) -> list[Path]:
    """Return the files of a folder that are whole, by name: not those that somebody is writing."""
    return sorted(path for path in folder.glob("*.json") if not is_temporary(path))


def _read_wish(path: Path) -> Wish | ValidationError | None:
    """Return a request, or what is wrong with it; None where it cannot be read now, or was done meanwhile."""
    try:
        return Wish.model_validate_json(path.read_bytes())
    except ValidationError as error:
        return error
    except OSError:
        return None


def _lock(handle: IO[str]) -> bool:
    """Lock a file for this process alone; tell whether that was possible within a moment."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        else:
            return True
