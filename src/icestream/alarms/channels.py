"""Where alarms are sent. Secrets are named, never written: they are in a file or an environment variable."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from icestream.alarms.rules import Name, Severity
from icestream.errors import SessionError

_MAILBOX = r"[A-Za-z0-9!#$%&'*+/^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/^_`{|}~-]+)*"
_DOMAIN = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
Domain = Annotated[str, Field(pattern=rf"^{_DOMAIN}$", max_length=253)]
MailAddress = Annotated[str, Field(pattern=rf"^{_MAILBOX}@{_DOMAIN}$", max_length=254)]
"""An address in plain ASCII, without what has a meaning in the headers of a mail: quotes, brackets, encoded words."""

WebhookFormat = Literal["json", "slack", "teams", "mattermost"]
_LONGEST_SECRET = 10_000


class Secret(BaseModel):
    """A password, a token or an address that nobody else should know: the name of what it is in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path | None = Field(None, description="File that holds it, without a line break around it")
    env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds it")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("needs file or env, and not both")
        return self

    def read(self) -> str:
        """Return the secret.

        Raises
        ------
        SessionError
            It is not there; the message says where it should be, never what it is.
        """
        if self.env is not None:
            found = os.environ.get(self.env)
            if not found:
                raise SessionError(f"the environment variable {self.env} is not set, and should hold a secret of a channel")
            return found
        try:
            text = Path(str(self.file)).read_text(encoding="utf-8")[:_LONGEST_SECRET].strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise SessionError(f"{self.file}: cannot be read as the secret of a channel: {reason}") from None
        if not text:
            raise SessionError(f"{self.file}: is empty, and should hold the secret of a channel")
        return text


class Channel(BaseModel):
    """What all channels have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="Its name, by which rules choose it")
    least: Severity = Field("warning", description="Only alarms of this severity or above")
    timeout_s: float = Field(20.0, gt=0, le=300, description="How long one delivery may take")


class EmailChannel(Channel):
    """A mail server."""

    kind: Literal["email"] = "email"
    host: str = Field(min_length=1, description="The mail server")
    port: int | None = Field(None, ge=1, le=65535, description="Unset: 587 with starttls, 465 with tls, 25 without")
    security: Literal["starttls", "tls", "none"] = Field("starttls", description="How the connection is encrypted")
    ca_file: Path | None = Field(None, description="Certificates to trust, a PEM file; unset: those of the machine")
    user: str | None = Field(None, description="Who signs in; unset: nobody need")
    password: Secret | None = Field(None, description="Where the password is")
    sender: MailAddress = Field(description="Address that the mail comes from")
    to: tuple[MailAddress, ...] = Field((), description="Addresses that it goes to, beside those that a session names in mail_to")

    @model_validator(mode="after")
    def _signs_in_safely(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password belong together")
        if self.user is not None and self.security == "none":
            raise ValueError("a password is not sent without encryption: security must be starttls or tls")
        return self

    @property
    def port_number(self) -> int:
        """The port."""
        return self.port or {"starttls": 587, "tls": 465, "none": 25}[self.security]


class WebhookChannel(Channel):
    """An address that takes a message by HTTP POST."""

    kind: Literal["webhook"] = "webhook"
    format: WebhookFormat = Field("json", description="Whose message it is; json: all fields of the alarm")
    url: Secret = Field(description="Where the address is: whoever knows it may post")
    token: Secret | None = Field(None, description="Where a token is, sent as `Authorization: Bearer`")


class CommandChannel(Channel):
    """A program of this machine: the message comes as JSON on its standard input and in ICESTREAM_ALARM_… variables."""

    kind: Literal["command"] = "command"
    command: tuple[str, ...] = Field(min_length=1, description="The program and its arguments, a list; no shell reads it")


class AlertmanagerChannel(Channel):
    """Prometheus's Alertmanager, which groups, silences and sends by itself: it is told all alarms, over and over."""

    kind: Literal["alertmanager"] = "alertmanager"
    url: str = Field(pattern=r"^https?://[^\s]+$", description="Its address, such as http://localhost:9093")
    token: Secret | None = Field(None, description="Where a token is, sent as `Authorization: Bearer`")
    refresh_minutes: float = Field(1.0, gt=0, le=60, description="How often it is told again what is still wrong")


AnyChannel = Annotated[EmailChannel | WebhookChannel | CommandChannel | AlertmanagerChannel, Field(discriminator="kind")]

CHANNEL_KINDS: tuple[type[Channel], ...] = (EmailChannel, WebhookChannel, CommandChannel, AlertmanagerChannel)
