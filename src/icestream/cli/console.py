"""Where commands print."""

import dataclasses
import json
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from icestream.counting import counted as counted  # noqa: PLC0414 - commands say how much it was

_WIDTH_OF_A_PIPE = 160
_BETWEEN = 2
"""Spaces between two columns."""


class PlainConsole(Console):
    """A console on which what is printed cannot control the terminal, wherever it came from: a file's name, a program's log."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Give the pieces of text, their control characters written out."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else Segment(write_out_controls(piece.text), piece.style)


def write_out_controls(text: str) -> str:
    """Return a text with characters that a terminal would obey written out as escapes; lines stay lines."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(char if char in "\n\t" or unicodedata.category(char) not in _CONTROLS else _escape(char) for char in text)


_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of characters: control, format (such as those that turn the direction of writing), surrogates, separators."""


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def output() -> Console:
    """Return the console of results; into a pipe or file it prints wide lines without colour."""
    return _console(stderr=False)


def errors() -> Console:
    """Return the console of messages."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return PlainConsole(stderr=stderr, highlight=False, emoji=False, width=None if stream.isatty() else _WIDTH_OF_A_PIPE)


def type_next(command: str, *arguments: str | Path) -> str:
    """Return a command that a person can paste: ``icestream`` by its path where the shell would not find it."""
    own, found = Path(sys.executable).parent / "icestream", shutil.which("icestream")
    known = not own.exists() or (found is not None and Path(found).resolve() == own.resolve())
    here = own.relative_to(Path.cwd()) if own.is_relative_to(Path.cwd()) else own
    return shlex.join(["icestream" if known else str(here), command, *map(str, arguments)])


def make_table(*columns: str, right: tuple[str, ...] = (), title: str | None = None, whole: bool = False) -> Table:
    """Return an empty table with a head; the columns named in ``right`` are numbers. In a ``whole`` one no text is folded."""
    table = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold", title_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold", no_wrap=whole)
    return table


@dataclass(frozen=True)
class FittingTable:
    """A table where it fits into the terminal, otherwise a line for each row."""

    table: Table
    lines: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        needed = [_needed_by(column, console, options) for column in self.table.columns]
        if sum(needed) + _BETWEEN * (len(needed) - 1) <= options.max_width:
            yield self.table
        else:
            yield from map(Text, self.lines)


def _needed_by(column: Column, console: Console, options: ConsoleOptions) -> int:
    """Return the least width of a column whose texts can be read."""
    if column.min_width is not None:
        return column.min_width
    cells = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    return max(cell.maximum if column.no_wrap else cell.minimum for cell in cells)


def columns_with_something(rows: Sequence[Mapping[str, str]], always: Sequence[str] = ()) -> list[str]:
    """Return the names of the columns that have a text in some row, or are wanted ``always``."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [name for name in names if name in always or any(row.get(name) for row in rows)]


def print_json(value: Any) -> None:
    """Print records, dataclasses or plain values as JSON that another program reads."""
    typer.echo(_escape_in_json(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)))


def _escape_in_json(text: str) -> str:
    """Write characters that a terminal would obey in the way of JSON."""
    if text.isascii():
        return text
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in _CONTROLS else json.dumps(char)[1:-1] for char in text
    )


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
