"""The engine's side of a source, inside its worker process."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from icestream.errors import FileFormatError
from icestream.flow.declaration import SeenFile, resolve_ref


@dataclass
class WorkerSourceContext:
    """Implements `icestream.flow.declaration.source.SourceContext`."""

    roots: dict[str, str]
    known: set[SeenFile]
    stop: threading.Event = field(default_factory=threading.Event)
    set_aside: dict[SeenFile, int] = field(default_factory=dict)  # files whose reading killed the process, and how often
    notepad: int | None = None  # an open file that the runner reads when this process has died

    def path(self, ref: str) -> Path:
        """Return the absolute path of ``root:relative`` (``root:.`` is the root itself)."""
        return resolve_ref(self.roots, ref)

    def seen(self, file: SeenFile) -> bool:
        """Tell whether exactly this file was taken before."""
        return file in self.known

    def took_any(self) -> bool:
        """Tell whether anything was taken in an earlier run."""
        return bool(self.known)

    @contextmanager
    def reading(self, file: SeenFile) -> Iterator[None]:
        """Write down which file is being read; refuse one that has killed the process too often."""
        deaths = self.set_aside.get(file)
        if deaths is not None:
            raise FileFormatError(file.ref, f"reading it killed the process {deaths} times; it will not be read again")
        self._write([file.ref, file.size_bytes, file.modified_ns])
        try:
            yield
        finally:
            self._write(None)

    def _write(self, file: list[str | int] | None) -> None:
        if self.notepad is not None:
            text = "" if file is None else json.dumps(file)
            os.pwrite(self.notepad, f"{text}\n".encode(errors="backslashreplace"), 0)

    def wait(self, seconds: float) -> None:
        """Sleep, but return at once when the runner stops."""
        self.stop.wait(seconds)

    def stopping(self) -> bool:
        """Tell whether the runner is stopping."""
        return self.stop.is_set()
