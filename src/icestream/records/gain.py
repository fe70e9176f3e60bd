"""The gain of the camera, and what movies tell of it."""

from typing import ClassVar, Literal

from pydantic import Field

from icestream.records.shown import Card, Measure, Number, Panel, Picture, Shown, Text, When
from icestream.records.vocabulary import FileRef, Record, Snapshot


class Unevenness(Record):
    """How uneven a camera counts: standard deviations as fractions of the mean, counting noise taken out."""

    total: float = Field(description="Of the pixels")
    rows: float = Field(description="Of the means of rows")
    columns: float = Field(description="Of the means of columns")
    blocks: float = Field(description="Of the means of blocks of 128 px")
    spread_ratio: float = Field(description="97.5 % quantile over 2.5 % quantile of the pixels, noise included")
    peak_ratio: float = Field(description="Largest pixel over the 97.5 % quantile, noise included")


class GainMonitor(Record):
    """What the movies so far tell of the gain of the camera."""

    n_movies: int = Field(ge=0, description="Movies added up")
    n_skipped: int = Field(0, ge=0, description="Movies left out: unreadable, empty, or of another size")
    skipped: str | None = Field(None, description="Why the last of them was left out")
    noise: float | None = Field(None, description="Standard error of a pixel's gain, from two halves of the movies")
    reliability: float | None = Field(None, description="Share of a pixel's deviation that is no noise; the rest was taken out")
    n_defects: int = Field(0, ge=0, description="Pixels that count less than a third or more than three times the median")
    n_outliers: int = Field(0, ge=0, description="Single counts left out because they lay far above what the pixel counts")
    raw: Unevenness | None = Field(None, description="Without any gain")
    residual: Unevenness | None = Field(None, description="After the gain that was given")
    slope: float | None = Field(None, description="How much of the given gain is in the movies: 1 all of it, 0 none")
    picture: FileRef | None = Field(None, description="Picture: the gain as it was learnt; defects are grey")
    residual_picture: FileRef | None = Field(None, description="Picture: what is left after the gain that was given")
    warning: str | None = Field(None, description="What is wrong with the gain that was given")


def _unevenness(field: str) -> tuple[Number, ...]:
    return (
        Number("Pixels", f"{field}.total", "%", factor=100.0),
        Number("Rows", f"{field}.rows", "%", factor=100.0),
        Number("Columns", f"{field}.columns", "%", factor=100.0),
        Number("Blocks", f"{field}.blocks", "%", factor=100.0),
        Number("97.5 % over 2.5 % quantile", f"{field}.spread_ratio"),
        Number("Largest over 97.5 % quantile", f"{field}.peak_ratio"),
    )


class GainReference(Snapshot):
    """The pixel gain of the camera."""

    stored_name: ClassVar[str] = "GainReference"

    file: FileRef
    height_px: int
    width_px: int
    operation: Literal["multiply", "divide"] | None = Field(None, description="Unset: decided by the data and the kind of file")
    monitor: GainMonitor | None = Field(None, description="What movies tell of it, where it was estimated from movies")

    shown: ClassVar[Shown] = Shown(
        Panel(
            "Gain",
            measures=(
                Measure(
                    "Noise of the learnt gain", "monitor.noise", "%", factor=100.0, metric="gain_noise_percent", better="low"
                ),
                Measure(
                    "Unevenness after the given gain",
                    "monitor.residual.total",
                    "%",
                    factor=100.0,
                    metric="gain_residual_unevenness_percent",
                    better="low",
                ),
                Measure(
                    "97.5 % over 2.5 % quantile after the given gain",
                    "monitor.residual.spread_ratio",
                    metric="gain_residual_spread_ratio",
                    better="low",
                ),
                Measure(
                    "Largest pixel over 97.5 % quantile after the given gain",
                    "monitor.residual.peak_ratio",
                    metric="gain_residual_peak_ratio",
                    better="low",
                ),
                Measure("Share of the given gain in the movies", "monitor.slope", metric="gain_share_ratio"),
            ),
            cards=(
                Card(
                    "Learnt gain",
                    subtitle=Text("how uneven", When("monitor.raw")),
                    numbers=(
                        *_unevenness("monitor.raw"),
                        Number("Movies", "monitor.n_movies"),
                        Number("Defects", "monitor.n_defects", "pixels"),
                    ),
                    picture=Picture("monitor.picture", "Learnt gain"),
                    warnings=(Text("{monitor.n_skipped} movies were left out; the last: {monitor.skipped}"),),
                ),
                Card(
                    "Left after the given gain",
                    subtitle=Text("how uneven", When("monitor.residual")),
                    numbers=_unevenness("monitor.residual"),
                    picture=Picture("monitor.residual_picture", "Left after the given gain"),
                    warnings=(Text("{monitor.warning}"),),
                ),
            ),
        )
    )
