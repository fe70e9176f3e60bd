"""The application, put together: the interface under ``/api/v1``, the pages, and the guard before both."""

import json
from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from icestream import __version__
from icestream.errors import IcestreamError, StoreUnavailable
from icestream.facility.drafts import DraftChanged
from icestream.observe.report import DENSITY_SCRIPT
from icestream.web import (
    acting,
    details,
    drafts,
    drawings,
    editing,
    facility_storage,
    filtering,
    mapping,
    palette,
    picking,
    reading,
    scraping,
    sharing,
    signing_in,
    starting,
    storing,
    streams,
    transfers,
    watches,
    watching,
)
from icestream.web.audit import Audit
from icestream.web.guard import Guard, OwnNames
from icestream.web.places import NotThere
from icestream.web.site import REFUSALS, Site, WrongValues

STATIC = Path(__file__).parent / "static"

_DESCRIPTION = """Everything that the pages show, and everything that they do. Send a token as `Authorization: Bearer TOKEN`.
Within version 1, fields and addresses are added and never taken away or given another meaning."""


_ROUTES = (
    signing_in.router,
    reading.router,
    details.router,
    drafts.router,
    drawings.router,
    palette.router,
    acting.router,
    scraping.router,
    editing.router,
    facility_storage.router,
    filtering.router,
    mapping.router,
    picking.router,
    sharing.router,
    starting.router,
    storing.router,
    streams.router,
    transfers.router,
    watches.router,
    watching.router,
)


def make_api(site: Site) -> FastAPI:
    """Return the interface and the pages, without their guard."""
    api = FastAPI(
        title="icestream",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=REFUSALS,
    )
    api.state.site = site
    for routes in (*_ROUTES, *site.more):
        api.include_router(routes)
    api.add_exception_handler(IcestreamError, _say_what_is_wrong)
    api.add_exception_handler(RequestValidationError, _say_what_cannot_be_read)

    @api.get("/api/{_:path}", include_in_schema=False)
    def nothing() -> None:
        raise HTTPException(404, "there is no such address; /api/v1/openapi.json lists them")

    @api.get("/static/js/density.js", include_in_schema=False)
    def density_script() -> FileResponse:
        return FileResponse(DENSITY_SCRIPT, media_type="text/javascript")

    api.mount("/static", StaticFiles(directory=STATIC, follow_symlink=False), name="static")

    @api.get("/{_:path}", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    return api


def make_app(site: Site, names: frozenset[str]) -> ASGIApp:
    """Return the application as a server runs it."""
    database = site.callers.database
    audit = None if database is None else Audit(database)
    return Guard(make_api(site), callers=site.callers, names=OwnNames(names), audit=audit)


async def _say_what_cannot_be_read(_request: Request, error: Exception) -> Response:
    """Say what is wrong with a request without what was sent: that may be text or numbers that JSON cannot hold."""
    issues = error.errors() if isinstance(error, RequestValidationError) else []
    told = [{"type": one["type"], "loc": list(one["loc"]), "msg": one["msg"]} for one in issues]
    return Response(json.dumps({"detail": told}), status_code=422, media_type="application/json")


async def _say_what_is_wrong(_request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, WrongValues):
        return JSONResponse({"detail": str(error), "fields": error.fields}, status_code=422)
    statuses = ((DraftChanged, 409), (NotThere, 404), (StoreUnavailable, 503))
    status = next((status for kind, status in statuses if isinstance(error, kind)), 400)
    return JSONResponse({"detail": str(error)}, status_code=status)
