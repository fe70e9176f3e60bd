"""The commands: what may be asked, checked where it is asked and again where it is carried out."""

import json
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icestream.errors import SessionError
from icestream.flow.storage import FileKind, Session, append_command
from icestream.flow.workflow import StepSpec


class Command(BaseModel):
    """Something that a person asks of a session."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: ClassVar[str]


class Pause(Command):
    """Pause the session until somebody resumes it; it stays paused through restarts."""

    kind = "pause"
    reason: str = ""


class Resume(Command):
    """Resume after a pause."""

    kind = "resume"


class Stop(Command):
    """End the runner: after what is running (drain), or at once."""

    kind = "stop"
    now: bool = False


class Close(Command):
    """Let a stream take nothing new: running work ends, then those downstream close too. It stays closed until it is reopened."""

    kind = "close"
    step: str
    now: bool = False  # cancel what runs there, too


class Reopen(Command):
    """Let a stream that was closed by hand take exposures again, including those that have arrived in the meantime."""

    kind = "reopen"
    step: str


class Release(Command):
    """Release a gate that is waiting for a person."""

    kind = "release"
    step: str


class Continue(Command):
    """Continue everything: end a pause, reopen what was closed by hand or reset, retry what failed."""

    kind = "continue"


class Retry(Command):
    """Retry failed exposures: of one step or all, one exposure or all."""

    kind = "retry"
    step: str | None = None
    unit: str | None = None


class Set(Command):
    """Change parameters of a step: it and what depends on it get a new revision."""

    kind = "set"
    step: str
    params: dict[str, Any] = Field(min_length=1)
    reason: str = ""


class Branch(Command):
    """Run a second variant of a step beside the first, with everything upstream of it shared."""

    kind = "branch"
    step: str
    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    below: bool = True  # what hangs on the step gets a twin too
    reason: str = ""


class ChangeSteps(Command):
    """Add, replace and remove steps of the workflow: name of the step → the step as it is to be, or nothing to remove it."""

    kind = "change_steps"
    steps: dict[str, StepSpec | None] = Field(min_length=1, max_length=500)
    based_on: str | None = None
    """What the workflow was when the edit was begun; see `digest_steps`."""
    reason: str = ""


class Apply(Command):
    """Apply session.yaml as it was edited by hand."""

    kind = "apply"
    reason: str = ""


class Restart(Command):
    """Recompute a step and everything downstream of it."""

    kind = "restart"
    step: str


class Reset(Command):
    """Drop the results of a step and of everything downstream of it; they stay empty until the session is continued."""

    kind = "reset"
    step: str


class Override(Command):
    """Accept or reject an exposure by hand, at one step or (rejecting) at the source; ``lift`` withdraws it."""

    kind = "override"
    unit: str
    verdict: Literal["accept", "reject", "lift"]
    step: str | None = None
    reason: str = ""


class Recompute(Command):
    """Recompute an exposure at one step with parameters of its own, which override those of the step; ``lift`` withdraws it."""

    kind = "recompute"
    unit: str
    step: str
    params: dict[str, Any] = Field(default_factory=dict)
    lift: bool = False
    reason: str = ""


class Clean(Command):
    """Delete what nothing refers to any more; with ``old_revisions`` even what only frozen revisions refer to."""

    kind = "clean"
    old_revisions: bool = False


class Remove(Command):
    """Remove files of results that can be computed again, into the trash; their records stay.

    Those of the ``kinds`` and ``steps`` that are named, or all; of exposures that every step has decided about.
    """

    kind = "remove"
    kinds: tuple[FileKind, ...] = ()
    steps: tuple[str, ...] = ()
    older_than_hours: float = Field(0.0, ge=0)
    rejected: bool = False
    """Only those of exposures that were rejected."""
    even_if_lost: bool = False
    """Also what cannot be computed again."""
    undo_hours: float = Field(72.0, ge=0, le=24 * 366)
    rule: str = ""
    """The rule that asks, where none of people's own accord."""
    reason: str = ""


class BringBack(Command):
    """Undo a removal: its files are put back from the trash."""

    kind = "bring_back"
    removal: int


class EmptyTrash(Command):
    """Delete for good what was removed: one removal at once, or all whose time for undoing has passed."""

    kind = "empty_trash"
    removal: int | None = None


class RestoreFiles(Command):
    """Put removed files back: from the trash, or by computing them again."""

    kind = "restore_files"
    kinds: tuple[FileKind, ...] = ()
    steps: tuple[str, ...] = ()
    unit: str | None = None


class NoteRawDeletion(Command):
    """Note in the history that raw data are to be deleted, stay after all, or were deleted; no runner deletes them."""

    kind = "raw_deletion"
    number: int
    stage: Literal["asked", "withdrawn", "done"]
    files: int
    bytes: int
    goes_at: float
    reason: str = ""
    note: str = ""


COMMANDS: dict[str, type[Command]] = {
    command.kind: command
    for command in (
        Pause,
        Resume,
        Stop,
        Close,
        Reopen,
        Release,
        Continue,
        Retry,
        Set,
        Branch,
        ChangeSteps,
        Apply,
        Restart,
        Reset,
        Override,
        Recompute,
        Clean,
        Remove,
        BringBack,
        EmptyTrash,
        RestoreFiles,
        NoteRawDeletion,
    )
}


def ask(session: Session, command: Command, *, author: str) -> int:
    """Append a command for the runner, present or next; return its number."""
    return append_command(session.store_at, command.kind, command.model_dump(mode="json"), author=author)


def read_command(kind: str, arguments: str) -> Command:
    """Read the row of a command.

    Raises
    ------
    SessionError
        No such command, or its arguments are not what it takes.
    """
    if kind not in COMMANDS:
        raise SessionError(f"no command is called {kind!r}; known: {', '.join(sorted(COMMANDS))}")
    try:
        given = json.loads(arguments)
        return COMMANDS[kind].model_validate(given)
    except (ValueError, ValidationError) as error:
        if isinstance(error, ValidationError):
            lines = [f"{'.'.join(map(str, issue['loc'])) or 'arguments'}: {issue['msg']}" for issue in error.errors()]
            raise SessionError(f"{kind}: {'; '.join(lines)}") from error
        raise SessionError(f"{kind}: its arguments are not valid JSON") from error
