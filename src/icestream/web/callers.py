"""Who sends a request: by a cookie, a token, or what a trusted proxy says; or anybody where nothing is granted.

A browser gets its cookie when somebody signs in, or opens a link that was shared.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from functools import partial
from glob import escape as glob_escape
from http.cookies import CookieError, SimpleCookie
from ipaddress import IPv4Network, IPv6Network, ip_address

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from starlette.datastructures import Headers

from icestream.facility.database import FacilityDatabase, Share
from icestream.web.access import AccessFile, Person
from icestream.web.oidc import Oidc
from icestream.web.sign_in import LIFE_S, Account, Brake, BrowserSessions, SignedIn

COOKIE = "icestream"
COOKIE_LIFE_S = int(LIFE_S)
LOOKING_AT_ONCE = 4
"""So many callers are looked up at a time; as many guests."""
_PEOPLE: RunVar[CapacityLimiter] = RunVar("_PEOPLE")
_GUESTS: RunVar[CapacityLimiter] = RunVar("_GUESTS")


@dataclass(frozen=True)
class Caller:
    """Who sends a request; ``csrf`` is what a page must send along to change something, unset for scripts with a token."""

    person: Person
    csrf: str | None
    share: int | None = None
    """The link through which a guest came in."""
    account: Account | None = None
    """What the provider of accounts has said, for who has signed in there."""

    @property
    def key(self) -> str:
        """What those have in common who count as one: a name, or a link."""
        return f"link {self.share}" if self.share is not None else f"name {self.person.name}"


@dataclass(frozen=True)
class TrustedProxies:
    """The proxies that may say for whom they ask, by their addresses, and the header in which they name who has signed in."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    user_header: str | None = None

    def __contains__(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self.networks)

    def client_of(self, headers: Headers, peer: str) -> str:
        """Return the address of who asked first: the last one that no proxy of ours has."""
        if peer not in self:
            return peer
        said = [one.strip() for value in headers.getlist("x-forwarded-for") for one in value.split(",")]
        return next((one for one in reversed(said) if one and one not in self), peer)

    def user_of(self, headers: Headers, peer: str) -> str | None:
        """Return who has signed in at the proxy; what anybody else says in that header means nothing."""
        if self.user_header is None or peer not in self:
            return None
        given = headers.getlist(self.user_header)
        return given[0].strip() or None if len(given) == 1 else None


@dataclass
class Callers:
    """Knows callers. Where the server listens to this machine alone and nothing is granted, everybody is ``owner``."""

    access: AccessFile
    owner: str
    local: bool
    browsers: BrowserSessions = field(default_factory=BrowserSessions)
    brake: Brake = field(default_factory=Brake)
    share_brake: Brake = field(default_factory=Brake)
    """On links that are none; apart from that on passwords, so that an old link keeps nobody from signing in."""
    database: FacilityDatabase | None = None
    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    oidc: Oidc | None = None
    """The provider of accounts at which people may sign in."""
    _csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def everybody(self) -> bool:
        """Tell whether nobody need sign in; never on a network, even if the last grant is withdrawn while the server runs."""
        return self.local and self.oidc is None and not self.access.grants()

    def identify(self, headers: Headers, peer: str = "", *, renew: bool = True) -> Caller | None:
        """Return who sends a request with these headers from the address ``peer``; None for a stranger.

        ``renew`` lets the idle time of a browser begin again: a person has done something.
        """
        if self.everybody:
            return Caller(Person(self.owner, "administrate"), self._csrf)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            found = self.access.by_token(token.strip())
            return None if found is None else Caller(found, None)
        user = self.proxies.user_of(headers, peer)
        if user is not None:
            person = self.access.person(user)
            return None if person is None else Caller(person, self._csrf_of(user))
        signed_in = self.browsers.find(cookie_in(headers), renew=renew)
        person = None if signed_in is None else self._behind(signed_in)
        return None if signed_in is None or person is None else Caller(person, signed_in.csrf, signed_in.share, signed_in.account)

    async def find(self, headers: Headers, peer: str = "", *, renew: bool = True) -> Caller | None:
        """Return what `identify` does, without making others wait for the disk.

        Guests have threads of their own: a database that is locked, in which their links are, holds up nobody else.
        """
        cookie = self.browsers.find(cookie_in(headers), renew=False)
        limiter = _looking(guests=cookie is not None and cookie.share is not None)
        return await to_thread.run_sync(partial(self.identify, headers, peer, renew=renew), limiter=limiter)

    def sign_in(self, name: str, password: str) -> tuple[str, SignedIn] | None:
        """Return a new cookie for somebody with the right password."""
        person = self.access.by_password(name, password)
        return None if person is None else self.browsers.begin(person.name)

    def open_share(self, secret: str) -> tuple[str, Share] | None:
        """Return a new cookie for whoever has a link that has not expired, and the link."""
        share = None if self.database is None else self.database.share_behind(secret)
        return None if share is None else (self.browsers.begin(_guest(share), share=share.id)[0], share)

    def _behind(self, signed_in: SignedIn) -> Person | None:
        """Return who a browser belongs to now: what was withdrawn, or has expired, ends at once."""
        if signed_in.account is not None:
            return None if self.oidc is None else self.oidc.document.person(signed_in.name, signed_in.account.groups)
        if signed_in.share is None:
            return self.access.person(signed_in.name)
        share = None if self.database is None else self.database.valid_share(signed_in.share)
        return None if share is None else Person(_guest(share), None, ((glob_escape(share.session), "look"),))

    def _csrf_of(self, user: str) -> str:
        return hmac.new(self._csrf.encode(), user.encode(), "sha256").hexdigest()


def _looking(*, guests: bool) -> CapacityLimiter:
    """Return a limiter of this event loop."""
    variable = _GUESTS if guests else _PEOPLE
    try:
        return variable.get()
    except LookupError:
        variable.set(CapacityLimiter(LOOKING_AT_ONCE))
        return variable.get()


def _guest(share: Share) -> str:
    return f"a guest of {share.author}"


def cookie_in(headers: Headers) -> str | None:
    """Return our cookie; None where there is none that can be read."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value
