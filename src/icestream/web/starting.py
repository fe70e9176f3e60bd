"""The addresses of templates and of raw folders, through which sessions are made and their runners started."""

import re
import threading
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import SessionBusy
from icestream.facility.runners import start_runner
from icestream.facility.simulating import TEMPLATE, start_simulation
from icestream.flow.storage import DOCUMENT, SessionDocument, create_session
from icestream.web.raw_folders import LONGEST_PATH, FolderListing, NotAllowed
from icestream.web.site import Answer, Asking, Operating, SessionName, Site, ThisSite, WrongValues, changes_nothing
from icestream.workflows import (
    PATH_TYPES,
    FoundTemplate,
    Template,
    UnfilledTemplate,
    fill_template,
    foresee,
    list_templates,
    placeholders_schema,
    read_values,
    unset_values,
)

router = APIRouter(prefix="/api/v1", tags=["starting"])
_MAKING = threading.Lock()
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,119}")

TemplateName = Annotated[str, Field(max_length=255)]
Scalar = str | bool | int | float | None


class TemplateLine(Answer):
    """A template in the list; ``problem`` says why it cannot be used."""

    name: str
    origin: str
    summary: str
    problem: str | None


class TemplateStepLine(Answer):
    """A step of a template."""

    name: str
    use: str
    summary: str


class TemplatePage(Answer):
    """What a template asks for, as a JSON schema from which a form is made, and its steps."""

    name: str
    origin: str
    description: str
    values: dict[str, Any]
    steps: list[TemplateStepLine]


