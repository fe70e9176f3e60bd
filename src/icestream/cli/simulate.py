"""``icestream simulate``: a microscope whose truth is known."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from icestream.cli.console import errors, output, type_next
from icestream.counting import counted
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.microscope import ExposureTruth


def simulate(
    folder: Path = typer.Argument(help="Empty folder; movies/, gain.mrc and truth/ are written into it."),
    movies: int = typer.Option(20, min=1, help="Number of movies."),
    seed: int = typer.Option(1, min=0, help="Random seed; the same seed gives the same movies."),
    seconds_per_movie: float = typer.Option(0.0, min=0.0, help="Seconds from one movie to the next; 0 is as fast as possible."),
    write_s: float = typer.Option(0.0, min=0.0, help="Seconds it takes to write each file."),
    format: str | None = typer.Option(None, help="Movie format: tiff, mrc or eer."),
    fault_fraction: float = typer.Option(0.0, min=0.0, max=1.0, help="Fraction of the movies that get a random fault."),
    workers: int = typer.Option(1, min=1, help="Processes that compute movies ahead of time."),
    set_: list[str] = typer.Option([], "--set", metavar="NAME=VALUE", help="Any other setting, e.g. `phantom_diameter_ang=120`."),
) -> None:
    """Simulate a microscope: write movies with known particles, CTF, motion and faults.

    The truth is written beside the movies, so results can be compared with it. All settings are in the reference documentation.

    ```
    icestream simulate scope --movies 20 --seconds-per-movie 10 --write-s 2
    icestream simulate scope --set 'defocus_um=[0.5, 3]' --set n_frames=40 --fault-fraction 0.1
    ```
    """
    from icestream.cli.plan import parse_values
    from icestream.microscope import Pace
    from icestream.microscope import simulate as write_session

    given: dict[str, Any] = {"n_movies": movies, "seed": seed, "fault_fraction": fault_fraction, **parse_values(set_)}
    settings = simulation_settings(given if format is None else {**given, "format": format})
    truth = write_session(
        folder,
        settings=settings,
        pace=Pace(seconds_per_movie=seconds_per_movie, write_s=write_s),
        workers=workers,
        on_progress=_say,
    )
    console = output()
    console.print(
        f"wrote {counted(len(truth.exposures), 'movie')} to {folder / 'movies'} and the truth to {folder / 'truth'}",
        soft_wrap=True,
        markup=False,
    )
    gain = ("--gain", folder / truth.gain_file) if truth.gain_file else ()
    values = {
        "--voltage": settings.voltage_kv,
        "--cs": settings.cs_mm,
        "--amplitude-contrast": settings.amplitude_contrast,
        "--pixel-size": settings.pixel_size_ang,
        "--dose-per-frame": settings.dose_per_stored_frame_e_per_ang2,
        "--diameter": 0.9 * truth.phantom_diameter_ang,
    }
    told = [text for name, value in values.items() for text in (name, f"{value:g}")]
    largest = f"{1.1 * truth.phantom_diameter_ang:g}"
    next_command = type_next("new", "SESSION", "--movies", folder / "movies", *gain, *told, largest)
    console.print(f"next: {next_command}", soft_wrap=True, markup=False)


def simulation_settings(values: dict[str, Any]) -> Any:
    """Check the settings of a simulation.

    Raises
    ------
    SessionError
        A setting is unknown or outside of what is allowed.
    """
    from pydantic import ValidationError

    from icestream.documents import read_lists
    from icestream.microscope import SimulationSettings

    try:
        return SimulationSettings.model_validate(read_lists(SimulationSettings, values))
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, issue['loc'])) or 'settings'}: {issue['msg']} (got {issue['input']!r:.200})"
            for issue in error.errors()
        ]
        raise SessionError("simulation: " + "; ".join(lines)) from error


def _say(truth: "ExposureTruth") -> None:
    fault = f"  fault: {truth.fault.value}" if truth.fault is not None else ""
    errors().print(
        f"{truth.name}  defocus {truth.mean_defocus_ang * 1e-4:.2f} µm, {counted(len(truth.particles), 'particle')}{fault}",
        markup=False,
    )
