"""The engine's side of a source, inside its worker process."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from icestream.flow.session import resolve_ref
from icestream.flow.source import SeenFile


@dataclass
class WorkerSourceContext:
    """Implements `icestream.flow.source.SourceContext`."""

    roots: dict[str, str]
    known: set[SeenFile]
    stop: threading.Event = field(default_factory=threading.Event)

    def path(self, ref: str) -> Path:
        """Return the absolute path of ``root:relative`` (``root:.`` is the root itself)."""
        return resolve_ref(self.roots, ref)

    def seen(self, file: SeenFile) -> bool:
        """Tell whether exactly this file was taken before."""
        return file in self.known

    def wait(self, seconds: float) -> None:
        """Sleep, but return at once when the runner stops."""
        self.stop.wait(seconds)

    def stopping(self) -> bool:
        """Tell whether the runner is stopping."""
        return self.stop.is_set()
