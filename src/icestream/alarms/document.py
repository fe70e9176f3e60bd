"""The two documents of alarms: `alarms.yaml` of a session, and the facility's, which has the channels as well."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from zoneinfo import ZoneInfo, available_timezones

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from icestream.alarms.channels import AnyChannel, Domain, MailAddress
from icestream.alarms.defaults import DEFAULT_RULES
from icestream.alarms.rules import AnyRule, Minutes
from icestream.documents import LARGEST_BYTES, parse_document, read_document
from icestream.errors import SessionError
from icestream.files import SESSION_ALARMS, publish_text

Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
DAYS: tuple[Day, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _clock(value: Any) -> Any:
    """Read 22:00; the time 24:00 is the end of the day."""
    if isinstance(value, str) and value != "24:00":
        try:
            time.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value[:20]!r} is no time of day, such as 22:00") from None
        return value[:5]
    return value


TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$"), BeforeValidator(_clock)]


class QuietHours(BaseModel):
    """Hours in which only critical alarms are delivered; the others wait until the hours are over."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    start: TimeOfDay = Field(alias="from", description="When they begin, such as '22:00'")
    end: TimeOfDay = Field(alias="to", description="When they end; before `from`: on the next day")
    days: tuple[Day, ...] = Field(DAYS, min_length=1, description="Days on which they begin")


class AlarmsDocument(BaseModel):
    """What `alarms.yaml` in a session's folder holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    defaults: bool = Field(True, description="Whether the default rules hold as well")
    without: tuple[str, ...] = Field((), description="Names of rules that do not hold")
    rules: tuple[AnyRule, ...] = Field((), description="Rules; one of the same name replaces that of the facility or a default")
    mail_to: tuple[MailAddress, ...] = Field(
        (),
        description="Addresses that get the alarms as well, through the facility's mail server; "
        "in a session only those of domains in the facility's mail_domains",
    )
    repeat_minutes: Minutes | None = Field(
        None, description="Remind people of an alarm that nobody acknowledges; unset: after 4 hours"
    )
    quiet: tuple[QuietHours, ...] | None = Field(None, description="Hours in which only critical alarms are delivered")
    time_zone: str | None = Field(None, description="Of the quiet hours, such as Europe/Madrid; unset: that of the machine")

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None and value not in available_timezones():
            raise ValueError(f"{value[:60]!r} is no time zone, such as Europe/Madrid")
        return value

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        _refuse_twice("rule", [one.name for one in self.rules])
        return self


class FacilityAlarms(AlarmsDocument):
    """What the file that ICESTREAM_ALARMS names holds: rules for all sessions, and the channels."""

    channels: tuple[AnyChannel, ...] = Field((), description="Where alarms are sent")
    mail_domains: tuple[Domain, ...] = Field(
        (), description="Domains of mail to which sessions may add addresses (mail_to), such as lab.org; unset: none"
    )
    address: str | None = Field(
        None, pattern=r"^https?://[^\s]+$", description="Address of `icestream serve`, for the links in messages"
    )

    @model_validator(mode="after")
    def _channels_differ(self) -> Self:
        _refuse_twice("channel", [one.name for one in self.channels])
        return self


@dataclass(frozen=True)
class Policy:
    """What holds for one session: its own document over the facility's over the defaults."""

    rules: tuple[AnyRule, ...]
    channels: tuple[AnyChannel, ...] = ()
    mail_to: tuple[str, ...] = ()
    repeat_minutes: float | None = 240.0
    quiet: tuple[QuietHours, ...] = ()
    zone: ZoneInfo | None = None
    address: str | None = None
    not_mailed: tuple[str, ...] = ()
    """Addresses of the session that get nothing, as the facility does not allow their domain."""

    @property
    def note(self) -> str | None:
        """What is to be said of addresses that get nothing."""
        if not self.not_mailed:
            return None
        return f"mail_to: no mail goes to {', '.join(self.not_mailed)}: the facility does not list the domain in its mail_domains"


DEFAULT_REPEAT_MINUTES = 240.0
_Document = TypeVar("_Document", bound=AlarmsDocument)


def read_session_alarms(folder: Path) -> AlarmsDocument:
    """Return a session's own document; an empty one where there is none.

    Raises
    ------
    SessionError
        It cannot be read, or a rule is not allowed; the message names the rule, the value and what is allowed.
    """
    path = folder / SESSION_ALARMS
    return _read(path, AlarmsDocument) if path.is_file() else AlarmsDocument()


def read_facility_alarms(path: Path | None) -> FacilityAlarms:
    """Return the facility's document; an empty one where none is named.

    Raises
    ------
    SessionError
        It cannot be read, or something in it is not allowed.
    """
    return FacilityAlarms() if path is None else _read(path, FacilityAlarms)


def read_session_text(folder: Path) -> str:
    """Return a session's own document as it is written; nothing where there is none.

    Raises
    ------
    SessionError
        It cannot be read.
    """
    path = folder / SESSION_ALARMS
    try:
        return path.read_text(encoding="utf-8")[:LARGEST_BYTES] if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(f"{path}: cannot be read: {type(error).__name__}") from None


