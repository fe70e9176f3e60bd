"""The addresses that tell browsers, as it happens, that something has changed."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from icestream.flow.storage import DOCUMENT, STORE
from icestream.web.events import EventStream, Look, Told
from icestream.web.site import SessionName, Site, ThisSite

_STREAM: dict[str, Any] = {
    "response_class": Response,
    "responses": {200: {"content": {"text/event-stream": {}}, "description": "Events `change`, each with JSON"}},
}

router = APIRouter(prefix="/api/v1", tags=["events"])


@router.get("/events", summary="A word whenever any session has changed", **_STREAM)
async def watch_all(site: ThisSite, request: Request) -> Response:
    """Tell when any session has changed."""
    return _stream(site, request, "", lambda: look_at_all(site))


@router.get("/sessions/{session}/events", summary="A word whenever a session has changed", **_STREAM)
async def watch_session(session: SessionName, site: ThisSite, request: Request) -> Response:
    """Tell when a session has changed."""
    await run_in_threadpool(site.places.open, session)
    return _stream(site, request, session, lambda: look_at_one(site, session))


def _stream(site: Site, request: Request, name: str, look: Look) -> Response:
    if site.watchers.full:
        raise HTTPException(503, "too many browsers are watching; try again later", {"Retry-After": "10"})
    headers = request.headers
    watcher = site.watchers.watch(name, look)
    return EventStream(site.watchers, watcher, lambda: site.callers.identify(headers) is not None)


def look_at_one(site: Site, session: str) -> Told:
    """Return something that differs whenever a session has changed."""
    pulse = site.live.pulse(session)
    return {"seq": pulse.seq, "pulse": pulse.token, "runner": pulse.runner}


def look_at_all(site: Site) -> Told:
    """Return something that differs whenever a session has changed: when the files of its store were written last."""
    found: Told = {}
    for name in site.places.names():
        folder = site.places.folder_of(name)
        paths = [folder / DOCUMENT, folder / STORE, folder / f"{STORE}-wal"]
        found[name] = " ".join(str(path.stat().st_mtime_ns) for path in paths if path.exists())
    return found
