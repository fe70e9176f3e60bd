"""The address through which picks are added and removed by hand."""

from typing import Annotated

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import ItemError
from icestream.observe.hand_picks import plan_pick_edits
from icestream.observe.queries import open_view
from icestream.web.acting import ActionAnswer, recompute_one
from icestream.web.site import ExposureName, Operating, SessionName, ThisSite

MOST_EDITS = 1000
LARGEST_PX = 100_000

router = APIRouter(prefix="/api/v1/sessions/{session}/exposures/{exposure}/picks", tags=["actions"])

Pixels = Annotated[float, Field(ge=0, le=LARGEST_PX, allow_inf_nan=False)]


class PickEdits(BaseModel):
    """Picks to add, as positions y, x in pixels of the micrograph, and the numbers of those to remove."""

    model_config = ConfigDict(extra="forbid")

    step: str = Field(max_length=255, description="A step of type edit_picks")
    add: list[tuple[Pixels, Pixels]] = Field(default_factory=list, max_length=MOST_EDITS)
    remove: list[int] = Field(default_factory=list, max_length=MOST_EDITS)
    reason: str = Field("", max_length=500)


@router.post("", summary="Add and remove picks of a micrograph by hand")
def edit(session: SessionName, exposure: ExposureName, asked: PickEdits, site: ThisSite, caller: Operating) -> ActionAnswer:
    """Edit the picks of a micrograph; the decision is kept beside those made before, and what depends on it is computed again."""
    if not asked.add and not asked.remove:
        raise HTTPException(422, "there is nothing to add or to remove")
    opened = site.places.open(session)
    try:
        with open_view(opened) as view:
            unit, params = plan_pick_edits(view, asked.step, exposure, add=asked.add, remove=asked.remove)
    except ItemError as error:
        raise HTTPException(422, str(error)) from None
    return recompute_one(site, session, caller, step=asked.step, unit=unit, params=params, reason=asked.reason)
