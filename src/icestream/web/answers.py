"""What the interface answers with, beside the views themselves: the OpenAPI document is made of these."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from icestream.observe.answers import FailedItem, NoticeRow, Overview, ReasonCount, RejectedItem, StepSummary
from icestream.observe.arrivals import Arrivals
from icestream.observe.conditions import Condition
from icestream.observe.exposures import ExposureRow
from icestream.observe.log_lines import LogLine
from icestream.observe.measured import Histogram, MeasuredSeries, MeasureOfStep
from icestream.observe.medians import RecentMedian
from icestream.observe.people import AuditEntry, Decision
from icestream.observe.why import Explanation
from icestream.web.access import Role


class Answer(BaseModel):
    """The root of all answers."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Me(Answer):
    """Who asks, and what must be sent along with a change; nobody, where somebody must sign in first."""

    name: str | None
    role: Role | None
    csrf: str | None
    sign_in: bool
    """People sign in here."""
    single: str | None
    """The only session that is served, if it is one."""
    version: str


class SignIn(BaseModel):
    """A name and a password."""

    model_config = ConfigDict(extra="forbid")

    name: str
    password: str


class SessionLine(Answer):
    """A session on the page of all sessions; ``trouble`` says why it cannot be read."""

    id: str
    overview: Overview | None = None
    arrivals: Arrivals | None = None
    trouble: str | None = None


class StepPage(Answer):
    """One step: its counts and rates, what it waits for, and the medians of what it measures."""

    step: StepSummary
    inputs: list[str]
    marks: list[str]
    waiting: list[str]
    medians: list[RecentMedian]


class HeadlineFigure(Answer):
    """A figure that a type of record declares for the top of the page."""

    label: str
    value: float | None
    unit: str
    caption: str


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


class MeasureInfo(Answer):
    """A measure that a step declares."""

    id: str
    step: str
    step_label: str
    label: str
    unit: str
    better: str | None
    whole: bool

    @classmethod
    def of(cls, one: MeasureOfStep) -> "MeasureInfo":
        """Return what is said of a measure."""
        return cls.model_validate(one)


class ExposurePage(Answer):
    """A page of the table of exposures."""

    columns: list[MeasureInfo]
    rows: list[ExposureRow]
    total: int
    matching: int


class SeriesAnswer(Answer):
    """A measure along the session, with its running median and its histogram."""

    measure: MeasureInfo
    exposures: list[int]
    values: list[float]
    trend: list[float]
    stride: int
    median: float
    histogram: Histogram

    @classmethod
    def of(cls, one: MeasuredSeries) -> "SeriesAnswer":
        """Return a series as it is sent."""
        return cls(
            measure=MeasureInfo.of(one.of),
            exposures=list(one.exposures),
            values=list(one.values),
            trend=list(one.trend),
            stride=one.stride,
            median=one.median,
            histogram=one.histogram,
        )


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


class ActionAnswer(Answer):
    """What became of an action; ``asked`` while the runner has not answered yet."""

    number: int
    state: Literal["done", "refused", "asked"]
    text: str


class Explanations(Answer):
    """What something is waiting for."""

    sentences: list[Explanation]
