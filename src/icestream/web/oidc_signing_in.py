"""The addresses through which people sign in at a provider of accounts, and sign out there.

What a sign-in must remember until the browser comes back is in a cookie of that browser, signed by this process: nothing is kept
for strangers, so they cannot use up memory. An answer is taken from the browser that has asked, once, and within ten minutes.
"""

import base64
import hmac
import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import RedirectResponse

from icestream.errors import SessionError
from icestream.logs import log_event
from icestream.web.access import Person
from icestream.web.callers import COOKIE, cookie_in
from icestream.web.oidc_provider import OidcError, OidcUnavailable, Provider, SignedInThere
from icestream.web.sign_in import Account, Brake
from icestream.web.signing_in import give_cookie
from icestream.web.site import Answer, Asking, Site, ThisSite

PENDING = "icestream-oidc"
PATH = "/api/v1/oidc"
WITHIN_S = 600
ASKED_AT_ONCE = 4
"""So many people are asked for at the provider at a time: one that hangs must not use up the threads of requests."""
MOST_USED = 100_000
LONGEST = 4000
_LOG = logging.getLogger(__name__)

Text = Annotated[str | None, Query(max_length=LONGEST)]


class Pending(BaseModel):
    """A sign-in that has begun."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: str
    nonce: str
    verifier: str
    to: str
    until: float


class SignedOut(Answer):
    """Where a browser goes to sign out at the provider as well, if it has such an address."""

    next: str | None


class TooBusy(Exception):
    """Too many people sign in at this moment."""


@dataclass
class SignIns:
    """Sign-ins that have begun, as texts that nobody else can make; each ends once."""

    clock: Callable[[], float] = time.time
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    _used: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    brake: Brake = field(init=False)
    _asking: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(ASKED_AT_ONCE))

    def __post_init__(self) -> None:
        self.brake = Brake(self.clock)

    def begin(self, to: str) -> tuple[str, Pending]:
        """Return a new sign-in, and the text that stands for it."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        pending = Pending(state=state, nonce=nonce, verifier=verifier, to=to, until=self.clock() + WITHIN_S)
        text = base64.urlsafe_b64encode(pending.model_dump_json().encode()).decode()
        return f"{text}.{self._sign(text)}", pending

    def end(self, cookie: str, state: str) -> Pending | None:
        """Return the sign-in that a text and a state stand for; None for what is forged, over, or was used before."""
        text, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(text).encode()):
            return None
        try:
            pending = Pending.model_validate_json(base64.urlsafe_b64decode(text))
        except (ValidationError, ValueError):
            return None
        now = self.clock()
        if now > pending.until or not hmac.compare_digest(state.encode(), pending.state.encode()):
            return None
        with self._lock:
            self._used = {one: until for one, until in self._used.items() if until >= now}
            if pending.state in self._used or len(self._used) >= MOST_USED:
                return None
            self._used[pending.state] = pending.until
        return pending

    @contextmanager
    def one_of_few(self) -> Iterator[None]:
        """Ask the provider, unless too many others do."""
        if not self._asking.acquire(timeout=1.0):
            raise TooBusy
        try:
            yield
        finally:
            self._asking.release()

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), "sha256").hexdigest()


def is_own_place(to: str) -> bool:
    """Tell whether an address is a page of this server: a path, which no browser takes for the name of another one."""
    return to.startswith("/") and not to.startswith(("//", "/api/")) and "\\" not in to and to.isprintable() and " " not in to


