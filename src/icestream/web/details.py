"""The addresses of what was measured, made, failed and written down in a session, and of its pictures."""

import json
from typing import Annotated

from fastapi import APIRouter, Query, Response

from icestream.observe.log_lines import Level, LogLine, read_log
from icestream.observe.measured import MeasuredSeries, MeasureOfStep, list_measures, measure_series
from icestream.observe.queries import (
    AuditEntry,
    Decision,
    FailedItem,
    NoticeRow,
    ReasonCount,
    RejectedItem,
    SessionView,
    open_view,
)
from icestream.observe.volumes import VolumeData, read_volumes
from icestream.observe.wholes import GalleryData, Members, read_galleries, read_members
from icestream.web.pictures import read_picture
from icestream.web.site import Answer, SessionName, ThisSite

MOST_LISTED = 500
MOST_MEASURES = 100
MOST_LOOKED_AT = 300
"""In so many of the newest exposures the members of a class are looked for."""

Limit = Annotated[int, Query(ge=1, le=MOST_LISTED)]
MeasureIds = Annotated[list[Annotated[str, Query(max_length=300)]] | None, Query(max_length=MOST_MEASURES)]

router = APIRouter(prefix="/api/v1/sessions/{session}", tags=["sessions"])


class Failures(Answer):
    """What failed, and what was set aside; the newest first."""

    failed: list[FailedItem]
    failed_reasons: list[ReasonCount]
    rejected: list[RejectedItem]
    rejected_reasons: list[ReasonCount]


class History(Answer):
    """What people asked for and decided, and what they should see."""

    entries: list[AuditEntry]
    decisions: list[Decision]
    notices: list[NoticeRow]


class Log(Answer):
    """The newest lines of the log."""

    lines: list[LogLine]


@router.get("/measures", summary="Every measure that the steps declare")
def measures(session: SessionName, site: ThisSite, response: Response) -> list[MeasureOfStep]:
    """Return what is measured."""

    def listed(view: SessionView) -> list[MeasureOfStep]:
        return list_measures(view, view.steps())

    return site.answer(response, session, "measures", listed)


@router.get("/series", summary="Measures along the session, thinned, with their histograms; all of them if none is named")
def series(session: SessionName, site: ThisSite, response: Response, measure: MeasureIds = None) -> list[MeasuredSeries]:
    """Return measures along the session."""

    def measured(view: SessionView) -> list[MeasuredSeries]:
        steps = view.steps()
        wanted = [one for one in list_measures(view, steps) if measure is None or one.id in measure]
        return measure_series(view, steps, wanted)

    return site.answer(response, session, f"series {json.dumps(measure)}", measured)


@router.get("/galleries", summary="Wholes that have parts, such as 2D classes: the newest version, or a wanted one")
def galleries(
    session: SessionName,
    site: ThisSite,
    response: Response,
    step: Annotated[str | None, Query(max_length=255)] = None,
    version: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> list[GalleryData]:
    """Return the picture and the parts of each whole."""
    what = f"galleries {step!r} {version}"
    return site.answer(response, session, what, lambda view: read_galleries(view, step=step, version=version))


@router.get("/galleries/{step}/members", summary="Which of the newest exposures have particles in a class")
def members(
    session: SessionName, step: str, site: ThisSite, response: Response, part: Annotated[int, Query(ge=0, lt=2**31)]
) -> Members:
    """Return where the particles of a class come from."""
    what = f"members {step[:255]} {part}"
    return site.answer(response, session, what, lambda view: read_members(view, step[:255], part, newest=MOST_LOOKED_AT))


@router.get("/volumes", summary="Maps in three dimensions: the newest version of each step that makes some, or a wanted one")
def volumes(
    session: SessionName,
    site: ThisSite,
    response: Response,
    step: Annotated[str | None, Query(max_length=255)] = None,
    version: Annotated[int | None, Query(ge=0, lt=2**31)] = None,
) -> list[VolumeData]:
    """Return what is known of each map."""
    what = f"volumes {step!r} {version}"
    return site.answer(response, session, what, lambda view: read_volumes(view, step=step, version=version))


@router.get("/failures", summary="What failed, with tracebacks, and what was set aside")
def failures(session: SessionName, site: ThisSite, response: Response, limit: Limit = 100) -> Failures:
    """Return what failed."""

    def found(view: SessionView) -> Failures:
        return Failures(
            failed=view.failed(limit=limit),
            failed_reasons=view.grouped_reasons("failed")[:MOST_LISTED],
            rejected=view.rejected(limit=limit),
            rejected_reasons=view.grouped_reasons("rejected")[:MOST_LISTED],
        )

    return site.answer(response, session, f"failures {limit}", found)


@router.get("/history", summary="What people asked for and decided, and the notices")
def history(session: SessionName, site: ThisSite, response: Response, limit: Limit = 200) -> History:
    """Return what people did."""

    def told(view: SessionView) -> History:
        entries = list(reversed(view.history(limit=limit)))
        return History(entries=entries, decisions=view.decisions()[-limit:], notices=view.notices(limit=limit))

    return site.answer(response, session, f"history {limit}", told)


@router.get("/log", summary="The newest lines of the log")
def log(session: SessionName, site: ThisSite, level: Level = "info", limit: Limit = 200) -> Log:
    """Return the newest lines of the log, newest first."""
    return Log(lines=read_log(site.places.folder_of(session), level=level, limit=limit))


@router.get(
    "/pictures/{key}/{field}",
    summary="A picture that a step has published",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}},
)
def picture(session: SessionName, key: str, field: str, site: ThisSite) -> Response:
    """Return a picture as it is. What a key stands for never changes."""
    with open_view(site.places.open(session)) as view:
        content, kind = read_picture(view, key[:200], field[:200])
    return Response(content, media_type=kind, headers={"cache-control": "private, max-age=31536000, immutable"})
