"""What the demonstration simulates, and the session that processes it."""

from dataclasses import dataclass
from pathlib import Path

from icestream.cli.plan import parse_settings
from icestream.facility.simulating import TEMPLATE, acquisition_values, lifelike_settings, simulating_arguments
from icestream.flow.storage import Session, create_session
from icestream.microscope.settings import Fault, SimulationSettings
from icestream.workflows import fill_template, load_template

_QUIET_S = 60.0
"""So long nothing may come from the microscope before the session takes it for finished."""

_GRID_S = 20.0
"""So long the files that describe the grid may take to appear; they do not change."""

_FIRST_FOR_ICE = 8
"""From so many movies the beam without ice is learnt, so that the map is coloured by the thickness soon."""

_BROKEN_S, _BROKEN_FAST_S = 15.0, 4.0
"""A movie that is too short and has not grown for so long is broken."""


@dataclass(frozen=True)
class DemoPlan:
    """A simulated acquisition and how it is processed."""

    simulation: SimulationSettings
    seconds_per_movie: float
    write_s: float
    parameters: tuple[str, ...]
    """``step.param=value``, as they are typed after ``icestream new --set``."""

    def simulating(self, microscope: Path) -> list[str]:
        """Return what follows ``icestream`` in the command that simulates it."""
        pace = {"seconds_per_movie": self.seconds_per_movie, "write_s": self.write_s}
        return simulating_arguments(microscope, self.simulation, **pace)


def plan_demo(*, movies: int, seed: int, fast: bool) -> DemoPlan:
    """Return the demonstration: movies of 1024 x 1024 pixels with one broken file among them; smaller ones if ``fast``.

    They look like real ones: crowded particles, hardly seen in ice that moves, beside some carbon, dirt and aggregates. They are
    of squares and holes of a grid, whose ice differs.
    """
    small = {"height_px": 512, "width_px": 512, "n_frames": 8, "n_particles": 12, "particle_contrast": 0.8, "junk": {}}
    size = small if fast else {}
    faults = {movies // 2: Fault.TRUNCATED} if movies > 2 else {}
    grid = {"dirt": 0.0, "ice_spread": 0.0, "ice_ang": 200.0} if fast else None  # few particles at half the dose
    simulation = lifelike_settings(movies, seed=seed, grid=grid, faults=faults, **size)
    return DemoPlan(
        simulation=simulation,
        seconds_per_movie=0.0 if fast else 4.0,
        write_s=0.0 if fast else 1.0,
        parameters=(
            f"movies.max_files={movies}",
            f"movies.idle_s={_QUIET_S:g}",
            f"movies.give_up_s={_BROKEN_FAST_S if fast else _BROKEN_S:g}",
            "grid_files.rescan_s=1",
            f"grid_files.idle_s={_GRID_S:g}",
            f"vacuum.n_samples={min(_FIRST_FOR_ICE, movies)}",
            f"classes.n_classes={4 if fast else 28}",
        ),
    )


def create_demo_session(folder: Path, microscope: Path, plan: DemoPlan) -> Session:
    """Make the session that processes what the simulated microscope writes."""
    values = acquisition_values(plan.simulation, microscope)
    document = fill_template(load_template(TEMPLATE), values, name="demo", settings=parse_settings(plan.parameters))
    return create_session(folder, document)
