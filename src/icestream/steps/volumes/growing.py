"""Particles of a stream that grows, small and on disk, for accumulators that look at them again and again."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from icestream.algorithms.refine3d import Portion, Setting
from icestream.flow import Angstrom, Context, Exposure, ItemError
from icestream.records import Acquisition, Particles, Record
from icestream.steps.classify2d.segments import (
    TABLE,
    Prepared,
    Segment,
    join,
    pieces,
    pixel_contrast,
    polar_contrast,
    prepare,
    read_table,
    write_segment,
)
from icestream.steps.volumes.gathered import half_sets

_LARGEST_SEGMENT = 10_000
"""Particles that are prepared in memory before they are written."""


class GrowingState(Record):
    """Particles so far, in segments that are only added to; all have one box."""

    box_px: int | None = None
    bin: float | None = None
    pixel_size_ang: Angstrom | None = Field(None, description="Of the particle stacks")
    segments: list[Segment] = Field(default_factory=list)

    @property
    def n_held(self) -> int:
        """How many particles there are."""
        return sum(one.count for one in self.segments)

    @property
    def box(self) -> tuple[int, float, float]:
        """Side of the boxes in pixels, pixel size in Å, and how many pixels of the movie that is.

        Raises
        ------
        ValueError
            There are no particles yet.
        """
        if self.box_px is None or self.pixel_size_ang is None or self.bin is None:
            raise ValueError("there are no particles yet")
        return self.box_px, self.pixel_size_ang, self.bin


StateT = TypeVar("StateT", bound=GrowingState)


def remember_box(
    state: StateT, exposures: Sequence[Exposure], particles: Sequence[Particles], acquisition: Sequence[Acquisition]
) -> StateT:
    """Remember the box of the first particles.

    Raises
    ------
    ItemError
        A later exposure has another one, or an acquisition value is unset.
    """
    for exposure, some, values in zip(exposures, particles, acquisition, strict=True):
        if not some.count:
            continue
        pixel_ang = values.need("pixel_size_ang") * some.bin
        if state.box_px is None:
            state = state.model_copy(update={"box_px": some.box_px, "bin": some.bin, "pixel_size_ang": pixel_ang})
        elif state.box_px != some.box_px or abs(pixel_ang / (state.pixel_size_ang or 1.0) - 1) > 0.005:
            raise ItemError(
                f"{exposure.name}: box of {some.box_px} px at {pixel_ang:g} Å; "
                f"this step began with {state.box_px} px at {state.pixel_size_ang:g} Å"
            )
    return state


def write_fresh(
    exposures: Sequence[Exposure],
    particles: Sequence[Particles],
    acquisition: Sequence[Acquisition],
    *,
    size: int,
    ctx: Context,
    dtype: np.dtype[np.void] = TABLE,
) -> list[Segment]:
    """Write the particles of new exposures, brought to ``size``, as segments; their rows get further columns by ``dtype``.

    The half set of a particle follows from what names it, for good.
    """
    parts, fresh = list[Prepared](), list[Segment]()

    def write() -> None:
        whole = join(parts)
        table = np.zeros(len(whole), dtype=dtype)
        for name in TABLE.names or ():
            table[name] = whole.table[name]
        table["half"] = half_sets(table)
        fresh.append(write_segment(Prepared(whole.images, table), suffix=f"fresh{len(fresh)}", ctx=ctx))
        parts.clear()

    for exposure, some, values in zip(exposures, particles, acquisition, strict=True):
        if some.count:
            parts.append(prepare(some, values, size=size, name=exposure.name, exposure_id=exposure.id, ordinal=0, ctx=ctx))
        if sum(map(len, parts)) >= _LARGEST_SEGMENT:
            write()
    if parts:
        write()
    return fresh


def whole_table(segments: Sequence[Segment], ctx: Context, *, dtype: np.dtype[np.void] = TABLE) -> NDArray[np.void]:
    """Return the rows of all particles of segments."""
    return np.concatenate([np.empty(0, dtype=dtype), *(read_table(one, ctx) for one in segments)])


def give_portions(segments: Sequence[Segment], setting: Setting, ctx: Context) -> Iterator[Portion]:
    """Give all particles of segments in portions, ready to be refined."""
    first, size = 0, setting.grid.box_px
    box_ang = size * setting.pixel_size_ang
    for segment in segments:
        for rows, piece in pieces(segment, read_table(segment, ctx), ctx):
            table = piece.table
            yield Portion(
                np.arange(first + rows.start, first + rows.start + len(table)),
                piece.images.astype(np.float32),
                polar_contrast(table, grid=setting.grid, box_ang=box_ang),
                pixel_contrast(table, size=size, box_ang=box_ang),
                table["half"].astype(np.int8),
            )
        first += segment.count
