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
from icestream.flow.storage.session import Session
from icestream.observe import gallery, measures, quality, triage, wording
from icestream.observe.answers import FailedItem, NoticeRow, Overview, ReasonCount, RejectedItem, StepSummary
from icestream.observe.charts import draw_share
from icestream.observe.conditions import Condition, read_conditions
from icestream.observe.people import Decision, Deed
from icestream.observe.pictures import Album
from icestream.observe.queries import RECENT_MINUTES, SessionView, open_view
from icestream.observe.reasons import group_reasons

REFRESH_S = 30
MOST_LINES = 60

_TEMPLATES = Path(__file__).parent / "templates"


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
    particles: int | None
    measured: tuple[measures.MeasuredStep, ...]
    micrographs: tuple[gallery.RecentMicrograph, ...]
    classes: tuple[gallery.ClassSection, ...]
    failed: tuple[FailedItem, ...]
    failed_reasons: tuple[ReasonCount, ...]
    rejected: tuple[RejectedItem, ...]
    rejected_reasons: tuple[ReasonCount, ...]
    notices: tuple[NoticeRow, ...]
    deeds: tuple[Deed, ...]
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
    album = Album(view.session.roots)
    return ReportData(
        overview=overview,
        made_at=time.time(),
        made_by=__version__,
        refresh_s=refresh_s if overview.runner.alive else 0,
        recent_minutes=RECENT_MINUTES,
        conditions=conditions,
        steps=steps,
        particles=_count_particles(steps),
        measured=_measure(view, steps, album, pixel_size_ang),
        micrographs=gallery.recent_micrographs(view, steps, album, pixel_size_ang=pixel_size_ang),
        classes=gallery.class_sections(view, steps, album),
        failed=tuple(view.failed(limit=MOST_LINES)),
        failed_reasons=tuple(group_reasons(view.reasons("failed"))[:MOST_LINES]),
        rejected=tuple(view.rejected(limit=MOST_LINES)),
        rejected_reasons=tuple(group_reasons(view.reasons("rejected"))[:MOST_LINES]),
        notices=tuple(view.notices(limit=MOST_LINES)),
        deeds=tuple(reversed(view.history(limit=MOST_LINES))),
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


def _measure(
    view: SessionView, steps: Sequence[StepSummary], album: Album, pixel_size_ang: float | None
) -> tuple[measures.MeasuredStep, ...]:
    """Choose what to show of a step by the type of its records, whatever it is called."""
    found: list[measures.MeasuredStep | None] = []
    for step in steps:
        match quality.record_type(step):
            case "MovieDose":
                found.append(quality.measure_dose(view, step, steps))
            case "GainReference":
                found.append(quality.measure_gain(view, step, album))
            case "MotionAgreement":
                found.append(quality.measure_agreement(view, step, pixel_size_ang=pixel_size_ang))
            case "TiltMeasure":
                found.append(quality.measure_tilt(view, step, album))
            case "MicrographQuality":
                found.append(triage.measure_quality(view, step, album))
            case "CtfLocal":
                found.append(quality.measure_local_ctf(view, step, album))
            case "CtfAgreement":
                found.append(quality.measure_ctf_agreement(view, step))
            case "CtfFit":
                found.append(measures.measure_ctf(view, step, album))
            case "Micrograph":
                found.append(measures.measure_motion(view, step, pixel_size_ang=pixel_size_ang))
            case "Picks":
                found.append(measures.measure_picks(view, step))
    found += quality.compare_ctfs(view, steps)
    own = {(one.step, one.exposure): one.sentence for one in view.decisions() if one.params is not None}
    return tuple(_mark_newest(one, own) for one in found if one is not None)


def _mark_newest(measured: measures.MeasuredStep, own: Mapping[tuple[str, str], str]) -> measures.MeasuredStep:
    """Say of the newest exposure of a step that it was computed with parameters of its own, if so."""
    newest = measured.newest
    said = own.get((measured.step.name, newest.name)) if newest is not None else None
    if newest is None or said is None:
        return measured
    return replace(measured, newest=replace(newest, note=f"{newest.note} It was {said}.".strip()))


def _count_particles(steps: Sequence[StepSummary]) -> int | None:
    """Return the particles of the last step that extracted some, else of the last that picked some."""
    for wanted in ("Particles", "Picks"):
        weights = [step.weight for step in steps if step.records.get("out") == wanted]
        if weights:
            return weights[-1]
    return None
