"""Everything that the report shows, read from the store: what its templates are filled with, and its JSON."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from icestream.observe.catalog import Catalog
from icestream.observe.conditions import Condition, read_conditions
from icestream.observe.gallery import GallerySection, RecentImage, gallery_sections, recent_images
from icestream.observe.headlines import HeadlineFigure, lowest_of
from icestream.observe.newest import Tallies
from icestream.observe.panels import Artist, DrawnPanel, join_sentences
from icestream.observe.people import AuditEntry, Decision
from icestream.observe.pictures import PictureEmbedder
from icestream.observe.queries import (
    RECENT_MINUTES,
    FailedItem,
    NoticeRow,
    Overview,
    ReasonCount,
    RejectedItem,
    SessionView,
    StepSummary,
)
from icestream.observe.report.customising import Customised
from icestream.observe.report.extras import DrawnPlot, ExposureRows, draw_plots, read_exposure_rows
from icestream.observe.report.methods import MADE_BY, Methods, describe_methods
from icestream.observe.session_alarms import AlarmsSeen, read_alarms
from icestream.observe.two_streams import compare_streams
from icestream.records import Headline

MOST_LINES = 60


@dataclass(frozen=True)
class ReportData:
    """Everything the templates show."""

    overview: Overview
    made_at: float
    made_by: str
    refresh_s: float
    recent_minutes: float
    conditions: tuple[Condition, ...]
    steps: tuple[StepSummary, ...]
    headlines: tuple[HeadlineFigure, ...]
    panels: tuple[DrawnPanel, ...]
    plots: tuple[DrawnPlot, ...]
    images: tuple[RecentImage, ...]
    exposures: ExposureRows
    galleries: tuple[GallerySection, ...]
    failed: tuple[FailedItem, ...]
    failed_reasons: tuple[ReasonCount, ...]
    rejected: tuple[RejectedItem, ...]
    rejected_reasons: tuple[ReasonCount, ...]
    notices: tuple[NoticeRow, ...]
    alarms: AlarmsSeen
    audit: tuple[AuditEntry, ...]
    decisions: tuple[Decision, ...]
    methods: Methods


@dataclass
class Gathering:
    """How a report is gathered: as customised; what is kept from one to the next makes the next cheaper."""

    customised: Customised = field(default_factory=Customised)
    tallies: Tallies = field(default_factory=Tallies)


def gather(view: SessionView, *, refresh_s: float, how: Gathering | None = None) -> ReportData:
    """Read everything the report shows."""
    how = how or Gathering()
    settings = how.customised.settings
    overview, steps = view.overview(), tuple(view.steps())
    conditions = read_conditions(view)
    pixel_size_ang = next((one.value for one in conditions if one.name == "pixel_size_ang"), None)
    units = {unit: (one.unit, one.factor) for unit, one in settings.units.items()}
    embedder = PictureEmbedder(view.session.roots)
    artist = Artist(view, view.catalog(), embedder, pixel_size_ang, how.tallies, units)
    panels = _draw_panels(view, artist, steps)
    return ReportData(
        overview=overview,
        made_at=time.time(),
        made_by=MADE_BY,
        refresh_s=refresh_s if overview.runner.alive else 0,
        recent_minutes=RECENT_MINUTES,
        conditions=conditions,
        steps=steps,
        headlines=_headlines(view, artist.catalog, steps, panels),
        panels=panels,
        plots=draw_plots(artist, steps, how.customised),
        images=recent_images(artist, steps),
        exposures=read_exposure_rows(artist, steps, how.customised),
        galleries=gallery_sections(artist, steps),
        failed=tuple(view.failed(limit=MOST_LINES)),
        failed_reasons=tuple(view.grouped_reasons("failed")[:MOST_LINES]),
        rejected=tuple(view.rejected(limit=MOST_LINES)),
        rejected_reasons=tuple(view.grouped_reasons("rejected")[:MOST_LINES]),
        notices=tuple(view.notices(limit=MOST_LINES)),
        alarms=read_alarms(view.session, now=time.time()),
        audit=tuple(reversed(view.history(limit=MOST_LINES))),
        decisions=tuple(view.decisions()[-MOST_LINES:]),
        methods=describe_methods(artist.catalog, steps, conditions),
    )


def see_alarms(view: SessionView) -> object:
    """Return what differs when alarms have changed."""
    alarms = read_alarms(view.session, now=0.0)
    return [(one.number, one.ended_at, one.exposures, one.acknowledged_at) for one in (*alarms.open, *alarms.over)]


def _draw_panels(view: SessionView, artist: Artist, steps: Sequence[StepSummary]) -> tuple[DrawnPanel, ...]:
    """Draw what is declared of the records of each step, whatever it is called, and what steps compare."""
    drawn = [*artist.panels(steps), *compare_streams(artist, steps)]
    own = {(one.step, one.exposure): one.sentence for one in view.decisions() if one.params is not None}
    return tuple(_mark_newest(one, own) for one in drawn)


def _mark_newest(panel: DrawnPanel, own: Mapping[tuple[str, str], str]) -> DrawnPanel:
    """Say of the newest exposure of a step that it was computed with parameters of its own, if so."""
    newest = panel.newest
    said = own.get((panel.step.name, newest.title)) if newest is not None else None
    if newest is None or said is None:
        return panel
    return replace(panel, newest=replace(newest, note=join_sentences([newest.note, f"It was {said}."])))


def _headlines(
    view: SessionView, catalog: Catalog, steps: Sequence[StepSummary], panels: Sequence[DrawnPanel]
) -> tuple[HeadlineFigure, ...]:
    """Return the figures that types of record declare."""
    figures = []
    for one, step in catalog.headlines(steps):
        if one.of == "lowest":
            value, unit = lowest_of(view, catalog, one, step)
            figures.append(None if value is None else HeadlineFigure(one.label, value, unit, one.caption))
        else:
            figures.append(_figure(one, step, panels))
    return tuple(figure for figure in figures if figure is not None)


def _figure(headline: Headline, step: StepSummary, panels: Sequence[DrawnPanel]) -> HeadlineFigure | None:
    if headline.of == "pace":
        per_minute = step.pace.per_minute
        return HeadlineFigure(headline.label, None if per_minute is None else per_minute * 60, "", headline.caption)
    if headline.of == "weight":
        return HeadlineFigure(headline.label, step.weight, "", headline.caption)
    measured = next((one.measures for one in panels if one.step.name == step.name and one.measures), None)
    return None if measured is None else HeadlineFigure(headline.label, measured[0].median, measured[0].unit, headline.caption)
