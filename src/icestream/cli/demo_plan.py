"""What the demonstration simulates, and the session that processes it."""

from dataclasses import dataclass
from pathlib import Path

from icestream.cli.plan import parse_settings
from icestream.flow.storage import Session, create_session
from icestream.microscope.settings import Fault, SimulationSettings
from icestream.workflows import fill_template, load_template

_QUIET_S = 60.0
"""So long nothing may come from the microscope before the session takes it for finished."""

_BROKEN_S, _BROKEN_FAST_S = 15.0, 4.0
"""A movie that is too short and has not grown for so long is broken."""


_LIFELIKE = {
    "particle_contrast": 0.5,
    "spacing_diameters": 0.75,
    "ice_motion_ang2_per_e": 1.0,
    "junk": {"carbon": 0.04, "dirt": 0.03, "aggregate": 0.02},
}


@dataclass(frozen=True)
class DemoPlan:
    """A simulated acquisition and how it is processed."""

    simulation: SimulationSettings
    seconds_per_movie: float
    write_s: float
    parameters: tuple[str, ...]
    """``step.param=value``, as they are typed after ``icestream new --set``."""


def plan_demo(*, movies: int, seed: int, fast: bool) -> DemoPlan:
    """Return the demonstration: movies of 1024 x 1024 pixels with one broken file among them; smaller ones if ``fast``.

    They look like real ones: crowded particles, hardly seen in ice that moves, beside some carbon, dirt and aggregates.
    """
    size = {"height_px": 512, "width_px": 512, "n_frames": 8, "n_particles": 12, "junk": {}} if fast else {"n_particles": 70}
    faults = {movies // 2: Fault.TRUNCATED} if movies > 2 else {}
    simulation = SimulationSettings.model_validate({"n_movies": movies, "seed": seed, "faults": faults, **_LIFELIKE, **size})
    return DemoPlan(
        simulation=simulation,
        seconds_per_movie=0.0 if fast else 4.0,
        write_s=0.0 if fast else 1.0,
        parameters=(
            f"movies.max_files={movies}",
            f"movies.idle_s={_QUIET_S:g}",
            f"movies.give_up_s={_BROKEN_FAST_S if fast else _BROKEN_S:g}",
            f"classes.n_classes={4 if fast else 28}",
        ),
    )


def create_demo_session(folder: Path, microscope: Path, plan: DemoPlan) -> Session:
    """Make the session that processes what the simulated microscope writes."""
    simulated = plan.simulation
    diameter_ang = simulated.phantom_diameter_ang
    values = {
        "movies": str(microscope / "movies"),
        "gain": str(microscope / "gain.mrc"),
        "diameter": (0.9 * diameter_ang, 1.1 * diameter_ang),
        "voltage": simulated.voltage_kv,
        "cs": simulated.cs_mm,
        "amplitude_contrast": simulated.amplitude_contrast,
        "pixel_size": simulated.pixel_size_ang,
        "dose_per_frame": simulated.dose_per_stored_frame_e_per_ang2,
    }
    document = fill_template(load_template("movies_to_classes"), values, name="demo", settings=parse_settings(plan.parameters))
    return create_session(folder, document)
