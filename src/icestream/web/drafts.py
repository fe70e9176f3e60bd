"""The addresses of drafts: workflows that are being built, from which templates are saved and sessions are changed."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Response

from icestream.errors import WorkflowError
from icestream.facility.drafts import DraftChanged, NewDraft
from icestream.web.draft_pages import (
    LONGEST_TITLE,
    ChangesAnswer,
    CheckAnswer,
    DraftAsked,
    DraftLine,
    DraftPage,
    DraftSaved,
    Exported,
    ImportAsked,
    SavedTemplate,
    TemplateAsked,
    VersionAsked,
    begin_with_session,
    begin_with_template,
    changes_of,
    check_stored,
    copy_draft,
    drafts_of,
    file_stem,
    find_draft,
    may_change,
    may_delete,
    page_of_draft,
    plain_line,
    read_document,
)
from icestream.web.forbidden import refuse_code
from icestream.web.palette import TypePage, page_of_type
from icestream.web.site import Operating, ThisSite, WrongValues, changes_nothing
from icestream.workflows.drafting import import_workflow, read_draft
from icestream.workflows.export import dump_template, template_data
from icestream.workflows.implied import ask_for_what_is_missing
from icestream.workflows.places import save_template
from icestream.workflows.scipion.export import export_scipion

router = APIRouter(prefix="/api/v1/drafts", tags=["building"])

DraftNumber = Annotated[int, Path(ge=1, lt=2**62, description="Number of a draft")]


@router.get("", summary="All drafts, the one that was changed last first")
def drafts(site: ThisSite, caller: Operating) -> list[DraftLine]:
    """Return the drafts that who asks may change."""
    return [DraftLine.model_validate(one) for one in drafts_of(site).entries() if may_change(caller, one)]


@router.post("", summary="Begin a draft: with nothing, a template, a session or another draft", status_code=201)
def begin(asked: DraftAsked, site: ThisSite, caller: Operating) -> DraftPage:
    """Begin a draft."""
    begun = [asked.template, asked.session, asked.copy_of]
    if sum(one is not None for one in begun) > 1 or (asked.document is not None and asked.copy_of is None):
        raise WrongValues({"": "give one of template, session and copy_of; a document needs the draft that it is a copy of"})
    if asked.session is not None:
        new = begin_with_session(site, caller, asked.session, edit=asked.edit)
    elif asked.template is not None:
        new = begin_with_template(asked.template)
    elif asked.copy_of is not None:
        new = copy_draft(find_draft(site, caller, asked.copy_of), asked.document)
    else:
        new = NewDraft("New workflow", {"steps": {}})
    title = asked.title.strip() or new.title
    made = replace(new, title=title[:LONGEST_TITLE])
    return page_of_draft(site, caller, drafts_of(site).add(made, author=caller.person.name))


@router.post("/import", summary="Begin a draft with a workflow that somebody brings, also one of Scipion", status_code=201)
def bring(asked: ImportAsked, site: ThisSite, caller: Operating) -> DraftPage:
    """Begin a draft with a file."""
    try:
        found = import_workflow(asked.text, file_name=asked.file_name)
    except WorkflowError as error:
        raise WrongValues({"text": str(error)}) from None
    refuse_code(found.template.steps, {})
    title = asked.file_name.removesuffix(".template").rpartition(".")[0] or asked.file_name
    new = NewDraft(title[:LONGEST_TITLE], template_data(found.template), plain_line(found.summary), told=found.told)
    return page_of_draft(site, caller, drafts_of(site).add(new, author=caller.person.name))


@router.get("/{draft}", summary="A draft, with what is wrong with it and what its inputs can be connected to")
def one_draft(draft: DraftNumber, site: ThisSite, caller: Operating) -> DraftPage:
    """Return a draft."""
    return page_of_draft(site, caller, find_draft(site, caller, draft))


@router.get("/{draft}/check", summary="What is wrong with a draft, by step and field, and what fits each input")
def check(draft: DraftNumber, site: ThisSite, caller: Operating) -> CheckAnswer:
    """Check a draft."""
    return check_stored(site, find_draft(site, caller, draft))


@router.get("/{draft}/steps/{step}", summary="The type of a step of a draft, with its parameters as a JSON schema")
def step_of_draft(draft: DraftNumber, step: str, site: ThisSite, caller: Operating) -> TypePage:
    """Return the type of a step, also of one that only a file of the facility can name."""
    template = read_draft(find_draft(site, caller, draft).document)
    if step not in template.steps:
        raise HTTPException(404, f"the draft has no step {step[:80]!r}")
    return page_of_type(template.steps[step].use)


@router.post("/{draft}", summary="Change a draft, if nobody else has meanwhile", dependencies=[Depends(changes_nothing)])
def save(draft: DraftNumber, asked: DraftSaved, site: ThisSite, caller: Operating) -> DraftPage:
    """Change a draft; the answer says what is wrong with it now."""
    known = find_draft(site, caller, draft)
    template = read_document(asked.document, known.trusted)
    changed = drafts_of(site).save(
        draft,
        version=asked.version,
        title=asked.title.strip() or known.title,
        summary=asked.summary.strip(),
        document=template_data(template),
        author=caller.person.name,
    )
    return page_of_draft(site, caller, changed)


@router.post("/{draft}/delete", summary="Delete a draft, if nobody else has changed it meanwhile", status_code=204)
def delete(draft: DraftNumber, asked: VersionAsked, site: ThisSite, caller: Operating) -> Response:
    """Delete a draft; templates that were saved of it stay."""
    known = find_draft(site, caller, draft)
    if not may_delete(caller, known):
        raise HTTPException(403, f"{known.author} has begun this draft, and deletes it; so may who acts in all sessions")
    drafts_of(site).delete(draft, version=asked.version)
    return Response(status_code=204)


@router.post("/{draft}/template", summary="Save a draft as a template of the facility", status_code=201)
def save_as_template(draft: DraftNumber, asked: TemplateAsked, site: ThisSite, caller: Operating) -> SavedTemplate:
    """Save a draft as a template; one that comes with icestream or a plugin is never replaced."""
    if not caller.person.may("operate"):
        raise HTTPException(403, f"{caller.person.name} may act in some sessions; templates are for all of them")
    known = find_draft(site, caller, draft)
    if known.version != asked.version:
        raise DraftChanged(known)
    problems = check_stored(site, known).problems
    if problems:
        raise WrongValues({"": "; ".join(one.sentence for one in problems[:10])})
    template = ask_for_what_is_missing(read_draft(known.document))
    text = dump_template(template, summary=known.summary or known.title)
    try:
        file = save_template(asked.name, text, replace_own=asked.replace)
    except WorkflowError as error:
        raise WrongValues({"name": str(error)}) from None
    return SavedTemplate(name=asked.name, file=str(file))


@router.get("/{draft}/workflow.yaml", response_model=Exported, summary="A draft as a template file of icestream")
def as_yaml(draft: DraftNumber, site: ThisSite, caller: Operating, download: bool = False) -> Exported | Response:
    """Return a draft as YAML; with `download` as a file."""
    known = find_draft(site, caller, draft)
    text = dump_template(read_draft(known.document), summary=known.summary or known.title)
    return _file(Exported(file_name=f"{file_stem(known.title)}.yaml", text=text, left_out=[]), download=download)


@router.get("/{draft}/scipion.json", response_model=Exported, summary="A draft as a workflow of Scipion, with what it cannot say")
def as_scipion(draft: DraftNumber, site: ThisSite, caller: Operating, download: bool = False) -> Exported | Response:
    """Return a draft as JSON of Scipion; with `download` as a file."""
    known = find_draft(site, caller, draft)
    made = export_scipion(read_draft(known.document))
    name = f"{file_stem(known.title)}.json"
    return _file(Exported(file_name=name, text=made.text, left_out=list(made.left_out)), download=download)


def _file(made: Exported, *, download: bool) -> Exported | Response:
    if not download:
        return made
    headers = {"content-disposition": f'attachment; filename="{made.file_name}"'}
    return Response(made.text, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/{draft}/changes", summary="What a draft would change in its session")
def changes(draft: DraftNumber, site: ThisSite, caller: Operating) -> ChangesAnswer:
    """Return what a draft changes since it was begun; what else has changed in the session meanwhile stays."""
    return changes_of(site, find_draft(site, caller, draft))
