"""The addresses of the storage of a session: what it holds, what can go, what can be undone, and raw data that are copied."""

import logging
import threading

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import IcestreamError
from icestream.facility.raw_copies import count_copies
from icestream.facility.raw_deletion import (
    ask_for_deletion,
    plan_raw_deletion,
    read_deletions,
    withdraw_deletion,
)
from icestream.facility.retention import RetentionRule, read_rules_text, rules_for, write_rules_text
from icestream.flow.commands.removing import plan_removal
from icestream.flow.commands.requests import BringBack, Command, EmptyTrash, Remove, RestoreFiles
from icestream.flow.runner.answering import submit
from icestream.flow.storage import FileKind, Removal, Session
from icestream.logs import log_event
from icestream.web.acting import PATIENCE_S, ActionAnswer, lock_of
from icestream.web.site import Administrating, Answer, Asking, Operating, SessionName, Site, ThisSite, changes_nothing

MOST_REMOVALS = 100
LONGEST_RULES = 50_000

router = APIRouter(prefix="/api/v1/sessions/{session}/storage", tags=["storage"])
_LOG = logging.getLogger(__name__)
_EDITING = threading.Lock()


class HeldKind(Answer):
    """The files of one kind: how many, how large, how much of that can be computed again or is of rejected exposures."""

    kind: str
    files: int
    bytes: int
    again_bytes: int
    rejected_bytes: int


class HeldStep(Answer):
    """The files of one kind that one step wrote."""

    step: str
    kind: str
    files: int
    bytes: int
    old_bytes: int
    again: bool


class RemovalLine(Answer):
    """Files that were removed together; ``n_left`` of them are still away."""

    id: int
    author: str
    reason: str
    state: str
    n_files: int
    n_bytes: int
    n_left: int
    bytes_left: int
    at: float
    goes_at: float
    may_be_undone: bool
    rule: str | None
    done_by: str | None


class RawLine(Answer):
    """A request to delete raw data."""

    id: int
    author: str
    reason: str
    state: str
    at: float
    goes_at: float
    n_files: int
    n_bytes: int
    done_by: str | None
    note: str | None


class StoragePage(Answer):
    """What a session holds; ``complete`` is false while files are still being looked at."""

    bytes: int
    trash_bytes: int
    removed_bytes: int
    free_bytes: int
    bytes_per_hour: float | None
    seen_at: float | None
    complete: bool
    kinds: list[HeldKind]
    steps: list[HeldStep]
    removals: list[RemovalLine]
    raw_deletions: list[RawLine]
    raw_with_copy: int
    """Raw files of which a copy was verified, by comparing or by a transfer."""
    rules: list[RetentionRule]
    document: str
    """The session's own rules, as they are written; nothing for who may only look."""
    trouble: str | None
    """Why the rules cannot be read."""


class Chosen(BaseModel):
    """Which files are meant."""

    model_config = ConfigDict(extra="forbid")

    kinds: list[FileKind] = Field(default_factory=list, max_length=10)
    steps: list[str] = Field(default_factory=list, max_length=200)
    rejected: bool = False
    older_than_hours: float = Field(0.0, ge=0, le=1e6)
    even_if_lost: bool = False
    undo_hours: float = Field(72.0, ge=0, le=24 * 366)
    reason: str = Field("", max_length=500)


class PlannedLine(Answer):
    """How much of one step and kind would go."""

    step: str
    kind: str
    files: int
    bytes: int


class Planned(Answer):
    """What a removal would take, and why other files stay; ``seconds`` one worker would take to compute it again."""

    files: int
    bytes: int
    exposures: int
    seconds: float
    lines: list[PlannedLine]
    kept: dict[str, int]


class Wanted(BaseModel):
    """Which removed files are put back."""

    model_config = ConfigDict(extra="forbid")

    kinds: list[FileKind] = Field(default_factory=list, max_length=10)
    steps: list[str] = Field(default_factory=list, max_length=200)


class Numbered(BaseModel):
    """Which removal is meant, or which deletion of raw data."""

    model_config = ConfigDict(extra="forbid")

    number: int = Field(ge=1, lt=2**31)


class Rules(BaseModel):
    """The session's own rules as YAML, and what they were when the editing began."""

    model_config = ConfigDict(extra="forbid")

    before: str = Field(max_length=LONGEST_RULES)
    document: str = Field(max_length=LONGEST_RULES)


