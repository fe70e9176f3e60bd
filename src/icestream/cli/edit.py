"""``icestream set``, ``branch``, ``apply``, ``restart`` and ``reset``: other parameters, or everything afresh."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from icestream.cli.asking import DRY_RUN, JSON, REASON, SESSION, YES, ask_for, confirm
from icestream.errors import WorkflowError

if TYPE_CHECKING:
    from icestream.flow.commands.editing import Edit

_VALUES = typer.Argument(metavar="NAME=VALUE...", help="Parameters to change; NAME= without a value restores the default.")
_STEP = typer.Argument(help="Name of the step in the workflow (`icestream status` lists them).")
_FROM = typer.Option(..., "--from", metavar="STEP", help="This step and every step downstream of it.")


def set_(
    session: Path = SESSION,
    step: str = _STEP,
    values: list[str] = _VALUES,
    reason: str = REASON,
    dry_run: bool = DRY_RUN,
    json: bool = JSON,
) -> None:
    """Change parameters of a step, even while data keep arriving. Only what depends on them is recomputed.

    The step and every step downstream of it get a new revision. Results of the old revision are kept for comparison (`icestream
    revisions`), and going back to earlier parameters costs nothing. Values are YAML, as in `icestream new --set`; `NAME=`
    restores the default. Use `--dry-run` first to see what would be recomputed.

    ```
    icestream set lysozyme ctf tile_ang=900 --dry-run
    icestream set lysozyme ctf tile_ang=900 --reason "thick ice"
    icestream set lysozyme picks 'diameter_ang=[120, 150]'
    icestream set lysozyme ctf tile_ang=
    ```
    """
    from icestream.flow.commands.requests import Set

    _carry_out(session, Set(step=step, params=read_params(values), reason=reason), dry_run=dry_run, json=json)


def branch(
    session: Path = SESSION,
    step: str = _STEP,
    values: list[str] = typer.Argument(None, metavar="NAME=VALUE...", help="Parameters in which the branch differs."),
    as_: str = typer.Option(..., "--as", metavar="NAME", help="Name of the second variant."),
    only: bool = typer.Option(False, "--only", help="Branch only this step, not the steps downstream of it."),
    reason: str = REASON,
    dry_run: bool = DRY_RUN,
    json: bool = JSON,
) -> None:
    """Run a second variant of a step beside the first, with other parameters. Everything upstream is shared.

    Every step downstream gets a second variant too, named after the branch, unless you add `--only`.

    ```
    icestream branch lysozyme picks --as picks_wide 'diameter_ang=[100, 180]' --dry-run
    icestream branch lysozyme picks --as picks_wide 'diameter_ang=[100, 180]'
    ```
    """
    from icestream.flow.commands.requests import Branch

    command = Branch(step=step, name=as_, params=read_params(values or []), below=not only, reason=reason)
    _carry_out(session, command, dry_run=dry_run, json=json)


def apply(session: Path = SESSION, reason: str = REASON, dry_run: bool = DRY_RUN, json: bool = JSON) -> None:
    """Apply your edits to session.yaml, even while the session is running.

    A step whose type, parameters or inputs changed gets a new revision, and so does every step downstream of it.

    ```
    icestream apply lysozyme --dry-run
    icestream apply lysozyme --reason "a second picker"
    ```
    """
    from icestream.flow.commands.requests import Apply

    _carry_out(session, Apply(reason=reason), dry_run=dry_run, json=json)


def restart(session: Path = SESSION, from_: str = _FROM, dry_run: bool = DRY_RUN, json: bool = JSON) -> None:
    """Recompute a step and every step downstream of it, although nothing changed.

    The earlier results are kept as an old revision. To drop them instead, use `icestream reset`.

    ```
    icestream restart lysozyme --from classes --dry-run
    icestream restart lysozyme --from classes
    ```
    """
    from icestream.flow.commands.requests import Restart

    _carry_out(session, Restart(step=from_), dry_run=dry_run, json=json)


def reset(session: Path = SESSION, from_: str = _FROM, dry_run: bool = DRY_RUN, yes: bool = YES, json: bool = JSON) -> None:
    """Drop the results of a step and of every step downstream of it.

    The step takes nothing new until `icestream continue` or `icestream reopen`; `icestream clean` frees the disk space. You are
    asked for confirmation only at a terminal: in a script, the command goes ahead with or without `--yes`.

    ```
    icestream reset lysozyme --from classes --dry-run
    icestream reset lysozyme --from classes --yes
    ```
    """
    from icestream.flow.commands.requests import Reset

    if not dry_run:
        confirm(f"Drop the results of {from_} and of every step downstream of it?", yes=yes)
    _carry_out(session, Reset(step=from_), dry_run=dry_run, json=json)


def read_params(values: list[str]) -> dict[str, Any]:
    """Read ``name=value`` texts; a name with nothing behind it means its default (None).

    Raises
    ------
    WorkflowError
        A text is written otherwise, or a name comes twice.
    """
    from icestream.cli.plan import parse_values

    names = [text.partition("=")[0] for text in values]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WorkflowError(f"{', '.join(twice)}: given twice")
    return parse_values(values)


def _carry_out(session: Path, command: "Edit", *, dry_run: bool, json: bool) -> None:
    if not dry_run:
        ask_for(session, command, json=json)
        return
    from icestream.cli.planned import print_plan
    from icestream.flow.commands.editing import plan_edit
    from icestream.flow.storage import open_session

    print_plan(plan_edit(open_session(session), command, cores=os.cpu_count() or 1), json=json)
