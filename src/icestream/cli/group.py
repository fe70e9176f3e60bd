"""How errors reach the person at the terminal: one clear message, no traceback."""

from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from icestream.cli.console import errors
from icestream.errors import IcestreamError

ERROR = 1
USAGE = 2
SOME_FAILED = 3
UNANSWERED = 4
INTERRUPTED = 130


class ErrorGroup(TyperGroup):
    """A group of commands that turns `IcestreamError` into a line on the error output and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except IcestreamError as error:
            errors().print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
            raise typer.Exit(ERROR) from error
        except BrokenPipeError:
            raise
        except OSError as error:
            errors().print(f"[bold red]error:[/] {escape(_say_where(error))}", soft_wrap=True)
            raise typer.Exit(ERROR) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error


def _say_where(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
