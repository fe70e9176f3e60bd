"""Asking for the values of a template on a terminal: by group, with help, unit and default, each checked at once."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from icestream.cli.console import output
from icestream.workflows import Placeholder, Template, asks_in, default_of, describe_allowed, read_value

Read = Callable[[str], str]
_UNSET = "-"


def can_ask() -> bool:
    """Tell whether a person sits at this terminal."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask_for_values(
    template: Template,
    given: Mapping[str, Any],
    *,
    settings: Mapping[str, Mapping[str, Any]],
    read: Read = input,
    console: Console | None = None,
) -> dict[str, Any]:
    """Ask for what nobody gave, where something that is needed is missing or nothing at all was given; return all values.

    Raises
    ------
    typer.Abort
        The person does not want to go on.
    """
    settled = _settled(template, settings)
    open_names = [name for name in template.placeholders if name not in given and name not in settled]
    missing = [name for name in open_names if _missing(template.placeholders[name])]
    if given and not missing:
        return dict(given)
    console = console or output()
    console.print("Press Enter to accept the value in brackets; type ? for help, or - to leave the value out.", style="dim")
    try:
        return _ask_all(template, given, open_names, read, console)
    except EOFError as error:
        raise typer.Abort from error


def _ask_all(template: Template, given: Mapping[str, Any], open_names: list[str], read: Read, console: Console) -> dict[str, Any]:
    values = dict(given)
    plain = [name for name in open_names if not template.placeholders[name].advanced]
    advanced = [name for name in open_names if template.placeholders[name].advanced]
    _ask_in_groups(template, plain, values, read, console)
    if advanced and _agrees(f"Also set the advanced values ({len(advanced)})? [y/N] ", read, default=False):
        _ask_in_groups(template, advanced, values, read, console)
    _summarise(template, values, console)
    if not _agrees("Create this session? [Y/n] ", read, default=True):
        raise typer.Abort
    return values


def _ask_in_groups(template: Template, names: list[str], values: dict[str, Any], read: Read, console: Console) -> None:
    groups = list(dict.fromkeys(template.placeholders[name].group for name in names))
    for group in groups:
        console.print(f"\n[bold]{escape(group)}[/]")
        for name in names:
            if template.placeholders[name].group == group:
                values[name] = ask_value(template.placeholders[name], read=read, console=console)


def ask_value(placeholder: Placeholder, *, read: Read, console: Console) -> Any:
    """Ask until the answer is allowed; return the typed value, None for none."""
    default = default_of(placeholder)
    unit = f" in {placeholder.shown_unit}" if placeholder.shown_unit else ""
    shown = f" [{default}]" if default is not None else " [none]" if placeholder.optional else ""
    while True:
        answer = read(f"{placeholder.label}{unit}{shown}: ").strip()
        if answer == "?":
            console.print(f"  {placeholder.help or 'There is no further help for this value.'}", markup=False, soft_wrap=True)
            console.print(f"  must be {describe_allowed(placeholder)}", markup=False, soft_wrap=True)
            continue
        chosen = None if answer == _UNSET else answer or default
        if chosen is None:
            if placeholder.optional:
                return None
            console.print(
                f"  a value is required; it must be {describe_allowed(placeholder)}", style="yellow", markup=False, soft_wrap=True
            )
            continue
        try:
            return read_value(placeholder, chosen, base=Path.cwd())
        except ValueError as error:
            console.print(f"  it {error}", style="yellow", markup=False, soft_wrap=True)


def _summarise(template: Template, values: Mapping[str, Any], console: Console) -> None:
    console.print("\n[bold]Summary[/]")
    for name, placeholder in template.placeholders.items():
        value = values.get(name, default_of(placeholder))
        unit = f" {placeholder.shown_unit}" if placeholder.shown_unit and value is not None else ""
        told = "not given" if value is None else value
        console.print(f"  {placeholder.label}: {told}{unit}", markup=False, soft_wrap=True)


def _agrees(question: str, read: Read, *, default: bool) -> bool:
    answer = read(question).strip().lower()
    return default if not answer else answer.startswith("y")


def _missing(placeholder: Placeholder) -> bool:
    return not placeholder.optional and default_of(placeholder) is None


def _settled(template: Template, settings: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the placeholders that only parameters ask for which were set otherwise."""
    asked: set[str] = set()
    for value in (template.acquisition, template.roots):
        asked |= {ask.partition(".")[0] for ask in asks_in(value)}
    for step, spec in template.steps.items():
        open_params = {name: value for name, value in spec.params.items() if name not in settings.get(step, {})}
        asked |= {ask.partition(".")[0] for ask in asks_in(open_params)} | set(spec.conditions.values())
    return set(template.placeholders) - asked
