"""A simulated microscope for whoever has no data at hand: started as a process of its own, and what a session asks of it."""

import fcntl
import hashlib
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icestream.errors import SessionBusy, SessionError
from icestream.microscope.settings import SimulationSettings

TEMPLATE = "movies_to_classes"
"""The template that processes what it writes, asked for the values of `acquisition_values`."""

LIFELIKE: Mapping[str, Any] = {
    "n_particles": 70,
    "particle_contrast": 0.5,
    "spacing_diameters": 0.75,
    "ice_motion_ang2_per_e": 1.0,
    "ice_mean_free_path_ang": 3000.0,
    "junk": {"carbon": 0.04, "aggregate": 0.02},
    "naming": "epu",
    "sidecars": "epu",
}
"""Movies that look like real ones: crowded particles, hardly seen in ice that moves, beside some carbon and aggregates."""

_GRID = {"empty": 0.0, "ice_spread": 0.35, "dirt": 0.03}
_FEWEST_PER_SIDE, _MOST_PER_SIDE, _USUAL_PER_SQUARE = 3, 40, 40

MOVIE_BYTES = 10_000_000
"""About what a movie takes on the disk."""
MOST_BYTES = 4_000_000_000
"""The folders of simulated microscopes beside the sessions may take so much together."""

_NEW_LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
_FOLDER, _SESSION = "simulated_microscope", "simulated"


@dataclass(frozen=True)
class SimulatedMicroscope:
    """A simulated microscope that is writing: its folder, a free name for a session, and the values of `TEMPLATE`."""

    folder: Path
    session: str
    values: dict[str, Any]
    process: "subprocess.Popen[bytes]"


def lifelike_settings(movies: int, *, seed: int, grid: Mapping[str, Any] | None = None, **own: Any) -> SimulationSettings:
    """Return movies as `LIFELIKE` has them, on a grid with squares and holes whose ice and dirt differ, as large as they need.

    ``grid`` and ``own`` are further settings of the grid and of the movies.
    """
    side = min(max(_FEWEST_PER_SIDE, math.ceil(math.sqrt(movies / _USUAL_PER_SQUARE))), _MOST_PER_SIDE)
    squares = {"rows": side, "columns": side, "visited_per_square": math.ceil(movies / side**2)}
    return SimulationSettings.model_validate(
        {"n_movies": movies, "seed": seed, **LIFELIKE, "grid": {**squares, **_GRID, **(grid or {})}, **own}
    )


def acquisition_values(simulated: SimulationSettings, folder: Path) -> dict[str, Any]:
    """Return what the templates for movies ask for, of a microscope that writes into ``folder``."""
    diameter_ang = simulated.phantom_diameter_ang
    described = {} if simulated.grid is None else {"grid": str(folder)}
    return {
        "movies": str(folder / "movies"),
        "gain": str(folder / "gain.mrc"),
        **described,
        "diameter": (round(0.9 * diameter_ang, 3), round(1.1 * diameter_ang, 3)),
        "voltage": simulated.voltage_kv,
        "cs": simulated.cs_mm,
        "amplitude_contrast": simulated.amplitude_contrast,
        "pixel_size": simulated.pixel_size_ang,
        "dose_per_frame": simulated.dose_per_stored_frame_e_per_ang2,
    }


def simulating_arguments(folder: Path, simulated: SimulationSettings, *, seconds_per_movie: float, write_s: float) -> list[str]:
    """Return what follows ``icestream`` in the command that writes such movies into ``folder``."""
    own = simulated.model_dump(mode="json", exclude_unset=True, exclude={"n_movies", "seed"})
    given = {
        "--movies": simulated.n_movies,
        "--seed": simulated.seed,
        "--seconds-per-movie": seconds_per_movie,
        "--write-s": write_s,
    }
    told = [text for name, value in given.items() for text in (name, str(value))]
    return ["simulate", str(folder), *told, *(text for name, value in own.items() for text in ("--set", f"{name}={value}"))]


def start_simulation(
    home: Path, *, movies: int, seconds_per_movie: float, state: Path, keep_free_bytes: int = 0
) -> SimulatedMicroscope:
    """Let a simulated microscope write movies into a new folder in ``home``; it outlives this process and ends by itself.

    Parameters
    ----------
    state
        The state folder of the account, where a lock is held for as long as the microscope writes.
    keep_free_bytes
        So much stays free on the disk.

    Raises
    ------
    SessionBusy
        A simulated microscope is writing there.
    SessionError
        There is no space for the movies, too many were simulated there, or the folder cannot be made.
    """
    try:
        with _only_one(home, state) as lock:
            _check_space(home, movies, keep_free_bytes)
            return _start(home, movies, seconds_per_movie, lock)
    except OSError as error:
        raise SessionError(f"{home}: a simulated microscope cannot write here: {error.strerror}") from error


@contextmanager
def _only_one(home: Path, state: Path) -> Iterator[int]:
    """Give the lock of the folder. A process that inherits it holds it until it ends, whatever becomes of this one."""
    key = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:16]
    path = state / "simulated" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            where = os.fsdecode(os.pread(lock, 4096, 0)) or str(home)
            raise SessionBusy(f"a simulated microscope is writing into {where}; wait until it has finished") from None
        yield lock
    finally:
        os.close(lock)


def _check_space(home: Path, movies: int, keep_free_bytes: int) -> None:
    planned = movies * MOVIE_BYTES
    files = (one for folder in home.glob(f"{_FOLDER}*") for one in folder.rglob("*"))
    there = sum(one.stat().st_size for one in files if one.is_file())
    if there + planned > MOST_BYTES:
        raise SessionError(
            f"{home}: simulated movies take {there / 1e9:.1f} GB, and {movies} more would take {planned / 1e9:.1f} GB; at most "
            f"{MOST_BYTES / 1e9:g} GB are allowed: remove folders {_FOLDER}* that nobody needs"
        )
    free = shutil.disk_usage(home).free
    if free < planned + keep_free_bytes:
        raise SessionError(
            f"{home}: {free / 1e9:.1f} GB are free; {movies} movies take {planned / 1e9:.1f} GB, "
            f"and {keep_free_bytes / 1e9:.1f} GB must stay free"
        )


def _start(home: Path, movies: int, seconds_per_movie: float, lock: int) -> SimulatedMicroscope:
    number = next(n for n in range(1, 10_000) if not any((home / f"{one}{_ending(n)}").exists() for one in (_FOLDER, _SESSION)))
    folder = home / f"{_FOLDER}{_ending(number)}"
    simulated = lifelike_settings(movies, seed=number)
    write_s = min(1.0, seconds_per_movie / 2)
    arguments = simulating_arguments(folder, simulated, seconds_per_movie=seconds_per_movie, write_s=write_s)
    (folder / "movies").mkdir(parents=True)
    os.ftruncate(lock, 0)
    os.pwrite(lock, os.fsencode(folder), 0)
    with os.fdopen(os.open(folder.with_suffix(".log"), _NEW_LOG, 0o666), "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "icestream", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
        )
    threading.Thread(target=process.wait, daemon=True).start()  # a process whose end nobody looks at stays in the list of all
    return SimulatedMicroscope(folder, f"{_SESSION}{_ending(number)}", acquisition_values(simulated, folder), process)


def _ending(number: int) -> str:
    return "" if number == 1 else f"_{number}"
