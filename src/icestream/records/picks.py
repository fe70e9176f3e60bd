"""Positions of particles on a micrograph, what was removed from them, and which pickers they come from."""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from icestream.records.shown import Headline, Measure, Overlay, Panel, Shown, Tally, Text
from icestream.records.vocabulary import Block, Column, FurtherBlock, Record
from icestream.units import Angstrom

PID = Column("pid", "i4", "", "Number of the particle on its micrograph, given at picking and never changed")
POSITION = (
    Column("y_px", "f4", "px", "Centre, in pixels of the micrograph"),
    Column("x_px", "f4", "px", "Centre, in pixels of the micrograph"),
    Column("score", "f4", "", "How much it looks like a particle; the scale is that of the picking step"),
)


class Removed(BaseModel):
    """How many picks a step removed for one reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(min_length=1, description="In the words of the step, as: at the border")
    count: int = Field(ge=0)


class Picks(Record):
    """Positions of particles on one micrograph.

    What the step removed from its input is kept beside them (``rejected``), and, of a consensus, the picks of each picker from
    which each particle was made (``parents``).
    """

    stored_name: ClassVar[str] = "Picks"
    schema_version: ClassVar[int] = 2
    block_columns: ClassVar[tuple[Column, ...]] = (PID, *POSITION)
    further_columns: ClassVar[Mapping[str, tuple[Column, ...]]] = {
        "rejected": (PID, *POSITION, Column("reason", "i2", "", "Why it was removed: the number of a row of `removed`, from 0")),
        "parents": (
            PID,
            Column("picker", "i2", "", "Number of the picker, from 0: a row of `pickers`"),
            Column("parent_pid", "i4", "", "Number of the pick among those of that picker"),
            Column("score", "f4", "", "Score that this picker gave it"),
        ),
    }

    count: int = Field(ge=0)
    diameter_ang: Angstrom
    n_removed: int = Field(0, ge=0, description="Picks that the step removed; they are the rows of `rejected`")
    removed: tuple[Removed, ...] = Field((), description="Why picks were removed, and how many for each reason")
    pickers: tuple[str, ...] = Field((), description="The pickers that a consensus is of, in the order of its inputs")
    block: Block
    rejected: FurtherBlock = None
    parents: FurtherBlock = None

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Picking",
            measures=(
                Measure("Particles per micrograph", unit="particles", how="weight", metric="picks_per_micrograph"),
                Measure(
                    "Picks removed per micrograph",
                    "n_removed",
                    "picks",
                    metric="picks_removed_per_micrograph",
                    hidden_at_zero=True,
                ),
            ),
            tallies=(Tally("Picks removed", "removed", "picks"),),
        ),
        overlay=Overlay("y_px", "x_px", diameter_ang="diameter_ang", count="count", word="pick"),
        headlines=(Headline("Particles", "particles so far", of="weight", place=2, rank=1),),
        notes=(Text("picks removed: {removed:counts}"),),
    )

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Read version 1, which kept nothing beside the positions."""
        return stored if version == 1 else super().upcast(stored, version)
