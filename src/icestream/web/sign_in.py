"""Signing in: sessions of browsers, which are known by a random cookie, and a brake on guessing passwords."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

IDLE_S = 12 * 3600.0
LIFE_S = 7 * 24 * 3600.0
MOST_SESSIONS = 10_000
MOST_OF_ONE = 200
"""So many browsers may be signed in under one name, or through one link."""
FREE_TRIES = 5
LONGEST_WAIT_S = 900.0
LONGEST_WAIT_FOR_A_NAME_S = 30.0
"""A name waits less than an address: nobody shall keep another person out for long."""
MOST_REMEMBERED = 10_000
FORGOTTEN_AFTER_S = 3600.0


@dataclass(frozen=True)
class Account:
    """What a provider of accounts has said of who has signed in there; the token tells it later who signs out."""

    groups: frozenset[str]
    id_token: str = field(repr=False)
    life_s: float


@dataclass
class SignedIn:
    """A browser in which somebody has signed in."""

    name: str
    csrf: str
    since: float
    used: float
    share: int | None = None
    """The link through which it came in, where it was one."""
    account: "Account | None" = None
    """What the provider of accounts has said, where the person has signed in there."""


@dataclass
class BrowserSessions:
    """Cookie → who has signed in; kept in memory, so that a restart of the server signs everybody out."""

    clock: Callable[[], float] = time.monotonic
    _known: "OrderedDict[str, SignedIn]" = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, name: str, *, share: int | None = None, account: Account | None = None) -> tuple[str, SignedIn]:
        """Return a new cookie, and what it stands for.

        Where there are too many the oldest one ends: of the same name or link, if that has `MOST_OF_ONE`; otherwise that of a
        guest, if there is any.
        """
        now = self.clock()
        cookie, signed_in = secrets.token_urlsafe(32), SignedIn(name, secrets.token_urlsafe(32), now, now, share, account)
        with self._lock:
            whose = (name, share, account is None)
            alike = [one for one, other in self._known.items() if (other.name, other.share, other.account is None) == whose]
            if len(alike) >= MOST_OF_ONE:
                del self._known[alike[0]]
            self._known[cookie] = signed_in
            if len(self._known) > MOST_SESSIONS:
                guests = (one for one, other in self._known.items() if other.share is not None)
                del self._known[next(guests, next(iter(self._known)))]
        return cookie, signed_in

    def find(self, cookie: str | None, *, renew: bool = True) -> SignedIn | None:
        """Return what a cookie stands for; one that nobody was given, or that is too old, stands for nothing.

        ``renew`` lets its idle time begin again: a person has done something.
        """
        found = None if cookie is None else self._known.get(cookie)
        if cookie is None or found is None:
            return None
        now = self.clock()
        life_s = LIFE_S if found.account is None else min(LIFE_S, found.account.life_s)
        if now - found.used > IDLE_S or now - found.since > life_s:
            self.end(cookie)
            return None
        if renew:
            found.used = now
        return found

    def end(self, cookie: str | None) -> None:
        """Sign out."""
        if cookie is not None:
            with self._lock:
                self._known.pop(cookie, None)


@dataclass
class Brake:
    """After `FREE_TRIES` wrong passwords, each further one makes an address, and a name, wait twice as long."""

    clock: Callable[[], float] = time.monotonic
    _wrong: "OrderedDict[tuple[str, str], tuple[int, float]]" = field(default_factory=OrderedDict)

    def wait_s(self, address: str, name: str) -> float:
        """Return for how long no try is accepted."""
        longest = {("address", address): LONGEST_WAIT_S, ("name", name): LONGEST_WAIT_FOR_A_NAME_S}
        return max(self._wait_s(key, limit) for key, limit in longest.items())

    def failed(self, address: str, name: str) -> None:
        """Note a wrong password."""
        for key in (("address", address), ("name", name)):
            count, at = self._wrong.pop(key, (0, 0.0))
            forgotten = self.clock() - at > FORGOTTEN_AFTER_S
            self._wrong[key] = (1 if forgotten else count + 1, self.clock())
        while len(self._wrong) > MOST_REMEMBERED:
            self._wrong.popitem(last=False)

    def passed(self, address: str, name: str) -> None:
        """Forget wrong passwords after a right one."""
        for key in (("address", address), ("name", name)):
            self._wrong.pop(key, None)

    def _wait_s(self, key: tuple[str, str], limit_s: float) -> float:
        count, at = self._wrong.get(key, (0, 0.0))
        if count < FREE_TRIES:
            return 0.0
        return max(0.0, at + min(limit_s, 2.0 ** min(count - FREE_TRIES, 20)) - self.clock())
