"""The addresses of filters: which limits they have, and how many exposures other limits would drop."""

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from icestream.observe.filters import DropCount, FilterOfSession, count_drops, list_filters, read_material
from icestream.observe.queries import SessionView
from icestream.web.editing import Arguments, find_wrong
from icestream.web.site import Asking, SessionName, ThisSite, WrongValues, changes_nothing

router = APIRouter(prefix="/api/v1/sessions/{session}/filters", tags=["editing"])


class OtherLimits(BaseModel):
    """Parameters in which a filter would differ from now; null stands for a default."""

    model_config = ConfigDict(extra="forbid")

    params: Arguments = Field(default_factory=dict, max_length=100)


@router.get("", summary="The filters of a session, and which of their parameters limit which measure")
def filters(session: SessionName, site: ThisSite, response: Response) -> list[FilterOfSession]:
    """Return the filters."""

    def listed(view: SessionView) -> list[FilterOfSession]:
        return list_filters(view, view.steps())

    return site.answer(response, session, "filters", listed)


@router.post(
    "/{step}/count",
    summary="How many exposures a filter would drop with other parameters; nothing is changed",
    dependencies=[Depends(changes_nothing)],
)
def count(session: SessionName, step: str, asked: OtherLimits, site: ThisSite, response: Response, _caller: Asking) -> DropCount:
    """Ask the filter again about what it has decided."""
    name = step[:255]
    material = site.answer(response, session, f"filter {name}", lambda view: read_material(view, name))
    wrong = find_wrong(material.node, material.node.params, asked.params)
    if wrong:
        raise WrongValues(wrong)
    return count_drops(material, asked.params)
