"""What streaming 2D classification remembers between calls, and how it is stored."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from icestream.algorithms.classify2d import Averages, Model, Sums, orders_of_stored
from icestream.flow import Context
from icestream.records import ClassEvent, FileRef, Record
from icestream.steps.classify2d.segments import Segment
from icestream.units import Angstrom


class HeldExposure(Record):
    """An exposure that version 1 kept for later passes; ``counts`` are its particles per class."""

    id: str
    name: str
    stack: FileRef
    table: FileRef = Field(description="pid and optics per particle, ``.npy``")
    count: int = Field(ge=1)
    ordinal: int = Field(ge=0, description="Position in the stream")
    inverted: bool
    phase_flipped: bool
    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    counts: list[int] = Field(default_factory=list)


class Classify2DState(Record):
    """The classification so far; arrays are in ``model``, ``.npz`` without pickles, and in the segments."""

    schema_version: ClassVar[int] = 2

    seed: int
    model: FileRef | None = None
    n_particles: int = 0
    n_exposures: int = 0
    next_anneal: int = 0
    box_px: int | None = None
    bin: float | None = None
    pixel_size_ang: Angstrom | None = Field(None, description="Of the particle stacks")
    segments: list[Segment] = Field(default_factory=list)
    settled: list[int] = Field(default_factory=list, description="Particles per class that can not be looked at again")
    held: list[HeldExposure] = Field(default_factory=list, description="Exposures of version 1 that are not in segments yet")
    ids: list[int] = Field(default_factory=list, description="Of the class at each place")
    born: list[int] = Field(default_factory=list, description="Version that showed the class at each place first")
    next_id: int = 0
    events: list[ClassEvent] = Field(default_factory=list)
    resolution_ang: list[Angstrom | None] = Field(
        default_factory=list, description="Of the class at each place, from halves that shared no average"
    )

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Read what version 1 stored: a sample of exposures, and classes whose ids are their places."""
        if version != 1:
            return super().upcast(stored, version)
        settled = stored.get("settled")
        n_classes = len(settled) if isinstance(settled, list) else 0
        return {**stored, "ids": list(range(n_classes)), "born": [1] * n_classes, "next_id": n_classes}


def count_members(state: Classify2DState) -> list[int]:
    """Return the particles in the class at each place."""
    total = np.array(state.settled, dtype=np.int64)
    for counts in [*(one.counts for one in state.segments), *(one.counts for one in state.held)]:
        total += np.array(counts or [0], dtype=np.int64)
    return [int(count) for count in total]


def save_model(model: Model, ctx: Context) -> FileRef:
    """Publish the arrays of a model."""
    averages, sums = model.averages, model.sums
    arrays: dict[str, Any] = {
        "images": averages.images,
        "halves": averages.halves,
        "correlation": averages.correlation,
        "noise_power": averages.noise_power,
        "signal": sums.signal,
        "ctf_squared": sums.ctf_squared,
        "weight": sums.weight,
        "power": sums.power,
    }
    with ctx.publish("_state.npz") as out, out.path.open("wb") as handle:
        np.savez(handle, n_seen=np.int64(model.n_seen), **arrays)
    return out.ref


def load_model(ref: FileRef, ctx: Context) -> Model:
    """Read the arrays of a model, bit for bit as they were."""
    with np.load(ctx.path(ref), allow_pickle=False) as stored:
        averages = Averages(stored["images"], stored["halves"], stored["correlation"], stored["noise_power"])
        sums = Sums(*orders_of_stored(stored["signal"], stored["ctf_squared"]), stored["weight"], stored["power"])
        return Model(averages, sums, int(stored["n_seen"]))
