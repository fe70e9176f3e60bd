"""The command line: thin calls. A command imports what it needs when it runs, so that ``--help`` answers at once."""

import os
from collections.abc import Callable

import typer

from icestream import __version__
from icestream.cli.alarms import alarms
from icestream.cli.clean import clean
from icestream.cli.control import close, continue_, pause, release, reopen, resume, retry, stop
from icestream.cli.decide import accept, reject, withdraw
from icestream.cli.demo import demo
from icestream.cli.deposit import deposit
from icestream.cli.edit import apply, branch, reset, restart, set_
from icestream.cli.export_workflow import export_workflow
from icestream.cli.group import EXITS, ErrorGroup, ListCommand
from icestream.cli.history import history, revisions
from icestream.cli.import_scipion import import_scipion
from icestream.cli.metrics import grafana, metrics
from icestream.cli.monitor import monitor
from icestream.cli.new import new
from icestream.cli.next_holes import next_holes
from icestream.cli.pack import pack, relink
from icestream.cli.particle import funnel, particle
from icestream.cli.picks import picks
from icestream.cli.plugin import plugin
from icestream.cli.recompute import recompute
from icestream.cli.report import report
from icestream.cli.resources import resources
from icestream.cli.run import run
from icestream.cli.serve import access, backup, restore, serve
from icestream.cli.simulate import simulate
from icestream.cli.status import failed, status, trace
from icestream.cli.steps import steps
from icestream.cli.storage import storage
from icestream.cli.table import table
from icestream.cli.templates import templates
from icestream.cli.transfer import transfer, transfers
from icestream.cli.watch import watch
from icestream.cli.why import why

app = typer.Typer(
    name="icestream",
    cls=ErrorGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"icestream {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: bool = typer.Option(  # noqa: ARG001 - it is seen before
        False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Process single-particle cryo-EM data while the microscope is still collecting.

    To see it work, with a simulated microscope: `icestream demo`

    To process your own data: `icestream new`, then `icestream run`, and `icestream status` from any other terminal. When
    nothing happens, `icestream why` says what it is waiting for.
    """
    if "ICESTREAM_UMASK" in os.environ:
        from icestream.cli.run import make_settings

        umask = make_settings(cores=None, newest_first=False).umask
        if umask is not None:
            os.umask(int(umask, 8))


_MAKE, _ASK, _EDIT = "Create and run a session", "Control a session", "Change a session"
_LOOK, _TRY = "Look at a session", "Try it without a microscope"

_COMMANDS: list[tuple[Callable[..., None], str, str]] = [
    (new, _MAKE, "runs"),
    (import_scipion, _MAKE, "plain"),
    (export_workflow, _MAKE, "plain"),
    (run, _MAKE, "runs"),
    (pack, _MAKE, "packs"),
    (relink, _MAKE, "plain"),
    (watch, _MAKE, "plain"),
    (transfer, _MAKE, "transfers"),
    (transfers, _LOOK, "plain"),
    (pause, _ASK, "asks"),
    (resume, _ASK, "asks"),
    (stop, _ASK, "asks"),
    (continue_, _ASK, "asks"),
    (retry, _ASK, "asks"),
    (close, _ASK, "asks"),
    (reopen, _ASK, "asks"),
    (release, _ASK, "asks"),
    (reject, _ASK, "asks"),
    (accept, _ASK, "asks"),
    (recompute, _ASK, "asks"),
    (picks, _ASK, "asks"),
    (withdraw, _ASK, "asks"),
    (set_, _EDIT, "asks"),
    (branch, _EDIT, "asks"),
    (apply, _EDIT, "asks"),
    (restart, _EDIT, "asks"),
    (reset, _EDIT, "asks"),
    (clean, _EDIT, "asks"),
    (storage, _EDIT, "stores"),
    (status, _LOOK, "plain"),
    (why, _LOOK, "plain"),
    (failed, _LOOK, "plain"),
    (trace, _LOOK, "plain"),
    (particle, _LOOK, "plain"),
    (funnel, _LOOK, "plain"),
    (history, _LOOK, "plain"),
    (revisions, _LOOK, "plain"),
    (report, _LOOK, "plain"),
    (serve, _LOOK, "plain"),
    (access, _LOOK, "plain"),
    (monitor, _LOOK, "plain"),
    (alarms, _LOOK, "plain"),
    (metrics, _LOOK, "plain"),
    (grafana, _LOOK, "plain"),
    (backup, _LOOK, "plain"),
    (restore, _LOOK, "plain"),
    (table, _LOOK, "plain"),
    (deposit, _LOOK, "plain"),
    (next_holes, _LOOK, "plain"),
    (resources, _LOOK, "plain"),
    (steps, _LOOK, "plain"),
    (templates, _MAKE, "plain"),
    (plugin, _MAKE, "plugins"),
    (demo, _TRY, "plain"),
    (simulate, _TRY, "plain"),
]

for command, panel, exits in _COMMANDS:
    name = command.__name__.rstrip("_").replace("_", "-")
    app.command(name, cls=ListCommand, rich_help_panel=panel, epilog=f"Exit status: {EXITS[exits]}")(command)
