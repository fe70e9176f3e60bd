"""What is simulated: every knob of a simulated session, in one frozen model."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from icestream.microscope.grid import GridSettings
from icestream.records import JunkClass
from icestream.units import (
    Angstrom,
    Degree,
    ElectronsPerSquareAngstrom,
    Kilovolt,
    Micrometer,
    Millimeter,
    Pixel,
    WholePixels,
)


class Fault(StrEnum):
    """What can go wrong with one exposure."""

    TRUNCATED = "truncated"
    """The file ends early, as if the disk were full; it has its final name."""
    EMPTY = "empty"
    """No beam: almost no counts."""
    HUGE_DRIFT = "huge_drift"
    """The stage had not settled."""
    WRONG_SIZE = "wrong_size"
    """The frames are smaller than those of the session."""
    PAUSE = "pause"
    """The file stops growing in the middle for a long while, then is completed."""
    WEAK_BEAM = "weak_beam"
    """The beam was off centre: 70 % of the dose."""
    UNFINISHED = "unfinished"
    """The file stays short of its declared size forever; under its temporary name where such names are used."""
    ZERO_FRAMES = "zero_frames"
    """The beam was blanked during the middle third of the frames: they are all zero."""
    SATURATED = "saturated"
    """One frame has the largest value that its pixels can hold, nearly everywhere."""
    NOT_FINITE = "not_finite"
    """A quarter of one frame is not a number (NaN); only float32 MRC movies can store that."""
    SHORT = "short"
    """The acquisition was stopped: the movie is complete and has half of the frames."""
    OTHER_CAMERA = "other_camera"
    """The movie is from another camera: the frames are of another size and not square, pixel size and gain differ."""


class SidecarFault(StrEnum):
    """What can go wrong with the sidecar of one exposure."""

    MISSING = "missing"
    """It never comes."""
    LATE = "late"
    """It comes after the next movie, or after the last."""
    HALF = "half"
    """Only its first half is ever written."""
    GARBAGE = "garbage"
    """Its bytes are of something else."""
    CONTRADICTS = "contradicts"
    """It lists one frame that has the dose of the whole exposure."""


class Scene(StrEnum):
    """What lies in the beam instead of particles in clean vitreous ice."""

    NO_ICE = "no_ice"
    """An empty hole: the beam and nothing else."""
    BARE_ICE = "bare_ice"
    """Vitreous ice without a particle."""
    CRYSTALLINE_ICE = "crystalline_ice"
    """Domains of hexagonal ice in many directions, over the particles."""
    CONTAMINATION = "contamination"
    """Balls or strands of ice that cover 15 to 45 % of the field."""
    CARBON_EDGE = "carbon_edge"
    """The edge of a hole: carbon film covers 60 to 85 % of the field."""


NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=0.9)]
SlopeDegree = Annotated[Degree, Field(ge=0, le=70)]


class SimulationSettings(BaseModel):
    """One simulated session; the defaults are a small movie of a 300 kV microscope with a counting camera."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_movies: int = Field(20, ge=1, description="How many movies are written")
    seed: int = Field(1, ge=0, description="Everything random derives from this number")

    height_px: WholePixels = Field(1024, ge=64, le=16384, description="Height of a frame")
    width_px: WholePixels = Field(1024, ge=64, le=16384, description="Width of a frame")
    n_frames: int = Field(16, ge=1, le=2000, description="Frames of a movie")
    pixel_size_ang: Angstrom = Field(1.5, gt=0, description="Pixel size on the specimen")
    dose_per_frame_e_per_ang2: ElectronsPerSquareAngstrom = Field(2.5, gt=0, description="Dose of one frame")

    voltage_kv: Kilovolt = Field(300.0, gt=0, description="Acceleration voltage")
    cs_mm: Millimeter = Field(2.7, ge=0, description="Spherical aberration")
    amplitude_contrast: float = Field(0.07, ge=0, lt=1, description="Fraction of amplitude contrast")
    defocus_um: tuple[Micrometer, Micrometer] = Field((0.8, 2.2), description="Range of the mean defocus; positive is underfocus")
    astigmatism_ang: tuple[Annotated[Angstrom, Field(ge=0)], Annotated[Angstrom, Field(ge=0)]] = Field(
        (50.0, 400.0), description="Range of the difference of defocus U and V"
    )
    phase_shift_deg: tuple[Degree, Degree] = Field((0.0, 0.0), description="Range of the phase shift of a phase plate")
    b_factor_ang2: float = Field(
        60.0, ge=0, description="Envelope exp(-B g²/4) of the microscope", json_schema_extra={"unit": "Å²"}
    )

    drift_px: tuple[NonNegative, NonNegative] = Field((3.0, 10.0), description="Range of the path length of the global drift")
    local_motion_px: Pixel = Field(1.0, ge=0, description="Rms over the field of the local motion at the last frame")

    phantom: Literal["builtin"] | Path = Field(
        "builtin", description="'builtin', an atomic model (.pdb .cif) or a density map (.mrc .map), possibly .gz or .bz2"
    )
    phantom_diameter_ang: Angstrom = Field(150.0, gt=20, description="Diameter of the built-in phantom")
    n_particles: int = Field(45, ge=0, description="Particles on one micrograph (fewer where they do not fit)")
    spacing_diameters: float = Field(1.0, ge=0, description="Least distance of two particles, in diameters")
    particle_contrast: float = Field(
        0.6,
        gt=0,
        le=1,
        description="Fraction of the computed particle contrast that reaches the image; inelastic scattering takes the rest",
    )
    depth_spread: bool = Field(False, description="Particles are at random depths of the ice instead of in one plane")
    ice_thickness_ang: Angstrom = Field(300.0, ge=0, description="Thickness of the ice")
    ice_mean_free_path_ang: Angstrom | None = Field(
        None, gt=0, description="Thickness of ice that lets 1/e of the electrons through to the camera; unset: it takes none away"
    )
    ice_slices: int = Field(
        1, ge=1, le=100, description="Slices of the ice, each with the defocus of its depth; 1: a sheet without depth"
    )
    ice_ring: float = Field(0.0, ge=0, description="Power of crystalline ice over that of vitreous ice, at its strongest ring")
    ice_motion_ang2_per_e: float = Field(
        0.0,
        ge=0,
        description="Mean squared distance in Å² that water molecules move per e/Å² (about 1.1); 0: the ice keeps its pattern",
    )
    sample_tilt_deg: tuple[SlopeDegree, SlopeDegree] = Field(
        (0.0, 0.0), description="Range of the tilt of the specimen, about an axis of any direction"
    )
    bend_ang: tuple[Angstrom, Angstrom] = Field(
        (0.0, 0.0), description="Range of a bend of the specimen: defocus at the corners over that at the centre"
    )

    format: Literal["tiff", "mrc", "eer"] = Field("tiff", description="File format of the movies")
    mrc_type: Literal["int8", "int16", "uint16", "float32"] = Field("int16", description="Pixel type of MRC movies")
    eer_frames_per_frame: int = Field(10, ge=1, le=200, description="Camera frames in an EER file per frame of the settings")
    naming: Literal["plain", "epu"] = Field("plain", description="mic_0001.tiff, or names and folders as EPU writes them")
    sidecars: Literal["none", "epu", "serialem"] = Field(
        "none", description="Beside each movie: EPU's XML (with names as EPU writes them), or an mdoc of SerialEM"
    )
    sidecar_faults: dict[int, SidecarFault] = Field(
        default_factory=dict, description="Faults of sidecars by index of the movie, from 0"
    )
    gain: bool = Field(True, description="Frames need gain.mrc (multiply; divide EER frames); without it the camera is perfect")
    n_dead_pixels: int = Field(20, ge=0, description="Pixels that never count (gain reference 0); none without gain")
    n_hot_pixels: int = Field(20, ge=0, description="Pixels that count far too much (gain reference about 1); none without gain")

    faults: dict[int, Fault] = Field(default_factory=dict, description="Faults by index of the movie, from 0")
    fault_fraction: float = Field(0.0, ge=0, le=1, description="Fraction of the other movies that get a random fault")

    scenes: dict[int, Scene] = Field(
        default_factory=dict, description="What is in the beam instead of particles in clean ice, by index of the movie, from 0"
    )

    junk: dict[JunkClass, Share] = Field(
        default_factory=dict,
        description="Share of the field under carbon, crystalline_ice, dirt and aggregate, as {dirt: 0.1}; no particle is there",
    )

    grid: GridSettings | None = Field(
        None,
        description="Squares and holes with qualities of their own, as {rows: 4, columns: 4}; unset: every exposure is alike",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("defocus_um", "astigmatism_ang", "phase_shift_deg", "drift_px", "sample_tilt_deg", "bend_ang"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}: the range {low} … {high} is reversed; give the lower value first")
        for name in ("faults", "scenes", "sidecar_faults"):
            outside = [index for index in getattr(self, name) if not 0 <= index < self.n_movies]
            if outside:
                raise ValueError(f"{name}: movies {outside} do not exist; allowed: 0 … {self.n_movies - 1}")
        if Fault.NOT_FINITE in self.faults.values() and (self.format, self.mrc_type) != ("mrc", "float32"):
            raise ValueError(f"faults: not_finite needs format mrc of mrc_type float32, got {self.format} of {self.mrc_type}")
        if self.grid is not None and self.n_movies > self.grid.n_exposures:
            raise ValueError(f"grid: has places for {self.grid.n_exposures} movies, {self.n_movies} are wanted")
        if self.format == "eer" and self.height_px != self.width_px:
            raise ValueError(f"EER movies are square, got {self.height_px} x {self.width_px}")
        return self

    @property
    def dose_per_pixel(self) -> float:
        """Electrons per pixel and frame."""
        return self.dose_per_frame_e_per_ang2 * self.pixel_size_ang**2

    @property
    def dose_per_stored_frame_e_per_ang2(self) -> float:
        """Dose of one frame in the file: an EER file stores several camera frames for each frame of these settings."""
        return self.dose_per_frame_e_per_ang2 / (self.eer_frames_per_frame if self.format == "eer" else 1)

    def generator(self, *key: int) -> np.random.Generator:
        """Return the random generator of one purpose, independent of all other purposes."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))
