"""``icestream report``: write, check and publish the report of a session."""

import shlex
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import errors, output
from icestream.cli.run import make_settings
from icestream.errors import SessionError

if TYPE_CHECKING:
    from icestream.flow.storage import Session
    from icestream.observe.report import Problem, ReportKeeper, Written


def report(
    session: Path = typer.Argument(help="Folder of the session."),
    watch: bool = typer.Option(False, "--watch", help="Rewrite it until the session stops; Ctrl-C ends this."),
    every: int = typer.Option(15, min=1, help="With --watch: seconds between updates."),
    to: Path | None = typer.Option(None, help="File to write; by default SESSION/report/index.html."),
    templates: Path | None = typer.Option(
        None, metavar="FOLDER", help="Templates, style and report.yaml to use; by default those of the facility."
    ),
    pdf: bool = typer.Option(False, "--pdf", help="Also print it as report.pdf beside the page, with Chromium."),
    check: bool = typer.Option(
        False, "--check", help="Only try the templates and settings of facility and session; write and publish nothing."
    ),
    publish: bool | None = typer.Option(
        None, "--publish/--no-publish", help="Run the facility's command that publishes it; with --watch this is the default."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show the command that would publish it; run and write nothing."),
) -> None:
    """Write one HTML file with everything to see at a glance; it works offline and from any web server.

    Beside it are report.json and report.bib. With --watch it is rewritten as data come, and published as the facility says.

    ```
    icestream report lysozyme
    icestream report lysozyme --watch
    icestream report lysozyme --check --templates /facility/report
    icestream report lysozyme --publish --dry-run
    ```
    """
    from icestream.flow.storage import open_session

    settings = make_settings(cores=None, newest_first=False)
    folder = templates if templates is not None else settings.report_templates
    if folder is not None and not folder.is_dir():
        raise SessionError(f"{folder}: is no folder, so it has no templates for the report")
    opened = open_session(session)
    if check or dry_run:
        _try(opened, to, folder, session_templates=settings.session_report_templates, dry_run=dry_run)
        return
    from icestream.observe.report import ReportKeeper

    keeper = ReportKeeper(
        opened,
        to,
        template_folder=folder,
        publish=watch and publish is not False,
        session_templates=settings.session_report_templates,
    )
    try:
        written = keeper.turn(refresh_s=every if watch else None)
        if written is None:
            return
        output().print(f"report: {written.page}", soft_wrap=True, markup=False)
        _tell(written.problems)
        if watch:
            written = _watch(keeper, written, every)
        if pdf:
            from icestream.observe.report import write_pdf

            target = write_pdf(written.page, written.data.with_suffix(".pdf"), programs=settings.programs)
            output().print(f"pdf: {target}", soft_wrap=True, markup=False)
        if publish and not watch:
            _publish(keeper, written)
    finally:
        keeper.close()


def _watch(keeper: "ReportKeeper", written: "Written", every: int) -> "Written":
    """Rewrite the report until the session stops; return what was written last."""
    told: tuple[Problem, ...] = written.problems
    while not keeper.writer.is_over():
        time.sleep(every)
        fresh = keeper.turn(refresh_s=every)
        if fresh is not None and fresh.problems != told:
            _tell([one for one in fresh.problems if one not in told])
            told = fresh.problems
    return keeper.turn(refresh_s=None) or written


def _publish(keeper: "ReportKeeper", written: "Written") -> None:
    failure = keeper.publish_now(written)
    if failure is not None:
        raise SessionError(failure)
    output().print("published", markup=False)


def _try(session: "Session", to: Path | None, folder: Path | None, *, session_templates: bool, dry_run: bool) -> None:
    """Make the report in a folder that is removed, and say what is wrong."""
    from icestream.observe.report import ReportWriter, check_command, publish_command

    with tempfile.TemporaryDirectory(prefix="icestream-report-") as elsewhere:
        with ReportWriter(session, Path(elsewhere), template_folder=folder, session_templates=session_templates) as writer:
            written = writer.write()
        _tell(written.problems)
        real = session.folder / "report" if to is None else to.parent if to.suffix else to
        asked = written.customised.settings.publish
        command = None if asked is None else publish_command(asked, session, real)
    wrong = [] if command is None else check_command(command)
    if dry_run and command is None:
        raise SessionError("no command that publishes the report is said; give `publish` in the facility's report.yaml")
    if command is not None:
        output().print(f"would publish with: {shlex.join(command)}", soft_wrap=True, markup=False)
    for one in wrong:
        errors().print(one, style="red", soft_wrap=True, markup=False)
    if written.problems or wrong:
        raise typer.Exit(1)
    output().print("nothing is wrong with the templates and settings of the report", markup=False)


def _tell(problems: "tuple[Problem, ...] | list[Problem]") -> None:
    for one in problems:
        errors().print(str(one), style="yellow", soft_wrap=True, markup=False)
