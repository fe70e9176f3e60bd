"""The address through which people act. An action is a command row in the store, as from the command line."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from icestream.flow.commands.client import runner_lives
from icestream.flow.runner.answering import recompute_exposures, submit
from icestream.flow.storage import Session
from icestream.web.callers import Caller
from icestream.web.editing import Arguments, check_edit, read_arguments
from icestream.web.site import Answer, Operating, SessionName, Site, ThisSite

PATIENCE_S = 10.0

Kind = Literal[
    "pause",
    "resume",
    "stop",
    "close",
    "reopen",
    "release",
    "continue",
    "retry",
    "override",
    "recompute",
    "set",
    "branch",
    "change_steps",
    "restart",
    "reset",
]

router = APIRouter(prefix="/api/v1/sessions", tags=["actions"])
_LOCKS: dict[str, threading.Lock] = defaultdict(threading.Lock)


def lock_of(session: Session) -> threading.Lock:
    """Return what keeps two requests of this process from acting on a session at once."""
    return _LOCKS[str(session.folder)]


class Action(BaseModel):
    """What is asked of a session: a command and what it takes, under the names that the history shows."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    arguments: Arguments = Field(default_factory=dict, max_length=8)


class ActionAnswer(Answer):
    """What became of an action; ``asked`` while the runner has not answered yet."""

    number: int
    state: Literal["done", "refused", "asked"]
    text: str


@router.post("/{session}/actions", summary="Ask a session for something; recorded with the name of who asks")
def act(session: SessionName, action: Action, site: ThisSite, caller: Operating) -> ActionAnswer:
    """Ask a session for something. Where no runner is alive, this process carries it out."""
    command, opened = read_arguments(action.kind, action.arguments), site.places.open(session)
    check_edit(opened, command)
    if action.kind == "stop" and not runner_lives(opened):
        raise HTTPException(409, "the session is not running, so there is nothing to stop")
    with lock_of(opened):
        answer = submit(opened, command, author=caller.person.name, settings=site.settings, patience_s=PATIENCE_S)
    site.live.forget(session)
    return ActionAnswer.model_validate(answer)


def recompute_one(
    site: Site, session: str, caller: Caller, *, step: str, unit: str, params: Mapping[str, Any] | None, reason: str
) -> ActionAnswer:
    """Compute an exposure again at a step with parameters of its own; None takes them back."""
    opened = site.places.open(session)
    with lock_of(opened):
        (answer,) = recompute_exposures(
            opened,
            step,
            [unit],
            params,
            author=caller.person.name,
            settings=site.settings,
            reason=reason,
            patience_s=PATIENCE_S,
        )
    site.live.forget(session)
    return ActionAnswer.model_validate(answer)
