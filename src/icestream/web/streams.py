"""The addresses that tell browsers, as it happens, that something has changed."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from icestream.errors import SessionError
from icestream.flow.storage import DOCUMENT, STORE
from icestream.web.events import EventStream, Look, Told
from icestream.web.site import SessionName, Site, ThisSite, caller_of

_STREAM: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"content": {"text/event-stream": {}}, "description": "Events `change`, each with JSON"}},
}

router = APIRouter(prefix="/api/v1", tags=["events"])


@router.get("/events", summary="A word whenever any session has changed", **_STREAM)
async def watch_all(site: ThisSite, request: Request) -> Response:
    """Tell when any session has changed."""
    person = caller_of(request).person
    name = "" if person.role is not None else f"of {person}"  # who may look at some sessions hears of no others
    return _stream(site, request, name, lambda: look_at_all(site, lambda one: person.may("look", one)))


@router.get("/sessions/{session}/events", summary="A word whenever a session has changed", **_STREAM)
async def watch_session(session: SessionName, site: ThisSite, request: Request) -> Response:
    """Tell when a session has changed."""
    await run_in_threadpool(site.places.open, session)
    return _stream(site, request, session, lambda: look_at_one(site, session))


def _stream(site: Site, request: Request, name: str, look: Look) -> Response:
    caller = caller_of(request)
    if site.watchers.full(caller.key):
        raise HTTPException(503, "too many browsers are watching, or too many of yours; close some", {"Retry-After": "10"})
    headers, peer = request.headers, request.state.peer
    watcher = site.watchers.watch(name, look)

    async def still_welcome() -> bool:
        """Tell whether who listens is who began, and may do the same; a browser asks again, and hears what it may hear now."""
        try:
            found = await site.callers.find(headers, peer, renew=False)
        except SessionError:
            return False
        return found is not None and found.person == caller.person

    return EventStream(site.watchers, watcher, caller.key, still_welcome)


def look_at_one(site: Site, session: str) -> Told:
    """Return something that differs whenever a session has changed."""
    pulse = site.live.pulse(session)
    return {"seq": pulse.seq, "pulse": pulse.token, "runner": pulse.runner}


def look_at_all(site: Site, sees: Callable[[str], bool]) -> Told:
    """Return something that differs whenever a session has changed: when the files of its store were written last."""
    found: Told = {}
    for name in filter(sees, site.places.names()):
        folder = site.places.folder_of(name)
        paths = [folder / DOCUMENT, folder / STORE, folder / f"{STORE}-wal"]
        found[name] = " ".join(str(path.stat().st_mtime_ns) for path in paths if path.exists())
    return found
