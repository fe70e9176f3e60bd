"""``icestream metrics`` and ``grafana``: what monitoring follows, without a server, and the dashboards for it."""

import time
from collections.abc import Callable
from pathlib import Path

import typer

from icestream.cli.console import errors, output
from icestream.errors import IcestreamError, SessionError


def metrics(
    session: Path = typer.Argument(help="Folder of the session."),
    influx: bool = typer.Option(False, "--influx", help="Write lines of InfluxDB instead of the text format of Prometheus."),
    to: Path | None = typer.Option(None, metavar="FILE", help="File to replace, for the textfile collector of node_exporter."),
    push: str | None = typer.Option(
        None, metavar="URL", help="Send them to a Pushgateway, to VictoriaMetrics, or with --influx to InfluxDB."
    ),
    authorization: Path | None = typer.Option(
        None, metavar="FILE", help="With --push: file with the header Authorization, such as: Bearer TOKEN."
    ),
    every: int | None = typer.Option(None, min=1, help="Repeat after so many seconds; Ctrl-C ends this."),
) -> None:
    """Print what monitoring systems follow of a session: counts, rates, delays, failures, and everything that is measured.

    `icestream serve` answers the same at `/metrics`.

    ```
    icestream metrics lysozyme
    icestream metrics lysozyme --to /var/lib/prometheus/node-exporter/icestream.prom --every 30
    icestream metrics lysozyme --push http://gateway:9091/metrics/job/icestream/session/lysozyme --every 30
    icestream metrics lysozyme --push http://victoria:8428/api/v1/import/prometheus --every 30
    icestream metrics lysozyme --influx --push 'http://influx:8086/write?db=icestream' --every 30
    ```
    """
    from icestream.flow.storage import open_session
    from icestream.observe.metrics.influx import write_lines
    from icestream.observe.metrics.push import check_address, read_authorization
    from icestream.observe.metrics.session import SessionMetrics
    from icestream.observe.queries import open_view

    if to is not None and push is not None:
        raise SessionError("give either --to or --push, not both")
    if authorization is not None and push is None:
        raise SessionError("--authorization needs --push, the address that asks for it")
    if push is not None:
        check_address(push)
    header = None if authorization is None else read_authorization(authorization)
    open_session(session)  # a folder that is no session is said at once, not again and again
    reader = SessionMetrics(session.absolute().name)

    def tell() -> None:
        with open_view(open_session(session)) as view:
            samples = reader.read(view)
        _deliver(write_lines(samples, at_s=time.time()) if influx else samples.text(), to, push, header)

    if every is None:
        tell()
    else:
        _repeat(tell, every)


def _deliver(text: str, to: Path | None, push: str | None, authorization: str | None) -> None:
    from icestream.files import publish_text
    from icestream.observe.metrics.push import push as send

    if to is not None:
        waiting = to.with_name(f".{to.name}.new")  # the collector reads whatever ends with .prom
        publish_text(waiting, text)
        waiting.replace(to)
    elif push is not None:
        send(push, text, authorization=authorization)
    else:
        typer.echo(text, nl=False)


def _repeat(tell: Callable[[], None], every_s: float) -> None:
    """Tell again and again; a server that is away for a while ends nothing, and is said once."""
    said = ""
    while True:
        try:
            tell()
            said = ""
        except (IcestreamError, OSError) as error:
            if str(error) != said:
                said = str(error)
                errors().print(said, markup=False, soft_wrap=True)
        time.sleep(every_s)


def grafana(
    folder: Path = typer.Argument(help="Folder to make, or to bring up to date."),
) -> None:
    """Write dashboards for Grafana, alert rules for Prometheus, and what starts both with Docker Compose.

    Files that you have changed are not overwritten: remove them to get the new ones.

    ```
    icestream grafana monitoring
    ```
    """
    from icestream.observe.grafana import write_out

    for path, state in write_out(folder).items():
        output().print(f"{state}: {path}", markup=False, soft_wrap=True)
