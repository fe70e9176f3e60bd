"""The addresses of the map of the grid, and of the holes to expose next."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from icestream.observe.grid_map import GridMapData, read_grid_map
from icestream.observe.next_holes import MOST_NEXT, NextHoles, NextQuery, read_next_holes
from icestream.web.site import SessionName, ThisSite

router = APIRouter(prefix="/api/v1/sessions/{session}", tags=["sessions"])

_Name = Annotated[str | None, Query(max_length=300)]


class NextAsked(BaseModel):
    """Which holes are wanted, and what a good exposure is."""

    model_config = ConfigDict(extra="forbid")

    good: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list,
        max_length=8,
        description="MEASURE,LOW,HIGH: a good exposure is in this range; a number may be empty. By default the CTF resolution is "
        "at most 6 Å, where a step measures it",
    )
    goes_with: str | None = Field(
        None, max_length=300, description="The measure that is predicted for the holes; by default the thickness of the ice"
    )
    explore: float = Field(
        NextQuery.explore,
        ge=0,
        le=10,
        description="What a standard deviation of a square is worth; 0: what is best by what is known",
    )
    limit: int = Field(100, ge=1, le=MOST_NEXT)
    all_holes: bool = Field(False, description="Also holes that the acquisition software does not mean to expose")

    def query(self) -> NextQuery:
        """Return the question."""
        return NextQuery.of_texts(self.good, self.goes_with, self.explore, self.limit, self.all_holes)


@router.get("/map", summary="Grid squares and holes in µm on the stage, coloured by a measure")
def grid_map(session: SessionName, site: ThisSite, response: Response, colour: _Name = None, square: _Name = None) -> GridMapData:
    """Return the map; with a square, its holes with their exposures."""
    what = f"map {colour!r} {square!r}"
    return site.answer(response, session, what, lambda view: read_grid_map(view, colour=colour, square=square))


@router.get("/next-holes", summary="The holes to expose next, by a score learnt from what was exposed")
def next_holes(session: SessionName, asked: Annotated[NextAsked, Query()], site: ThisSite, response: Response) -> NextHoles:
    """Return the table."""
    query = asked.query()
    return site.answer(response, session, f"next {query}", lambda view: read_next_holes(view, query))