class RawAsked(BaseModel):
    """Raw data to delete: the session's name is typed by who asks."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=300)
    rejected: bool = False
    undo_hours: float = Field(72.0, ge=1, le=24 * 366)
    reason: str = Field("", max_length=500)


class RawPlanned(Answer):
    """The raw files that have a verified copy and could be deleted, and why others stay."""

    files: int
    bytes: int
    same_disk: int
    """Copies that are on the same disk, and are lost with it."""
    kept: dict[str, int]


class Saved(Answer):
    """What was changed."""

    text: str


@router.get("", summary="What a session holds by kind and step, what can be computed again, and what was removed")
def storage(session: SessionName, site: ThisSite, caller: Asking) -> StoragePage:
    """Return what the session holds."""
    opened = site.places.open(session)
    found, may = site.holdings.read(opened), caller.person.may("operate", session)
    rules, trouble = _rules(site, opened)
    raw = read_deletions(opened, state=site.settings.state)
    return StoragePage(
        bytes=found.bytes,
        trash_bytes=found.trash_bytes,
        removed_bytes=found.removed_bytes,
        free_bytes=found.free_bytes,
        bytes_per_hour=found.bytes_per_hour,
        seen_at=found.seen_at,
        complete=found.complete,
        kinds=[HeldKind.model_validate(one) for one in found.kinds],
        steps=[HeldStep.model_validate(one) for one in found.steps],
        removals=[_line_of(one) for one in found.removals[:MOST_REMOVALS]],
        raw_deletions=[RawLine.model_validate(one) for one in raw],
        raw_with_copy=count_copies(opened, state=site.settings.state),
        rules=rules,
        document=read_rules_text(opened.folder) if may else "",
        trouble=trouble if may or trouble is None else "who operates the session is told why",
    )


@router.post(
    "/plan",
    summary="What a removal would take, and why other files stay; changes nothing",
    dependencies=[Depends(changes_nothing)],
)
def plan(session: SessionName, asked: Chosen, site: ThisSite, _caller: Operating) -> Planned:
    """Return what would go."""
    found = plan_removal(site.places.open(session), _removal(asked))
    lines = [PlannedLine.model_validate(one) for one in found.by_step()]
    return Planned(
        files=len(found.files),
        bytes=found.n_bytes,
        exposures=found.exposures,
        seconds=found.seconds,
        lines=lines,
        kept=dict(found.kept),
    )


@router.post("/remove", summary="Remove files that can be computed again, into the trash")
def remove(session: SessionName, asked: Chosen, site: ThisSite, caller: Operating) -> ActionAnswer:
    """Remove files."""
    return _ask(site, session, caller.person.name, _removal(asked))


@router.post("/undo", summary="Undo a removal: its files are put back from the trash")
def undo(session: SessionName, asked: Numbered, site: ThisSite, caller: Operating) -> ActionAnswer:
    """Put files back."""
    return _ask(site, session, caller.person.name, BringBack(removal=asked.number))


@router.post("/restore", summary="Put removed files back, from the trash or by computing them again")
def restore(session: SessionName, asked: Wanted, site: ThisSite, caller: Operating) -> ActionAnswer:
    """Put files back."""
    return _ask(site, session, caller.person.name, RestoreFiles(kinds=tuple(asked.kinds), steps=tuple(asked.steps)))


@router.post("/empty", summary="Delete one removal for good, before its time")
def empty(session: SessionName, asked: Numbered, site: ThisSite, caller: Operating) -> ActionAnswer:
    """Delete files for good."""
    return _ask(site, session, caller.person.name, EmptyTrash(removal=asked.number))


@router.post("/rules", summary="Replace the session's own rules of what is removed")
def change_rules(session: SessionName, asked: Rules, site: ThisSite, caller: Operating) -> Saved:
    """Check and write the session's own rules; they hold from the next time that rules are applied."""
    opened = site.places.open(session)
    with _EDITING:
        if read_rules_text(opened.folder) != asked.before:
            raise HTTPException(409, "somebody else has changed the rules meanwhile; read them again")
        write_rules_text(opened.folder, asked.document)
    log_event(_LOG, logging.INFO, "rules of storage changed", session=session, author=caller.person.name)
    return Saved(text="saved; the rules hold from the next time that they are applied")


@router.post("/raw/plan", summary="Raw files that could be deleted, and why others stay", dependencies=[Depends(changes_nothing)])
def plan_raw(session: SessionName, asked: RawAsked, site: ThisSite, _caller: Administrating) -> RawPlanned:
    """Return which raw files could be deleted."""
    found = plan_raw_deletion(site.places.open(session), state=site.settings.state, rejected=asked.rejected)
    return RawPlanned(files=len(found.files), bytes=found.n_bytes, same_disk=found.same_disk, kept=dict(found.kept))


@router.post("/raw/delete", summary="Delete raw data with a verified copy, once the time for withdrawing has passed")
def delete_raw(session: SessionName, asked: RawAsked, site: ThisSite, caller: Administrating) -> RawLine:
    """Ask for raw data to be deleted; nothing is touched before the time has passed."""
    opened = site.places.open(session)
    done = ask_for_deletion(
        opened,
        site.settings,
        typed_name=asked.name,
        author=caller.person.name,
        undo_hours=asked.undo_hours,
        rejected=asked.rejected,
        reason=asked.reason,
    )
    site.live.forget(session)
    return RawLine.model_validate(done)


@router.post("/raw/withdraw", summary="Withdraw the deletion of raw data")
def withdraw_raw(session: SessionName, asked: Numbered, site: ThisSite, caller: Administrating) -> Saved:
    """Keep raw data after all."""
    done = withdraw_deletion(site.places.open(session), site.settings, asked.number, author=caller.person.name)
    site.live.forget(session)
    return Saved(text=f"withdrawn: {done.note or 'nothing was deleted'}")


def _removal(asked: Chosen) -> Remove:
    given = asked.model_dump()
    return Remove.model_validate(given)


def _ask(site: Site, session: str, author: str, command: Command) -> ActionAnswer:
    opened = site.places.open(session)
    with lock_of(opened):
        answer = submit(opened, command, author=author, settings=site.settings, patience_s=PATIENCE_S)
    site.holdings.forget(opened)
    site.live.forget(session)
    return ActionAnswer.model_validate(answer)


def _rules(site: Site, session: Session) -> tuple[list[RetentionRule], str | None]:
    try:
        return list(rules_for(session, site.settings.storage)), None
    except IcestreamError as error:
        return [], str(error)


def _line_of(one: Removal) -> RemovalLine:
    rule = one.what.get("rule")
    return RemovalLine.model_validate({**vars(one), "may_be_undone": one.may_be_undone, "rule": str(rule) if rule else None})
