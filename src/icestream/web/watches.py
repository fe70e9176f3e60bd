"""The addresses of watched folders: which acquisitions become sessions by themselves, and what people ask of the watch."""

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import SessionBusy
from icestream.facility.watch_decisions import Folder, Phase, WatchState, Wish, possible_wishes
from icestream.facility.watch_state import StateFile, list_watches
from icestream.web.places import UnknownSession
from icestream.web.site import Answer, Operating, Site, ThisSite
from icestream.workflows import list_templates

MOST_FOLDERS = 500

router = APIRouter(prefix="/api/v1/watches", tags=["watches"])


class WatchedFolder(Answer):
    """One acquisition folder; ``session`` is its session where that is served here."""

    name: str
    phase: Phase
    since: float
    session: str | None
    problems: list[str]
    note: str | None
    alert: bool
    """Its runner died several times in a row."""
    template: str | None
    """That a person chose."""
    may: list[str]
    """What can be asked of it: take, ignore, retry."""
    asked: str | None
    """What somebody has asked for and the watch has not done yet."""


class WatchPage(Answer):
    """One root; ``watched_by`` is the process that watches it now."""

    root: str
    pattern: str
    watched_by: int | None
    folders: list[WatchedFolder]
    more: int
    """Folders that are not listed: those that have stood as they do for longest."""


class WatchAsked(BaseModel):
    """What is asked of a watch."""

    model_config = ConfigDict(extra="forbid")

    root: str = Field(max_length=4096)
    folder: str = Field(max_length=4096)
    what: Literal["take", "ignore", "retry"]
    template: Annotated[str, Field(max_length=200)] | None = None


class WatchAnswer(Answer):
    """What becomes of it."""

    text: str


@router.get("", summary="Folders whose acquisitions become sessions by themselves, and what became of each")
def watches(site: ThisSite, caller: Operating) -> list[WatchPage]:
    """Return what the watches of this account on this machine know, to who operates all sessions."""
    _check(caller.person.may("operate"), caller.person.name)
    return [_page(site, *one) for one in list_watches(site.settings.state)]


@router.post("/ask", summary="Ask a watch to take a folder, to leave it alone, or to try it again")
def ask(asked: WatchAsked, site: ThisSite, caller: Operating) -> WatchAnswer:
    """Ask; the watch does it at its next look."""
    _check(caller.person.may("operate"), caller.person.name)
    known = {state.root: (file, state) for file, state in list_watches(site.settings.state)}
    if asked.root not in known or asked.folder not in known[asked.root][1].folders:
        raise HTTPException(404, f"{asked.folder[:200]!r}: no watch knows such a folder")
    file, state = known[asked.root]
    folder = state.folders[asked.folder]
    if asked.what not in possible_wishes(folder):
        raise HTTPException(409, f"{asked.folder} is {folder.phase.value}; this cannot be asked of it now")
    if asked.template is not None and asked.template not in list_templates():
        raise HTTPException(404, f"{asked.template[:80]!r}: no template has this name")
    try:
        file.ask(Wish(folder=asked.folder, what=asked.what, author=caller.person.name, template=asked.template))
    except SessionBusy as error:
        raise HTTPException(409, str(error)) from None
    when = "at its next look" if file.holder() is not None else "when the watch is started; it is not running now"
    return WatchAnswer(text=f"the watch does it {when}")


def _check(allowed: bool, name: str) -> None:
    if not allowed:
        raise HTTPException(403, f"{name} does not operate all sessions")


def _page(site: Site, file: StateFile, state: WatchState) -> WatchPage:
    asked = {wish.folder: wish.what for _, wish in file.wishes()}
    newest = sorted(state.folders.items(), key=lambda one: (-(one[1].stands_since or one[1].since), one[0]))
    return WatchPage(
        root=state.root,
        pattern=state.pattern,
        watched_by=file.holder(),
        folders=[_folder(site, name, one, asked.get(name)) for name, one in newest[:MOST_FOLDERS]],
        more=max(0, len(newest) - MOST_FOLDERS),
    )


def _folder(site: Site, name: str, folder: Folder, asked: str | None) -> WatchedFolder:
    return WatchedFolder(
        name=name,
        phase=folder.phase,
        since=folder.stands_since or folder.since,
        session=_served(site, folder),
        problems=folder.problems,
        note=folder.note,
        alert=folder.alert,
        template=folder.template,
        may=possible_wishes(folder),
        asked=asked,
    )


def _served(site: Site, folder: Folder) -> str | None:
    """Return the name of the session of a folder, if it is among those that are served."""
    if folder.session is None:
        return None
    path = Path(folder.session)
    try:
        return path.name if site.places.folder_of(path.name).resolve() == path.resolve() else None
    except UnknownSession:
        return None
