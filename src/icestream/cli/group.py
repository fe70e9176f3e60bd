"""How errors reach the person at the terminal: one clear message, no traceback."""

from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from icestream.cli.console import errors
from icestream.documents import split_members
from icestream.errors import ExitStatus, IcestreamError

EXITS = {
    "plain": "0 success, 1 error, 2 wrong usage, 130 interrupted.",
    "asks": "0 done, 1 refused or another error, 2 wrong usage, 4 not answered yet, 130 interrupted.",
    "packs": "0 success, 1 error, 2 wrong usage, 3 some files were missing, 130 interrupted.",
    "stores": "0 done, 1 refused or another error, 2 wrong usage, 3 some raw files have no verified copy, 4 not answered yet, "
    "130 interrupted.",
    "transfers": "0 success, 1 error, 2 wrong usage, 3 some files failed, 130 stopped before the end.",
    "plugins": "0 success, 1 error, 2 wrong usage, 3 something is wrong with a plugin, 130 interrupted.",
    "runs": "0 success, 1 error, 2 wrong usage, 3 finished but some exposures failed, 130 stopped before the end.",
}
"""With which status commands end, by what they do."""


class ErrorGroup(TyperGroup):
    """A group of commands that turns `IcestreamError` into a line on the error output and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except IcestreamError as error:
            errors().print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(ExitStatus.ERROR) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            errors().print(f"[bold red]error:[/] {escape(_say_where(error))}", soft_wrap=True)
            raise typer.Exit(ExitStatus.ERROR) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(ExitStatus.INTERRUPTED) from error


class ListCommand(TyperCommand):
    """A command whose options of several values also take them as one text: ``--diameter 120,160``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write the values out before they are read."""
        lengths = {name: parameter.nargs for parameter in self.params if parameter.nargs > 1 for name in parameter.opts}
        return super().parse_args(ctx, _write_out(args, lengths))


def _write_out(words: list[str], lengths: dict[str, int]) -> list[str]:
    given = iter(words)
    written: list[str] = []
    for word in given:
        name, equals, value = word.partition("=")
        written.append(name if name in lengths else word)
        if name in lengths:
            value = value if equals else next(given, "")
            members = split_members(value)
            written += members if len(members) == lengths[name] else [value] if value else []
    return written


def _say_where(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
