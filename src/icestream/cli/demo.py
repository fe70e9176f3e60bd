"""``icestream demo``: the whole way from movies to 2D classes, with a microscope whose truth is known."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import output, type_next
from icestream.cli.group import INTERRUPTED
from icestream.cli.run import make_settings, process
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.cli.demo_plan import DemoPlan

_MOVIES, _MOVIES_FAST = 24, 3
_END_S = 10.0


def demo(
    folder: Path | None = typer.Option(None, help="Folder to work in; by default a new folder demo, demo_2, …"),
    movies: int | None = typer.Option(None, min=1, help=f"Number of movies; {_MOVIES} by default."),
    seed: int = typer.Option(1, min=0, help="Random seed; the same seed gives the same movies."),
    fast: bool = typer.Option(False, "--fast", help="Use a few small movies, just to check that everything works."),
    cores: int | None = typer.Option(None, min=1, help="Cores to use; by default all of the machine."),
) -> None:
    """Process movies of a simulated microscope to 2D classes, and compare the results with the truth.

    One process writes movies at the pace of a small microscope, one of them broken. A session processes them as they appear and
    keeps a report up to date, which you can open in any browser.

    ```
    icestream demo
    icestream demo --movies 40 --folder /scratch/demo
    ```
    """
    from icestream.cli.demo_plan import create_demo_session, plan_demo
    from icestream.cli.demo_table import measure, print_measures
    from icestream.observe.report import write_report

    settings = make_settings(cores=cores, newest_first=False)
    place = (_free_folder() if folder is None else folder).absolute()
    microscope = place / "microscope"
    plan = plan_demo(movies=movies or (_MOVIES_FAST if fast else _MOVIES), seed=seed, fast=fast)
    session = create_demo_session(place / "session", microscope, plan)
    console = output()
    report = session.folder / "report" / "index.html"
    console.print(f"microscope: {microscope}\nsession:    {session.folder}\nreport:     {report}\n", soft_wrap=True, markup=False)
    began_s = time.monotonic()
    with _simulating(microscope, plan, seed=seed) as simulator, _reporting(session.folder):
        ended = process(session, settings, follow=True)
        if not ended.finished:
            console.print("stopped before the end", style="yellow")
            raise typer.Exit(INTERRUPTED)
        _expect_end(simulator, microscope)
    write_report(session)
    console.print(f"\n{ended.reason}, after {time.monotonic() - began_s:.0f} s")
    print_measures(measure(session, microscope), console)
    console.print(
        f"\nreport:  {report}\nnext:    {type_next('status', session.folder)}\n         {type_next('failed', session.folder)}"
        f"\n         {type_next('trace', session.folder, 'mic_0001')}\n",
        soft_wrap=True,
        markup=False,
    )


def _free_folder() -> Path:
    numbered = (Path(f"demo_{number}") for number in range(2, 1000))
    return next(path for path in (Path("demo"), *numbered) if not path.exists())


@contextmanager
def _simulating(microscope: Path, plan: "DemoPlan", *, seed: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the microscope in a process of its own."""
    simulated = plan.simulation
    own = simulated.model_dump(mode="json", exclude_unset=True, exclude={"n_movies", "seed"})
    command = ["simulate", str(microscope), "--movies", str(simulated.n_movies), "--seed", str(seed)]
    command += ["--seconds-per-movie", str(plan.seconds_per_movie), "--write-s", str(plan.write_s)]
    command += [part for name, value in own.items() for part in ("--set", f"{name}={value}")]
    microscope.mkdir(parents=True, exist_ok=True)
    (microscope / "movies").mkdir(exist_ok=True)
    with _running(command, microscope.parent / "microscope.log") as process:
        yield process


@contextmanager
def _reporting(session: Path) -> Iterator[None]:
    with _running(["report", str(session), "--watch", "--every", "5"], session.parent / "report.log"):
        yield


@contextmanager
def _running(arguments: list[str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Run ``icestream ARGUMENTS`` beside this process; it ends with the block."""
    command = [sys.executable, "-m", "icestream", *arguments]
    with log.open("wb") as target:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def _expect_end(simulator: "subprocess.Popen[bytes]", microscope: Path) -> None:
    try:
        status = simulator.wait(_END_S)
    except subprocess.TimeoutExpired:
        status = None
    if status != 0:
        log = microscope.parent / "microscope.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
        state = "has not finished" if status is None else f"ended with status {status}"
        raise SessionError(f"the simulated microscope {state}; the end of {log}: {' / '.join(lines)}")
