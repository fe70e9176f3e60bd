"""``icestream run``: process a session."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from icestream.cli.console import errors, output, type_next
from icestream.counting import counted
from icestream.errors import ExitStatus, SessionError

if TYPE_CHECKING:
    from icestream.flow.execution.executor import Executor
    from icestream.flow.runner.status import RunReport
    from icestream.flow.storage import Session
    from icestream.settings import Settings


def run(
    session: Path = typer.Argument(help="Folder of the session."),
    detach: bool = typer.Option(False, "--detach", help="Run in the background, even after this terminal is closed."),
    cores: int | None = typer.Option(None, min=1, help="Cores to use; by default all of the machine."),
    newest_first: bool = typer.Option(False, "--newest-first", help="When behind, process the newest exposures first."),
    follow: bool = typer.Option(True, "--follow/--quiet", help="Show progress, or only pauses and the final result."),
    executor: Literal["local", "dask", "slurm"] = typer.Option(
        "local", metavar="local|dask|slurm", help="Where steps run: on this machine, a dask cluster, or in Slurm jobs."
    ),
    scheduler: str | None = typer.Option(
        None, metavar="URL", help="With --executor dask: address of the scheduler, tcp://HOST:PORT."
    ),
    cluster_settings: Path | None = typer.Option(
        None, "--cluster-settings", metavar="FILE", help="With --executor slurm: YAML file with the settings of the jobs."
    ),
) -> None:
    """Process a session until every stream has closed. Run it again at any time to continue.

    Ctrl-C stops once running work has finished, a second Ctrl-C stops at once. Nothing is lost either way.

    ```
    icestream run lysozyme
    icestream run lysozyme --detach --cores 16
    icestream run lysozyme --executor slurm --cluster-settings facility.yaml
    ```
    """
    from icestream.flow.execution.executors import find_misuse, open_executor
    from icestream.flow.storage import open_session

    misuse = find_misuse(executor, scheduler=scheduler, cluster_settings=cluster_settings)
    if misuse is not None:
        raise typer.BadParameter(misuse)
    settings = make_settings(cores=cores, newest_first=newest_first)
    opened = open_session(session)
    opened.graph()
    if detach:
        from icestream.facility.runners import typed_options

        where = (executor, scheduler, cluster_settings)
        detach_runner(opened, typed_options(cores=cores, newest_first=newest_first, where=where))
        return
    cluster = open_executor(executor, opened, scheduler=scheduler, cluster_settings=cluster_settings)
    report = process(opened, settings, follow=follow, cluster=cluster)
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


def process(session: "Session", settings: "Settings", *, follow: bool, cluster: "Executor | None" = None) -> "RunReport":
    """Run the session, its steps on ``cluster`` or here, with its progress on the terminal if ``follow``."""
    from icestream.cli.live import follow_run, tell_pauses
    from icestream.flow.runner.supervisor import run_session

    if not follow:
        return run_session(session, settings, on_change=tell_pauses(errors()), cluster=cluster)
    with follow_run(output()) as on_change:
        return run_session(session, settings, on_change=on_change, cluster=cluster)


def finish(session: "Session", report: "RunReport") -> int:
    """Say how the run ended; return the exit status."""
    console = output()
    console.print(
        f"{report.reason}: {counted(report.n_exposures, 'exposure')}, {report.n_failed} failed", soft_wrap=True, markup=False
    )
    if report.n_failed:
        console.print(f"see what failed: {type_next('failed', session.folder)}", soft_wrap=True, markup=False)
    if not report.finished:
        console.print(f"continue with: {type_next('run', session.folder)}", soft_wrap=True, markup=False)
        return ExitStatus.INTERRUPTED
    return ExitStatus.SOME_FAILED if report.n_failed else 0


def detach_runner(session: "Session", options: "Sequence[str]") -> None:
    """Run a session in the background, and say where to look at it.

    Raises
    ------
    SessionError
        The session is running already, or the runner ended at once.
    """
    from icestream.facility.runners import start_runner

    log = session.folder / "logs" / "runner.log"
    pid = start_runner(session.folder, options)
    console = output()
    console.print(f"running in the background as process {pid}; its log is {log}", soft_wrap=True, markup=False)
    look = type_next("status", session.folder)
    console.print(f"watch it: {look}    stop it: {type_next('stop', session.folder)}", soft_wrap=True, markup=False)
