"""Drafts as they are asked for and answered, and what is known of one: what is wrong with it, and what it would change."""

import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from icestream.documents import LARGEST_BYTES
from icestream.errors import SessionError, WorkflowError
from icestream.facility.drafts import Draft, DraftEntry, Drafts, NewDraft
from icestream.flow.storage import digest_steps
from icestream.flow.workflow import GraphProblem, StepSpec
from icestream.web.callers import Caller
from icestream.web.forbidden import find_forbidden, refuse_code, trust_of
from icestream.web.places import NotThere
from icestream.web.site import Answer, Site, WrongValues
from icestream.workflows import Template, list_templates
from icestream.workflows.drafting import check_draft, drafted_steps, read_draft, steps_as_draft, template_of_session
from icestream.workflows.export import template_data
from icestream.workflows.template import asks_in

LONGEST_TITLE = 120
LONGEST_SUMMARY = 300
DEEPEST = 16

Title = Annotated[str, Field(max_length=LONGEST_TITLE, pattern=r"^[^\x00-\x1f\x7f]*$")]
Summary = Annotated[str, Field(max_length=LONGEST_SUMMARY, pattern=r"^[^\x00-\x1f\x7f]*$")]


def _check_document(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    level: list[JsonValue] = [value]
    for _ in range(DEEPEST):
        level = [
            member for one in level if isinstance(one, dict | list) for member in (one.values() if isinstance(one, dict) else one)
        ]
    if level:
        raise ValueError(f"is nested deeper than {DEEPEST}")
    json.dumps(value, allow_nan=False)
    return value


Document = Annotated[
    dict[str, JsonValue],
    Field(max_length=20, description="A template, as in a template file"),
    AfterValidator(_check_document),
]
Version = Annotated[int, Field(ge=1, lt=2**62, description="The version that is meant; another is refused with status 409")]


class DraftLine(Answer):
    """A draft in the list; ``session`` is the one whose workflow it changes, unset for a template."""

    id: int
    version: int
    title: str
    summary: str
    session: str | None
    author: str
    changed_by: str
    changed_at: float


class ProblemLine(Answer):
    """What is wrong; ``field`` is ``in.PORT``, ``params.NAME``, ``use``, ``name``, ``after`` or a section of the document."""

    text: str
    step: str | None
    field: str | None

    @property
    def sentence(self) -> str:
        """What people read where steps are not shown."""
        return self.text if self.step is None else f"{self.step}: {self.text}"


class InputLine(Answer):
    """An input of a step, and the outputs that it can be connected to."""

    name: str
    record: str
    many: bool
    optional: bool
    offers: list[str]


class StepLine(Answer):
    """A step of a draft as its type declares it; ``values`` are fields that parameters of others may be taken from."""

    name: str
    title: str
    kind: str | None
    inputs: list[InputLine]
    outputs: dict[str, str]
    values: list[str]


class CheckAnswer(Answer):
    """What is wrong with a draft, and how its steps can be connected."""

    problems: list[ProblemLine]
    steps: list[StepLine]


class DraftPage(DraftLine):
    """A draft in full; ``told`` is what became of the parts of a workflow that was imported."""

    document: dict[str, Any]
    told: list[str]
    check: CheckAnswer
    may_save: bool
    """Who asks may save it as a template."""


class DraftAsked(BaseModel):
    """What a new draft begins with: nothing, or one of a template, a session, another draft, and a document."""

    model_config = ConfigDict(extra="forbid")

    title: Title = ""
    template: str | None = Field(None, max_length=255, description="Begin with this template")
    session: str | None = Field(None, max_length=255, description="Begin with the workflow of this session")
    edit: bool = Field(False, description="Change the session itself, instead of making a template of its workflow")
    copy_of: int | None = Field(None, ge=1, lt=2**62, description="Begin with this draft")
    document: Document | None = Field(None, description="Begin with this, as a copy of the draft that `copy_of` names")


class ImportAsked(BaseModel):
    """A workflow that somebody brings: a template of icestream (YAML), or an export of Scipion (JSON)."""

    model_config = ConfigDict(extra="forbid")

    file_name: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/\\]*$")
    text: str = Field(min_length=1, max_length=LARGEST_BYTES)


