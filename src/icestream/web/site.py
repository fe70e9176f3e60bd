"""What all addresses of the interface share: the sessions, who asks, and what a request has said of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.params import Path as PathParameter
from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from icestream.errors import WorkflowError
from icestream.facility.simulating import SimulatedMicroscope
from icestream.observe.drawing.studio import Studio, open_studio
from icestream.observe.queries import SessionView
from icestream.settings import Settings
from icestream.web.callers import Caller, Callers
from icestream.web.catalogue import Catalogue
from icestream.web.events import Watchers
from icestream.web.holdings import Holdings
from icestream.web.live import Live
from icestream.web.metrics import FacilityMetrics
from icestream.web.places import Places
from icestream.web.raw_folders import RawFolders

SEQ_HEADER = "x-icestream-seq"
"""The number in the change sequence to which an answer is complete."""

PULSE_HEADER = "x-icestream-pulse"
"""What the events call the state of the session that an answer shows."""

Found = TypeVar("Found")

SessionName = Annotated[str, PathParameter(max_length=255, description="Name of the session's folder")]
ExposureName = Annotated[str, PathParameter(max_length=300, description="Name or id of an exposure")]


class Answer(BaseModel):
    """The root of all answers."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class WrongField(BaseModel):
    """What is wrong with one field of a request, and where it is."""

    model_config = ConfigDict(extra="allow")

    loc: list[str | int]
    msg: str
    type: str


class Refused(BaseModel):
    """What is answered instead: a sentence, or what is wrong with each field of the request."""

    detail: str | list[WrongField]
    fields: dict[str, str] | None = None
    """Of values that were filled in: parameter → what is wrong with it."""


REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refused, "description": "It is not there, not allowed, or not written as it must be"},
    "503": {"model": Refused, "description": "Too much is asked for at this moment, or the store does not answer"},
}
"""What every address may answer beside what it is asked for."""


class WrongValues(WorkflowError):
    """Values that were filled in are not allowed; ``fields`` says of each what is wrong, ``""`` of the whole."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {text}" if name else text for name, text in fields.items()))
        self.fields = dict(fields)


@dataclass
class Site:
    """One running application."""

    places: Places
    callers: Callers
    settings: Settings
    raw_folders: RawFolders = field(default_factory=RawFolders)
    more: tuple[APIRouter, ...] = ()
    """Addresses that not every server has."""
    catalogue: Catalogue = field(default_factory=Catalogue)
    holdings: Holdings = field(default_factory=Holdings)
    live: Live = field(init=False)
    metrics: FacilityMetrics = field(init=False)
    studio: Studio = field(init=False)
    watchers: Watchers = field(default_factory=Watchers)
    simulated: SimulatedMicroscope | None = None
    """The simulated microscope that was started here last."""

    def __post_init__(self) -> None:
        self.live = Live(self.places)
        self.metrics = FacilityMetrics(self.live, self.places)
        self.studio = open_studio(self.settings)

    def answer(self, response: Response, name: str, what: str, read: Callable[[SessionView], Found]) -> Found:
        """Read something of a session, and say how new it is."""
        found, pulse = self.live.read(name, what, read)
        response.headers[SEQ_HEADER], response.headers[PULSE_HEADER] = str(pulse.seq), pulse.token
        return found

    def answer_json(self, name: str, what: str, read: Callable[[SessionView], object]) -> Response:
        """Answer with something of a session that very many ask for: it is made JSON when it is read, once for all of them."""
        body, pulse = self.live.read(name, what, lambda view: to_json(read(view), inf_nan_mode="null"))
        headers = {SEQ_HEADER: str(pulse.seq), PULSE_HEADER: pulse.token}
        return Response(body, media_type="application/json", headers=headers)


def site_of(request: Request) -> Site:
    """Return the application that answers."""
    site: Site = request.app.state.site
    return site


def caller_of(request: Request) -> Caller:
    """Return who asks."""
    caller: Caller | None = request.state.caller
    if caller is None:
        raise HTTPException(401, "sign in first")
    return caller


def operator_of(request: Request) -> Caller:
    """Return who asks, if that person may change something: in the session that is asked about, or in some."""
    caller = caller_of(request)
    session, person = request.path_params.get("session"), caller.person
    if not (person.may_somewhere("operate") if session is None else person.may("operate", session)):
        raise HTTPException(403, f"{person.name} may look, not act")
    return caller


def administrator_of(request: Request) -> Caller:
    """Return who asks, if that person may let others in: to the session that is asked about, or to all."""
    caller = caller_of(request)
    if not caller.person.may("administrate", request.path_params.get("session")):
        raise HTTPException(403, f"{caller.person.name} may not administrate")
    return caller


def changes_nothing(request: Request) -> None:
    """Say that a request is not to be written down: it is sent as a change is, and only asks."""
    request.state.noted = False


def is_tried(request: Request) -> None:
    """Say that a password, or the secret of a link, is looked at now, which is to be written down."""
    request.state.tried = True


def _at_once(find: Callable[[Request], Found]) -> Callable[[Request], Awaitable[Found]]:
    """Have what only looks at the request be found where the request is, instead of in a thread that first has to be free."""

    async def found(request: Request) -> Found:
        return find(request)

    return found


ThisSite = Annotated[Site, Depends(_at_once(site_of))]
Asking = Annotated[Caller, Depends(_at_once(caller_of))]
Operating = Annotated[Caller, Depends(_at_once(operator_of))]
Administrating = Annotated[Caller, Depends(_at_once(administrator_of))]
