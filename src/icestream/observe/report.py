"""The report: one HTML file that shows a session, on a wall screen, on a phone, from a stick, without a network.

The page asks for nothing: style, script and pictures are inside, and its content security policy allows nothing else. A
facility puts its own ``report.html``, ``style.css`` or ``script.js`` into a folder of templates; those it leaves out are ours.
"""

import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from icestream import __version__
from icestream.files import publish_text
from icestream.flow.storage import Session
from icestream.observe import wording
from icestream.observe.answers import FailedItem, NoticeRow, Overview, ReasonCount, RejectedItem, StepSummary
from icestream.observe.catalog import Catalog
from icestream.observe.charts import draw_share
from icestream.observe.conditions import Condition, read_conditions
from icestream.observe.gallery import GallerySection, RecentImage, gallery_sections, recent_images
from icestream.observe.panels import Artist, DrawnPanel, join_sentences
from icestream.observe.people import AuditEntry, Decision
from icestream.observe.pictures import PictureEmbedder
from icestream.observe.queries import RECENT_MINUTES, SessionView, open_view
from icestream.observe.two_streams import compare_streams
from icestream.records.shown import Headline

REFRESH_S = 30
MOST_LINES = 60

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Figure:
    """A number at the top of the page."""

    label: str
    value: float | None
    unit: str
    caption: str


@dataclass(frozen=True)
class ReportData:
    """Everything the template shows."""

    overview: Overview
    made_at: float
    made_by: str
    refresh_s: float
    recent_minutes: float
    conditions: tuple[Condition, ...]
    steps: tuple[StepSummary, ...]
    headlines: tuple[Figure, ...]
    panels: tuple[DrawnPanel, ...]
    images: tuple[RecentImage, ...]
    galleries: tuple[GallerySection, ...]
    failed: tuple[FailedItem, ...]
    failed_reasons: tuple[ReasonCount, ...]
    rejected: tuple[RejectedItem, ...]
    rejected_reasons: tuple[ReasonCount, ...]
    notices: tuple[NoticeRow, ...]
    audit: tuple[AuditEntry, ...]
    decisions: tuple[Decision, ...]


def write_report(
    session: Session,
    target: Path | None = None,
    refresh_s: float | None = None,
    *,
    template_folder: Path | None = None,
) -> Path:
    """Write the report of a session and return its path.

    It is ``report/index.html`` in the session, unless ``target`` is another file or folder. The page loads itself again every
    ``refresh_s`` seconds (30 unless told otherwise; 0 is never) while a runner is alive, and not at all afterwards. Readers see
    the old page or the new one, never half of one.

    Raises
    ------
    SessionError
        The store cannot be read.
    """
    path = _file_for(session, target)
    with open_view(session) as view:
        data = gather(view, refresh_s=REFRESH_S if refresh_s is None else refresh_s)
    publish_text(path, render(data, template_folder=template_folder))
    return path


def _file_for(session: Session, target: Path | None) -> Path:
    folder = session.folder / "report" if target is None else target
    return folder if folder.suffix in (".html", ".htm") else folder / "index.html"


def gather(view: SessionView, *, refresh_s: float) -> ReportData:
    """Read everything the report shows."""
    overview, steps = view.overview(), tuple(view.steps())
    conditions = read_conditions(view)
    pixel_size_ang = next((one.value for one in conditions if one.name == "pixel_size_ang"), None)
    artist = Artist(view, view.catalog(), PictureEmbedder(view.session.roots), pixel_size_ang)
    panels = _draw_panels(view, artist, steps)
    return ReportData(
        overview=overview,
        made_at=time.time(),
        made_by=__version__,
        refresh_s=refresh_s if overview.runner.alive else 0,
        recent_minutes=RECENT_MINUTES,
        conditions=conditions,
        steps=steps,
        headlines=_headlines(artist.catalog, steps, panels),
        panels=panels,
        images=recent_images(artist, steps),
        galleries=gallery_sections(artist, steps),
        failed=tuple(view.failed(limit=MOST_LINES)),
        failed_reasons=tuple(view.grouped_reasons("failed")[:MOST_LINES]),
        rejected=tuple(view.rejected(limit=MOST_LINES)),
        rejected_reasons=tuple(view.grouped_reasons("rejected")[:MOST_LINES]),
        notices=tuple(view.notices(limit=MOST_LINES)),
        audit=tuple(reversed(view.history(limit=MOST_LINES))),
        decisions=tuple(view.decisions()[-MOST_LINES:]),
    )


def render(data: ReportData, *, template_folder: Path | None = None) -> str:
    """Fill the template."""
    folders = [_TEMPLATES] if template_folder is None else [template_folder, _TEMPLATES]
    environment = Environment(
        loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    environment.filters.update(
        quantity=wording.quantity,
        counted=wording.counted,
        moment=wording.moment,
        clock_time=wording.clock_time,
        span=wording.span,
        share=_share_of,
    )
    style = environment.get_template("style.css").render()
    script = environment.get_template("script.js").render()
    return environment.get_template("report.html").render(
        data=data, style=style, script=script, style_hash=_hash_of(style), script_hash=_hash_of(script)
    )


def _hash_of(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode("utf-8")).digest()).decode("ascii")


def _share_of(step: StepSummary) -> Markup:
    counts = step.counts
    names = ("item", "rejected", "failed", "skipped", "absent", "running", "waiting")
    return draw_share([(name, getattr(counts, name)) for name in names])


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


def _headlines(catalog: Catalog, steps: Sequence[StepSummary], panels: Sequence[DrawnPanel]) -> tuple[Figure, ...]:
    """Return the figures that types of record declare."""
    figures = [_figure(one, step, panels) for one, step in catalog.headlines(steps)]
    return tuple(figure for figure in figures if figure is not None)


def _figure(headline: Headline, step: StepSummary, panels: Sequence[DrawnPanel]) -> Figure | None:
    if headline.of == "pace":
        per_minute = step.pace.per_minute
        return Figure(headline.label, None if per_minute is None else per_minute * 60, "", headline.caption)
    if headline.of == "weight":
        return Figure(headline.label, step.weight, "", headline.caption)
    measured = next((one.measures for one in panels if one.step.name == step.name and one.measures), None)
    return None if measured is None else Figure(headline.label, measured[0].median, measured[0].unit, headline.caption)
