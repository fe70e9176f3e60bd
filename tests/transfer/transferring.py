"""What the tests of transfers share: a clock that only waiting moves, somebody who may ask to stop, and files."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from icestream.transfer.ledger import FileState, Ledger
from icestream.transfer.plan import TransferPlan
from icestream.transfer.running import Transfer

CHUNK = 1 << 20
HOUR_S = 3600.0


@dataclass
class Story:
    """Time that passes only where somebody waits, and what happens meanwhile."""

    now_s: float = 0.0
    count: int = 0
    """How often somebody has asked to stop."""
    most_waits: int = 200
    events: dict[int, Callable[[], object]] = field(default_factory=dict)
    """What happens in which wait, counted from 1."""
    waits: int = 0

    def wait(self, timeout_s: float) -> None:
        self.now_s += timeout_s
        self.waits += 1
        self.events.pop(self.waits, lambda: None)()
        if self.waits >= self.most_waits:
            self.count += 1

    def clock(self) -> float:
        return self.now_s

    def stop(self) -> None:
        self.count += 1


@dataclass
class Bench:
    """A source, a target and their ledger."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source, self.target = self.folder / "microscope", self.folder / "raw"
        self.source.mkdir(parents=True)
        self.ledger = Ledger(self.folder / "transfers.db")

    def write(self, name: str, content: bytes | str = b"movie", *, age_s: float = 100.0) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        moment = 1_790_000_000.5 - age_s
        os.utime(path, (moment, moment))
        return path

    def transfer(self, story: Story | None = None, **plan: Any) -> Transfer:
        values: dict[str, Any] = {"stable_s": 10.0, "chunk_bytes": CHUNK, **plan}
        told = story or Story()
        return Transfer(TransferPlan(self.source, self.target, **values), self.ledger, told, self.said.append, clock=told.clock)

    def run(self, story: Story | None = None, *, once: bool = True, **plan: Any) -> Transfer:
        made = self.transfer(story, **plan)
        made.run(once=once)
        return made

    def states(self) -> dict[str, FileState]:
        rows = [row for one in self.ledger.transfers() for row in self.ledger.files(one.id)]
        return {row.name: row.state for row in reversed(rows)}

    def at_target(self) -> dict[str, bytes]:
        """Return everything that a source would see at the target."""
        found = [path for path in self.target.rglob("*") if path.is_file()]
        return {path.relative_to(self.target).as_posix(): path.read_bytes() for path in found if not path.name.startswith(".")}

    def unfinished(self) -> list[Path]:
        return list(self.target.rglob(".icestream-*.part"))

    def age(self, seconds: float) -> None:
        """Let what was verified have been so long ago."""
        with self.ledger._writing() as database:  # noqa: SLF001 - as if time had passed
            database.execute("UPDATE file SET verified_at = verified_at - ?, retry_at = retry_at - ?", (seconds, seconds))


def digest(content: bytes) -> str:
    return blake2b(content, digest_size=32).hexdigest()


def path_of(handle: int) -> str:
    """Return the path of an open file."""
    return str(Path(f"/proc/self/fd/{handle}").readlink())
