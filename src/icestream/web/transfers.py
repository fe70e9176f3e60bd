"""The addresses of transfers: what was copied to raw data of a session, or of the whole facility, verified and removed."""

import time
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from icestream.facility.observing import account_alarm_store
from icestream.transfer.ledger import (
    FILE_STATES,
    FileCounts,
    FileRow,
    FileState,
    Ledger,
    TransferRow,
    account_ledger,
    session_ledger,
)
from icestream.web.site import Answer, Asking, Operating, SessionName, ThisSite

MOST_FILES = 200
_HIDDEN = "who operates the session is told why"

router = APIRouter(prefix="/api/v1", tags=["transfers"])


class TransferLine(Answer):
    """One transfer; who may only look sees the names of its folders, not where they are."""

    id: int
    source: str
    target: str
    doing: Literal["running", "paused", "stopped", "interrupted"]
    note: str | None
    """Why it is paused."""
    since: float
    seen_at: float
    waiting: int
    waiting_bytes: int
    growing: int
    bytes_per_s: float | None
    remove_after_s: float | None
    counts: list[FileCounts]


class TransferredFile(Answer):
    """One version of one file."""

    name: str
    target_name: str | None
    """Its path at the target, where that is another."""
    size_bytes: int
    state: FileState
    at: float
    verified_at: float | None
    removed_at: float | None
    digest: str | None
    """BLAKE2b of 256 bits."""
    attempts: int
    retry_at: float | None
    reason: str | None


class TransferAlarm(Answer):
    """An open alarm of a transfer that belongs to no session; those of sessions are among the alarms of these."""

    number: int
    what: str
    detail: str
    since: float


class TransfersPage(Answer):
    """The transfers of a session or of the facility, the newest first, and the files of one of them, what changed last first."""

    alarms: list[TransferAlarm] = Field(default_factory=list, description="Open alarms of the account")
    transfers: list[TransferLine]
    shown: int | None = Field(description="The transfer whose files are listed")
    files: list[TransferredFile]
    more: bool


class FilesAsked(BaseModel):
    """Which files are wanted."""

    model_config = ConfigDict(extra="forbid")

    transfer: int | None = Field(None, ge=1, lt=2**31, description="List files of this transfer; unset: of the newest")
    state: FileState | None = None
    text: str = Field("", max_length=200, description="Only files with this in their path")
    offset: int = Field(0, ge=0, le=10_000_000)
    limit: int = Field(50, ge=1, le=MOST_FILES)


@router.get(
    "/sessions/{session}/transfers", summary="What was copied to raw data or an archive, verified, and removed at the source"
)
def transfers(session: SessionName, asked: Annotated[FilesAsked, Query()], site: ThisSite, caller: Asking) -> TransfersPage:
    """Return the transfers that belong to a session."""
    told = caller.person.may("operate", session)
    return _page(session_ledger(site.places.open(session)), asked, told=told)


@router.get("/transfers", summary="What was copied between folders that belong to no session, such as the disk of a microscope")
def facility_transfers(asked: Annotated[FilesAsked, Query()], site: ThisSite, caller: Operating) -> TransfersPage:
    """Return the transfers of the account that this server runs under, to who operates all sessions."""
    if not caller.person.may("operate"):
        raise HTTPException(403, f"{caller.person.name} does not operate all sessions")
    page = _page(account_ledger(site.settings.state), asked, told=True)
    open_alarms = [one.alarm for one in account_alarm_store(site.settings.state).alarms(only_open=True)]
    return page.model_copy(update={"alarms": [TransferAlarm.model_validate(one) for one in open_alarms]})


def _page(ledger: Ledger, asked: FilesAsked, *, told: bool) -> TransfersPage:
    rows = ledger.transfers()
    shown = next((row.id for row in rows if asked.transfer in (None, row.id)), None)
    states = FILE_STATES if asked.state is None else (asked.state,)
    wanted = {"limit": asked.limit + 1, "offset": asked.offset}
    files = [] if shown is None else ledger.files(shown, states, text=asked.text, **wanted)
    return TransfersPage(
        transfers=[_line(ledger, row, told=told) for row in rows],
        shown=shown,
        files=[_file(one, told=told) for one in files[: asked.limit]],
        more=len(files) > asked.limit,
    )


def _file(row: FileRow, *, told: bool) -> TransferredFile:
    """Return a file; reasons name folders, which who may only look is not told."""
    found = TransferredFile.model_validate(row)
    return found if told or found.reason is None else found.model_copy(update={"reason": _HIDDEN})


def _line(ledger: Ledger, row: TransferRow, *, told: bool) -> TransferLine:
    return TransferLine(
        id=row.id,
        source=row.source if told else Path(row.source).name,
        target=row.target if told else Path(row.target).name,
        doing=row.doing(time.time()),
        note=row.note if told or row.note is None else _HIDDEN,
        since=row.since,
        seen_at=row.seen_at,
        waiting=row.waiting,
        waiting_bytes=row.waiting_bytes,
        growing=row.growing,
        bytes_per_s=row.bytes_per_s,
        remove_after_s=row.remove_after_s,
        counts=ledger.counts(row.id),
    )
