"""``icestream export-workflow``: the workflow of a session as a file."""

from pathlib import Path

import typer

from icestream.cli.console import output, type_next
from icestream.errors import WorkflowError


def export_workflow(
    session: Path = typer.Argument(help="Folder of the session; it may be running."),
    start: str | None = typer.Option(None, "--from", metavar="STEP", help="Only this step and what descends from it."),
    steps: str | None = typer.Option(None, metavar="STEP,STEP", help="Only these steps."),
    target: Path | None = typer.Option(None, "--output", "-o", help="File to write; without it the workflow is printed."),
    as_template: bool = typer.Option(
        False, "--as-template", help="Folders, patterns and microscope become placeholders with the present values as defaults."
    ),
) -> None:
    """Write the workflow of a session with its parameters, whole or in part, to make other sessions of it.

    Inputs that a part reads of steps that are not in it are listed in the file as open; `icestream new --add` connects them.

    ```
    icestream export-workflow lysozyme --as-template -o lysozyme.yaml
    icestream export-workflow lysozyme --from picks -o picking.yaml
    ```
    """
    from icestream.files import publish_text
    from icestream.flow.session import open_session
    from icestream.workflows.export import choose_steps, dump_template, export_template

    if target is not None and target.exists():
        raise WorkflowError(f"{target}: is there already; name a file that is not")
    opened = open_session(session)
    chosen = choose_steps(opened, steps=steps.split(",") if steps else None, start=start)
    template = export_template(opened, chosen, ask=as_template)
    text = dump_template(template, summary=f"From the session {opened.document.name}: {' → '.join(chosen)}")
    if target is None:
        typer.echo(text, nl=False)
        return
    publish_text(target, text)
    console = output()
    console.print(f"{target}: {len(chosen)} steps", markup=False, soft_wrap=True)
    for key, one in template.open_inputs.items():
        console.print(f"  open: {key} ({one.record}), read by {', '.join(one.read_by)}", markup=False, soft_wrap=True)
    option = "--add" if template.open_inputs else "--template"
    console.print(f"next: {type_next('new', 'SESSION', option, target)}", markup=False, soft_wrap=True)
