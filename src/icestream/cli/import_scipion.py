"""``icestream import-scipion``: bring a workflow from Scipion."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.cli.console import errors, make_table, output, print_json
from icestream.errors import WorkflowError

if TYPE_CHECKING:
    from icestream.workflows.scipion.translate import Translation


def import_scipion(
    workflow: Path = typer.Argument(help="A workflow that Scipion exported (.json), or a template (.json.template)."),
    target: Path | None = typer.Option(
        None, "--output", "-o", help="Template file to write; by default only the table is printed."
    ),
    json: bool = typer.Option(False, "--json", help="Print JSON for another program."),
) -> None:
    """Translate a workflow exported from Scipion, and report what happened to every protocol.

    Parameters are converted to icestream's units. The result is a template: it asks for what Scipion's template asked for, and
    for folders and microscope values. Protocols without an equivalent are kept in it as disabled steps; where they only passed
    on their input, the steps after them read it directly.

    ```
    icestream import-scipion facility.json.template -o facility.yaml
    ```
    """
    from icestream.files import publish_text
    from icestream.workflows.scipion.parse import read_scipion_file
    from icestream.workflows.scipion.translate import translate_scipion
    from icestream.workflows.scipion.write import write_workflow

    if target is not None and target.exists():
        raise WorkflowError(f"{target}: already exists; choose another file name")
    translation = translate_scipion(read_scipion_file(workflow))
    if target is not None and translation.steps:
        try:
            publish_text(target, write_workflow(translation, file_name=target.name))
        except OSError as error:
            raise WorkflowError(f"{target}: cannot be written: {error.strerror}") from error
    if json:
        print_json(_as_json(translation))
    else:
        _show(translation, target)
    if not translation.steps:
        raise WorkflowError(f"{workflow}: {'; '.join(translation.problems)}; nothing was written")


def _show(translation: "Translation", target: Path | None) -> None:
    from rich.markup import escape

    from icestream.workflows.scipion.template import make_template
    from icestream.workflows.scipion.write import describe_field, new_command, visible

    console = output()
    table = make_table("id", "protocol", "step", "result", "notes")
    for row in translation.rows:
        label = " ".join(row.protocol.label.split())
        name = f"{row.protocol.class_name}\n{label}" if label else row.protocol.class_name
        notes = "\n".join([*row.notes, *([f"kept as a comment: {', '.join(row.kept)}"] if row.kept else [])])
        table.add_row(row.protocol.id, escape(visible(name)), row.step or "", row.outcome, escape(visible(notes)))
    console.print(table)
    if translation.fields:
        console.print("\nFields of Scipion's template, and what asks for them now:")
        names = make_template(translation).names
        for asked in translation.fields:
            console.print(
                f"  {escape(visible(describe_field(asked, names.get((asked.protocol, asked.parameter)))))}", soft_wrap=True
            )
    if not translation.steps:
        return
    for problem in translation.problems:
        errors().print(f"[yellow]note:[/] the workflow cannot run yet: {escape(problem)}", soft_wrap=True)
    if target is None:
        errors().print("[yellow]note:[/] nothing was written; give a file name with --output", soft_wrap=True)
    name = "WORKFLOW" if target is None else str(target)
    console.print(f"\nnext: {escape(visible(new_command(translation, file_name=name)))}", soft_wrap=True)


def _as_json(translation: "Translation") -> dict[str, object]:
    return {
        "protocols": [
            {
                "id": row.protocol.id,
                "class": row.protocol.class_name,
                "label": row.protocol.label,
                "step": row.step,
                "result": row.outcome,
                "notes": row.notes,
                "kept": row.kept,
            }
            for row in translation.rows
        ],
        "fields": translation.fields,
        "disabled": translation.disabled,
        "options": translation.options,
        "problems": translation.problems,
    }
