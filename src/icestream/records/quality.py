"""What a micrograph looks like: tilt, ice, dirt, and whether it is worth keeping."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Measure, Number, Panel, Picture, Shown, Text
from icestream.records.vocabulary import FileRef, Record
from icestream.units import Angstrom, WholePixels

MicrographKind = Literal["no_ice", "crystalline_ice", "streaks", "carbon", "contamination", "bare_ice", "decent", "great"]
"""What a micrograph may be; the last two are worth keeping."""


class TiltMeasure(Record):
    """How alike the spectra of the windows of one micrograph are; correlations are in units of that of equal rings."""

    stored_name: ClassVar[str] = "TiltMeasure"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.quality_records:TiltMeasure",)

    window_px: WholePixels
    n_windows: int
    significance: float = Field(description="Strength of the rings in the windows, in standard deviations of noise")
    mean_correlation: float | None = Field(None, description="Unset, like the others, where the rings are too faint to tell")
    std_correlation: float | None = Field(None, description="Spread of the correlations, noise left out")
    min_correlation: float | None = None
    max_correlation: float | None = None
    picture: FileRef | None = Field(None, description="The spectra of the windows, where they lie in the image")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Tilt",
            measures=(
                Measure("Likeness of the spectra over the field", "mean_correlation", metric="tilt_likeness_mean", better="high"),
                Measure("Spread of the likeness", "std_correlation", metric="tilt_likeness_spread", better="low"),
                Measure("Strength of the rings", "significance", "σ", metric="tilt_ring_sigmas", better="high"),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Rings", "significance", "σ"),
                        Number("Mean", "mean_correlation"),
                        Number("Spread", "std_correlation"),
                    ),
                    picture=Picture(
                        "picture", "Spectra of the windows", "The spectra of the windows, where they lie in the image."
                    ),
                ),
            ),
        )
    )


class MicrographQuality(Record):
    """What a micrograph looks like; each number is a ratio that does not depend on how grey values were stretched."""

    stored_name: ClassVar[str] = "MicrographQuality"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.quality_records:MicrographQuality",)

    kind: MicrographKind
    score: float = Field(ge=0, le=1, description="Probability that it is decent or great")
    reason: str = Field(description="The rule that named the kind, with its number and its bound")
    probability: dict[str, float] = Field(description="Of each kind")
    signal_to_noise: float = Field(description="Strongest octave of the spectrum over the weakest; 1 is shot noise alone")
    mottle: float = Field(description="Coarse power over that of everything finer")
    bragg_share: float | None = Field(None, description="Share of the tiles with Bragg spots of ice; unset: pixels too coarse")
    bragg_spacing_ang: Angstrom | None = Field(None, description="Where the spots are")
    anisotropy: float = Field(description="How one-sided the coarse spectrum is, from 0 to 1; drift makes it so")
    film_share: float = Field(description="Share of the image that is film beside a hole")
    dark_share: float = Field(description="Share of the image under dark objects that are no particles")
    particle_share: float = Field(0.0, description="Share of the image under dark objects that are alike and many, as particles")
    skewness: float = Field(description="Least skewness of the grey values; particles are dark and make it negative")
    usable_share: float = Field(description="Share of the image without film, its edge and dark objects")
    picture: FileRef | None = Field(
        None, description="Film in blue, dirt in red, dark particles in green, tiles with Bragg spots in yellow"
    )

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Quality",
            measures=(
                Measure("Probability of being worth keeping", "score", metric="quality_keep_probability", better="high"),
                Measure("Share under dark objects", "dark_share", "%", factor=100.0, metric="quality_dark_percent", better="low"),
                Measure("Signal to noise", "signal_to_noise", metric="quality_signal_to_noise", better="high"),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Score", "score"),
                        Number("Dark objects", "dark_share", "%", factor=100.0),
                        Number("Film", "film_share", "%", factor=100.0),
                    ),
                    picture=Picture("picture", "Findings"),
                    texts=(Text("{kind:words}: {reason}. Film is blue, dark objects are red, Bragg spots yellow."),),
                ),
            ),
        )
    )
