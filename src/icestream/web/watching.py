"""The addresses of monitors and alarms: what is watched, what is wrong, who has seen it, and the rules."""

import logging
import threading
import time
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from icestream.alarms.alarm_store import Delivery, KeptAlarm
from icestream.alarms.document import Policy, read_session_text, settings_of, write_session_text
from icestream.errors import SessionError
from icestream.facility.observing import alarm_store_of, policy_of, send_test
from icestream.flow.storage import Session
from icestream.logs import log_event
from icestream.observe.monitors import (
    MachineSeen,
    MonitoredMeasure,
    SummaryFigure,
    read_monitored,
    rules_about_nothing,
    see_machine,
    summarise,
)
from icestream.web.site import Answer, Asking, Operating, SessionName, Site, ThisSite

MOST_ALARMS = 200
MOST_DRAWN = 500
LONGEST_DOCUMENT = 50_000

router = APIRouter(prefix="/api/v1/sessions/{session}", tags=["alarms"])
_LOG = logging.getLogger(__name__)
_EDITING = threading.Lock()


class Watched(Answer):
    """Who looks at the session by its rules, and what keeps that from happening."""

    looked_at: float | None
    observed: bool
    """Somebody has the turn now."""
    trouble: str | None
    note: str | None = None
    """Which addresses get no mail, and why."""


class MonitorsPage(Answer):
    """What is watched of a session; ``trouble`` says why its rules cannot be read."""

    watched: Watched
    measures: list[MonitoredMeasure]
    machine: MachineSeen
    summary: list[SummaryFigure]


class RuleLine(Answer):
    """A rule that holds."""

    name: str
    kind: str
    severity: str
    settings: dict[str, str | float | int | bool | list[str] | None]
    about_nothing: bool
    """It names a measure that no step of the session has, or none yet."""


class AlarmsPage(Answer):
    """The alarms of a session, those that are open first; messages and their failures; the rules and channels."""

    watched: Watched
    alarms: list[KeptAlarm]
    deliveries: list[Delivery]
    rules: list[RuleLine]
    channels: list[str]
    document: str
    """The session's own document, as it is written; nothing for who may only look: it has addresses in it."""


class Acknowledgement(BaseModel):
    """Which alarms are acknowledged, and what is known about them."""

    model_config = ConfigDict(extra="forbid")

    numbers: list[Annotated[int, Field(ge=1, lt=2**31)]] = Field(min_length=1, max_length=MOST_ALARMS)
    note: str = Field("", max_length=500)


class Acknowledged(Answer):
    """The alarms that were acknowledged; others are unknown, over, or were before."""

    numbers: list[int]


class NewDocument(BaseModel):
    """The session's own rules as YAML, and what they were when the editing began."""

    model_config = ConfigDict(extra="forbid")

    before: str = Field(max_length=LONGEST_DOCUMENT)
    document: str = Field(max_length=LONGEST_DOCUMENT)


class TestAsked(BaseModel):
    """Which channel is tried; ``all`` are."""

    model_config = ConfigDict(extra="forbid")

    channel: str = Field(max_length=64)


class Tried(Answer):
    """What became of a test message; ``error`` is unset where it was taken."""

    channel: str
    error: str | None


@router.get("/monitors", summary="What rules watch: measures with limits, the machine over time, the session as a whole")
def monitors(
    session: SessionName,
    site: ThisSite,
    response: Response,
    caller: Asking,
    hours: Annotated[float, Query(gt=0, le=48, description="How long the machine is shown")] = 6.0,
) -> MonitorsPage:
    """Return what is watched."""
    opened = site.places.open(session)
    policy, trouble = _policy(site, opened)
    rules, store = policy.rules, alarm_store_of(opened)
    key = f"monitored {hash(rules)}"
    measured, overview, arrivals = site.answer(
        response,
        session,
        key,
        lambda view: (read_monitored(view, view.steps(), rules), view.overview(), view.arrivals()),
    )
    samples = store.samples(since=time.time() - 3600 * hours, most=MOST_DRAWN)
    return MonitorsPage(
        watched=_watched(opened, policy, trouble, told=caller.person.may("operate", session)),
        measures=measured,
        machine=see_machine(samples, rules),
        summary=summarise(overview, arrivals, rules),
    )


