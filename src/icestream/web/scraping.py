"""The addresses that a monitoring system asks: the metrics of all sessions or of one, and the newest picture of a step."""

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.params import Path as PathParameter
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from icestream.observe.metrics.families import Samples
from icestream.observe.queries import open_view
from icestream.web.pictures import read_newest_picture
from icestream.web.site import SessionName, ThisSite

Part = Annotated[str, PathParameter(max_length=255)]

router = APIRouter(tags=["monitoring"])


def _answer(samples: Samples) -> Response:
    return Response(samples.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)


@router.get("/metrics", include_in_schema=False)
def facility_metrics(site: ThisSite) -> Response:
    """Return the metrics of this machine and of all sessions that changed within a day, in the text format of Prometheus."""
    return _answer(site.metrics.read())


@router.get("/metrics/{session}", include_in_schema=False)
def session_metrics(session: SessionName, site: ThisSite) -> Response:
    """Return the metrics of one session in the text format of Prometheus."""
    return _answer(site.metrics.read_session(session))


@router.get(
    "/api/v1/sessions/{session}/newest/{step}/{field}",
    summary="The newest picture that a step has published",
    response_class=Response,
    responses={200: {"content": {"image/png": {}, "image/jpeg": {}}}},
)
def newest_picture(session: SessionName, step: Part, field: Part, site: ThisSite) -> Response:
    """Return a picture at an address that stays the same, for a dashboard."""
    with open_view(site.places.open(session)) as view:
        content, kind = read_newest_picture(view, step, field)
    return Response(content, media_type=kind, headers={"cache-control": "private, no-cache"})
