"""The contrast transfer function: of a micrograph, over its field, and how far two estimates agree."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Beside, Card, Comparison, Curve, Headline, Measure, Number, Panel, Picture, Shown
from icestream.records.vocabulary import Column, FileRef, Record, Snapshot
from icestream.units import Angstrom, Degree, Micrometer

CTF_COLUMNS = (
    Column("defocus_u_ang", "f4", "Å", "Larger defocus; not a number where no CTF was given"),
    Column("defocus_v_ang", "f4", "Å", "Smaller defocus"),
    Column("astigmatism_angle_deg", "f4", "°", "Direction of the larger defocus, from x towards y"),
    Column("phase_shift_deg", "f4", "°", "Phase shift of a phase plate"),
)
"""The CTF in a table of particles; its names are those of `CtfFit`."""

MEAN_DEFOCUS = Number("Defocus", "defocus_u_ang", "µm", second="defocus_v_ang", how="mean", factor=1e-4)


class CtfFit(Record):
    """The contrast transfer function of one micrograph; positive defocus is underfocus."""

    stored_name: ClassVar[str] = "CtfFit"
    schema_version: ClassVar[int] = 2

    defocus_u_ang: Angstrom
    defocus_v_ang: Angstrom
    astigmatism_angle_deg: Degree
    phase_shift_deg: Degree = 0.0
    score: float = Field(description="Normalised cross-correlation of spectrum and model")
    resolution_ang: Angstrom = Field(description="Where the fit stops agreeing, by the rule of algorithms.ctf.quality")
    defocus_error_ang: Angstrom | None = Field(None, description="Estimated standard error of the mean defocus")
    astigmatism_error_ang: Angstrom | None = Field(None, description="Standard error of the difference of the defocus values")
    angle_error_deg: Degree | None = Field(None, description="Standard error of the angle; 52° if it could be any")
    phase_shift_error_deg: Degree | None = Field(None, description="Standard error of the phase shift; unset: it was not fitted")
    significance: float | None = Field(None, description="Height of the best match, in standard deviations of noise")
    confidence: float | None = Field(None, ge=0, le=1, description="Probability among other CTFs, noise and equal objects")
    estimator: Literal["least_squares", "equiphase", "average"] | None = Field(None, description="How it was found")
    spectrum: FileRef | None = Field(None, description="Picture: measured spectrum beside the fit")
    frequency_per_ang: list[float] = Field(default_factory=list)
    profile: list[float] = Field(default_factory=list, description="Astigmatism-aware radial average, background removed")
    profile_fit: list[float] = Field(default_factory=list)
    correlation: list[float] = Field(default_factory=list, description="Windowed correlation of profile and fit, whole curve")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "CTF",
            measures=(
                Measure("CTF resolution", "resolution_ang", metric="ctf_resolution_angstroms", better="low"),
                Measure(
                    "Defocus",
                    "defocus_u_ang",
                    "µm",
                    second="defocus_v_ang",
                    how="mean",
                    factor=1e-4,
                    metric="ctf_defocus_micrometers",
                ),
                Measure(
                    "Astigmatism",
                    "defocus_u_ang",
                    second="defocus_v_ang",
                    how="distance",
                    metric="ctf_astigmatism_angstroms",
                    better="low",
                ),
                Measure("Phase shift", "phase_shift_deg", metric="ctf_phase_shift_degrees", hidden_at_zero=True),
            ),
            cards=(
                Card(
                    numbers=(
                        MEAN_DEFOCUS,
                        Number("Astigmatism", "defocus_u_ang", second="defocus_v_ang", how="distance"),
                        Number("Resolution", "resolution_ang"),
                        Number("Fit score", "score"),
                    ),
                    picture=Picture("spectrum", "Power spectrum"),
                    curve=Curve(
                        "frequency_per_ang",
                        "profile",
                        "profile_fit",
                        title="Radial profile",
                        x_unit="1/Å",
                        mark="resolution_ang",
                        caption=(
                            "Spectrum profile (grey) and fit, against spatial frequency; the mark is where they stop agreeing"
                        ),
                    ),
                ),
            ),
        ),
        beside=(Beside(Number("CTF", "resolution_ang"), every_step=True), Beside(MEAN_DEFOCUS)),
        headlines=(Headline("CTF resolution", "median", of="median", place=3),),
    )

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Return the fields of schema 1 as they are: what schema 2 added was not known."""
        return stored if version == 1 else super().upcast(stored, version)


class DefocusDistribution(Snapshot):
    """How often each defocus occurs in the session so far."""

    stored_name: ClassVar[str] = "DefocusDistribution"

    first_range: int = Field(description="Number of the lowest range that occurs: it begins at this many times its width")
    bin_um: Micrometer = Field(gt=0, description="Width of a range")
    counts: list[int] = Field(description="Particles (or exposures) in each range, from the lowest")


class CtfAgreement(Record):
    """How far two estimates of the CTF of one micrograph agree."""

    stored_name: ClassVar[str] = "CtfAgreement"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.quality_records:CtfAgreement",)

    agreement_ang: Angstrom | None = Field(
        ge=0, description="Where their phases first differ by 90°; 0 if nowhere, unset if at every resolution"
    )
    defocus_difference_ang: Angstrom = Field(ge=0, description="Between the mean defocus values")
    astigmatism_difference_ang: Angstrom = Field(ge=0, description="Length of the difference of the astigmatisms as vectors")
    least_confidence: float | None = Field(None, ge=0, le=1, description="The smaller of those that are stated")
    least_score: float = Field(description="The smaller of the two scores")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "CTF agreement",
            measures=(
                Measure(
                    "Resolution to which the two CTFs agree", "agreement_ang", metric="ctf_agreement_angstroms", better="low"
                ),
                Measure("Defocus difference", "defocus_difference_ang", metric="ctf_defocus_apart_angstroms", better="low"),
                Measure("Lower of the two confidences", "least_confidence", metric="ctf_least_confidence", better="high"),
            ),
            cards=(
                Card(
                    numbers=(
                        Number("Agree to", "agreement_ang"),
                        Number("Defocus difference", "defocus_difference_ang"),
                        Number("Astigmatism difference", "astigmatism_difference_ang"),
                    )
                ),
            ),
        )
    )


TWO_CTFS = Comparison(
    "Two CTFs",
    first="ctf",
    second="second",
    quantity="Defocus",
    number=MEAN_DEFOCUS,
    apart="Defocus, first minus second",
    apart_unit="Å",
    apart_factor=1e4,
)
"""What is shown of two estimates that a step joins at its ports ``ctf`` and ``second``."""
