"""Drawings on disk, within a bounded size: those that nobody has looked at for longest leave first."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from icestream.files import is_temporary, publish

_STALE_S = 3600.0


class DrawingCache:
    """A folder of drawings.

    Several servers of one account may share it: a drawing is published under its name, whole, and is the same from all of them.

    Parameters
    ----------
    folder
        Made when the first drawing is kept.
    most_bytes
        What all drawings may take together; one that is larger is kept until the next one comes.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._lock = threading.Lock()

    def find(self, name: str) -> Path | None:
        """Return a drawing, and note that it was looked at; an empty one, as a power cut leaves behind, is dropped."""
        path = self.folder / name
        try:
            os.utime(path)
            if path.stat().st_size:
                return path
            self.drop(name)
        except OSError:
            return None
        return None

    def drop(self, name: str) -> None:
        """Remove a drawing that cannot be read; it is drawn anew when somebody asks."""
        (self.folder / name).unlink(missing_ok=True)

    @contextmanager
    def keep(self, name: str) -> Iterator[Path]:
        """Give a path to draw to; what is there afterwards is kept, and others make room for it."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with publish(self.folder / name, attempt=f"{os.getpid()}-{threading.get_ident()}") as temporary:
            yield temporary
        self._make_room(name)

    def _make_room(self, newest: str) -> None:
        with self._lock:
            found = []
            for path in self.folder.iterdir():
                with suppress(FileNotFoundError):  # another server was first
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
            taken, now = sum(size for _, size, _ in found), max((at for at, _, _ in found), default=0.0)
            for at, size, path in sorted(found):
                abandoned = is_temporary(path) and now - at > _STALE_S
                if abandoned or (taken > self.most_bytes and path.name != newest and not is_temporary(path)):
                    path.unlink(missing_ok=True)
                    taken -= size
