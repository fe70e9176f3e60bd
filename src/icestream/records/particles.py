"""Images of particles."""

from typing import ClassVar

from pydantic import Field

from icestream.records.ctf import CTF_COLUMNS
from icestream.records.picks import PID, POSITION
from icestream.records.shown import Headline, Measure, Panel, Shown
from icestream.records.vocabulary import Block, Column, FileRef, Record


class Particles(Record):
    """Images of the particles of one micrograph, with position and CTF of each; row i of the table is slice i of the stack."""

    stored_name: ClassVar[str] = "Particles"
    block_columns: ClassVar[tuple[Column, ...]] = (PID, *POSITION, *CTF_COLUMNS)

    stack: FileRef | None = Field(description="Unset where no particle was left")
    count: int = Field(ge=0)
    n_left_out: int = Field(0, ge=0, description="Picks without an image, because their box leaves the micrograph")
    n_padded: int = Field(0, ge=0, description="Particles whose box leaves the micrograph and was filled with the nearest pixels")
    box_px: int
    bin: float = Field(gt=0, description="Pixel size of the stack relative to the raw pixel")
    inverted: bool = Field(description="Protein is bright")
    phase_flipped: bool
    micrograph: FileRef
    block: Block

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
            ),
        ),
        headlines=(Headline("Particles", "particles so far", of="weight", place=2, rank=2),),
    )
