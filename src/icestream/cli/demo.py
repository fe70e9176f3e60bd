"""``icestream demo``: the whole way from movies to 2D classes, with a microscope whose truth is known."""

import os
import re
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import output, type_next
from icestream.cli.run import make_settings, process
from icestream.errors import ExitStatus, SessionError

if TYPE_CHECKING:
    from icestream.cli.demo_plan import DemoPlan

_MOVIES, _MOVIES_FAST = 24, 3
_END_S = 10.0
_PAGE_S = 20.0
_DISPLAYS = {"DISPLAY", "WAYLAND_DISPLAY"}
"""Without a display, what `webbrowser` finds would be a browser for the terminal, over the table that is there."""


def demo(
    folder: Path | None = typer.Option(None, help="Folder to work in; by default a new folder demo, demo_2, …"),
    movies: int | None = typer.Option(None, min=1, help=f"Number of movies; {_MOVIES} by default."),
    seed: int = typer.Option(1, min=0, help="Random seed; the same seed gives the same movies."),
    fast: bool = typer.Option(False, "--fast", help="Use a few small movies, just to check that everything works."),
    cores: int | None = typer.Option(None, min=1, help="Cores to use; by default all of the machine."),
    page: bool = typer.Option(True, help="Show the session in the browser while it runs."),
) -> None:
    """Process movies of a simulated microscope to 2D classes, and compare the results with the truth.

    One process writes movies of squares and holes of a grid at the pace of a small microscope, one of them broken. A session
    processes them as they appear; a page in the browser shows it live, and a report is kept up to date.

    ```
    icestream demo
    icestream demo --movies 40 --folder /scratch/demo
    ```
    """
    from icestream.cli.demo_plan import create_demo_session, plan_demo
    from icestream.cli.demo_table import measure, print_measures
    from icestream.microscope.draw import name_exposure
    from icestream.observe.report import write_report

    settings = make_settings(cores=cores, newest_first=False)
    place = (_free_folder() if folder is None else folder).absolute()
    microscope = place / "microscope"
    plan = plan_demo(movies=movies or (_MOVIES_FAST if fast else _MOVIES), seed=seed, fast=fast)
    session = create_demo_session(place / "session", microscope, plan)
    console = output()
    report = session.folder / "report" / "index.html"
    console.print(f"microscope: {microscope}\nsession:    {session.folder}\nreport:     {report}", soft_wrap=True, markup=False)
    began_s = time.monotonic()
    with _simulating(microscope, plan) as simulator, _reporting(session.folder), _serving(session.folder, shown=page):
        ended = process(session, settings, follow=True)
        if not ended.finished:
            console.print("stopped before the end", style="yellow")
            raise typer.Exit(ExitStatus.INTERRUPTED)
        _expect_end(simulator, microscope)
    write_report(session)
    console.print(f"\n{ended.reason}, after {time.monotonic() - began_s:.0f} s")
    print_measures(measure(session, microscope), console)
    console.print(
        f"\nreport:  {report}\nnext:    {type_next('serve', session.folder)}\n         {type_next('status', session.folder)}"
        f"\n         {type_next('failed', session.folder)}"
        f"\n         {type_next('trace', session.folder, name_exposure(plan.simulation, 0)[0])}\n",
        soft_wrap=True,
        markup=False,
    )


def _free_folder() -> Path:
    numbered = (Path(f"demo_{number}") for number in range(2, 1000))
    return next(path for path in (Path("demo"), *numbered) if not path.exists())


@contextmanager
def _simulating(microscope: Path, plan: "DemoPlan") -> Iterator["subprocess.Popen[bytes]"]:
    """Run the microscope in a process of its own."""
    microscope.mkdir(parents=True, exist_ok=True)
    (microscope / "movies").mkdir(exist_ok=True)
    with _running(plan.simulating(microscope), microscope.parent / "microscope.log") as process:
        yield process


@contextmanager
def _reporting(session: Path) -> Iterator[None]:
    with _running(["report", str(session), "--watch", "--every", "5"], session.parent / "report.log"):
        yield


@contextmanager
def _serving(session: Path, *, shown: bool) -> Iterator[None]:
    """Show the session in the browser; without what the page needs, say what to install."""
    console = output()
    if not shown or find_spec("uvicorn") is None or find_spec("fastapi") is None:
        console.print("" if not shown else "page:       needs icestream-em[web]\n", markup=False)
        yield
        return
    log = session.parent / "page.log"
    with _running(["serve", str(session), "--port", "0"], log) as server:
        address = _address_in(log, server)
        console.print(f"page:       {address}\n", soft_wrap=True, markup=False)
        if address.startswith("http") and console.is_terminal and _DISPLAYS & os.environ.keys():
            webbrowser.open(address)
        yield


def _address_in(log: Path, server: "subprocess.Popen[bytes]") -> str:
    """Return the address that the server has printed, or where it says why there is none."""
    end_s = time.monotonic() + _PAGE_S
    while server.poll() is None and time.monotonic() < end_s:
        found = re.search(r"http://\S+", log.read_text(encoding="utf-8", errors="replace"))
        if found is not None:
            return found[0]
        time.sleep(0.1)
    return f"none; see {log}"


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
