"""Submitting a command to a session: its runner carries it out; if none is alive, it is carried out here and now."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from icestream.errors import SessionBusy, SessionError
from icestream.flow.commands.client import Answer, ask_all
from icestream.flow.commands.requests import Command, Recompute
from icestream.flow.runner.loop import Runner
from icestream.flow.storage import Session, check_own_params, open_session
from icestream.logs import session_log
from icestream.settings import Settings

_TRY_AGAIN_S = 0.1


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

    def answer_here(session: Session) -> None:
        """Carry out what was asked, with the document as it is on the disk now: an earlier command may have changed it."""
        try:
            with session_log(session.folder, settings.log_level):
                Runner(open_session(session.folder), settings).answer_commands()
        except SessionBusy:
            time.sleep(_TRY_AGAIN_S)  # a runner was started meanwhile: it will answer

    return ask_all(session, commands, author=author, patience_s=patience_s, answer_here=answer_here)


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