class DraftSaved(BaseModel):
    """A change of a draft."""

    model_config = ConfigDict(extra="forbid")

    version: Version
    title: Title
    summary: Summary = ""
    document: Document


class VersionAsked(BaseModel):
    """Which version of a draft is meant."""

    model_config = ConfigDict(extra="forbid")

    version: Version


class TemplateAsked(VersionAsked):
    """The template that a draft is to become."""

    name: str = Field(max_length=200)
    replace: bool = Field(False, description="Replace a template of this name that was saved in the same folder")


class SavedTemplate(Answer):
    """A template that was saved, by name, and its file."""

    name: str
    file: str


class Exported(Answer):
    """A draft as a file; ``left_out`` is what the file cannot say."""

    file_name: str
    text: str
    left_out: list[str]


class ChangesAnswer(Answer):
    """What a draft changes in its session: arguments for the action and the plan `change_steps`."""

    steps: dict[str, dict[str, Any] | None]
    based_on: str
    conflicts: list[str]
    """Steps that somebody else has changed in the session as well; nothing can be applied then."""
    problems: list[ProblemLine]


def drafts_of(site: Site) -> Drafts:
    """Return the drafts of the facility.

    Raises
    ------
    SessionError
        The server keeps none.
    """
    if site.callers.database is None:
        raise SessionError("this server has no database of the facility")
    return Drafts(site.callers.database)


def may_change(caller: Caller, draft: DraftEntry) -> bool:
    """Tell whether somebody may see and change a draft: one of a session, or of its workflow, who may act in that session.

    Who has made a template of the workflow of a session may as well, while allowed to look at it.
    """
    session = draft.session or draft.origin
    if session is None or caller.person.may("operate", session):
        return True
    return draft.session is None and draft.author == caller.person.name and caller.person.role_in(session) is not None


def may_delete(caller: Caller, draft: DraftEntry) -> bool:
    """Tell whether somebody may delete a draft that is there to be seen: of a template, its author, or who may act everywhere."""
    return draft.session is not None or draft.author == caller.person.name or caller.person.may("operate")


def find_draft(site: Site, caller: Caller, number: int) -> Draft:
    """Return a draft.

    Raises
    ------
    NotThere
        There is none of this number, or who asks may not see it.
    """
    found = drafts_of(site).find(number)
    if found is None or not may_change(caller, found):
        raise NotThere(f"there is no draft {number}, or you may not see it")
    return found


def read_document(document: dict[str, JsonValue], trusted: dict[str, Any]) -> Template:
    """Return what somebody sends as a draft.

    Raises
    ------
    WrongValues
        It has not the form of a template, or names a step by a module.
    """
    try:
        template = read_draft(document)
    except WorkflowError as error:
        raise WrongValues({"document": str(error)}) from None
    refuse_code(template.steps, trusted)
    return template


def begin_with_template(name: str) -> NewDraft:
    """Return a draft of an installed template.

    Raises
    ------
    NotThere
        There is none of this name.
    WrongValues
        It cannot be used.
    """
    known = list_templates()
    if name not in known:  # a path is none, whoever asks
        raise NotThere(f"{name[:80]!r}: no template has this name; there are {', '.join(known)}")
    try:
        template = known[name].load()
    except WorkflowError as error:
        raise WrongValues({"template": str(error)}) from None
    summary = plain_line(known[name].summary)
    return NewDraft(f"{name} (copy)", template_data(template), summary, trusted=trust_of(template))


