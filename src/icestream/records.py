"""The records that flow from step to step: frozen, typed, and readable for years.

A record is what one step says about one exposure (or, for a `Snapshot`, about the whole so far). Three rules hold for all:

* Files are named by `FileRef` (``root:relative/path``), never by an absolute path; ``session:`` is the session's own folder.
* Per-particle tables are `Block`s: a NumPy structured array in ``.npy`` bytes, kept in the store beside the record.
* Geometry is in pixels, with ``bin`` relative to the raw movie pixel; physical values (pixel size, voltage, dose) come from
  `Acquisition`, so that correcting one recomputes only the steps that read it.

Pixel coordinates are ``yx``; row 0 is the first row of an MRC file.
"""

import json
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import ItemError
from icestream.units import Angstrom, Degree, ElectronsPerSquareAngstrom, Kilovolt, Micrometer, Millimeter, Pixel, Second

FileRef = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*:[^/].*$", json_schema_extra={"file": True})]
"""A file as ``root:relative/path``."""

Block = Annotated[bytes, Field(exclude=True, repr=False, json_schema_extra={"block": True})]
"""A per-particle table as ``.npy`` bytes; at most one field of a record, and it must be named ``block``."""


class Record(BaseModel):
    """One immutable output of a step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: ClassVar[int] = 1

    @property
    def weight(self) -> int:
        """How many things the record stands for: the particles where it has a table of them, else 1."""
        return int(getattr(self, "count", 1)) if "block" in type(self).model_fields else 1

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Turn the fields stored by schema ``version`` into today's fields."""
        if version != cls.schema_version:
            raise ValueError(f"{cls.__name__}: no upcaster from schema {version} to {cls.schema_version}")
        return stored

    @classmethod
    def restore(cls, text: str, *, version: int, block: bytes | None) -> Self:
        """Build the record from its stored JSON ``text`` and ``block``."""
        fields = cls.upcast(json.loads(text), version)
        if block is not None:
            fields = {**fields, "block": block}
        return cls.model_validate(fields)


class Snapshot(Record):
    """A whole that later versions replace: class averages, a map, a gain reference."""


class Acquisition(Record):
    """What the microscope did; every value is unset until somebody or some file says it."""

    voltage_kv: Kilovolt | None = Field(None, gt=0, description="Acceleration voltage")
    cs_mm: Millimeter | None = Field(None, ge=0, description="Spherical aberration")
    amplitude_contrast: float | None = Field(None, ge=0, le=1, description="Fraction of amplitude contrast")
    pixel_size_ang: Angstrom | None = Field(None, gt=0, description="Pixel size of the raw movie")
    dose_per_frame_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(None, gt=0, description="Dose of one frame")
    pre_exposure_e_per_ang2: ElectronsPerSquareAngstrom | None = Field(None, ge=0, description="Dose before the first frame")

    def need(self, name: str) -> float:
        """Return a value that a step cannot do without.

        Raises
        ------
        ItemError
            Neither the session nor the file says it.
        """
        value = getattr(self, name)
        if value is None:
            raise ItemError(f"{name} is unset: set it in the acquisition values of the session; the file does not say it")
        return float(value)


class ExposureMetadata(Record):
    """What the acquisition software wrote about one exposure (file header, EPU XML, SerialEM mdoc)."""

    acquired_at: str | None = None
    stage_y_um: Micrometer | None = None
    stage_x_um: Micrometer | None = None
    stage_z_um: Micrometer | None = None
    tilt_deg: Degree | None = None
    beam_shift_y: float | None = None
    beam_shift_x: float | None = None
    applied_defocus_um: Micrometer | None = None
    exposure_s: Second | None = None
    total_dose_e_per_ang2: ElectronsPerSquareAngstrom | None = None
    grid_square: str | None = None
    foil_hole: str | None = None
    microscope: str | None = None
    camera: str | None = None
    note: str | None = Field(None, description="What could not be read, and why")


class Movie(Record):
    """A raw movie as the camera wrote it."""

    file: FileRef
    n_frames: int = Field(ge=1)
    height_px: int = Field(ge=1)
    width_px: int = Field(ge=1)
    format: str
    size_bytes: int = Field(ge=1)
    metadata: ExposureMetadata | None = None
    told: Acquisition | None = Field(None, description="What header and sidecar say; values of the session win over it")


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


class GainReference(Snapshot):
    """The pixel gain of the camera."""

    file: FileRef
    height_px: int
    width_px: int
    operation: Literal["multiply", "divide"] | None = Field(None, description="Unset: decided by the data and the kind of file")
    monitor: GainMonitor | None = Field(None, description="What movies tell of it, where it was estimated from movies")


class Motion(Record):
    """How the specimen moved during one movie; positions are displacements of the specimen, frame 0 at zero."""

    global_yx_px: list[tuple[Pixel, Pixel]] = Field(description="Per frame, in raw pixels")
    local_coefficients: list[list[float]] | None = Field(None, description="(2, n), y then x; terms: algorithms.motion_model")
    local_rms_px: Pixel | None = Field(None, description="Spread of the patch tracks about the local model")
    total_px: Pixel = Field(description="Length of the global path")
    early_px: Pixel = Field(description="Path length in the first quarter of the frames")
    note: str | None = Field(None, description="Why a simpler model than asked was used, if so")


