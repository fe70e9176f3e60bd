"""Files that appear as a camera computer writes them: growing, with pauses, perhaps under a temporary name first."""

import zlib
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from icestream.microscope.faults import written_bytes
from icestream.microscope.settings import Fault
from icestream.units import Second

Wait = Callable[[float], bool]
"""Waits that many real seconds; returns True, perhaps early, when the simulation is asked to stop."""


class Pace(BaseModel):
    """How fast and in which manner files are written; times are of the simulated clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds_per_movie: Second = Field(0.0, ge=0, description="From the start of one movie to the next; 0 is as fast as possible")
    write_s: Second = Field(0.0, ge=0, description="How long a file grows")
    chunks: int = Field(8, ge=1, le=10000, description="In how many pieces a file is written")
    pause_s: Second = Field(30.0, ge=0, description="How long a file with the fault 'pause' stops growing")
    temporary_names: bool = Field(False, description="Write under .name.XXXXXX and rename at the end, as rsync does")
    late_gain_after: int | None = Field(None, ge=0, description="Write the gain reference only after this many movies")
    speed: float = Field(1.0, gt=0, description="How many times faster than real time the simulated clock runs")


def temporary_name(target: Path) -> Path:
    """Return the name that rsync might use while it writes ``target``; always the same for the same name."""
    mark = f"{zlib.crc32(target.name.encode()) % 36**6:06d}"[-6:]
    return target.with_name(f".{target.name}.{mark}")


def write_paced(source: Path, target: Path, *, pace: Pace, fault: Fault | None, wait: Wait) -> Path:
    """Copy ``source`` to ``target`` at the pace of a camera; return the name under which it lies in the end.

    A fault cuts or delays the file (`faults.written_bytes`, `Fault.PAUSE`). When ``wait`` says stop, the rest is written at once.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    current = temporary_name(target) if pace.temporary_names else target
    total = written_bytes(source.stat().st_size, fault)
    stopped = False
    with source.open("rb") as reader, current.open("wb", buffering=0) as writer:
        for chunk in range(pace.chunks):
            if fault is Fault.PAUSE and chunk == (pace.chunks + 1) // 2 and not stopped:
                stopped = wait(pace.pause_s / pace.speed)
            end = total * (chunk + 1) // pace.chunks
            while piece := reader.read(min(end - reader.tell(), 1 << 22)):
                writer.write(piece)
            if chunk + 1 < pace.chunks and pace.write_s > 0 and not stopped:
                stopped = wait(pace.write_s / pace.chunks / pace.speed)
    if current != target and fault is not Fault.UNFINISHED:
        current = current.replace(target)
    return current
