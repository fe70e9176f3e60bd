"""How thick the ice is, by what the beam loses and by the ring of ice; the nodes of the Thon rings are with the local CTF.

Three columns that are never mixed: each has a unit of its own, says what it comes from, and none is made from another.
"""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Headline, Measure, Number, Panel, Shown, Text, When
from icestream.records.vocabulary import Record, Snapshot

VacuumOrigin = Literal["stated", "empty_hole", "brightest"]
"""Where the intensity without ice comes from, the most certain first."""

FROM_TRANSMISSION = (
    "From mean counts: -ln(I / I0), the thickness in mean free paths. More is thicker ice; what 1 is in Å depends on voltage, "
    "aperture and filter, and where 0 is depends on I0."
)
FROM_NODES = "From where the Thon rings vanish and reverse: an absolute thickness, only where that is seen. More is thicker ice."
FROM_RING = (
    "From the power spectrum: vitreous ice at 3.7 Å over the noise of the camera. More is thicker ice, within one session; it is "
    "no thickness."
)


class BeamIntensity(Record):
    """How many electrons reached the camera where a micrograph is clean."""

    stored_name: ClassVar[str] = "BeamIntensity"

    counts_per_px_frame: float = Field(gt=0, description="Mean counts in a raw pixel and stored frame, the gain applied")
    n_frames: int = Field(ge=1, description="Stored frames in the sum; 1 where nobody says how many there were")
    clean_share: float = Field(gt=0, le=1, description="Share of the micrograph that was counted")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Intensity",
            measures=(
                Measure(
                    "Counts in a raw pixel and frame, clean part",
                    "counts_per_px_frame",
                    metric="intensity_counts_per_pixel_frame",
                ),
            ),
        )
    )


class VacuumReference(Snapshot):
    """The intensity that the session has without ice, as far as it shows."""

    stored_name: ClassVar[str] = "VacuumReference"

    counts_per_px_frame: float = Field(gt=0, description="Expected counts in a raw pixel and stored frame without ice")
    origin: VacuumOrigin = Field(description="A person, empty holes, or the brightest exposure that two others confirm")
    n_measured: int = Field(ge=0, description="Exposures examined so far")
    n_empty: int = Field(0, ge=0, description="Empty holes among them")
    n_updates: int = Field(0, ge=0, description="How often the reference changed after exposures were compared with it")
    warning: str | None = Field(None, description="Says that exposures were compared with different references")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Beam without ice",
            within="Ice by transmission",
            cards=(
                Card(
                    "Beam without ice (I0)",
                    numbers=(
                        Number("Counts in a raw pixel and frame", "counts_per_px_frame"),
                        Number("Exposures examined", "n_measured"),
                        Number("Empty holes", "n_empty"),
                        Number("Changes", "n_updates"),
                    ),
                    texts=(
                        Text("I0 was stated for the session.", When("origin", equals="stated")),
                        Text("I0 is the median of the empty holes of the session.", When("origin", equals="empty_hole")),
                        Text(
                            "I0 is the brightest exposure that two others confirm: even that may have ice, so thicknesses are "
                            "relative to the thinnest.",
                            When("origin", equals="brightest"),
                        ),
                    ),
                    warnings=(Text("{warning}"),),
                ),
            ),
        )
    )


class IceTransmission(Record):
    """How much of the beam the ice lets through, relative to the session's beam without ice."""

    stored_name: ClassVar[str] = "IceTransmission"

    mean_free_paths: float = Field(description="-ln(I / I0), the thickness in mean free paths; below 0: brighter than I0")
    transmission: float = Field(gt=0, description="I / I0")
    vacuum_counts_per_px_frame: float = Field(gt=0, description="I0")
    vacuum_origin: VacuumOrigin = Field(description="Where I0 comes from")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Ice by transmission",
            measures=(
                Measure(
                    "Ice by transmission",
                    "mean_free_paths",
                    "mean free paths",
                    metric="ice_transmission_mean_free_paths",
                    better="low",
                    origin=FROM_TRANSMISSION,
                ),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Transmission", "transmission", "%", factor=100.0),
                        Number("-ln(I / I0)", "mean_free_paths", "mean free paths"),
                    ),
                    texts=(Text("I0: {vacuum_origin:words}."),),
                ),
            ),
        ),
        headlines=(Headline("Ice", "median, by transmission", of="median", place=4),),
    )


class IceRing(Record):
    """How strong the ring of vitreous ice at 3.7 Å is; an indicator of how much ice there is."""

    stored_name: ClassVar[str] = "IceRing"

    strength: float | None = Field(None, ge=0, description="Power of the ring over that of the noise; unset: a note says why")
    error: float | None = Field(None, ge=0, description="Standard error of the strength")
    note: str | None = Field(None, description="Why no ring was measured")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Ice ring",
            measures=(
                Measure(
                    "Ice by the ring at 3.7 Å",
                    "strength",
                    "% of noise",
                    factor=100.0,
                    metric="ice_ring_percent",
                    better="low",
                    origin=FROM_RING,
                ),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Ring at 3.7 Å", "strength", "% of noise", factor=100.0),
                        Number("Error", "error", "% of noise", factor=100.0),
                    ),
                    texts=(Text("{note:sentence}"),),
                ),
            ),
        )
    )
