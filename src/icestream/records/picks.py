"""Positions of particles on a micrograph."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Headline, Measure, Overlay, Panel, Shown, Text
from icestream.records.vocabulary import Block, Column, Record
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
    block: Block
    threshold: float | None = Field(None, description="The lowest response of a pick, in standard deviations of the noise")
    expected_false: float | None = Field(None, ge=0, le=1, description="Share of the picks that is expected to be false")
    found_diameter_ang: Angstrom | None = Field(None, description="Diameter that the particles of this micrograph have")
    no_picks: Literal["drift", "noise", "crystalline ice"] | None = Field(
        None, description="Why no particle can be told from the rest; set only if there is no pick"
    )

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Picking",
            measures=(
                Measure("Particles per micrograph", unit="particles", how="weight", metric="picks_per_micrograph"),
                Measure("Diameter of the particles", "found_diameter_ang", metric="picks_diameter_angstroms"),
                Measure("Threshold", "threshold", "σ", metric="picks_threshold_sigmas"),
                Measure("Expected to be false", "expected_false", "%", factor=100.0, metric="picks_expected_false_percent"),
            ),
        ),
        overlay=Overlay("y_px", "x_px", diameter_ang="diameter_ang", count="count", word="pick"),
        notes=(Text("no picks: {no_picks}"),),
        headlines=(Headline("Particles", "particles so far", of="weight", place=2, rank=1),),
    )