class FrameUse(Record):
    """Which frames of which movie a micrograph was made of, and how their pixels were corrected."""

    movie: FileRef
    movie_frames: int = Field(ge=1, description="Frames of the movie as it was read (EER: after camera frames were added up)")
    first_frame: int = Field(0, ge=0, description="First frame used, counted from 0")
    height_px: int
    width_px: int = Field(description="Of the frames as they were read")
    crop_px: tuple[int, int, int, int] | None = Field(None, description="Part used: top, left, height, width; all if unset")
    eer_group: int | None = Field(None, description="EER: camera frames added up to one frame")
    eer_upsampling: int | None = Field(None, description="EER: pixels for each pixel of the camera, along each axis")
    gain: FileRef | None = None
    gain_operation: Literal["multiply", "divide"] | None = None
    gain_orientation: str | None = Field(None, description="How the gain was turned: a name of algorithms.gain_orientation")
    gain_slope: float | None = Field(None, description="How much of the gain is in the movie: 1 all of it, 0 none")
    gain_residual: float | None = Field(None, description="The same after correction; 0 if nothing is left")
    gain_note: str | None = Field(None, description="What the data could not tell about the gain, or what is odd about it")
    n_known_defects: int = Field(0, ge=0, description="Pixels that a list or the gain declares defect")
    n_hot_px: int = Field(0, ge=0, description="Further pixels found to be hot or dead")
    hot_pixels: FileRef | None = Field(None, description="Those further pixels, a line 'x y 1 1' each")


class Micrograph(Record):
    """One motion-corrected (or imported) image."""

    image: FileRef = Field(description="The image to pick and extract from (dose-weighted where a dose is known)")
    unweighted: FileRef | None = Field(None, description="The sum without dose weighting, for the CTF")
    even: FileRef | None = Field(None, description="The part of the image that frames 0, 2, … make; even and odd add up to it")
    odd: FileRef | None = Field(None, description="The part of the image that frames 1, 3, … make")
    height_px: int
    width_px: int
    bin: float = Field(gt=0, description="Pixel size relative to the raw pixel")
    dose_weighted: bool = False
    dose_note: str | None = Field(None, description="Why it is not weighted by dose, though that was not turned off")
    n_frames: int | None = None
    motion: Motion | None = None
    frames: FrameUse | None = None
    thumbnail: FileRef | None = None
    metadata: ExposureMetadata | None = None


class CtfFit(Record):
    """The contrast transfer function of one micrograph; positive defocus is underfocus."""

    schema_version: ClassVar[int] = 2

    defocus_u_ang: Angstrom
    defocus_v_ang: Angstrom
    astigmatism_angle_deg: Degree
    phase_shift_deg: Degree = 0.0
    score: float = Field(description="Normalised cross-correlation of spectrum and model")
    resolution_ang: Angstrom = Field(description="Where the fit stops to agree, by the rule of algorithms.ctf_quality")
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

    @classmethod
    def upcast(cls, stored: dict[str, object], version: int) -> dict[str, object]:
        """Return the fields of schema 1 as they are: what schema 2 added was not known."""
        return stored if version == 1 else super().upcast(stored, version)


class Picks(Record):
    """Particle positions on one micrograph: columns pid, y_px, x_px, score."""

    count: int = Field(ge=0)
    diameter_ang: Angstrom
    block: Block


class Particles(Record):
    """Particle images of one micrograph, with position and CTF per particle.

    Block columns: pid, y_px, x_px (centre, in micrograph pixels), score, defocus_u_ang, defocus_v_ang, astigmatism_angle_deg,
    phase_shift_deg; row i belongs to slice i of the stack.
    """

    stack: FileRef | None = Field(description="Unset where no particle was left")
    count: int = Field(ge=0)
    box_px: int
    bin: float = Field(gt=0, description="Pixel size of the stack relative to the raw pixel")
    inverted: bool = Field(description="Protein is bright")
    phase_flipped: bool
    micrograph: FileRef
    block: Block


class ClassInfo(Record):
    """One 2D class."""

    id: int
    count: int = Field(ge=0, description="Particles assigned so far")
    resolution_ang: Angstrom | None = None


class ClassAverages(Snapshot):
    """2D class averages of all particles so far."""

    stack: FileRef
    picture: FileRef
    count: int = Field(ge=0)
    box_px: int
    bin: float = Field(gt=0)
    classes: list[ClassInfo]


class ClassAssignments(Record):
    """The class and in-plane pose of the particles of one exposure.

    Block columns: pid, class_id, psi_deg, shift_y_px, shift_x_px, score.
    """

    count: int = Field(ge=0)
    version: int = Field(description="Snapshot version that made the assignment")
    block: Block


class RelionProject(Snapshot):
    """A RELION project folder kept up to date."""

    folder: FileRef
    n_micrographs: int
    n_particles: int
    n_optics_groups: int = 1
    motion_error_px: Pixel | None = Field(None, description="By how much RELION's local motion misses ours at worst, over all")
