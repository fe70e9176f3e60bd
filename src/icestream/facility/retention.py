"""Rules that say which files of results go, by kind, age and state: in a session's `storage.yaml` and a file of the facility.

Without rules nothing is ever removed. What a rule removes can be undone and computed again as what a person removes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from icestream.documents import parse_document, read_document
from icestream.errors import SessionError
from icestream.files import SESSION_STORAGE, publish_text
from icestream.flow.commands.removable import DERIVED, Removable
from icestream.flow.commands.removing import plan_removal
from icestream.flow.commands.requests import Command, EmptyTrash, Remove
from icestream.flow.runner.answering import submit_all
from icestream.flow.storage import FileKind, Session, read_removals, reading
from icestream.observe.queries import open_view
from icestream.settings import Settings

Hours = Annotated[float, Field(ge=0, le=24 * 366 * 10)]


class RetentionRule(BaseModel):
    """Which files go, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$", description="Its name; a session's rule replaces one of the facility")
    kinds: tuple[FileKind, ...] = Field(min_length=1, description="Kinds of file: micrographs, particles, thumbnails or metadata")
    steps: tuple[str, ...] = Field((), description="Steps that wrote them; unset: any")
    state: Literal["processed", "rejected", "finished"] = Field(
        "processed", description="Of exposures that every step is done with; that were rejected; or of finished sessions"
    )
    after_hours: Hours = Field(description="Not before they are so old")
    undo_hours: Annotated[float, Field(ge=0, le=24 * 366)] = Field(72.0, description="How long it can be undone")

    @field_validator("kinds")
    @classmethod
    def _derived(cls, value: tuple[FileKind, ...]) -> tuple[FileKind, ...]:
        for kind in value:
            if kind not in DERIVED:
                raise ValueError(f"{kind!r} is not removed by rules; there are {', '.join(DERIVED)}")
        return value

    def request(self, session: Session) -> Remove | None:
        """Return what the rule asks of a session; None where it has none of the steps."""
        steps = tuple(step for step in self.steps if step in session.document.steps)
        if self.steps and not steps:
            return None
        return Remove(
            kinds=self.kinds,
            steps=steps,
            older_than_hours=self.after_hours,
            rejected=self.state == "rejected",
            undo_hours=self.undo_hours,
            rule=self.name,
        )


class RetentionDocument(BaseModel):
    """What `storage.yaml` in a session's folder, and the file that ICESTREAM_STORAGE names, hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[RetentionRule, ...] = Field((), description="Rules; none removes anything that a step still needs")
    without: tuple[str, ...] = Field((), description="Names of rules of the facility that do not hold for this session")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [one.name for one in self.rules]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"rule {twice[0]!r} is there twice; each needs a name of its own")
        return self


@dataclass(frozen=True)
class Applied:
    """What one rule did in a session, or would do."""

    session: str
    rule: str
    found: Removable | None = None
    answer: str | None = None
    """What the session said; unset in a dry run."""
    trouble: str | None = None


def rules_for(session: Session, facility: Path | None) -> tuple[RetentionRule, ...]:
    """Return the rules that hold for a session: its own over the facility's.

    Raises
    ------
    SessionError
        One of the two documents is not allowed; the message names the rule, the value and what is allowed.
    """
    general = RetentionDocument() if facility is None else _read(facility)
    path = session.folder / SESSION_STORAGE
    own = _read(path) if path.is_file() else RetentionDocument()
    known = {one.name: one for one in general.rules}
    for name in own.without:
        if name not in known:
            raise SessionError(f"{path}: without: {name!r} is not a rule of the facility; there are {', '.join(known) or 'none'}")
    kept = {name: one for name, one in known.items() if name not in own.without}
    return tuple((kept | {one.name: one for one in own.rules}).values())


def read_rules_text(folder: Path) -> str:
    """Return a session's own rules as they are written; nothing where there are none.

    Raises
    ------
    SessionError
        They cannot be read.
    """
    path = folder / SESSION_STORAGE
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise SessionError(f"{path}: cannot be read: {type(error).__name__}") from None


def write_rules_text(folder: Path, text: str) -> None:
    """Check the rules that a person has typed, and write them.

    Raises
    ------
    SessionError
        They are not allowed, and why.
    """
    try:
        loaded = parse_document(text)
    except ValueError as error:
        raise SessionError(f"{SESSION_STORAGE}: {error}") from None
    _validate(SESSION_STORAGE, loaded)
    publish_text(folder / SESSION_STORAGE, text)


def apply_rules(session: Session, settings: Settings, *, author: str, dry_run: bool) -> Iterator[Applied]:
    """Carry out the rules of one session.

    Raises
    ------
    SessionError
        The rules, or the store, cannot be read.
    """
    for rule in rules_for(session, settings.storage):
        asked = rule.request(session)
        if asked is None or (rule.state == "finished" and not _is_finished(session)):
            continue
        found = plan_removal(session, asked)
        if dry_run or not found.files:
            yield Applied(session.folder.name, rule.name, found)
        else:
            yield Applied(session.folder.name, rule.name, found, _ask(session, settings, asked, author))


def empty_due_trash(session: Session, settings: Settings, *, author: str) -> Iterator[Applied]:
    """Delete for good what can be undone no longer, whatever the rules say.

    Raises
    ------
    SessionError
        The store cannot be read.
    """
    with reading(session) as connection:
        waits = [] if connection is None else [one for one in read_removals(connection) if one.state == "trash"]
    if waits:
        yield Applied(session.folder.name, "", answer=_ask(session, settings, EmptyTrash(), author))


def _ask(session: Session, settings: Settings, command: Command, author: str) -> str:
    (answer,) = submit_all(session, [command], author=author, settings=settings)
    return answer.text if answer.state == "done" else f"{answer.state}: {answer.text}"


def _is_finished(session: Session) -> bool:
    with open_view(session) as view:
        return view.overview().runner.state == "finished"


def _read(path: Path) -> RetentionDocument:
    try:
        loaded = read_document(path)
    except ValueError as error:
        raise SessionError(f"{path}: {error}") from None
    return _validate(str(path), loaded)


def _validate(where: str, loaded: Any) -> RetentionDocument:
    given = {} if loaded is None else loaded
    if not isinstance(given, Mapping):
        raise SessionError(f"{where}: must be a map with rules in it")
    try:
        return RetentionDocument.model_validate(given)
    except ValidationError as error:
        told = [_describe(issue, given) for issue in error.errors()]
        raise SessionError(f"{where}: " + "; ".join(dict.fromkeys(told))) from None


def _describe(issue: Any, given: Mapping[str, Any]) -> str:
    place, subject = list(issue["loc"]), ""
    rules = given.get("rules")
    if len(place) > 1 and place[0] == "rules" and isinstance(rules, list):
        one = rules[place[1]]
        subject = f"rule {one.get('name', place[1] + 1)!r}" if isinstance(one, Mapping) else f"rule {place[1] + 1}"
        place = place[2:]
    got = issue.get("input")
    shown = f" (got {got!r:.80})" if isinstance(got, str | int | float) and issue["type"] != "missing" else ""
    said = str(issue["msg"]).removeprefix("Value error, ")
    return ": ".join(filter(None, (subject, ".".join(map(str, place)), f"{said[:1].lower()}{said[1:]}{shown}")))
