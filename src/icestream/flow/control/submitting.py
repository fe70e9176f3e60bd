"""Asking a session for something and waiting for the answer, whether a runner is there or not."""

import time
from dataclasses import dataclass

from sqlalchemy import select

from icestream.errors import SessionBusy
from icestream.flow import schema
from icestream.flow.control.asking import Command, ask
from icestream.flow.runner import Runner
from icestream.flow.session import Session
from icestream.flow.store import engine_for, is_alive
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
    if not session.store_path.exists():  # it has never run
        Runner(session, settings).answer_commands()
    number = ask(session, command, author=author)
    deadline = time.monotonic() + patience_s
    answer = Answer(number, "asked", "")
    while answer.state == "asked":
        if not runner_lives(session):
            try:
                Runner(session, settings).answer_commands()
            except SessionBusy:
                continue  # one was started meanwhile: it will answer
        answer = read_answer(session, number)
        if answer.state == "asked" and time.monotonic() > deadline:
            return Answer(number, "asked", f"the runner has not answered within {patience_s:g} s; it will when it can")
        time.sleep(_LOOK_S if answer.state == "asked" else 0.0)
    return answer


def runner_lives(session: Session) -> bool:
    """Tell whether a runner processes the session now."""
    engine = engine_for(session.store_path, read_only=True)
    try:
        with engine.connect() as connection:
            row = connection.execute(select(schema.runner)).mappings().first()
            return row is not None and row["state"] == "running" and is_alive(dict(row))
    finally:
        engine.dispose()


def read_answer(session: Session, number: int) -> Answer:
    """Return what became of a command so far."""
    engine = engine_for(session.store_path, read_only=True)
    try:
        with engine.connect() as connection:
            table = schema.command
            row = connection.execute(select(table.c.state, table.c.answer).where(table.c.id == number)).one()
            return Answer(number, row.state, row.answer or "")
    finally:
        engine.dispose()
