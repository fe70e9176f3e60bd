"""``icestream plugin``: begin a plugin, and look at those that are installed."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import errors, make_table, output, print_json
from icestream.errors import ExitStatus, SessionError

if TYPE_CHECKING:
    from icestream.plugins import InstalledPlugin


class PluginAction(StrEnum):
    """What to do."""

    NEW = "new"
    CHECK = "check"


def plugin(
    action: PluginAction = typer.Argument(help="`new` begins a plugin, `check` looks at those that are installed."),
    name: str | None = typer.Argument(None, metavar="[NAME]", help="For `new`: the name of the package, as my-lab-steps."),
    folder: Path = typer.Option(Path(), "--folder", help="For `new`: where the project is written, in a folder of its name."),
    json: bool = typer.Option(False, "--json", help="For `check`: print JSON for another program."),
) -> None:
    """Begin a plugin, or say which plugins are installed and what is wrong with them.

    A new plugin is a project with a step, its record with what is shown of it, a test, docs and a section of the report. It
    can be installed and run as it is, and then be changed.

    ```
    icestream plugin new my-lab-steps
    icestream plugin check
    ```
    """
    if action == PluginAction.NEW:
        _begin(name, folder)
    elif name is not None:
        raise SessionError(f"check takes no name, and looks at all plugins; got {name!r}")
    else:
        _check(json=json)


def _begin(name: str | None, folder: Path) -> None:
    from icestream.plugins import make_plugin

    if name is None:
        raise SessionError("a new plugin needs a name, as my-lab-steps")
    for path in make_plugin(name, folder):
        output().print(f"{folder / name / path}", markup=False, soft_wrap=True)
    errors().print(f"next: python -m pip install -e {folder / name}, then icestream plugin check", markup=False, soft_wrap=True)


def _check(*, json: bool) -> None:
    from icestream.plugins import list_plugins

    found = list_plugins()
    if json:
        print_json([vars(one) for one in found])
    else:
        _print(found)
    if any(one.problems for one in found):
        raise typer.Exit(ExitStatus.SOME_FAILED)


def _print(found: "list[InstalledPlugin]") -> None:
    if not found:
        errors().print("no plugin is installed", markup=False)
        return
    table = make_table("plugin", "version", "interface", "steps")
    for one in found:
        table.add_row(one.name, one.version, one.api or "not said", ", ".join(one.steps))
    output().print(table)
    for one in found:
        for step, problem in one.problems.items():
            told = f"{one.name}: {step}: {problem}" if step else problem
            errors().print(f"note: {told}", markup=False, soft_wrap=True)
