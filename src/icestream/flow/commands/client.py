"""Asking a session for something and waiting for the answer, whether a runner is there or not."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from icestream.errors import SessionBusy, SessionError
from icestream.flow.commands.requests import Command, Recompute, ask
from icestream.flow.runner.build import answer_commands
from icestream.flow.runner.loop import Runner
from icestream.flow.storage import schema
from icestream.flow.storage.claiming import is_alive
from icestream.flow.storage.own_params import check_own_params
from icestream.flow.storage.read_connection import reading
from icestream.flow.storage.session import Session, open_session
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
    (answer,) = submit_all(session, [command], author=author, settings=settings, patience_s=patience_s)
    return answer


def submit_all(
    session: Session, commands: Sequence[Command], *, author: str, settings: Settings, patience_s: float = 30.0
) -> list[Answer]:
    """Ask for several things, in this order, and wait for all answers.

    Raises
    ------
    SessionError
        The store cannot be used.
    """
    if read_runner(session) is None:  # it has never run
        _answer_here(session, settings)
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
            _answer_here(session, settings)


def recompute_exposures(
    session: Session,
    step: str,
    exposures: Sequence[str],
    params: Mapping[str, Any] | None,
    *,
    author: str,
    settings: Settings,
    reason: str = "",
    patience_s: float = 30.0,
) -> list[Answer]:
    """Compute exposures (names or ids) again at ``step`` with ``params`` of their own; None takes those back.

    The parameters are laid over those of the step, also over later ones, until they are taken back. They are checked before
    anything is asked, so that either all exposures are asked for or none.

    Raises
    ------
    WorkflowError
        The step cannot compute single exposures, or the parameters are none that it can have.
    SessionError
        No step is called so, or the store cannot be used.
    """
    graph = session.graph()
    if step not in graph.nodes:
        raise SessionError(f"no step is called {step!r}; known: {', '.join(graph.nodes)}")
    if params is not None:
        check_own_params(graph.nodes[step], params)
    lift = params is None
    commands = [Recompute(unit=unit, step=step, params=dict(params or {}), lift=lift, reason=reason) for unit in exposures]
    return submit_all(session, commands, author=author, settings=settings, patience_s=patience_s) if commands else []


def _answer_here(session: Session, settings: Settings) -> None:
    """Carry out what was asked, with the document as it is on the disk now: an earlier command may have changed it."""
    try:
        answer_commands(Runner(open_session(session.folder), settings))
    except SessionBusy:
        time.sleep(_LOOK_S)  # a runner was started meanwhile: it will answer


def runner_lives(session: Session) -> bool:
    """Tell whether a runner processes the session now."""
    row = read_runner(session)
    return row is not None and row["state"] == "running" and is_alive(row)


def read_runner(session: Session) -> dict[str, Any] | None:
    """Return the row of the session's runner, or None where no runner has made the store yet."""
    with reading(session) as connection:
        row = None if connection is None else connection.execute(select(schema.runner)).mappings().first()
        return None if row is None else dict(row)


def read_answer(session: Session, number: int) -> Answer:
    """Return what became of a command so far."""
    with reading(session) as connection:
        if connection is None:
            return Answer(number, "asked", "")
        table = schema.command
        row = connection.execute(select(table.c.state, table.c.answer).where(table.c.id == number)).one()
        return Answer(number, row.state, row.answer or "")
