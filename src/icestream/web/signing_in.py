"""The addresses that say who asks, and through which people sign in and out."""

import threading

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers

from icestream import __version__
from icestream.web.callers import COOKIE, COOKIE_LIFE_S, Caller, cookie_in
from icestream.web.site import Answer, Site, ThisSite, caller_of, is_tried

CHECKING_AT_ONCE = 2
"""So many passwords are checked at a time: each takes a core and much memory."""

router = APIRouter(prefix="/api/v1", tags=["people"])


class Me(Answer):
    """Who asks, and what must be sent along with a change; nobody, where somebody must sign in first."""

    name: str | None
    role: str | None
    csrf: str | None
    creates: bool
    """May make sessions, of some names at least."""
    operates: bool
    """Operates all sessions, so may simulate a microscope and see transfers that belong to no session."""
    audits: bool
    """May read what people did."""
    sign_in: bool
    """People sign in here."""
    single: str | None
    """The only session that is served, if it is one."""
    provider: str | None
    """What people call the provider of accounts at which they may sign in, if there is one."""
    account: bool
    """Who asks has signed in there."""
    version: str


class SignIn(BaseModel):
    """A name and a password."""

    model_config = ConfigDict(extra="forbid")

    name: str
    password: str


_CHECKING = threading.Semaphore(CHECKING_AT_ONCE)


@router.get("/me", summary="Who asks, and what a change must carry")
def me(site: ThisSite, request: Request) -> Me:
    """Say who asks."""
    return _describe(site, request.state.caller)


@router.post("/sign-in", summary="Sign in with a name and a password; the answer sets a cookie")
def sign_in(given: SignIn, site: ThisSite, request: Request, response: Response) -> Me:
    """Sign in."""
    address, brake = "unknown" if request.client is None else request.client.host, site.callers.brake
    with _CHECKING:
        wait_s = brake.wait_s(address, given.name)
        if wait_s > 0:
            again = f"{wait_s:.0f}"
            raise HTTPException(429, f"too many wrong passwords; try again in {again} s", {"Retry-After": again})
        is_tried(request)
        found = site.callers.sign_in(given.name, given.password)
        (brake.failed if found is None else brake.passed)(address, given.name)
    if found is None:
        raise HTTPException(401, "the name or the password is wrong")
    return _welcome(site, request, response, found[0])


class OpenShare(BaseModel):
    """The secret part of a link that was shared."""

    model_config = ConfigDict(extra="forbid")

    secret: str


class Opened(Me):
    """Who came in through a link, and to which session it leads."""

    session: str


@router.post("/open-share", summary="Open a link that was shared; the answer sets a cookie")
def open_share(given: OpenShare, site: ThisSite, request: Request, response: Response) -> Opened:
    """Let in whoever has a link that has not expired; it shows one session, and lets nobody act."""
    address, brake = "unknown" if request.client is None else request.client.host, site.callers.share_brake
    wait_s = brake.wait_s(address, address)
    if wait_s > 0:
        again = f"{wait_s:.0f}"
        raise HTTPException(429, f"too many links that were none; try again in {again} s", {"Retry-After": again})
    is_tried(request)
    found = site.callers.open_share(given.secret[:200])
    if found is None:
        brake.failed(address, address)
        raise HTTPException(401, "this link has expired, or was withdrawn")
    cookie, share = found
    return Opened(session=share.session, **_welcome(site, request, response, cookie).model_dump())


def give_cookie(response: Response, cookie: str, *, secure: bool) -> None:
    """Let an answer set the cookie of a browser in which somebody has signed in."""
    response.set_cookie(COOKIE, cookie, max_age=COOKIE_LIFE_S, httponly=True, samesite="strict", secure=secure, path="/")


def _welcome(site: Site, request: Request, response: Response, cookie: str) -> Me:
    give_cookie(response, cookie, secure=request.url.scheme == "https")
    return _describe(site, site.callers.identify(Headers({"cookie": f"{COOKIE}={cookie}"})))


@router.post("/sign-out", summary="Sign out", status_code=204, dependencies=[Depends(caller_of)])
def sign_out(site: ThisSite, request: Request) -> Response:
    """Sign out."""
    site.callers.browsers.end(cookie_in(request.headers))
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
    return response


def _describe(site: Site, caller: Caller | None) -> Me:
    return Me(
        name=None if caller is None else caller.person.name,
        role=None if caller is None else caller.person.best,
        creates=caller is not None and caller.person.may_somewhere("operate") and not site.places.single,
        operates=caller is not None and caller.person.may("operate"),
        audits=caller is not None and caller.person.may("administrate"),
        csrf=None if caller is None else caller.csrf,
        sign_in=not site.callers.everybody,
        provider=None if site.callers.oidc is None else site.callers.oidc.document.provider,
        account=caller is not None and caller.account is not None,
        single=site.places.folder.name if caller is not None and site.places.single else None,
        version=__version__,
    )
