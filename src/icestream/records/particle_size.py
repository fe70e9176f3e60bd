"""How large the particles of a session are."""

from typing import ClassVar

from pydantic import Field

from icestream.records.shown import Card, Measure, Number, Panel, Shown, Text
from icestream.records.vocabulary import Record, Snapshot
from icestream.units import Angstrom, Pixel, WholePixels


class MeasuredDiameter(Record):
    """The diameter that one micrograph shows."""

    exposure: str = Field(description="Name of the exposure")
    diameter_ang: Angstrom = Field(description="Diameter of the sphere that holds a particle")
    gain: float = Field(ge=0, description="By how much the particles explain the micrograph better than decoys do, in nats")


class ParticleSize(Snapshot):
    """The diameter of the particles, and the lengths that follow from it; other steps refer to these."""

    stored_name: ClassVar[str] = "ParticleSize"

    diameter_ang: Angstrom = Field(description="Diameter of the sphere that holds a particle")
    error_ang: Angstrom = Field(ge=0, description="Standard error of the diameter, from the differences between micrographs")
    n_micrographs: int = Field(ge=1, description="Micrographs that were looked at")
    n_alike: int = Field(ge=1, description="Micrographs that agree on this diameter")
    box_px: WholePixels = Field(ge=16, description="Side of a box around a particle, in pixels of the micrographs")
    box_ang: Angstrom = Field(description="Side of a box around a particle")
    mask_diameter_ang: Angstrom = Field(description="Diameter of a mask around a particle")
    radius_px: Pixel = Field(description="Radius of a particle, in pixels of the micrographs")
    micrographs: list[MeasuredDiameter] = Field(description="What each micrograph shows, those without clear particles left out")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Picking",
            measures=(Measure("Diameter found", "diameter_ang", metric="particle_diameter_angstroms"),),
            cards=(
                Card(
                    "Particle size",
                    subtitle=Text("found on {n_alike} of {n_micrographs} micrographs"),
                    numbers=(
                        Number("Diameter", "diameter_ang"),
                        Number("Standard error", "error_ang"),
                        Number("Box", "box_ang"),
                        Number("Box", "box_px"),
                        Number("Mask", "mask_diameter_ang"),
                    ),
                ),
            ),
        )
    )
