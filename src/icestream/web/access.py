"""Who may look and who may act: a file of names with hashes of their passwords and tokens, which no other account may read."""

import fnmatch
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icestream.errors import SessionError
from icestream.files import publish

Role = Literal["look", "operate", "administrate"]
ROLES: tuple[Role, ...] = ("look", "operate", "administrate")
"""From the one that may do least to the one that may do most."""

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1000
LONGEST_NAME = 80
LONGEST_PATTERN = 200
_TOKEN_PREFIX = "ice_"  # noqa: S105 - so that scanners for leaked secrets know one
_HASHER = PasswordHasher()
_NOBODY = _HASHER.hash(secrets.token_urlsafe())
"""What the password of an unknown name is compared with, so that both take as long."""


class SessionRule(BaseModel):
    """What may be done in a group of sessions: those whose names fit a pattern, as ``ribosome_*``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sessions: str = Field(min_length=1, max_length=LONGEST_PATTERN)
    role: Role


class Grant(BaseModel):
    """What one name may do, and how it proves itself: by a password, a token (a random text that a script sends), or a proxy.

    ``role`` holds for all sessions, ``rules`` for some; the one that may do more counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    role: Role | None = None
    rules: tuple[SessionRule, ...] = ()
    password: str | None = None
    token: str | None = None

    @property
    def how(self) -> str:
        """By what it proves itself."""
        return "token" if self.token else "password" if self.password else "proxy"


class AccessDocument(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True)
class Person:
    """Who asks; ``name`` is recorded with everything that is asked for, ``role`` is that in all sessions."""

    name: str
    role: Role | None
    rules: tuple[tuple[str, Role], ...] = ()

    def role_in(self, session: str) -> Role | None:
        """Return what the person may do in a session; None: not even look."""
        mine = [role for pattern, role in self.rules if fnmatch.fnmatchcase(session, pattern)]
        return highest_role([*mine, *([] if self.role is None else [self.role])])

    @property
    def best(self) -> Role | None:
        """What the person may do in some session."""
        return highest_role([*(role for _, role in self.rules), *([] if self.role is None else [self.role])])

    def may(self, wanted: Role, session: str | None = None) -> bool:
        """Tell whether the person may do something in a session, or in all of them."""
        role = self.role if session is None else self.role_in(session)
        return role is not None and ROLES.index(role) >= ROLES.index(wanted)

    def may_somewhere(self, wanted: Role) -> bool:
        """Tell whether the person may do something in some session."""
        return self.best is not None and ROLES.index(self.best) >= ROLES.index(wanted)


def highest_role(roles: Sequence[Role]) -> Role | None:
    """Return the role that may do most."""
    return max(roles, key=ROLES.index, default=None)


def _person(grant: Grant) -> Person:
    return Person(grant.name, grant.role, tuple((one.sessions, one.role) for one in grant.rules))


