"""The addresses of sessions and of their exposures: each page of the application shows what one address answers."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from icestream.errors import IcestreamError, SessionError
from icestream.observe.conditions import Condition, read_conditions
from icestream.observe.exposure_data import ExposureData
from icestream.observe.exposures import MOST_ROWS, ExposureTable, Range, State, TableQuery, read_range, read_table
from icestream.observe.headlines import HeadlineFigure, read_headlines, read_microscope
from icestream.observe.medians import RecentMedian, read_medians
from icestream.observe.one_exposure import read_exposure
from icestream.observe.queries import Arrivals, Change, NoticeRow, Overview, SessionView, StepSummary
from icestream.observe.session_alarms import alarm_store_of
from icestream.observe.why import Explanation, why_exposure, why_session
from icestream.web.site import Answer, Asking, ExposureName, SessionName, Site, ThisSite

router = APIRouter(prefix="/api/v1/sessions", tags=["sessions"])


class SessionLine(Answer):
    """A session on the page of all sessions; ``trouble`` says why it cannot be read."""

    id: str
    overview: Overview | None = None
    arrivals: Arrivals | None = None
    alarms: int = 0
    """How many are open."""
    microscope: str | None = None
    """As its files name it."""
    figures: list[HeadlineFigure] = Field(default_factory=list)
    """Figures that types of record declare, such as the resolution of the CTF, the ice, and the particles so far."""
    trouble: str | None = None


class StepPage(Answer):
    """One step: its counts and rates, what it waits for, and the medians of what it measures."""

    step: StepSummary
    inputs: list[str]
    marks: list[str]
    waiting: list[str]
    medians: list[RecentMedian]


class SessionPage(Answer):
    """One session at a glance."""

    id: str
    overview: Overview
    pause: str | None
    silence: str | None
    """What is to be said of a runner that gives no sign of life."""
    waiting: list[str]
    arrivals: Arrivals
    headlines: list[HeadlineFigure]
    conditions: list[Condition]
    steps: list[StepPage]
    notices: list[NoticeRow]
    alarms: int = 0
    """How many are open."""


class Explanations(Answer):
    """What something is waiting for."""

    sentences: list[Explanation]


class TableAsked(BaseModel):
    """Which rows of the table of exposures are wanted."""

    model_config = ConfigDict(extra="forbid")

    sort: str = Field("number", max_length=300, description="number, name, or the id of a measure")
    descending: bool = True
    text: str = Field("", max_length=200, description="Only exposures with this in their name")
    state: State | None = None
    range: list[Annotated[str, Field(max_length=300)]] = Field(
        default_factory=list, max_length=8, description="MEASURE,LOW,HIGH: only exposures in this range; a number may be empty"
    )
    offset: int = Field(0, ge=0, le=10_000_000)
    limit: int = Field(50, ge=1, le=MOST_ROWS)

    def query(self) -> TableQuery:
        """Return the question."""
        ranges = tuple(parse_range(one) for one in self.range)
        return TableQuery(self.sort, self.descending, self.text, self.state, ranges, self.offset, self.limit)


def parse_range(text: str) -> Range:
    """Read ``measure,low,high``, either of which may be empty.

    Raises
    ------
    HTTPException
        It is not written so.
    """
    try:
        return read_range(text)
    except SessionError as error:
        raise HTTPException(422, str(error)) from None


@router.get("", summary="All sessions")
def sessions(site: ThisSite, caller: Asking) -> list[SessionLine]:
    """Return a line for each session that who asks may see; one that cannot be read says why."""
    return [_read_line(site, name) for name in site.places.names() if caller.person.role_in(name) is not None]


@router.get(
    "/{session}",
    response_model=SessionPage,
    summary="A session with its workflow, counts, rates and what each step waits for",
)
def session(session: SessionName, site: ThisSite) -> Response:
    """Return a session at a glance."""
    return site.answer_json(session, "page", lambda view: _read_page(session, view))


@router.get("/{session}/changes", summary="What changed after a number of the change sequence, in order")
def changes(
    session: SessionName,
    site: ThisSite,
    since: Annotated[int, Query(ge=0, lt=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = MOST_ROWS,
) -> list[Change]:
    """Return changes; ask again from the last number for more."""
    return site.live.read(session, f"changes {since} {limit}", lambda view: view.changes_since(since, limit=limit))[0]


@router.get("/{session}/exposures", response_model=ExposureTable, summary="A page of the table of exposures")
def exposures(session: SessionName, asked: Annotated[TableAsked, Query()], site: ThisSite) -> Response:
    """Return a page of the table, sorted and filtered."""
    query = asked.query()
    return site.answer_json(session, f"exposures {query}", lambda view: read_table(view, view.steps(), query))


@router.get("/{session}/exposures/{exposure}", summary="Everything that is known about one exposure")
def one_exposure(session: SessionName, exposure: ExposureName, site: ThisSite, response: Response) -> ExposureData:
    """Return an exposure in full, given by name or id."""
    try:
        return site.answer(response, session, f"exposure {exposure}", lambda view: read_exposure(view, exposure))
    except SessionError as error:
        raise HTTPException(404, str(error)) from None


@router.get("/{session}/exposures/{exposure}/why", summary="What an exposure is waiting for")
def why(session: SessionName, exposure: ExposureName, site: ThisSite, response: Response) -> Explanations:
    """Return what an exposure is waiting for."""
    try:
        said = site.answer(response, session, f"why {exposure}", lambda view: why_exposure(view, exposure))
    except SessionError as error:
        raise HTTPException(404, str(error)) from None
    return Explanations(sentences=said)


def _read_line(site: Site, name: str) -> SessionLine:
    def line(view: SessionView) -> SessionLine:
        steps = view.steps()
        return SessionLine(
            id=name,
            overview=view.overview(),
            arrivals=view.arrivals(),
            alarms=_count_alarms(view),
            microscope=read_microscope(view, steps),
            figures=read_headlines(view, steps),
        )

    try:
        return site.live.read(name, "line", line)[0]
    except (IcestreamError, OSError) as error:
        return SessionLine(id=name, trouble=str(error))


def _read_page(name: str, view: SessionView) -> SessionPage:
    overview, steps = view.overview(), view.steps()
    why = why_session(view, steps)
    medians = read_medians(view, steps)
    return SessionPage(
        id=name,
        overview=overview,
        pause=None if overview.pause is None else overview.pause.sentence,
        silence=overview.runner.silence,
        waiting=[one.sentence for one in why if one.step is None],
        arrivals=view.arrivals(),
        headlines=read_headlines(view, steps, medians),
        conditions=list(read_conditions(view)),
        steps=[
            StepPage(
                step=step,
                inputs=view.inputs(step.name),
                marks=step.marks.sentences,
                waiting=[one.sentence for one in why if one.step == step.name],
                medians=list(medians.get(step.name, ())),
            )
            for step in steps
        ],
        notices=view.notices(limit=20),
        alarms=_count_alarms(view),
    )


def _count_alarms(view: SessionView) -> int:
    return alarm_store_of(view.session).count_open()
