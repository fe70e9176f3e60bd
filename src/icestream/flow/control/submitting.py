"""Asking a session for something and waiting for the answer, whether a runner is there or not."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, select
from sqlalchemy.exc import DBAPIError

from icestream.errors import SessionBusy
from icestream.flow import schema
from icestream.flow.claiming import is_alive
from icestream.flow.control.asking import Command, ask
from icestream.flow.database import engine_for
from icestream.flow.runner import Runner
from icestream.flow.session import Session
from icestream.flow.store_trouble import explain
from icestream.flow.taking_up import answer_commands
from icestream.settings import Settings

_LOOK_S = 0.1


@dataclass(frozen=True)
class Answer:
    """What became of a command: ``done``, ``refused``, or ``asked`` while the runner has not answered yet."""

    number: int
    state: str
    text: str


def submit(session: Session, command: Command, *, author: str, settings: Settings, patience_s: float = 30.0) -> Answer:
    """Ask for something; a live runner carries it out, otherwise it is carried out here and now.

    Raises
    ------
    SessionError
        The store cannot be used.
    """
    if read_runner(session) is None:  # it has never run
        answer_commands(Runner(session, settings))
    number = ask(session, command, author=author)
    deadline = time.monotonic() + patience_s
    answer = Answer(number, "asked", "")
    while answer.state == "asked":
        if not runner_lives(session):
            try:
                answer_commands(Runner(session, settings))
            except SessionBusy:
                continue  # one was started meanwhile: it will answer
        answer = read_answer(session, number)
        if answer.state == "asked" and time.monotonic() > deadline:
            return Answer(number, "asked", f"the runner has not answered within {patience_s:g} s; it will when it can")
        time.sleep(_LOOK_S if answer.state == "asked" else 0.0)
    return answer


def runner_lives(session: Session) -> bool:
    """Tell whether a runner processes the session now."""
    row = read_runner(session)
    return row is not None and row["state"] == "running" and is_alive(row)


def read_runner(session: Session) -> dict[str, Any] | None:
    """Return the row of the session's runner, or None where no runner has made the store yet."""
    location = session.store_at
    if isinstance(location, Path) and not location.exists():
        return None
    with _reading(session) as connection:
        if not inspect(connection).has_table(schema.runner.name):
            return None
        row = connection.execute(select(schema.runner)).mappings().first()
        return None if row is None else dict(row)


def read_answer(session: Session, number: int) -> Answer:
    """Return what became of a command so far."""
    with _reading(session) as connection:
        table = schema.command
        row = connection.execute(select(table.c.state, table.c.answer).where(table.c.id == number)).one()
        return Answer(number, row.state, row.answer or "")


@contextmanager
def _reading(session: Session) -> Iterator[Connection]:
    engine = engine_for(session.store_at, read_only=True)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise explain(session.store_at, error, "cannot be read") from error
    finally:
        engine.dispose()
