"""The command line: thin calls. A command imports what it needs when it runs, so that ``--help`` answers at once."""

from collections.abc import Callable

import typer

from icestream import __version__
from icestream.cli.clean import clean
from icestream.cli.control import close, continue_, pause, release, reopen, resume, retry, stop
from icestream.cli.decide import accept, reject, withdraw
from icestream.cli.demo import demo
from icestream.cli.edit import apply, branch, reset, restart, set_
from icestream.cli.export_workflow import export_workflow
from icestream.cli.group import ErrorGroup
from icestream.cli.history import history, revisions
from icestream.cli.import_scipion import import_scipion
from icestream.cli.new import new
from icestream.cli.pack import pack, relink
from icestream.cli.recompute import recompute
from icestream.cli.report import report
from icestream.cli.resources import resources
from icestream.cli.run import run
from icestream.cli.simulate import simulate
from icestream.cli.status import failed, status, trace
from icestream.cli.steps import steps
from icestream.cli.table import table
from icestream.cli.templates import templates
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
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
) -> None:
    """Process single-particle cryo-EM data while the microscope is still collecting.

    To see it work, with a simulated microscope: `icestream demo`

    To process your own data: `icestream new`, then `icestream run`, and `icestream status` from any other terminal. When
    nothing happens, `icestream why` says what it is waiting for.
    """


_MAKE, _ASK, _EDIT = "Create and run a session", "Control a session", "Change a session"
_LOOK, _TRY = "Look at a session", "Try it without a microscope"

_COMMANDS: list[tuple[Callable[..., None], str]] = [
    (new, _MAKE),
    (import_scipion, _MAKE),
    (export_workflow, _MAKE),
    (run, _MAKE),
    (pack, _MAKE),
    (relink, _MAKE),
    (watch, _MAKE),
    (pause, _ASK),
    (resume, _ASK),
    (stop, _ASK),
    (continue_, _ASK),
    (retry, _ASK),
    (close, _ASK),
    (reopen, _ASK),
    (release, _ASK),
    (reject, _ASK),
    (accept, _ASK),
    (recompute, _ASK),
    (withdraw, _ASK),
    (set_, _EDIT),
    (branch, _EDIT),
    (apply, _EDIT),
    (restart, _EDIT),
    (reset, _EDIT),
    (clean, _EDIT),
    (status, _LOOK),
    (why, _LOOK),
    (failed, _LOOK),
    (trace, _LOOK),
    (history, _LOOK),
    (revisions, _LOOK),
    (report, _LOOK),
    (table, _LOOK),
    (resources, _LOOK),
    (steps, _LOOK),
    (templates, _MAKE),
    (demo, _TRY),
    (simulate, _TRY),
]

for command, panel in _COMMANDS:
    app.command(command.__name__.rstrip("_").replace("_", "-"), rich_help_panel=panel)(command)
