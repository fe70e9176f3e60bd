"""Volumes: a map with its halves and its resolution, and the poses of the particles that it was made of."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.classes import Classification, ParticleClass, class_gallery
from icestream.records.picks import PID
from icestream.records.shown import Card, Curve, Density, Gallery, Measure, Number, Panel, Picture, RowColumn, Shown, Text, When
from icestream.records.vocabulary import Block, Column, FileRef, Record, Snapshot
from icestream.units import Angstrom

POSE_3D = (
    Column("rot_deg", "f4", "°", "First Euler angle of RELION: about z of the volume"),
    Column("tilt_deg", "f4", "°", "Second Euler angle of RELION: about the new y"),
    Column("psi_deg", "f4", "°", "Third Euler angle of RELION: in the plane, from y towards x"),
    Column("shift_y_px", "f4", "px", "Where the centre of the volume is, beyond the middle of the box, in pixels of the stack"),
    Column("shift_x_px", "f4", "px", "Where the centre of the volume is, beyond the middle of the box, in pixels of the stack"),
    Column("score", "f4", "", "Log likelihood ratio of the volume in this pose against noise"),
    Column("probability", "f4", "", "Probability of the pose among all that were searched"),
)
"""The pose of one particle in a volume."""


class Volume(Snapshot):
    """A map of the particle: bright, centred at half the box, ``(z, y, x)``."""

    stored_name: ClassVar[str] = "Volume"

    map: FileRef = Field(description="The map, filtered to its resolution")
    half_maps: list[FileRef] = Field(default_factory=list, max_length=2, description="Both half maps, unfiltered and unmasked")
    mask: FileRef | None = Field(None, description="Soft mask within which the half maps are compared; unset: a ball")
    picture: FileRef | None = Field(None, description="Picture: three sections and three projections")
    count: int = Field(ge=0, description="Particles that it was made of; 0: imported")
    box_px: int = Field(ge=2)
    bin: float = Field(gt=0)
    pixel_size_ang: Angstrom | None = Field(None, description="Of a map that was imported; it counts instead of ``bin``")
    symmetry: str = Field("C1", description="Point group in RELION's setting")
    diameter_ang: Angstrom | None = Field(None, description="Of the ball that holds the particle")
    frequency_per_ang: list[float] | None = Field(None, description="Of the shell correlation")
    fsc: list[float] | None = Field(None, description="Shell correlation of the half maps within the mask")
    fsc_unmasked: list[float] | None = Field(None, description="The same of the whole boxes")
    resolution_ang: Angstrom | None = Field(
        None, description="Where the half maps within the mask agree by 0.143; of a 3D class not gold standard; unset: nowhere"
    )
    verdict: Literal["map", "none"] = Field("map", description="Whether it shows a particle, or what noise gives as well")
    reason: str | None = Field(None, description="Why it is no map")
    version: int | None = Field(None, description="Of this volume, where a step made several")
    tables: list[FileRef] = Field(default_factory=list, description="Newest pose of every particle, ``.npy``")
    index: FileRef | None = Field(None, description="Where the particles of each micrograph are in the tables, ``.npy``")
    star: FileRef | None = Field(
        None,
        description="Particles with poses for RELION, to be run in the session's folder; unset: it cannot read their images, "
        "which are dark, phase-flipped, float16, or only in part multiplied by their CTF",
    )
    noise: FileRef | None = Field(None, description="Power of the noise per ring of the images, ``.npy``")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Volumes",
            measures=(Measure("Resolution of the map", "resolution_ang", metric="map_resolution_angstroms", better="low"),),
            cards=(
                Card(
                    "Volume",
                    subtitle=Text("symmetry {symmetry}"),
                    numbers=(
                        Number("Resolution", "resolution_ang"),
                        Number("Particles", "count"),
                        Number("Box", "box_px", "px"),
                        Number("Diameter", "diameter_ang"),
                        Number("Version", "version"),
                    ),
                    picture=Picture(
                        "picture",
                        "Sections and projections",
                        "Above sections through the middle, below projections: along z, y and x",
                    ),
                    density=Density("map", "Map"),
                    curve=Curve(
                        "frequency_per_ang",
                        "fsc_unmasked",
                        "fsc",
                        title="Fourier shell correlation",
                        x_unit="1/Å",
                        mark="resolution_ang",
                        caption="Half maps without (grey) and with the mask, against spatial frequency; the mark is at 0.143",
                    ),
                    warnings=(Text("It is no map: {reason}", When("verdict", equals="none")),),
                ),
            ),
        )
    )


class VolumeCandidate(Record):
    """One of several volumes: a start of a search, or a candidate of a consensus; and what held-out particles say of it."""

    id: int = Field(description="Its number, from 1")
    explained: float = Field(
        description="Share of the signal between 60 and 25 Å that it explains beyond its phase-randomised twins"
    )
    error: float = Field(ge=0, description="Standard deviation of that share")
    gain: float = Field(description="Log likelihood ratio of a particle against noise alone, mean")
    twin_gain: float = Field(description="The same of its twins")
    similarity: float = Field(description="Mean shell correlation with the best candidate to 25 Å")
    right: bool = Field(description="It explains enough, and surely more than its twins")
    agrees: bool = Field(description="It is right, and like the best one")
    view_entropy: float | None = Field(None, ge=0, le=1, description="How evenly its views are populated")


class JudgedVolume(Volume):
    """A map that was chosen or made from several candidates, which particles that were held out have judged."""

    stored_name: ClassVar[str] = "JudgedVolume"

    candidates: list[VolumeCandidate] = Field(default_factory=list)
    similarity: FileRef | None = Field(None, description="Picture: how far each pair of candidates agrees")
    explained: float | None = Field(
        None, description="Share of the signal between 60 and 25 Å that the map explains beyond its phase-randomised twins"
    )
    explained_error: float | None = Field(None, ge=0, description="Standard deviation of that share")
    n_right: int = Field(0, ge=0, description="Candidates that are right")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Initial volumes",
            measures=(
                Measure("Signal that the map explains", "explained", metric="initial_volume_explained_ratio", better="high"),
            ),
            cards=(
                Card(
                    "Initial volume",
                    subtitle=Text("symmetry {symmetry}"),
                    numbers=(
                        Number("Particles", "count"),
                        Number("Signal explained", "explained"),
                        Number("Its error", "explained_error"),
                        Number("Candidates that are right", "n_right"),
                    ),
                    picture=Picture(
                        "picture",
                        "Sections and projections",
                        "Above sections through the middle, below projections: along z, y and x",
                    ),
                    density=Density("map", "Map"),
                    warnings=(Text("It is no map: {reason}", When("verdict", equals="none")),),
                ),
            ),
        ),
        gallery=Gallery(
            "Candidates of the initial volume",
            picture=Picture("similarity", "How far candidates agree: dark 0, bright 1, above each its projection"),
            count="n_right",
            word="right candidate",
            rows="candidates",
            columns=(
                RowColumn("Candidate", "id"),
                RowColumn("Explained", "explained"),
                RowColumn("Error", "error"),
                RowColumn("Gain", "gain"),
                RowColumn("Gain of twins", "twin_gain"),
                RowColumn("Similarity to the best", "similarity"),
                RowColumn("Right", "right"),
                RowColumn("Agrees", "agrees"),
            ),
            order="explained",
        ),
    )


class ParticlePoses(Record):
    """The poses of the particles of one exposure in a volume."""

    stored_name: ClassVar[str] = "ParticlePoses"
    block_columns: ClassVar[tuple[Column, ...]] = (PID, *POSE_3D)

    count: int = Field(ge=0)
    version: int = Field(description="Version of the volume that gave the poses")
    picks_key: str | None = Field(None, description="Of the picks that gave the particles their numbers; unset: not known")
    block: Block


class VolumeClass(ParticleClass):
    """One 3D class."""

    id: int = Field(ge=0, description="Of a closed set, 0 is the largest; of a stream it stays with the class for good")
    count: int = Field(ge=0, description="Particles whose most likely class it is")
    probability: float | None = Field(None, ge=0, le=1, description="Of these particles, mean")
    resolution_ang: Angstrom | None = Field(
        None,
        description="Where its half maps within the ball agree by 0.143; not gold standard: particles of both halves were sorted "
        "against volumes of both; unset: nowhere",
    )
    map: FileRef
    half_maps: list[FileRef] = Field(max_length=2, description="Both half maps, unfiltered and unmasked")
    frequency_per_ang: list[float] = Field(description="Of the shell correlation")
    fsc: list[float] = Field(description="Shell correlation of its half maps within the ball")


class VolumeClasses(Classification):
    """Particles in 3D classes, each with a volume."""

    stored_name: ClassVar[str] = "VolumeClasses"

    bin: float = Field(gt=0, description="Of the volumes")
    symmetry: str = Field("C1", description="Point group in RELION's setting")
    diameter_ang: Angstrom | None = Field(None, description="Of the ball that holds the particle")
    classes: list[VolumeClass]
    volume_version: int | None = Field(None, description="Of the volume whose poses were used last; unset: of a closed set")
    note: str | None = Field(None, description="Why a newer volume is not used")

    shown: ClassVar[Shown] = Shown(
        gallery=class_gallery(
            "3D classes",
            RowColumn("Probability", "probability"),
            caption="Classes, one in a row: three sections, three projections, along z, y and x",
            density="map",
        )
    )


class ForecastPoint(Record):
    """The resolution that a number of particles will give."""

    n_particles: int = Field(ge=1)
    hours: float | None = Field(None, ge=0, description="From the newest map on; unset: no rate is known")
    low_ang: Angstrom | None = Field(description="Better in one of ten cases; unset: no signal is expected")
    middle_ang: Angstrom | None
    high_ang: Angstrom | None = Field(description="Worse in one of ten cases; unset: there may be no signal")


LimitCause = Literal["particles", "views", "ice", "motion", "pixel_size"]


class ForecastLimit(Record):
    """One of the things that limit the resolution."""

    cause: LimitCause
    worth: float | None = Field(
        None, ge=1, description="Times the particles that its absence would be worth; unset: no number of particles helps"
    )


class StopForecast(Snapshot):
    """What more particles, and more hours, would give: a reason to go on or to stop."""

    stored_name: ClassVar[str] = "StopForecast"

    n_particles: int = Field(ge=1, description="Of the map that it starts from")
    b_factor_ang2: float | None = Field(None, description="By which the signal of a particle falls; unset: it has none")
    now: ForecastPoint
    doubled: ForecastPoint
    at_the_end: ForecastPoint | None = Field(None, description="After the hours that are left; unset: no rate is known")
    gain_an_hour_ang: Angstrom | None = Field(None, description="By how much the next hour improves the resolution, median")
    limit: LimitCause = Field(description="What limits the resolution most, of what the map and its quality show")
    limits: list[ForecastLimit] = Field(default_factory=list, description="All that is known to limit it, the worst first")
    points: list[ForecastPoint] = Field(description="By rising numbers of particles")
    thousand_particles: list[float] = Field(description="The same as columns")
    low_ang: list[float]
    high_ang: list[float]

    shown: ClassVar[Shown] = Shown(
        Panel(
            "When to stop",
            measures=(
                Measure(
                    "Resolution expected of twice the particles",
                    "doubled.middle_ang",
                    "Å",
                    metric="forecast_resolution_angstroms",
                    better="low",
                ),
            ),
            cards=(
                Card(
                    "Resolution against particles",
                    subtitle=Text("from a map of {n_particles} particles; limited by {limit:words}"),
                    numbers=(
                        Number("Now", "now.middle_ang"),
                        Number("Twice the particles", "doubled.middle_ang"),
                        Number("at best", "doubled.low_ang"),
                        Number("at worst", "doubled.high_ang"),
                        Number("At the end", "at_the_end.middle_ang"),
                        Number("after", "at_the_end.hours", "h"),
                        Number("Gain an hour", "gain_an_hour_ang"),
                        Number("B factor", "b_factor_ang2", "Å²"),
                    ),
                    curve=Curve(
                        "thousand_particles",
                        "high_ang",
                        "low_ang",
                        title="Resolution in Å",
                        x_unit="thousand particles",
                        caption="The forecast has the resolution between the curves with a probability of 0.8",
                    ),
                ),
            ),
        )
    )
