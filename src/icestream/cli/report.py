"""``icestream report``: write the report of a session."""

import time
from pathlib import Path

import typer

from icestream.cli.console import output


def report(
    session: Path = typer.Argument(help="Folder of the session."),
    watch: bool = typer.Option(False, "--watch", help="Rewrite it until the session stops; Ctrl-C ends this."),
    every: int = typer.Option(15, min=1, help="With --watch: seconds between updates."),
    to: Path | None = typer.Option(None, help="File to write; by default SESSION/report/index.html."),
) -> None:
    """Write one HTML file with everything to see at a glance; it works offline and from any web server.

    ```
    icestream report lysozyme
    icestream report lysozyme --watch
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.queries import open_view
    from icestream.observe.report import write_report

    opened = open_session(session)
    written = write_report(opened, to, refresh_s=every if watch else None)
    output().print(f"report: {written}", soft_wrap=True, markup=False)
    while watch:
        with open_view(opened) as view:
            state = view.overview().runner.state
        if state not in ("not started", "running"):
            write_report(opened, to)
            return
        time.sleep(every)
        write_report(opened, to, refresh_s=every)