@dataclass
class AccessFile:
    """The file, read again whenever it has changed: what is withdrawn ends at once."""

    path: Path
    _read: tuple[tuple[int, int], tuple[Grant, ...]] | None = None
    """Time and size of what was read, and the grants in it: one value, since several threads look."""

    def grants(self) -> tuple[Grant, ...]:
        """Return what is granted now; nothing where there is no file.

        Raises
        ------
        SessionError
            The file cannot be read, or other accounts may read or change it.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return ()
        if status.st_mode & 0o077:
            raise SessionError(f"{self.path}: other accounts may read it; it has hashes of passwords: `chmod 600 {self.path}`")
        seen = (status.st_mtime_ns, status.st_size)
        read = self._read
        if read is None or seen != read[0]:
            try:
                document = AccessDocument.model_validate_json(self.path.read_bytes())
            except ValidationError as error:
                raise SessionError(f"{self.path}: is no list of grants: {error.errors()[0]['msg']}") from None
            read = self._read = (seen, document.grants)
        return read[1]

    def add_password(self, name: str, password: str, role: str, *, sessions: Sequence[str] = ()) -> None:
        """Let ``name`` sign in with a password; replaces what was granted to this name.

        ``sessions`` are patterns of the sessions that the role is for; all if there are none.

        Raises
        ------
        SessionError
            The name is empty or too long, the password too short, or there is no such role.
        """
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise SessionError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, this one {len(password)}")
        grant = _grant(name, role, sessions)
        self._put(name, grant.model_copy(update={"password": _HASHER.hash(password)}))

    def add_token(self, name: str, role: str, *, sessions: Sequence[str] = ()) -> str:
        """Return a new token for a script, which is called ``name``; it is kept as a hash and cannot be shown again."""
        token = _TOKEN_PREFIX + secrets.token_urlsafe(32)
        self._put(name, _grant(name, role, sessions).model_copy(update={"token": _digest(token)}))
        return token

    def add_for_proxy(self, name: str, role: str, *, sessions: Sequence[str] = ()) -> None:
        """Let in whom a trusted proxy calls ``name``; there is no password."""
        self._put(name, _grant(name, role, sessions))

    def allow(self, name: str, role: str, sessions: Sequence[str]) -> None:
        """Let somebody who has access do something in further sessions too, or something else in those with the same pattern.

        Raises
        ------
        SessionError
            The name has no access, or there is no such role.
        """
        known = next((one for one in self.grants() if one.name == name), None)
        if known is None:
            raise SessionError(f"{name!r}: has no access yet")
        added = _grant(name, role, sessions)
        kept = tuple(one for one in known.rules if one.sessions not in sessions)
        self._put(name, known.model_copy(update={"rules": (*kept, *added.rules)}))

    def remove(self, name: str) -> None:
        """Withdraw what was granted to a name.

        Raises
        ------
        SessionError
            Nothing was.
        """
        if name not in {grant.name for grant in self.grants()}:
            raise SessionError(f"{name!r}: has no access, so there is none to remove")
        self._put(name, None)

    def person(self, name: str) -> Person | None:
        """Return who has a name now."""
        return next((_person(one) for one in self.grants() if one.name == name), None)

    def by_password(self, name: str, password: str) -> Person | None:
        """Return who a name and a password are of; a wrong name takes as long as a wrong password."""
        grant = next((one for one in self.grants() if one.name == name and one.password is not None), None)
        stored = _NOBODY if grant is None or grant.password is None else grant.password
        try:
            _HASHER.verify(stored, password[: LONGEST_PASSWORD + 1])
        except (VerificationError, InvalidHashError):
            return None
        return None if grant is None else _person(grant)

    def by_token(self, token: str) -> Person | None:
        """Return whose a token is: of 256 random bits, it needs no slow hash."""
        digest = _digest(token)
        found = [one for one in self.grants() if one.token is not None and hmac.compare_digest(one.token, digest)]
        return _person(found[0]) if found else None

    def _put(self, name: str, grant: Grant | None) -> None:
        kept = [one for one in self.grants() if one.name != name]
        document = AccessDocument(grants=(*kept, *([] if grant is None else [grant])))
        with publish(self.path) as temporary:
            temporary.touch(mode=0o600)  # before anything is in it
            temporary.write_text(document.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
        self._read = None


def _checked(name: str) -> str:
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise SessionError(f"{name!r}: a name has 1 to {LONGEST_NAME} characters that can be printed")
    return name


def _grant(name: str, role: str, sessions: Sequence[str]) -> Grant:
    if role not in ROLES:
        raise SessionError(f"role {role!r}: must be {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    for pattern in sessions:
        if not 1 <= len(pattern) <= LONGEST_PATTERN or not pattern.isprintable():
            raise SessionError(f"{pattern!r}: a pattern of sessions has 1 to {LONGEST_PATTERN} characters that can be printed")
    given = next(one for one in ROLES if one == role)
    rules = tuple(SessionRule(sessions=pattern, role=given) for pattern in sessions)
    return Grant(name=_checked(name), role=None if sessions else given, rules=rules)


def _digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