def write_session_text(folder: Path, text: str, *, facility: Path | None) -> None:
    """Check what a person has typed, and write it.

    Raises
    ------
    SessionError
        It is not allowed, and why.
    """
    policy = make_policy(read_facility_alarms(facility), parse_session_alarms(text))
    if policy.note is not None:
        raise SessionError(f"{SESSION_ALARMS}: {policy.note}")
    publish_text(folder / SESSION_ALARMS, text)


def parse_session_alarms(text: str) -> AlarmsDocument:
    """Return the document that a person has typed.

    Raises
    ------
    SessionError
        It is not allowed, and why.
    """
    try:
        loaded = parse_document(text)
    except ValueError as error:
        raise SessionError(f"{SESSION_ALARMS}: {error}") from None
    return _validate(SESSION_ALARMS, loaded, AlarmsDocument)


def write_session_alarms(folder: Path, document: AlarmsDocument) -> None:
    """Write a session's document."""
    publish_text(folder / SESSION_ALARMS, dump_alarms(document))


def settings_of(rule: AnyRule) -> dict[str, str | float | int | bool | list[str] | None]:
    """Return what a rule says beside its name, kind and severity."""
    told = rule.model_dump(mode="json", exclude_none=True)
    return {name: value for name, value in told.items() if name not in ("name", "kind", "severity")}


def dump_alarms(document: AlarmsDocument) -> str:
    """Write a document as YAML, leaving out what is unset."""
    data = document.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def make_policy(facility: FacilityAlarms, session: AlarmsDocument) -> Policy:
    """Return what holds for a session.

    Raises
    ------
    SessionError
        A rule names a channel that the facility does not have, or a rule that is switched off is unknown.
    """
    rules: dict[str, AnyRule] = {}
    if facility.defaults and session.defaults:
        rules |= {one.name: one for one in DEFAULT_RULES}
    rules |= {one.name: one for one in facility.rules} | {one.name: one for one in session.rules}
    _check_known("without", [*facility.without, *session.without], {*rules, *(one.name for one in DEFAULT_RULES)}, "a rule")
    kept = {name: one for name, one in rules.items() if name not in (*facility.without, *session.without)}
    known = {one.name for one in facility.channels}
    for one in kept.values():
        _check_known(f"rule {one.name!r}: channels", one.channels or (), known, "a channel of the facility")
    zone = session.time_zone or facility.time_zone
    repeat = session.repeat_minutes or facility.repeat_minutes or DEFAULT_REPEAT_MINUTES
    allowed = {one.casefold() for one in facility.mail_domains}
    refused = tuple(one for one in session.mail_to if one.rpartition("@")[2].casefold() not in allowed)
    mail_to = (*facility.mail_to, *(one for one in session.mail_to if one not in refused))
    quiet = session.quiet if session.quiet is not None else facility.quiet
    return Policy(
        rules=tuple(kept.values()),
        channels=facility.channels,
        mail_to=tuple(dict.fromkeys(mail_to)),
        not_mailed=tuple(one for one in dict.fromkeys(refused) if one not in mail_to),
        repeat_minutes=repeat,
        quiet=quiet or (),
        zone=None if zone is None else ZoneInfo(zone),
        address=facility.address,
    )


def _read(path: Path, model: type[_Document]) -> _Document:
    try:
        loaded = read_document(path)
    except ValueError as error:
        raise SessionError(f"{path}: {error}") from None
    return _validate(str(path), loaded, model)


def _validate(where: str, loaded: Any, model: type[_Document]) -> _Document:
    given = {} if loaded is None else loaded
    if not isinstance(given, Mapping):
        raise SessionError(f"{where}: must be a map with rules in it")
    try:
        return model.model_validate(given)
    except ValidationError as error:
        told = [_describe(dict(issue), given) for issue in error.errors()]
        raise SessionError(f"{where}: " + "; ".join(dict.fromkeys(told))) from None


def _describe(issue: Mapping[str, Any], loaded: Mapping[str, Any]) -> str:
    """Say which rule or channel, which value, and what is allowed."""
    place: list[Any] = list(issue["loc"])
    subject = ""
    if len(place) >= 2 and place[0] in ("rules", "channels", "quiet") and isinstance(place[1], int):
        members = loaded.get(str(place[0]))
        one = members[place[1]] if isinstance(members, list) and place[1] < len(members) else None
        name = one.get("name") if isinstance(one, Mapping) else None
        subject = f"{str(place[0]).removesuffix('s')} {name!r}" if name else f"{str(place[0]).removesuffix('s')} {place[1] + 1}"
        place = place[2:]
        if place and isinstance(one, Mapping) and place[0] == one.get("kind"):
            place = place[1:]
    field = ".".join(map(str, place))
    said = str(issue["msg"]).removeprefix("Value error, ").replace("valid tuple", "list")
    got = issue.get("input")
    shown = f" (got {got!r:.80})" if isinstance(got, str | int | float) and issue["type"] != "missing" else ""
    return ": ".join(filter(None, (subject, field, f"{said[:1].lower()}{said[1:]}{shown}")))


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} {twice[0]!r} is there twice; each needs a name of its own")


def _check_known(what: str, names: Iterable[str], known: Iterable[str], kind: str) -> None:
    listed = sorted(known)
    for name in names:
        if name not in listed:
            raise SessionError(f"{what}: {name!r} is not {kind}; there are {', '.join(listed) or 'none'}")
