"""Denoised micrographs: for eyes, and for steps that ask for them; never for what measures or extracts."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Measure, Number, Panel, Picture, Shown, Text, When
from icestream.records.vocabulary import FileRef, Record
from icestream.units import Angstrom, WholePixels


class DenoisedMicrograph(Record):
    """A reduced micrograph through a Wiener filter; row 0, column 0 and the field of view are those of the micrograph."""

    stored_name: ClassVar[str] = "DenoisedMicrograph"

    image: FileRef
    height_px: WholePixels
    width_px: WholePixels
    bin: float = Field(gt=0, description="Pixel size relative to the raw pixel")
    method: Literal["halves", "ctf", "network"] = Field(
        description="What told signal from noise: two halves of the frames, the zeros of the CTF, or a trained network"
    )
    seen_ang: Angstrom | None = Field(
        None, description="Finest detail of which half is signal; unset: there is none, or not known"
    )
    picture: FileRef

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Denoised",
            measures=(Measure("Finest detail seen", "seen_ang", metric="denoised_detail_angstroms", better="low"),),
            cards=(
                Card(
                    numbers=(Number("Finest detail", "seen_ang"),),
                    picture=Picture("picture", "Denoised micrograph", "Wiener filter; not to be measured."),
                    texts=(
                        Text("Two halves of the frames tell signal from noise.", When("method", equals="halves")),
                        Text("The zeros of the CTF tell signal from noise.", When("method", equals="ctf")),
                        Text(
                            "A network that was trained on other micrographs tells signal from noise.",
                            When("method", equals="network"),
                        ),
                    ),
                ),
            ),
        )
    )