class NewSession(BaseModel):
    """A session that is to be made: its name, a template, and a value for each placeholder, typed or as text."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(
        max_length=200,
        description="Name of the session and of its folder: letters, digits, '.', '_' and '-', of these a letter or digit first",
    )
    template: TemplateName
    values: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict, max_length=200)
    run: bool = Field(True, description="Start processing at once")
    dry_run: bool = Field(False, description="Only check, and say what would be made")


class NewSessionAnswer(Answer):
    """What was made, or would be made; ``notes`` is what people should know of the raw data and of values that nobody gave."""

    id: str
    made: bool
    steps: list[str]
    roots: dict[str, str]
    notes: list[str]
    pid: int | None
    """The process that runs it."""


class RunnerAnswer(Answer):
    """A runner that was started."""

    pid: int


class Simulation(BaseModel):
    """A simulated microscope: how many movies it writes, and how often."""

    model_config = ConfigDict(extra="forbid")

    movies: int = Field(40, ge=1, le=200, description="Number of movies; each takes some 10 MB on the disk")
    seconds_per_movie: float = Field(
        10.0, ge=1, le=600, allow_inf_nan=False, description="From one movie to the next", json_schema_extra={"unit": "s"}
    )


class SimulationAnswer(Answer):
    """Where a simulated microscope writes, and what to ask of which template to process it; ``session`` is a free name."""

    folder: str
    session: str
    template: str
    values: dict[str, Any]


@router.get("/templates", summary="The templates from which sessions can be made")
def templates(_caller: Asking) -> list[TemplateLine]:
    """Return all templates: those of icestream, of plugins and of the facility."""
    return [TemplateLine.model_validate(found.checked()) for found in list_templates().values()]


@router.get("/templates/{template}", summary="What a template asks for, as a JSON schema")
def template(template: TemplateName, site: ThisSite, _caller: Asking) -> TemplatePage:
    """Return what a template asks for."""
    found = _find(template)
    loaded = found.load()
    summary = site.catalogue.summary
    steps = [TemplateStepLine(name=name, use=spec.use, summary=summary(spec.use)) for name, spec in loaded.steps.items()]
    description = loaded.description or found.summary
    return TemplatePage(
        name=found.name, origin=found.origin, description=description, values=placeholders_schema(loaded), steps=steps
    )


@router.get("/raw-folders", summary="Folders that may be chosen as raw data, and what is in one of them")
def raw_folders(site: ThisSite, _caller: Operating, path: Annotated[str, Query(max_length=LONGEST_PATH)] = "") -> FolderListing:
    """Return the folders in one that is allowed; without a path, those that are allowed."""
    try:
        return site.raw_folders.look(path)
    except NotAllowed as error:
        raise HTTPException(403, str(error)) from None


@router.post("/sessions", summary="Make a session from a template, and start it", status_code=201)
def make(asked: NewSession, site: ThisSite, caller: Operating, request: Request, response: Response) -> NewSessionAnswer:
    """Make a session in the folder that is served; its runner is a process of its own, which outlives this server."""
    if asked.dry_run:
        changes_nothing(request)
    if site.places.single:
        raise HTTPException(409, "this server shows a single session; serve a folder of sessions to make further ones")
    if not caller.person.may("operate", asked.name):
        raise WrongValues({"name": f"{caller.person.name} may not make a session of this name"})
    folder, document = site.places.folder / asked.name, _fill(site, asked)
    notes = foresee(document, folder=folder)
    notes += [
        f"{value} is not given; {', '.join(steps)} will use the value in the files"
        for value, steps in unset_values(document).items()
    ]
    notes += [
        f"the folder {path} ({name}) does not exist yet" for name, path in document.roots.items() if not Path(path).exists()
    ]
    pid = None
    if asked.dry_run:
        response.status_code = 200
    else:
        with _MAKING:
            if taken := _wrong_name(site.places.folder, asked.name):
                raise WrongValues(taken)
            create_session(folder, document)
        pid = start_runner(folder) if asked.run else None
    return NewSessionAnswer(
        id=asked.name, made=not asked.dry_run, steps=list(document.steps), roots=document.roots, notes=notes, pid=pid
    )


@router.post("/simulations", summary="Let a simulated microscope write movies, for whoever has no data at hand", status_code=201)
def simulate(asked: Simulation, site: ThisSite, caller: Operating) -> SimulationAnswer:
    """Start a simulated microscope in the folder that is served, one at a time; it goes on when this server ends.

    Who operates all sessions may do so: what it writes takes space from all of them.
    """
    if site.places.single:
        raise HTTPException(409, "this server shows a single session; serve a folder of sessions to make further ones")
    if not caller.person.may("operate"):
        raise HTTPException(403, f"{caller.person.name} does not operate all sessions, and may not simulate a microscope")
    keep_free_bytes = int(site.settings.min_free_gb * 2**30)
    with _MAKING:
        try:
            found = start_simulation(
                site.places.folder,
                movies=asked.movies,
                seconds_per_movie=asked.seconds_per_movie,
                state=site.settings.state,
                keep_free_bytes=keep_free_bytes,
            )
        except SessionBusy as error:
            raise HTTPException(409, str(error)) from None
        site.simulated = found
        site.raw_folders = site.raw_folders.also(found.folder)
    return SimulationAnswer(folder=str(found.folder), session=found.session, template=TEMPLATE, values=found.values)


@router.post("/sessions/{session}/runner", summary="Start the runner of a session, as a process of its own", status_code=201)
def run(session: SessionName, site: ThisSite, _caller: Operating) -> RunnerAnswer:
    """Start the runner of a session; stopping it is an action."""
    opened = site.places.open(session)
    opened.graph()
    try:
        pid = start_runner(opened.folder)
    except SessionBusy as error:
        raise HTTPException(409, str(error)) from None
    site.live.forget(session)
    return RunnerAnswer(pid=pid)


def _find(name: str) -> FoundTemplate:
    known = list_templates()
    if name not in known:  # a path is none, whoever asks
        raise HTTPException(404, f"{name[:80]!r}: no template has this name; there are {', '.join(known)}")
    return known[name]


def _wrong_name(folder: Path, name: str) -> dict[str, str]:
    """Return what is wrong with the name of a new session: it must not become a path."""
    if not _NAME.fullmatch(name):
        return {"name": "must be 1 to 120 letters, digits, '.', '_' and '-', of these a letter or digit first"}
    target = folder / name
    if (target / DOCUMENT).exists() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        return {"name": f"{name} already exists; choose another name"}
    return {}


def _fill(site: Site, asked: NewSession) -> SessionDocument:
    """Return the document of the session.

    Raises
    ------
    WrongValues
        With what is wrong of each field.
    """
    wrong, base = _wrong_name(site.places.folder, asked.name), site.places.folder
    template = _find(asked.template).load()
    document = None
    try:
        typed = read_values(template, asked.values, base=base)
        wrong |= _check_paths(site, template, typed)
        document = fill_template(template, asked.values, name="session" if wrong else asked.name, base=base)
    except UnfilledTemplate as error:
        for problem in error.problems:
            wrong.setdefault(problem.placeholder or "", problem.text)
    if wrong or document is None:
        raise WrongValues(wrong)
    _check_document(site, template, document)
    return document


def _check_paths(site: Site, template: Template, typed: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with values that name files or folders."""
    wrong = {}
    for name, value in typed.items():
        if template.placeholders[name].type in PATH_TYPES:
            try:
                site.raw_folders.check(str(value))
            except NotAllowed as error:
                wrong[name] = str(error)
    return wrong


def _check_document(site: Site, template: Template, document: SessionDocument) -> None:
    """Check that nothing that was asked for leads out of the folders that are allowed, whatever type the template gives it."""
    for name, path in document.roots.items():
        if template.roots.get(name) != path:
            site.raw_folders.check(path)
    for step, spec in document.steps.items():
        pattern = spec.params.get("pattern")
        if isinstance(pattern, str) and (pattern.startswith("/") or ".." in PurePosixPath(pattern).parts):
            raise WrongValues({"pattern": f"{pattern!r} of {step} must be a pattern below the folder"})
