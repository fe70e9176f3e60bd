"""The addresses of links that are shared, and of what people did: for those who administrate."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import SessionError
from icestream.facility.database import FacilityDatabase
from icestream.web.site import Administrating, Answer, SessionName, Site, ThisSite

LONGEST_HOURS = 24 * 90
MOST_ROWS = 500

router = APIRouter(prefix="/api/v1", tags=["people"])


class NewShare(BaseModel):
    """A link that is to be made."""

    model_config = ConfigDict(extra="forbid")

    hours: float = Field(24.0, gt=0, le=LONGEST_HOURS, allow_inf_nan=False, description="It expires after so many")
    note: str = Field("", max_length=200, description="For whom it is")


class ShareLine(Answer):
    """A link; its secret is never shown again."""

    id: int
    author: str
    note: str
    created_at: float
    expires_at: float
    withdrawn_at: float | None


class MadeShare(ShareLine):
    """A new link: ``path`` is what follows the address of this server."""

    path: str


class AuditLine(Answer):
    """One thing that somebody did, or tried to: ``status`` is that of HTTP, 200 to 299 if it was done."""

    id: int
    at: float
    who: str | None
    address: str | None
    action: str
    session: str | None
    detail: str
    status: int


@router.get("/sessions/{session}/shares", summary="The links through which others may look at a session")
def shares(session: SessionName, site: ThisSite, _caller: Administrating) -> list[ShareLine]:
    """Return the links to a session, also those that have expired."""
    site.places.folder_of(session)
    return [ShareLine.model_validate(one) for one in _database(site).shares(session)]


@router.post("/sessions/{session}/shares", summary="Make a link that shows a session until it expires", status_code=201)
def share(session: SessionName, asked: NewShare, site: ThisSite, caller: Administrating) -> MadeShare:
    """Make a link; whoever has it may look at this session, and at no other."""
    if site.callers.everybody:
        raise HTTPException(409, "nobody needs a link: only this machine reaches the server, and nobody has to sign in")
    site.places.folder_of(session)
    secret, made = _database(site).share(session, author=caller.person.name, note=asked.note, hours=asked.hours)
    return MadeShare(path=f"/share#{secret}", **ShareLine.model_validate(made).model_dump())


@router.post("/sessions/{session}/shares/{number}/withdraw", summary="End a link at once")
def withdraw(session: SessionName, number: int, site: ThisSite, _caller: Administrating) -> list[ShareLine]:
    """End a link; who came in through it is out at once."""
    if not _database(site).withdraw_share(session, number):
        raise HTTPException(404, "there is no such link, or it was withdrawn before")
    return [ShareLine.model_validate(one) for one in _database(site).shares(session)]


@router.get("/audit", summary="What people did through this server, the newest first")
def audit(
    site: ThisSite,
    _caller: Administrating,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 100,
    before: Annotated[int | None, Query(ge=1, lt=2**62)] = None,
) -> list[AuditLine]:
    """Return what people did; ask again from the last number for more."""
    return [AuditLine.model_validate(one) for one in _database(site).audit(limit=limit, before=before)]


def _database(site: Site) -> FacilityDatabase:
    if site.callers.database is None:
        raise SessionError("this server has no database of the facility")
    return site.callers.database
