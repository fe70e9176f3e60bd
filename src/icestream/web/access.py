"""Who may look and who may act: a file of names with hashes of their passwords and tokens, which no other account may read."""

import hmac
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from icestream.errors import SessionError
from icestream.files import publish

Role = Literal["look", "operate"]

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1000
LONGEST_NAME = 80
_TOKEN_PREFIX = "ice_"  # noqa: S105 - so that scanners for leaked secrets know one
_HASHER = PasswordHasher()
_NOBODY = _HASHER.hash(secrets.token_urlsafe())
"""What the password of an unknown name is compared with, so that both take as long."""


class Grant(BaseModel):
    """What one name may do, and how it proves itself: by a password, or by a token (a random text that a script sends)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=LONGEST_NAME)
    role: Role
    password: str | None = None
    token: str | None = None


class AccessDocument(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True)
class Person:
    """Who asks; ``name`` is recorded with everything that is asked for."""

    name: str
    role: Role


@dataclass
class AccessFile:
    """The file, read again whenever it has changed: what is withdrawn ends at once."""

    path: Path
    _seen: tuple[int, int] | None = None
    _grants: tuple[Grant, ...] = field(default=())

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
            self._seen, self._grants = None, ()
            return ()
        if status.st_mode & 0o077:
            raise SessionError(f"{self.path}: other accounts may read it; it has hashes of passwords: `chmod 600 {self.path}`")
        seen = (status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            try:
                document = AccessDocument.model_validate_json(self.path.read_bytes())
            except ValidationError as error:
                raise SessionError(f"{self.path}: is no list of grants: {error.errors()[0]['msg']}") from None
            self._seen, self._grants = seen, document.grants
        return self._grants

    def add_password(self, name: str, password: str, role: str) -> None:
        """Let ``name`` sign in with a password; replaces what was granted to this name.

        Raises
        ------
        SessionError
            The name is empty or too long, the password too short, or there is no such role.
        """
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise SessionError(f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters, this one {len(password)}")
        self._put(_checked(name), Grant(name=_checked(name), role=_checked_role(role), password=_HASHER.hash(password)))

    def add_token(self, name: str, role: str) -> str:
        """Return a new token for a script, which is called ``name``; it is kept as a hash and cannot be shown again."""
        token = _TOKEN_PREFIX + secrets.token_urlsafe(32)
        self._put(_checked(name), Grant(name=_checked(name), role=_checked_role(role), token=_digest(token)))
        return token

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
        return next((Person(one.name, one.role) for one in self.grants() if one.name == name), None)

    def by_password(self, name: str, password: str) -> Person | None:
        """Return who a name and a password are of; a wrong name takes as long as a wrong password."""
        grant = next((one for one in self.grants() if one.name == name and one.password is not None), None)
        stored = _NOBODY if grant is None or grant.password is None else grant.password
        try:
            _HASHER.verify(stored, password[: LONGEST_PASSWORD + 1])
        except (VerificationError, InvalidHashError):
            return None
        return None if grant is None else Person(grant.name, grant.role)

    def by_token(self, token: str) -> Person | None:
        """Return whose a token is: of 256 random bits, it needs no slow hash."""
        digest = _digest(token)
        found = [one for one in self.grants() if one.token is not None and hmac.compare_digest(one.token, digest)]
        return Person(found[0].name, found[0].role) if found else None

    def _put(self, name: str, grant: Grant | None) -> None:
        kept = [one for one in self.grants() if one.name != name]
        document = AccessDocument(grants=(*kept, *([] if grant is None else [grant])))
        with publish(self.path) as temporary:
            temporary.touch(mode=0o600)  # before anything is in it
            temporary.write_text(document.model_dump_json(indent=2, exclude_none=True) + "\n", encoding="utf-8")
        self._seen = None


def _checked(name: str) -> str:
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        raise SessionError(f"{name!r}: a name has 1 to {LONGEST_NAME} characters that can be printed")
    return name


def _checked_role(role: str) -> Role:
    if role not in ("look", "operate"):
        raise SessionError(f"role {role!r}: must be look or operate")
    return "look" if role == "look" else "operate"


def _digest(token: str) -> str:
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
