"""Raw movies: the file, and the dose that it holds."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.acquisition import ON_THE_GRID, Acquisition, ExposureMetadata, told_of
from icestream.records.shown import Card, Measure, Number, Panel, Shown, Text, When
from icestream.records.vocabulary import FileRef, Record, Snapshot
from icestream.units import Angstrom, ElectronsPerSquareAngstrom, Kilovolt, Millimeter


class Movie(Record):
    """A raw movie as the camera wrote it."""

    stored_name: ClassVar[str] = "Movie"

    file: FileRef
    n_frames: int = Field(ge=1)
    height_px: int = Field(ge=1)
    width_px: int = Field(ge=1)
    format: str
    size_bytes: int = Field(ge=1)
    metadata: ExposureMetadata | None = None
    told: Acquisition | None = Field(None, description="What header and sidecar say; values of the session take precedence")

    shown: ClassVar[Shown] = Shown(place=ON_THE_GRID, notes=(Text("{metadata.note}"),))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with its header or sidecar."""
        return told_of(self.metadata)


class MovieShape(Record):
    """What kind of movie a camera wrote: movies of one camera and read-out have the same."""

    height_px: int = Field(ge=1)
    width_px: int = Field(ge=1)
    n_frames: int = Field(ge=1, description="Stored frames")
    format: str
    pixel_size_ang: Angstrom | None = Field(None, description="As stated in the file's own header, otherwise in its sidecar")
    voltage_kv: Kilovolt | None = Field(None, description="As stated in header or sidecar")
    cs_mm: Millimeter | None = Field(None, description="As stated in header or sidecar")


class MovieDose(Record):
    """The counts of one movie as the camera stored them, before the gain."""

    stored_name: ClassVar[str] = "MovieDose"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.quality_records:MovieDose",)

    counts_per_px_frame: float = Field(description="Mean counts in a pixel and stored frame")
    zero_fraction: float = Field(ge=0, le=1, description="Share of the pixels that counted nothing in any frame")
    drift: float = Field(description="Change of the mean from the first frame to the last, relative to the mean")
    n_frames: int = Field(ge=1, description="Stored frames examined")
    n_empty: int = Field(0, ge=0, description="Of these, frames that are all zero")
    n_saturated: int = Field(0, ge=0, description="Of these, frames most of whose pixels have the largest value")
    shape: MovieShape | None = Field(None, description="Size, frames, format and pixel size of the movie")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Dose",
            measures=(
                Measure("Counts in a pixel and frame", "counts_per_px_frame", metric="movie_counts_per_pixel_frame"),
                Measure("Change of the dose during the movie", "drift", "%", factor=100.0, metric="movie_dose_drift_percent"),
                Measure("Pixels that counted nothing", "zero_fraction", "%", factor=100.0, metric="movie_empty_pixels_percent"),
            ),
        )
    )


class DoseReference(Snapshot):
    """The counts that a movie of this session should have."""

    stored_name: ClassVar[str] = "DoseReference"
    former_names: ClassVar[tuple[str, ...]] = ("icestream.steps.quality_records:DoseReference",)

    counts_per_px_frame: float = Field(description="Expected counts in a pixel and stored frame")
    source: Literal["acquisition", "median"] = Field(description="The dose of the session, or what was measured")
    spread: float | None = Field(None, description="Robust standard deviation of the counts of movies, relative to their median")
    dose_per_frame_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(
        None, description="The same as a dose, where the pixel size is known and a count is an electron"
    )
    n_measured: int = Field(ge=0, description="Movies examined so far")
    n_samples: int = Field(ge=1, description="Movies that the value is based on")
    n_updates: int = Field(0, ge=0, description="How often the reference followed a lasting change")
    deviating_share: float | None = Field(None, description="Share of the last whole window that was too far from the reference")
    shape: MovieShape | None = Field(None, description="What most movies of the session are like")
    warning: str | None = Field(None, description="Says that too many of the last whole window were too far from the reference")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Usual dose",
            within="Dose",
            cards=(
                Card(
                    "Usual dose",
                    numbers=(
                        Number("Counts in a pixel and frame", "counts_per_px_frame"),
                        Number("Dose of a frame", "dose_per_frame_e_per_ang2"),
                        Number("Usual spread", "spread", "%", factor=100.0),
                        Number("Movies it is based on", "n_samples"),
                        Number("Changes followed", "n_updates", "times"),
                        Number("Far from it in the last window", "deviating_share", "%", factor=100.0),
                    ),
                    texts=(
                        Text("The dose of the session, which the movies confirm.", When("source", equals="acquisition")),
                        Text("The median of what was measured.", When("source", equals="median")),
                    ),
                    warnings=(Text("{warning}"),),
                ),
            ),
        )
    )