@router.get("/alarms", summary="What is wrong, since when, who has seen it, and what was sent")
def alarms(session: SessionName, site: ThisSite, response: Response, caller: Asking) -> AlarmsPage:
    """Return the alarms."""
    opened = site.places.open(session)
    policy, trouble = _policy(site, opened)
    rules = policy.rules
    idle = site.answer(response, session, f"about nothing {hash(rules)}", lambda view: rules_about_nothing(view, rules))
    store, told = alarm_store_of(opened), caller.person.may("operate", session)
    deliveries = store.deliveries(most=MOST_ALARMS)
    return AlarmsPage(
        watched=_watched(opened, policy, trouble, told=told),
        alarms=store.alarms(most=MOST_ALARMS),
        deliveries=deliveries if told else [replace(one, error=None) for one in deliveries],
        rules=[
            RuleLine(
                name=rule.name,
                kind=rule.kind,
                severity=rule.severity,
                settings=settings_of(rule),
                about_nothing=rule.name in idle,
            )
            for rule in rules
        ],
        channels=[one.name for one in policy.channels],
        document=read_session_text(opened.folder) if told else "",
    )


@router.post("/alarms/acknowledge", summary="Acknowledge alarms: nobody is reminded of them")
def acknowledge(session: SessionName, asked: Acknowledgement, site: ThisSite, caller: Operating) -> Acknowledged:
    """Acknowledge alarms."""
    store = alarm_store_of(site.places.open(session))
    done = store.acknowledge(asked.numbers, by=caller.person.name, note=asked.note, now=time.time())
    if not done:
        raise HTTPException(409, "these alarms are unknown, over, or were acknowledged before")
    site.live.forget(session)
    return Acknowledged(numbers=done)


@router.post("/alarms/rules", summary="Replace the session's own rules")
def change_rules(session: SessionName, asked: NewDocument, site: ThisSite, caller: Operating) -> Acknowledged:
    """Check and write the session's own document; it holds from the next look on."""
    opened = site.places.open(session)
    with _EDITING:
        if read_session_text(opened.folder) != asked.before:
            raise HTTPException(409, "somebody else has changed the rules meanwhile; read them again")
        write_session_text(opened.folder, asked.document, facility=site.settings.alarms)
    log_event(_LOG, logging.INFO, "rules of alarms changed", session=session, author=caller.person.name)
    site.live.forget(session)
    return Acknowledged(numbers=[])


@router.post("/alarms/test", summary="Send a test message")
def test_channel(session: SessionName, asked: TestAsked, site: ThisSite, _caller: Operating) -> list[Tried]:
    """Try a channel."""
    opened = site.places.open(session)
    results = send_test(opened, alarm_store_of(opened), policy_of(opened, site.settings.alarms), asked.channel)
    return [Tried(channel=one.delivery.channel, error=one.error) for one in results]


def _policy(site: Site, session: Session) -> tuple[Policy, str | None]:
    """Return what holds, and why it cannot be read: then the page still shows what is known."""
    try:
        return policy_of(session, site.settings.alarms), None
    except SessionError as error:
        return Policy(rules=()), str(error)


def _watched(session: Session, policy: Policy, trouble: str | None, *, told: bool) -> Watched:
    """Return who looks; who may only look is not ``told`` what is in documents, nor where they are."""
    seen = alarm_store_of(session).observer()
    observed = seen.holder is not None and time.time() < seen.until
    trouble = trouble or seen.trouble
    if not told:
        hidden = None if trouble is None else "who operates the session is told why"
        return Watched(looked_at=seen.looked_at, observed=observed, trouble=hidden)
    return Watched(looked_at=seen.looked_at, observed=observed, trouble=trouble, note=policy.note)
