"""Asking a session for something from the command line: one way to submit, to print the answer and to exit."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from icestream.account import user_name
from icestream.cli.console import errors, output, print_json
from icestream.errors import ExitStatus

if TYPE_CHECKING:
    from icestream.flow.commands.client import Answer
    from icestream.flow.commands.requests import Command

SESSION = typer.Argument(help="Folder of the session.")
JSON = typer.Option(False, "--json", help="Print JSON for another program.")
DRY_RUN = typer.Option(False, "--dry-run", help="Only show what would happen, and what it would cost.")
REASON = typer.Option("", help="Why you do this; recorded in the history of the session.")
YES = typer.Option(False, "--yes", "-y", help="Do not ask for confirmation.")


def ask_for(session: Path, command: "Command", *, json: bool) -> None:
    """Submit one command, print the answer, and exit with a status that says whether it was done."""
    finish(submit_here(session, [command]), json=json)


def submit_here(session: Path, commands: "Sequence[Command]") -> "list[Answer]":
    """Submit commands under the name of the person who types; return the answers in their order."""
    from icestream.cli.run import make_settings
    from icestream.flow.runner.answering import submit_all
    from icestream.flow.storage import open_session

    settings = make_settings(cores=None, newest_first=False)
    return submit_all(open_session(session), commands, author=user_name(), settings=settings)


def finish(answers: "Sequence[Answer]", *, json: bool) -> None:
    """Print answers; exit with 1 if something was refused, with 4 if the runner has not answered yet."""
    if json:
        told = [{"number": one.number, "state": one.state, "answer": one.text} for one in answers]
        print_json(told[0] if len(told) == 1 else told)
    else:
        for answer in answers:
            refused = answer.state == "refused"
            console = errors() if refused else output()
            text = f"refused: {answer.text}" if refused else answer.text
            console.print(text, markup=False, soft_wrap=True, style="bold red" if refused else None)
    states = {answer.state for answer in answers}
    if "refused" in states:
        raise typer.Exit(ExitStatus.ERROR)
    if "asked" in states:
        raise typer.Exit(ExitStatus.UNANSWERED)


def confirm(question: str, *, yes: bool) -> None:
    """Let the person at a terminal think again; a program that calls is taken at its word.

    Raises
    ------
    typer.Abort
        The person said no.
    """
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True)
