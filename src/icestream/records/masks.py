"""Where a micrograph shows something that should not be picked."""

from typing import ClassVar, Literal, get_args

from pydantic import Field

from icestream.records.shown import Beside, Card, Measure, Number, Panel, Picture, Shown, Text
from icestream.records.vocabulary import FileRef, Record
from icestream.units import WholePixels

JunkClass = Literal["carbon", "crystalline_ice", "dirt", "aggregate"]
"""Carbon or gold film up to its edge, ice with Bragg spots, balls of ice and dirt, aggregates of particles."""

JUNK_BITS: dict[JunkClass, int] = {name: 1 << bit for bit, name in enumerate(get_args(JunkClass))}
"""The bit of each class in the labels, 1, 2, 4 and 8: a place may be of several classes."""


class JunkMask(Record):
    """Where a micrograph shows carbon, crystals, dirt and aggregates, as a small image of labels."""

    stored_name: ClassVar[str] = "JunkMask"

    labels: FileRef = Field(
        description="Image of whole numbers, each the sum of the bits of its classes: carbon 1, crystalline ice 2, dirt 4, "
        "aggregate 8; 0 is clean"
    )
    box_px: WholePixels = Field(
        ge=1, description="Pixels of the micrograph along one side of a label; label (0, 0) begins at pixel (0, 0)"
    )
    bin: float = Field(gt=0, description="Size of a label relative to the raw pixel")
    height_px: WholePixels = Field(description="Of the micrograph")
    width_px: WholePixels
    carbon_share: float = Field(ge=0, le=1, description="Share of the micrograph")
    crystalline_ice_share: float | None = Field(
        None, ge=0, le=1, description="Unset where crystals cannot be looked for; the note says why"
    )
    dirt_share: float = Field(ge=0, le=1)
    aggregate_share: float = Field(ge=0, le=1)
    any_share: float = Field(ge=0, le=1, description="Share under any of them")
    note: str | None = Field(None, description="What could not be looked for, and why")
    picture: FileRef | None = Field(None, description="Carbon in blue, crystals in yellow, dirt in red, aggregates in magenta")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Masks",
            measures=(
                Measure("Masked", "any_share", "%", factor=100.0, metric="masked_percent", better="low"),
                Measure("Carbon", "carbon_share", "%", factor=100.0, metric="masked_carbon_percent", hidden_at_zero=True),
                Measure(
                    "Crystalline ice",
                    "crystalline_ice_share",
                    "%",
                    factor=100.0,
                    metric="masked_crystalline_ice_percent",
                    hidden_at_zero=True,
                ),
                Measure("Dirt", "dirt_share", "%", factor=100.0, metric="masked_dirt_percent", hidden_at_zero=True),
                Measure(
                    "Aggregates", "aggregate_share", "%", factor=100.0, metric="masked_aggregate_percent", hidden_at_zero=True
                ),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Carbon", "carbon_share", "%", factor=100.0),
                        Number("Crystalline ice", "crystalline_ice_share", "%", factor=100.0),
                        Number("Dirt", "dirt_share", "%", factor=100.0),
                        Number("Aggregates", "aggregate_share", "%", factor=100.0),
                    ),
                    picture=Picture(
                        "picture", "Masks", "Carbon is blue, crystalline ice yellow, dirt red, aggregates are magenta."
                    ),
                    texts=(Text("{note:sentence}"),),
                ),
            ),
        ),
        beside=(Beside(Number("Masked", "any_share", "%", factor=100.0)),),
    )