def begin_with_session(site: Site, caller: Caller, name: str, *, edit: bool) -> NewDraft:
    """Return a draft of the workflow of a session: to change the session, or to make a template of it.

    Raises
    ------
    UnknownSession
        Who asks may not see such a session.
    WrongValues
        Who asks may not act in it.
    """
    if caller.person.role_in(name) is None:
        raise NotThere(f"{name[:200]!r}: no session of this name is served here")
    session = site.places.open(name)
    if not edit:
        template = template_of_session(session)
        title = f"{name} as a template"[:LONGEST_TITLE]
        return NewDraft(title, template_data(template), trusted=trust_of(template), origin=name)
    if not caller.person.may("operate", name):
        raise WrongValues({"session": f"{caller.person.name} may look at this session, not act in it"})
    template = steps_as_draft(session.document.steps)
    base = {step: step_data(spec) for step, spec in session.document.steps.items()}
    return NewDraft(f"Changes of {name}"[:LONGEST_TITLE], template_data(template), "", name, base, trust_of(template))


def copy_draft(draft: Draft, document: dict[str, JsonValue] | None) -> NewDraft:
    """Return a copy of a draft, or of what somebody has made of it."""
    data = draft.document if document is None else template_data(read_document(document, draft.trusted))
    title = f"{draft.title[: LONGEST_TITLE - 7]} (copy)"
    return NewDraft(title, data, draft.summary, draft.session, draft.base, draft.trusted, draft.told, draft.origin)


def check_stored(site: Site, draft: Draft) -> CheckAnswer:
    """Return what is wrong with a draft, and how its steps could be connected."""
    template = read_draft(draft.document)
    more = find_forbidden(template, draft.trusted, site.raw_folders)
    if draft.session is not None:
        more += _find_asked(template)
    found = check_draft(template, more=more)
    return CheckAnswer.model_validate(found)


def _find_asked(template: Template) -> list[GraphProblem]:
    """Return what asks for a value in the workflow of a session, where nobody is asked any more."""
    told = "asks for a value, but the session has been made; give it one"
    return [
        GraphProblem(f"parameter {name!r} {told}", step, f"params.{name}")
        for step, spec in template.steps.items()
        for name, value in spec.params.items()
        if any(asks_in(value))
    ]


def page_of_draft(site: Site, caller: Caller, draft: Draft) -> DraftPage:
    """Return a draft in full."""
    line = DraftLine.model_validate(draft)
    saves = draft.session is None and caller.person.may("operate")
    return DraftPage(
        **line.model_dump(), document=draft.document, told=list(draft.told), check=check_stored(site, draft), may_save=saves
    )


def changes_of(site: Site, draft: Draft) -> ChangesAnswer:
    """Return what a draft changes in its session since it was begun; what else has changed there meanwhile stays.

    Raises
    ------
    SessionError
        It belongs to no session.
    """
    if draft.session is None or draft.base is None:
        raise SessionError("this draft is to be a template; it belongs to no session")
    present = site.places.open(draft.session).document.steps
    before = {name: StepSpec.model_validate(spec) for name, spec in draft.base.items()}
    mine = _differences(before, drafted_steps(read_draft(draft.document)))
    theirs = _differences(before, present)
    return ChangesAnswer(
        steps={name: None if spec is None else step_data(spec) for name, spec in mine.items()},
        based_on=digest_steps(present),
        conflicts=[name for name in mine if name in theirs and mine[name] != theirs[name]],
        problems=check_stored(site, draft).problems,
    )


def _differences(before: dict[str, StepSpec], after: dict[str, StepSpec]) -> dict[str, StepSpec | None]:
    """Return the steps that are new or changed, and None for those that are gone."""
    return {name: after.get(name) for name in (*after, *before) if before.get(name) != after.get(name)}


def step_data(spec: StepSpec) -> dict[str, Any]:
    """Return a step as plain data, as a document has it."""
    return spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def plain_line(text: str) -> str:
    """Return text as one line that can be shown, of a length that a draft may have."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:LONGEST_SUMMARY]


def file_stem(title: str) -> str:
    """Return the name of the file of a draft, without its ending."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", title).strip("_")[:80] or "workflow"
