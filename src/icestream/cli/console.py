"""Where commands print."""

import dataclasses
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

_WIDTH_OF_A_PIPE = 160


def output() -> Console:
    """Return the console of results; into a pipe or file it prints wide lines without colour."""
    return _console(stderr=False)


def errors() -> Console:
    """Return the console of messages."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, emoji=False, width=None if stream.isatty() else _WIDTH_OF_A_PIPE)


def type_next(command: str, *arguments: str | Path) -> str:
    """Return a command that a person can paste: ``icestream`` by its path where the shell would not find it."""
    own, found = Path(sys.executable).parent / "icestream", shutil.which("icestream")
    known = not own.exists() or (found is not None and Path(found).resolve() == own.resolve())
    here = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own
    return shlex.join(["icestream" if known else str(here), command, *map(str, arguments)])


def make_table(*columns: str, right: tuple[str, ...] = (), title: str | None = None) -> Table:
    """Return an empty table with a head; the columns named in ``right`` are numbers."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def print_json(value: Any) -> None:
    """Print records, dataclasses or plain values as JSON that another program reads."""
    typer.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(member) for member in value]
    return str(value) if isinstance(value, Path) else value
