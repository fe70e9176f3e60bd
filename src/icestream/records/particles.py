"""Images of particles: where they are, how they were cut, and what was removed from them."""

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.ctf import CTF_COLUMNS
from icestream.records.micrograph import RawArea
from icestream.records.picks import PID, POSITION, Removed
from icestream.records.shown import Headline, Measure, Panel, Shown, Text
from icestream.records.vocabulary import Block, Column, FileRef, FurtherBlock, Record
from icestream.units import Angstrom, Degree, Pixel, WholePixels

SLICE = Column("slice", "i4", "", "Number of the image in the stack, from 0; of particles without a stack the number of the row")


class Cutting(Record):
    """How images of particles are cut out of a micrograph and treated: with the positions it gives the same images every time."""

    area: RawArea = Field(description="The part of the raw image that the micrograph shows")
    box_px: WholePixels = Field(description="Side of the box in pixels of the micrograph")
    margin_px: WholePixels = Field(0, description="What is cut more on each side, and cut off again after filtering")
    scaled_box_px: WholePixels = Field(description="Side of the box after Fourier cropping")
    pad: bool = Field(description="Boxes that leave the micrograph are filled with the nearest pixels")
    dust_level: float | None
    ctf_correction: Literal["none", "flip", "premultiply"]
    invert: bool
    normalise: Literal["ramp", "mean", "none"]
    background_radius_px: float = Field(description="Pixels farther from the centre are background; in scaled pixels")
    stored_as: Literal["float32", "float16"]
    pixel_size_ang: Angstrom = Field(description="Of the micrograph")
    voltage_kv: float | None = Field(None, description="Set where the CTF is corrected, as the next two")
    cs_mm: float | None = None
    amplitude_contrast: float | None = None
    defocus_u_ang: Angstrom | None = Field(None, description="The CTF of the whole micrograph, whose phases are flipped with it")
    defocus_v_ang: Angstrom | None = None
    astigmatism_angle_deg: Degree | None = None
    phase_shift_deg: Degree | None = None


class Particles(Record):
    """Images of the particles of one micrograph, with position and CTF of each.

    A row of the table says in its ``slice`` which image of the stack is its own, so a part of the particles refers to the same
    stack. Without a stack the images are cut from the micrograph whenever they are read (a virtual stack), as ``cutting`` says.
    What a step removed from its input is kept beside the table (``rejected``).
    """

    stored_name: ClassVar[str] = "Particles"
    schema_version: ClassVar[int] = 2
    block_columns: ClassVar[tuple[Column, ...]] = (PID, *POSITION, *CTF_COLUMNS, SLICE)
    further_columns: ClassVar[Mapping[str, tuple[Column, ...]]] = {
        "rejected": (
            *block_columns,
            Column("reason", "i2", "", "Why it was removed: the number of a row of `removed`, from 0"),
        )
    }

    stack: FileRef | None = Field(description="Unset where no particle was left, and of virtual stacks")
    count: int = Field(ge=0)
    n_left_out: int = Field(0, ge=0, description="Picks without an image, because their box leaves the micrograph")
    n_padded: int = Field(0, ge=0, description="Particles whose box leaves the micrograph and was filled with the nearest pixels")
    n_removed: int = Field(0, ge=0, description="Particles that the step removed; they are the rows of `rejected`")
    removed: tuple[Removed, ...] = Field((), description="Why particles were removed, and how many for each reason")
    box_px: int
    bin: float = Field(gt=0, description="Pixel size of the images relative to the raw pixel")
    inverted: bool = Field(description="Protein is bright")
    phase_flipped: bool
    ctf_premultiplied: bool = Field(False, description="The images were multiplied by their CTF")
    moved_px: Pixel | None = Field(
        None, description="How far they were moved to their centres, median, in raw pixels; unset: they were not"
    )
    diameter_ang: Angstrom | None = Field(None, description="Of the particle; unset: not known")
    cutting: Cutting | None = Field(None, description="How the images were cut; unset: not known")
    micrograph: FileRef
    origin: str | None = Field(None, description="The exposure that they are of; unset: cut by an early version of icestream")
    picks_key: str | None = Field(None, description="Of the picks that gave them their numbers; unset likewise")
    block: Block
    rejected: FurtherBlock = None

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Particles",
            measures=(
                Measure(
                    "Left out: box leaves the micrograph",
                    "n_left_out",
                    "particles",
                    metric="particles_left_out_at_border",
                    better="low",
                    hidden_at_zero=True,
                ),
                Measure(
                    "Padded: box leaves the micrograph", "n_padded", "particles", metric="particles_padded", hidden_at_zero=True
                ),
                Measure(
                    "Particles removed per micrograph",
                    "n_removed",
                    "particles",
                    metric="particles_removed_per_micrograph",
                    hidden_at_zero=True,
                ),
                Measure(
                    "Moved to the centre",
                    "moved_px",
                    pixels="raw",
                    metric="particles_moved_angstroms",
                    better="low",
                    hidden_at_zero=True,
                ),
            ),
        ),
        headlines=(Headline("Particles", "particles so far", of="weight", place=2, rank=2),),
        notes=(Text("particles removed: {removed:counts}"),),
    )

    @property
    def is_virtual(self) -> bool:
        """There are particles but no stack: their images are cut when they are read."""
        return self.stack is None and self.count > 0

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Read version 1, whose stacks held the rows of the table in their order."""
        return stored if version == 1 else super().upcast(stored, version)