@dataclass
class AccountRoutes:
    """The addresses for one provider."""

    provider: Provider
    sign_ins: SignIns

    @property
    def _secure(self) -> bool:
        return self.provider.oidc.document.address.startswith("https://")

    def start(self, to: Annotated[str, Query(max_length=500)] = "/") -> Response:
        """Send a browser to the provider; ``to`` is the page that it comes back to."""
        cookie, pending = self.sign_ins.begin(to if is_own_place(to) else "/")
        try:
            with self.sign_ins.one_of_few():
                address = self.provider.authorization_address(state=pending.state, nonce=pending.nonce, verifier=pending.verifier)
        except TooBusy:
            return _failed("busy")
        except OidcError as error:
            log_event(_LOG, logging.ERROR, "sign-in at the provider of accounts", trouble=str(error))
            return _failed("unavailable")
        response = RedirectResponse(address, status_code=303)
        response.set_cookie(PENDING, cookie, max_age=WITHIN_S, httponly=True, samesite="lax", secure=self._secure, path=PATH)
        return response

    def callback(
        self, request: Request, site: ThisSite, state: Text = None, code: Text = None, iss: Text = None, error: Text = None
    ) -> Response:
        """Take a browser back from the provider, and let in whoever has signed in there."""
        address, brake = "unknown" if request.client is None else request.client.host, self.sign_ins.brake
        if brake.wait_s(address, address) > 0:
            return _failed("busy")
        pending = self.sign_ins.end(request.cookies.get(PENDING, ""), state or "")
        if pending is None:
            return _failed("late")
        found, why = self._redeem(pending, None if error is not None else code, iss)
        if found is not None:
            brake.passed(address, address)
        elif why == "untrusted":  # nobody is to blame for a provider that does not answer, or for changing one's mind
            brake.failed(address, address)
        person = None if found is None else self._person(found)
        if found is not None and person is not None:
            try:
                found = _with_own_name(site, self.provider, found)
            except SessionError as trouble:
                log_event(_LOG, logging.ERROR, "names of accounts", trouble=str(trouble))
                return _failed("unavailable")
            person = self._person(found)
        _note(site, address, found, person)
        if found is None or person is None:
            return _failed(why)
        account = Account(found.groups, found.id_token, 3600.0 * self.provider.oidc.document.hours)
        cookie, _ = site.callers.browsers.begin(found.name, account=account)
        response = RedirectResponse(pending.to, status_code=303)
        give_cookie(response, cookie, secure=self._secure)
        response.delete_cookie(PENDING, path=PATH)
        return response

    def sign_out(self, site: ThisSite, request: Request, response: Response, caller: Asking) -> SignedOut:
        """Sign out here, and say where to sign out at the provider."""
        site.callers.browsers.end(cookie_in(request.headers))
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
        if caller.account is None:
            return SignedOut(next=None)
        try:
            with self.sign_ins.one_of_few():
                return SignedOut(next=self.provider.end_address(caller.account.id_token))
        except (TooBusy, OidcError):
            return SignedOut(next=None)

    def _redeem(self, pending: Pending, code: str | None, issuer: str | None) -> tuple[SignedInThere | None, str]:
        """Return who has signed in, and why a person is not let in."""
        try:
            self.provider.check_issuer(issuer)
            if code is None:
                return None, "denied"
            with self.sign_ins.one_of_few():
                return self.provider.redeem(code, verifier=pending.verifier, nonce=pending.nonce), "no-group"
        except TooBusy:
            return None, "busy"
        except OidcError as error:
            log_event(_LOG, logging.WARNING, "sign-in at the provider of accounts", trouble=str(error))
            return None, "unavailable" if isinstance(error, OidcUnavailable) else "untrusted"

    def _person(self, found: SignedInThere) -> Person | None:
        return self.provider.oidc.document.person(found.name, found.groups)


def oidc_routes(provider: Provider) -> APIRouter:
    """Return the addresses for one provider."""
    router, routes = APIRouter(prefix=PATH, include_in_schema=False), AccountRoutes(provider, SignIns(clock=provider.clock))
    router.add_api_route("/start", routes.start, methods=["GET"])
    router.add_api_route("/callback", routes.callback, methods=["GET"])
    router.add_api_route("/sign-out", routes.sign_out, methods=["POST"])
    return router


def _with_own_name(site: Site, provider: Provider, found: SignedInThere) -> SignedInThere:
    """Give an account a name that no other account has had here: providers may give a name to somebody else later."""
    if site.callers.database is None:
        return found
    account = f"{provider.oidc.document.issuer} {found.subject}"
    return replace(found, name=site.callers.database.name_of_account(account, found.name))


def _note(site: Site, address: str, found: SignedInThere | None, person: Person | None) -> None:
    """Write down that somebody has signed in at the provider, or tried to."""
    if site.callers.database is None:
        return
    who = person.name if person is not None else None if found is None else found.name
    status = 200 if person is not None else 401 if found is None else 403
    detail = "" if found is None else json.dumps({"subject": found.subject[:200]})
    try:
        site.callers.database.note(who=who, address=address, action="oidc/callback", session=None, detail=detail, status=status)
    except SessionError as error:
        log_event(_LOG, logging.ERROR, "audit", trouble=str(error))


def _failed(why: str) -> Response:
    """Send a browser to the form for signing in, which has a sentence for each reason; what others say is not repeated."""
    response = RedirectResponse(f"/#sign-in={why}", status_code=303)
    response.delete_cookie(PENDING, path=PATH)
    return response
