"""What a source yields while it watches."""

from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from icestream.records import Acquisition, Record


@dataclass(frozen=True)
class SeenFile:
    """A file as it was when it was taken; handed back after a restart so that it is not read again."""

    ref: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class Arrival:
    """One new item.

    ``identity`` is the content's identity (name relative to its root, size, hash of the first and last MiB); the engine derives
    the exposure's id from it, so the same content is never taken twice. With ``error`` set the item arrived broken: it is
    listed as failed and nothing below runs on it.
    """

    identity: str
    name: str
    record: Record | None
    file: SeenFile | None = None
    acquisition: Acquisition | None = None
    error: str | None = None


@dataclass(frozen=True)
class Pulse:
    """Nothing new: what the source waits for, shown in the status."""

    note: str


@dataclass(frozen=True)
class Troubles:
    """All that a source cannot take at present, each with the reason: a file or folder reference → what is wrong with it.

    Each is listed as failed, though no exposure, until a later one of these does not name it any more. ``{}``: all is well.
    """

    reasons: Mapping[str, str]


@dataclass(frozen=True)
class Foreseen:
    """What can be said of a source before it runs; with ``refused`` its session cannot be made like this."""

    text: str
    refused: bool = False


Watch = Generator[Arrival | Pulse | Troubles, None, str]
"""What a source function returns: a generator that ends with the reason why its stream closes."""


class SourceContext(Protocol):
    """The engine's side of a source. A source ends by returning the reason why its stream closes."""

    def path(self, ref: str) -> Path:
        """Return the absolute ``Path`` of a file or folder reference ``root:relative``."""

    def seen(self, file: SeenFile) -> bool:
        """Tell whether exactly this file (name, size, time) was taken before."""

    def took_any(self) -> bool:
        """Tell whether anything was taken in an earlier run."""

    def reading(self, file: SeenFile) -> AbstractContextManager[None]:
        """Announce that a file is being read, so that one whose reading kills the process can be told from the others.

        Raises
        ------
        FileFormatError
            The file has killed the process too often; it is not read again.
        """

    def wait(self, seconds: float) -> None:
        """Sleep, but return at once when the source should look at its stop flag."""

    def stopping(self) -> bool:
        """Tell whether the runner is stopping; the source then returns without closing its stream."""
