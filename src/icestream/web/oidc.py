"""Signing in at the facility's own provider of accounts (OpenID Connect): what the facility's file says of it.

The provider says which groups a person is in; this file says what a group may do, and in which sessions.
"""

from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator

from icestream.documents import read_document
from icestream.errors import SessionError
from icestream.web.access import LONGEST_PATTERN, Person, Role, highest_role

LONGEST_NAME = 80
MOST_GROUPS = 1000
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class GroupRole(BaseModel):
    """What a group may do: in all sessions, or in those whose names fit one of the patterns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Role
    sessions: tuple[Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN)], ...] = ()


def _as_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


class OidcDocument(BaseModel):
    """The file that ``ICESTREAM_OIDC`` names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(max_length=500, description="Address of the provider, exactly as it calls itself")
    client_id: str = Field(min_length=1, max_length=200, description="What the provider calls this server")
    client_secret_file: Path | None = Field(
        None, description="File with the secret that the provider gave for this server, which no other account may read"
    )
    address: str = Field(max_length=500, description="Where people reach this server, such as https://icestream.lab.org")
    label: str = Field("", max_length=60, description="What people call the provider; unset: the name of its machine")
    scopes: tuple[str, ...] = Field(("profile",), description="What is asked for beside `openid`")
    name_claim: str = Field("preferred_username", description="The claim that is a person's name")
    groups_claim: str = Field("groups", description="The claim that lists a person's groups, or roles")
    groups: dict[str, Annotated[tuple[GroupRole, ...], BeforeValidator(_as_list)]] = Field(
        min_length=1, max_length=MOST_GROUPS, description="Group → role, and the sessions it is for; or a list of these"
    )
    hours: float = Field(12.0, gt=0, le=168, description="So long a sign-in lasts; then the provider is asked again")

    @field_validator("issuer", "address")
    @classmethod
    def _secure(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ValueError("must begin with https://")
        if not parts.hostname or parts.query or parts.fragment or parts.username is not None:
            raise ValueError("must be an address without a name, '?' or '#' in it")
        return value

    @field_validator("address")
    @classmethod
    def _no_path(cls, value: str) -> str:
        if urlsplit(value).path not in ("", "/"):
            raise ValueError("must have no path: the server is at the top of its address")
        return value.rstrip("/")

    @property
    def provider(self) -> str:
        """What people call the provider."""
        return self.label or urlsplit(self.issuer).hostname or self.issuer

    def person(self, name: str, groups: frozenset[str]) -> Person | None:
        """Return what somebody in these groups may do; None: nothing, so the person is not let in."""
        mine = [one for group in sorted(groups & set(self.groups)) for one in self.groups[group]]
        rules = tuple((pattern, one.role) for one in mine for pattern in one.sessions)
        everywhere = highest_role([one.role for one in mine if not one.sessions])
        return Person(f"{name} ({self.provider})", everywhere, rules) if mine else None


class Oidc(BaseModel):
    """The provider that people sign in at, and the secret that this server has for it; a secret is never shown."""

    model_config = ConfigDict(frozen=True)

    document: OidcDocument
    secret: SecretStr | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the facility's file.

        Raises
        ------
        SessionError
            It, or the file with the secret, cannot be read, something in it is not allowed, or others may read the secret.
        """
        try:
            document = OidcDocument.model_validate(read_document(path))
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise SessionError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
        except ValueError as error:
            raise SessionError(f"{path}: {error}") from None
        file = document.client_secret_file
        return cls(document=document, secret=None if file is None else _read_secret(path.parent / file))


def _read_secret(path: Path) -> SecretStr:
    try:
        if path.stat().st_mode & 0o077:
            raise SessionError(f"{path}: other accounts may read this secret: `chmod 600 {path}`")
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(f"{path}: cannot be read: {type(error).__name__}") from None
    if not text:
        raise SessionError(f"{path}: is empty; it must hold the secret of this server")
    return SecretStr(text)
