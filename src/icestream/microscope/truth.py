"""What is true of a simulated session: saved beside the data, read back by tests and scores."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from icestream.errors import SessionError
from icestream.files import publish_text
from icestream.microscope.grid import HoleTruth
from icestream.microscope.layers import Surface
from icestream.microscope.motion import displacement_at
from icestream.microscope.settings import Fault, Scene, SimulationSettings
from icestream.records import JunkClass, Record
from icestream.units import Angstrom, Degree, Pixel


class ParticleTruth(Record):
    """One particle; position in frame 0, orientation in the convention of RELION (ZYZ)."""

    y_px: Pixel
    x_px: Pixel
    rot_deg: Degree
    tilt_deg: Degree
    psi_deg: Degree
    depth_ang: Angstrom = Field(description="Added to the defocus of the micrograph: depth in the ice, and slope of the specimen")


class JunkTruth(Record):
    """A disc of junk, or, for carbon, everything outside the disc, which is a hole in the film; places are those in frame 0."""

    kind: JunkClass
    y_px: Pixel
    x_px: Pixel
    radius_px: Pixel
    thickness_ang: Angstrom = Field(description="Of a film, or of a ball in its middle; 0 for crystals and aggregates")


class ExposureTruth(Record):
    """Everything that was put into one movie."""

    index: int
    name: str = Field(description="Name of the movie without its suffix")
    file: str = Field(description="The movie, relative to the folder of the session")
    fault: Fault | None
    scene: Scene | None = Field(None, description="Unset: particles in clean vitreous ice")
    height_px: int
    width_px: int
    n_frames: int
    pixel_size_ang: Angstrom
    electrons_per_pixel: float = Field(description="Mean dose of one frame; about 0 for an empty exposure")
    transmission: float = Field(1.0, gt=0, le=1, description="Share of these electrons that the ice lets through to the camera")
    defocus_u_ang: Angstrom
    defocus_v_ang: Angstrom
    astigmatism_angle_deg: Degree
    phase_shift_deg: Degree
    voltage_kv: float
    cs_mm: float
    amplitude_contrast: float
    b_factor_ang2: float
    tilt_deg: Degree = Field(0.0, description="Slope of the specimen; defocus grows a quarter turn (x to y) from the axis")
    tilt_axis_deg: Degree = Field(0.0, description="Direction of the tilt axis, from x towards y")
    bend_ang: Angstrom = Field(0.0, description="Defocus at the corners over that at the centre, without the slope")
    global_yx_px: tuple[tuple[Pixel, Pixel], ...] = Field(description="Displacement of the specimen per frame, frame 0 at zero")
    local_coefficients: tuple[tuple[tuple[float, ...], ...], ...] = Field(description="(2, 3, 5), see microscope.motion")
    local_grid_yx_px: tuple[tuple[float, float], ...] = Field(description="Points where the motion is also given as numbers")
    local_grid_displacement_yx_px: tuple[tuple[tuple[float, float], ...], ...] = Field(
        description="(n_frames, points, 2): whole displacement at these points"
    )
    particles: tuple[ParticleTruth, ...]
    hole: HoleTruth | None = Field(None, description="Where on the grid it is; unset without a grid")
    junk: tuple[JunkTruth, ...] = Field((), description="Carbon, crystals, dirt and aggregates; there are no particles in them")

    def displacement(self, t: float, y_px: NDArray[np.float64] | float, x_px: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Return how far specimen that was at ``(y, x)`` in frame 0 has moved in frame ``t``: ``(..., 2)``, yx, in pixels."""
        return displacement_at(
            t,
            np.asarray(y_px, np.float64),
            np.asarray(x_px, np.float64),
            global_yx_px=np.array(self.global_yx_px),
            coefficients=np.array(self.local_coefficients),
            shape=(self.height_px, self.width_px),
        )

    @property
    def surface(self) -> Surface:
        """What the place in the field adds to the defocus."""
        shape = (self.height_px, self.width_px)
        return Surface(self.tilt_deg, self.tilt_axis_deg, self.bend_ang, shape, self.pixel_size_ang)

    @property
    def positions_yx_px(self) -> NDArray[np.float64]:
        """``(n, 2)`` true positions in frame 0."""
        return np.array([(p.y_px, p.x_px) for p in self.particles], np.float64).reshape(-1, 2)

    @property
    def mean_defocus_ang(self) -> float:
        """Mean of defocus U and V."""
        return 0.5 * (self.defocus_u_ang + self.defocus_v_ang)


