"""``icestream templates``: what a session can be made of."""

from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from icestream.cli.console import errors, make_table, output, print_json

if TYPE_CHECKING:
    from icestream.workflows import FoundTemplate, Template


def templates(
    name: str | None = typer.Argument(None, metavar="[NAME]", help="A template name or file; by default all are listed."),
    json: bool = typer.Option(False, "--json", help="Print JSON for another program."),
) -> None:
    """List the templates of icestream, of plugins and of the facility, or show what one asks for.

    A template is a workflow with placeholders; `icestream new --template NAME` makes a session from it.

    ```
    icestream templates
    icestream templates movies_to_classes
    ```
    """
    from icestream.workflows import find_template, list_templates, missing_folders

    if name is not None:
        found = find_template(name)
        template = found.load()
        print_json(_as_json(found, template)) if json else _show(found, template)
        return
    for folder in missing_folders():
        errors().print(f"note: {folder} in ICESTREAM_TEMPLATES is not a folder", markup=False, soft_wrap=True)
    all_found = [found.checked() for found in list_templates().values()]
    if json:
        print_json([_entry(found) for found in all_found])
        return
    table = make_table("template", "from", "what it does")
    for found in all_found:
        table.add_row(found.name, escape(found.origin), escape(found.summary))
    output().print(table)
    for found in all_found:
        _note_replaced(found)


def _note_replaced(found: "FoundTemplate") -> None:
    if found.replaces:
        text = f"note: {found.name} from {found.origin} replaces the one from {', '.join(found.replaces)}"
        errors().print(text, markup=False, soft_wrap=True)


def _show(found: "FoundTemplate", template: "Template") -> None:
    from icestream.workflows import describe_allowed

    console = output()
    console.print(f"[bold]{escape(found.name)}[/] (from {escape(found.origin)})", soft_wrap=True)
    console.print(f"  {template.description or found.summary}\n", markup=False, soft_wrap=True)
    asked = make_table("placeholder", "label", "allowed", "default", "environment", title="Values to fill in")
    for name, one in template.placeholders.items():
        default = "" if one.default is None else str(one.default)
        needed = default or ("none" if one.optional else "required")
        asked.add_row(name, escape(one.label), escape(describe_allowed(one)), escape(needed), one.env or "")
    steps = make_table("step", "type", "inputs from", title="Steps")
    for name, spec in template.steps.items():
        targets = [group if isinstance(group, list) else [group] for group in spec.inputs.values()]
        reads = ", ".join(str(target) for group in targets for target in group)
        said = "; ".join(f"{key.replace('_', ' ')} {placeholder}" for key, placeholder in spec.conditions.items())
        note = f"{reads} ({said})" if said else reads
        steps.add_row(name, spec.use, escape(note))
    opened = make_table("open input", "record", "read by", title="Open inputs, to be connected with --connect")
    for key, one_open in template.open_inputs.items():
        opened.add_row(escape(key), one_open.record, ", ".join(one_open.read_by))
    disabled = make_table("step", "was", "reason", title="Disabled")
    for name, kept in template.disabled.items():
        disabled.add_row(escape(name), escape(kept.use), escape(kept.reason))
    for table in (asked, steps, opened, disabled):
        if table.row_count:
            console.print(table)
            console.print()
    _note_replaced(found)


def _entry(found: "FoundTemplate") -> dict[str, Any]:
    return {
        "name": found.name,
        "origin": found.origin,
        "summary": found.summary,
        "replaces": found.replaces,
        "problem": found.problem,
    }


def _as_json(found: "FoundTemplate", template: "Template") -> dict[str, Any]:
    from icestream.workflows import placeholders_schema

    return {
        **_entry(found),
        "description": template.description,
        "values": placeholders_schema(template),
        "steps": {
            name: spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) for name, spec in template.steps.items()
        },
        "open": template.open_inputs,
        "disabled": template.disabled,
    }
