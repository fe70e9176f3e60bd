"""Who sends a request: by the cookie of a browser that has signed in, by a token, or anybody where nothing is granted."""

import secrets
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

from icestream.web.access import AccessFile, Person
from icestream.web.sign_in import LIFE_S, Brake, BrowserSessions, SignedIn

COOKIE = "icestream"
COOKIE_LIFE_S = int(LIFE_S)


@dataclass(frozen=True)
class Caller:
    """Who sends a request; ``csrf`` is what a page must send along to change something, unset for scripts with a token."""

    person: Person
    csrf: str | None


@dataclass
class Callers:
    """Knows callers. Where the server listens to this machine alone and nothing is granted, everybody is ``owner``."""

    access: AccessFile
    owner: str
    local: bool
    browsers: BrowserSessions = field(default_factory=BrowserSessions)
    brake: Brake = field(default_factory=Brake)
    _csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def everybody(self) -> bool:
        """Tell whether nobody need sign in; never on a network, even if the last grant is withdrawn while the server runs."""
        return self.local and not self.access.grants()

    def identify(self, headers: Headers) -> Caller | None:
        """Return who sends a request with these headers; None for a stranger."""
        if self.everybody:
            return Caller(Person(self.owner, "operate"), self._csrf)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            found = self.access.by_token(token.strip())
            return None if found is None else Caller(found, None)
        signed_in = self.browsers.find(cookie_in(headers))
        person = None if signed_in is None else self.access.person(signed_in.name)
        return None if signed_in is None or person is None else Caller(person, signed_in.csrf)

    def sign_in(self, name: str, password: str) -> tuple[str, SignedIn] | None:
        """Return a new cookie for somebody with the right password."""
        person = self.access.by_password(name, password)
        return None if person is None else self.browsers.begin(person.name)


def cookie_in(headers: Headers) -> str | None:
    """Return our cookie; None where there is none that can be read."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if found is None else found.value
