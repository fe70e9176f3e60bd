"""Positions of particles on a micrograph."""

from typing import ClassVar

from pydantic import Field

from icestream.records.shown import Headline, Measure, Overlay, Panel, Shown
from icestream.records.vocabulary import Block, Column, FileRef, Record
from icestream.units import Angstrom

PID = Column("pid", "i4", "", "Number of the particle on its micrograph, given at picking and never changed")
POSITION = (
    Column("y_px", "f4", "px", "Centre, in pixels of the micrograph"),
    Column("x_px", "f4", "px", "Centre, in pixels of the micrograph"),
    Column("score", "f4", "", "How much it looks like a particle; the scale is that of the picking step"),
)


class Picks(Record):
    """Positions of particles on one micrograph."""

    stored_name: ClassVar[str] = "Picks"
    block_columns: ClassVar[tuple[Column, ...]] = (PID, *POSITION)

    count: int = Field(ge=0)
    diameter_ang: Angstrom
    reference: FileRef | None = Field(None, description="The version of the templates, or the trained model, that was used")
    block: Block

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Picking",
            measures=(Measure("Particles per micrograph", unit="particles", how="weight", metric="picks_per_micrograph"),),
        ),
        overlay=Overlay("y_px", "x_px", diameter_ang="diameter_ang", count="count", word="pick"),
        headlines=(Headline("Particles", "particles so far", of="weight", place=2, rank=1),),
    )
