"""What is to be transferred, and what has been."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from icestream.errors import SessionError
from icestream.transfer.copying import CHUNK_BYTES
from icestream.transfer.ledger import TransferState


@dataclass(frozen=True)
class TransferPlan:
    """What is to be transferred, and how gently."""

    source: Path
    target: Path
    pattern: str = "**/*"
    bytes_per_s: float | None = None
    remove_after_s: float | None = None
    """Remove a file at the source so long after it was verified; unset: never."""
    remove_pattern: str = "*"
    """Only files whose name relative to the source fits are removed."""
    keep_free_bytes: int = 0
    stable_s: float = 10.0
    give_up_s: float = 600.0
    look_every_s: float = 5.0
    chunk_bytes: int = CHUNK_BYTES

    def check(self) -> None:
        """Refuse folders of which one is in the other: a transfer would never end.

        Raises
        ------
        SessionError
            They are, or the source is no folder.
        """
        source, target = self.source.resolve(), self.target.resolve()
        if source.is_relative_to(target) or target.is_relative_to(source):
            raise SessionError(f"{source} and {target}: one is in the other; transfer between two separate folders")


@dataclass
class Progress:
    """What a transfer has done since it was started, and what is before it."""

    state: TransferState = "running"
    note: str | None = None
    copied: int = 0
    copied_bytes: int = 0
    removed: int = 0
    failed: int = 0
    """Files that failed last time."""
    waiting: int = 0
    waiting_bytes: int = 0
    growing: int = 0
    bytes_per_s: float | None = None


class Stopping(Protocol):
    """Somebody may ask to stop; `icestream.flow.runner.stopping` has it."""

    @property
    def count(self) -> int:
        """How often somebody has asked."""
        ...

    def wait(self, timeout_s: float) -> None:
        """Sleep, at most until somebody asks."""
        ...
