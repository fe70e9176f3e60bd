"""Asking a session for something and waiting for the answer."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from icestream.flow.commands.requests import Command, ask
from icestream.flow.storage import RunnerRow, Session, is_alive, read_runner_row, reading, schema

_LOOK_S = 0.1


@dataclass(frozen=True)
class Answer:
    """What became of a command: ``done``, ``refused``, or ``asked`` while the runner has not answered yet."""

    number: int
    state: str
    text: str


def ask_all(
    session: Session,
    commands: Sequence[Command],
    *,
    author: str,
    patience_s: float,
    answer_here: Callable[[Session], None],
) -> list[Answer]:
    """Ask for several things, in this order, and wait for all answers; where no runner lives, ``answer_here`` gives them.

    Raises
    ------
    SessionError
        The store cannot be used.
    """
    if read_runner(session) is None:  # it has never run
        answer_here(session)
    numbers = [ask(session, command, author=author) for command in commands]
    deadline = time.monotonic() + patience_s
    while True:
        answers = [read_answer(session, number) for number in numbers]
        if all(answer.state != "asked" for answer in answers):
            return answers
        if time.monotonic() > deadline:
            late = f"the runner has not answered within {patience_s:g} s; it will when it can"
            return [Answer(answer.number, "asked", late) if answer.state == "asked" else answer for answer in answers]
        if runner_lives(session):
            time.sleep(_LOOK_S)
        else:
            answer_here(session)


def runner_lives(session: Session) -> bool:
    """Tell whether a runner processes the session now."""
    row = read_runner(session)
    return row is not None and is_alive(row)


def read_runner(session: Session) -> RunnerRow | None:
    """Return the row of the session's runner, or None where no runner has made the store yet."""
    with reading(session) as connection:
        return None if connection is None else read_runner_row(connection)


def read_answer(session: Session, number: int) -> Answer:
    """Return what became of a command so far."""
    with reading(session) as connection:
        if connection is None:
            return Answer(number, "asked", "")
        table = schema.command
        row = connection.execute(select(table.c.state, table.c.answer).where(table.c.id == number)).one()
        return Answer(number, row.state, row.answer or "")
