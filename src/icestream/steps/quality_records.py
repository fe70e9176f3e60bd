"""Records of the steps that judge quality: dose of a movie, agreement of two motions, tilt of a micrograph and what it shows."""

from typing import Literal

from pydantic import Field

from icestream.algorithms.micrograph.triage import MicrographKind
from icestream.records import FileRef, Record, Snapshot
from icestream.units import Angstrom, ElectronsPerSquareAngstrom, Kilovolt, Millimeter, Pixel, WholePixels


class MovieShape(Record):
    """What kind of movie a camera wrote: movies of one camera and read-out have the same."""

    height_px: int = Field(ge=1)
    width_px: int = Field(ge=1)
    n_frames: int = Field(ge=1, description="Stored frames")
    format: str
    pixel_size_ang: Angstrom | None = Field(None, description="As the file's own header says it, else its sidecar")
    voltage_kv: Kilovolt | None = Field(None, description="As header or sidecar say it")
    cs_mm: Millimeter | None = Field(None, description="As header or sidecar say it")


class MovieDose(Record):
    """The counts of one movie as the camera stored them, before the gain."""

    counts_per_px_frame: float = Field(description="Mean counts in a pixel and stored frame")
    zero_fraction: float = Field(ge=0, le=1, description="Share of the pixels that counted nothing in any frame")
    drift: float = Field(description="Change of the mean from the first frame to the last, relative to the mean")
    n_frames: int = Field(ge=1, description="Stored frames that were looked at")
    n_empty: int = Field(0, ge=0, description="Of these, frames that are all zero")
    n_saturated: int = Field(0, ge=0, description="Of these, frames most of whose pixels have the largest value")
    shape: MovieShape | None = Field(None, description="Size, frames, format and pixel size of the movie")


class DoseReference(Snapshot):
    """The counts that a movie of this session should have."""

    counts_per_px_frame: float = Field(description="Expected counts in a pixel and stored frame")
    source: Literal["acquisition", "median"] = Field(description="The dose of the session, or what was measured")
    dose_per_frame_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(
        None, description="The same as a dose, where the pixel size is known and a count is an electron"
    )
    n_measured: int = Field(ge=0, description="Movies looked at so far")
    n_samples: int = Field(ge=1, description="Movies behind the value")
    n_updates: int = Field(0, ge=0, description="How often the reference followed a lasting change")
    deviating_share: float | None = Field(None, description="Share of the last whole window that lay too far from the reference")
    shape: MovieShape | None = Field(None, description="What most movies of the session are like")
    warning: str | None = Field(None, description="That too many of the last whole window lay too far from the reference")


class MotionAgreement(Record):
    """How far two motion corrections of one movie agree, in raw pixels, a constant offset taken out."""

    n_frames: int = Field(ge=1, description="Frames that were compared")
    rms_px: Pixel = Field(ge=0, description="Distance of the two tracks, rms over the frames")
    largest_px: Pixel = Field(ge=0, description="The same in the frame where it is largest")
    largest_frame: float | None = Field(None, description="That frame, counted from 0 in the movie as it is stored")
    field_rms_px: Pixel = Field(ge=0, description="Distance of the whole motions, local part and all, over the field of view")
    field_largest_px: Pixel = Field(ge=0, description="The same where and when it is largest")
    correlation: float | None = Field(None, description="Of the two tracks; 0 if only one moves, unset if neither does")
    range_px: Pixel = Field(ge=0, description="How far apart the positions of the track that moves more lie at most")
    path_px: Pixel = Field(0.0, ge=0, description="Length of the first path over these frames")
    second_path_px: Pixel = Field(0.0, ge=0, description="Length of the second path over these frames")


class CtfAgreement(Record):
    """How far two estimates of the CTF of one micrograph agree."""

    agreement_ang: Angstrom | None = Field(
        ge=0, description="Where their phases first differ by 90°; 0 if nowhere, unset if at every resolution"
    )
    defocus_difference_ang: Angstrom = Field(ge=0, description="Between the mean defocus values")
    astigmatism_difference_ang: Angstrom = Field(ge=0, description="Length of the difference of the astigmatisms as vectors")
    least_confidence: float | None = Field(None, ge=0, le=1, description="The smaller of those that are stated")
    least_score: float = Field(description="The smaller of the two scores")


class TiltMeasure(Record):
    """How alike the spectra of the windows of one micrograph are; correlations are in units of that of equal rings."""

    window_px: WholePixels
    n_windows: int
    significance: float = Field(description="Strength of the rings in the windows, in standard deviations of noise")
    mean_correlation: float | None = Field(None, description="Unset, like the others, where the rings are too faint to tell")
    std_correlation: float | None = Field(None, description="Spread of the correlations, noise left out")
    min_correlation: float | None = None
    max_correlation: float | None = None
    picture: FileRef | None = Field(None, description="The spectra of the windows, where they lie in the image")


class MicrographQuality(Record):
    """What a micrograph looks like; each number is a ratio that does not depend on how grey values were stretched."""

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
