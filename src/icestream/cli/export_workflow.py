"""``icestream export-workflow``: the workflow of a session as a file."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import errors, output, type_next
from icestream.counting import counted
from icestream.errors import WorkflowError

if TYPE_CHECKING:
    from icestream.flow.storage import Session


def export_workflow(
    session: Path = typer.Argument(help="Folder of the session; it may be running."),
    start: str | None = typer.Option(
        None, "--from", metavar="STEP", help="Export only this step and the steps downstream of it."
    ),
    steps: str | None = typer.Option(None, metavar="STEP,STEP", help="Export only these steps."),
    target: Path | None = typer.Option(None, "--output", "-o", help="File to write; by default the workflow is printed."),
    as_template: bool = typer.Option(
        False,
        "--as-template",
        help="Turn folders, patterns and microscope values into placeholders, with the current values as defaults.",
    ),
) -> None:
    """Export the workflow of a session with its parameters, whole or in part, for use in other sessions.

    If you export a part, inputs from steps that are not included are listed in the file as open; `icestream new --add` connects
    them.

    ```
    icestream export-workflow lysozyme --as-template -o lysozyme.yaml
    icestream export-workflow lysozyme --from picks -o picking.yaml
    ```
    """
    from icestream.files import publish_text
    from icestream.flow.storage import open_session
    from icestream.workflows.export import choose_steps, dump_template, export_template

    if target is not None and target.exists():
        raise WorkflowError(f"{target}: already exists; choose another file name")
    opened = open_session(session)
    left = _describe_left_out(opened)
    chosen = choose_steps(opened, steps=steps.split(",") if steps else None, start=start)
    template = export_template(opened, chosen, ask=as_template)
    text = dump_template(template, summary=f"From the session {opened.document.name}: {' → '.join(chosen)}")
    if target is None:
        typer.echo(text, nl=False)
        if left:
            errors().print(left, markup=False, soft_wrap=True)
        return
    publish_text(target, text)
    console = output()
    console.print(f"{target}: {counted(len(chosen), 'step')}", markup=False, soft_wrap=True)
    for key, one in template.open_inputs.items():
        console.print(f"  open: {key} ({one.record}), read by {', '.join(one.read_by)}", markup=False, soft_wrap=True)
    if left:
        console.print(left, markup=False, soft_wrap=True)
    option = "--add" if template.open_inputs else "--template"
    console.print(f"next: {type_next('new', 'SESSION', option, target)}", markup=False, soft_wrap=True)


def _describe_left_out(session: "Session") -> str:
    """Return what people decided by hand about exposures: it belongs to them, not to the workflow."""
    from icestream.observe.queries import open_view

    with open_view(session) as view:
        decided = len(view.decisions())
    return f"  not exported: overrides of single exposures ({decided}), see `icestream history`" if decided else ""
