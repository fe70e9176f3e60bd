"""``icestream run``: process a session."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from icestream.cli.console import output, type_next
from icestream.cli.group import INTERRUPTED, SOME_FAILED
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.flow.session import Session
    from icestream.flow.status import RunReport
    from icestream.settings import Settings

_STARTING_S = 2.0


def run(
    session: Path = typer.Argument(help="Folder of the session."),
    detach: bool = typer.Option(False, "--detach", help="Go on in the background, also after this terminal is closed."),
    cores: int | None = typer.Option(None, min=1, help="Cores to use; all of the machine if left out."),
    newest_first: bool = typer.Option(False, "--newest-first", help="When behind, process the newest exposures first."),
    follow: bool = typer.Option(True, "--follow/--quiet", help="Show progress, or only the end."),
) -> None:
    """Process a session until every stream has closed; run it again at any time to continue.

    Ctrl-C stops after what is running, a second Ctrl-C at once; nothing is lost either way.

    Exit status: 0 all is fine, 3 finished but some exposures failed, 1 an error, 2 wrong usage, 130 stopped before the end.

    ```
    icestream run lysozyme
    icestream run lysozyme --detach --cores 16
    ```
    """
    from icestream.flow.session import open_session

    settings = make_settings(cores=cores, newest_first=newest_first)
    opened = open_session(session)
    opened.graph()
    if detach:
        detach_runner(opened, cores=cores, newest_first=newest_first)
        return
    report = process(opened, settings, follow=follow)
    raise typer.Exit(finish(opened, report))


def make_settings(*, cores: int | None, newest_first: bool) -> "Settings":
    """Return the settings of the machine, with what was typed before what the environment says.

    Raises
    ------
    SessionError
        An environment variable has a value that is not allowed.
    """
    from pydantic import ValidationError

    from icestream.settings import Settings

    typed: dict[str, Any] = {"cores": cores, "newest_first": newest_first or None}
    try:
        return Settings(**{name: value for name, value in typed.items() if value is not None})
    except ValidationError as error:
        raise SessionError(
            "; ".join(
                f"ICESTREAM_{issue['loc'][0]}".upper() + f" is {issue['input']!r}: {issue['msg']}" for issue in error.errors()
            )
        ) from error


def process(session: "Session", settings: "Settings", *, follow: bool) -> "RunReport":
    """Run the session here, with its progress on the terminal if ``follow``."""
    from icestream.cli.live import follow_run
    from icestream.flow.runner import run_session

    if not follow:
        return run_session(session, settings)
    with follow_run(output()) as on_change:
        return run_session(session, settings, on_change=on_change)


def finish(session: "Session", report: "RunReport") -> int:
    """Say how the run ended; return the exit status."""
    console = output()
    console.print(f"{report.reason}: {report.n_exposures} exposures, {report.n_failed} failed", soft_wrap=True, markup=False)
    if report.n_failed:
        console.print(f"what failed and why: {type_next('failed', session.folder)}", soft_wrap=True, markup=False)
    if not report.finished:
        console.print(f"continue with: {type_next('run', session.folder)}", soft_wrap=True, markup=False)
        return INTERRUPTED
    return SOME_FAILED if report.n_failed else 0


def launch_runner(session: Path, *, cores: int | None, newest_first: bool) -> tuple["subprocess.Popen[bytes]", int]:
    """Run a session in a process of its own that outlives this one; return it, and where its words begin in its log."""
    log = session / "logs" / "runner.log"
    log.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "icestream", "run", str(session)]
    command += ["--cores", str(cores)] if cores is not None else []
    command += ["--newest-first"] if newest_first else []
    with log.open("ab") as target:
        started = target.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.STDOUT, start_new_session=True, env=os.environ
        )
    return process, started


def detach_runner(session: "Session", *, cores: int | None, newest_first: bool) -> None:
    """Run a session in the background, and say where to look at it.

    Raises
    ------
    SessionError
        The runner ended at once.
    """
    log = session.folder / "logs" / "runner.log"
    process, started = launch_runner(session.folder, cores=cores, newest_first=newest_first)
    status = _status_after(process, _STARTING_S)
    if status not in (None, 0, SOME_FAILED):
        said = log.read_bytes()[started:].decode(errors="replace").strip()
        raise SessionError(f"the runner ended at once with status {status}: {said or 'it said nothing'}")
    console = output()
    console.print(f"running in the background as process {process.pid}; its log is {log}", soft_wrap=True, markup=False)
    look = type_next("status", session.folder)
    console.print(f"look at it: {look}    stop it: kill {process.pid}", soft_wrap=True, markup=False)


def _status_after(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """Return the exit status of a process that ends within ``seconds``, else None."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    return process.poll()