class SessionTruth(Record):
    """What all exposures of a simulated session share."""

    settings: SimulationSettings
    phantom_file: str = Field(description="Volume in volts above ice, relative to the folder of the session")
    phantom_diameter_ang: Angstrom
    phantom_pixel_size_ang: Angstrom
    gain_file: str | None
    dead_yx: tuple[tuple[int, int], ...]
    hot_yx: tuple[tuple[int, int], ...]
    faults: dict[int, Fault]
    exposures: tuple[str, ...] = Field(description="Names of the exposures that were written, in order")


def save_exposure_truth(truth: ExposureTruth, folder: Path) -> None:
    """Write ``truth/<name>.json`` and ``truth/<name>.star`` below the folder of a session."""
    publish_text(folder / "truth" / f"{truth.name}.json", truth.model_dump_json(indent=1))
    publish_text(folder / "truth" / f"{truth.name}.star", exposure_star(truth))


def save_session_truth(truth: SessionTruth, folder: Path) -> None:
    """Write ``truth/session.json`` and ``truth/session.star``."""
    publish_text(folder / "truth" / "session.json", truth.model_dump_json(indent=1))
    rows = [load_exposure_truth(folder, name) for name in truth.exposures]
    table = [
        (t.file, t.defocus_u_ang, t.defocus_v_ang, t.astigmatism_angle_deg, t.phase_shift_deg, t.fault or "none") for t in rows
    ]
    columns = ["MicrographMovieName", "DefocusU", "DefocusV", "DefocusAngle", "PhaseShift", "icestreamFault"]
    publish_text(folder / "truth" / "session.star", _star_table("micrographs", columns, table))


def load_exposure_truth(folder: Path, name: str) -> ExposureTruth:
    """Read ``truth/<name>.json`` below the folder of a simulated session."""
    return ExposureTruth.model_validate_json(_read(folder / "truth" / f"{name}.json"))


def load_session_truth(folder: Path) -> SessionTruth:
    """Read ``truth/session.json`` below the folder of a simulated session."""
    return SessionTruth.model_validate(json.loads(_read(folder / "truth" / "session.json")))


def _read(path: Path) -> str:
    if not path.is_file():
        raise SessionError(f"{path}: no such file; was the session simulated and is the exposure written?")
    return path.read_text(encoding="utf-8")


def exposure_star(truth: ExposureTruth) -> str:
    """Return the truth of one exposure as STAR text: the trajectory and the particles with RELION's labels.

    ``rlnCoordinateX`` and ``Y`` are pixels of the raw movie in frame 0, counted from 0 as RELION does.
    """
    shifts = [(frame + 1, x, y) for frame, (y, x) in enumerate(truth.global_yx_px)]
    angle_deg, shift_deg = truth.astigmatism_angle_deg, truth.phase_shift_deg
    particles = [
        (*_pose(p), truth.defocus_u_ang + p.depth_ang, truth.defocus_v_ang + p.depth_ang, angle_deg, shift_deg)
        for p in truth.particles
    ]
    optics = [
        "CoordinateX",
        "CoordinateY",
        "AngleRot",
        "AngleTilt",
        "AnglePsi",
        "DefocusU",
        "DefocusV",
        "DefocusAngle",
        "PhaseShift",
    ]
    motion = ["MicrographFrameNumber", "icestreamDisplacementX", "icestreamDisplacementY"]
    return _star_table("displacement", motion, shifts) + _star_table("particles", optics, particles)


def _pose(particle: ParticleTruth) -> tuple[float, ...]:
    return particle.x_px, particle.y_px, particle.rot_deg, particle.tilt_deg, particle.psi_deg


def _star_table(name: str, columns: list[str], rows: Sequence[tuple[object, ...]]) -> str:
    labels = [label if label.startswith("icestream") else f"rln{label}" for label in columns]
    head = [f"data_{name}", "", "loop_"] + [f"_{label} #{number}" for number, label in enumerate(labels, 1)]
    body = [" ".join(f"{value:.6f}" if isinstance(value, float) else str(value) for value in row) for row in rows]
    return "\n".join([*head, *body, "", ""])
