"""The parts of the report that show pictures: recent micrographs with their picks, and class averages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from icestream.io.blocks import from_block
from icestream.observe.answers import StepSummary, StoredRecord
from icestream.observe.motion_field import draw_arrows, draw_path, local_arrows
from icestream.observe.order import inputs_of
from icestream.observe.pictures import Album, Picture
from icestream.observe.queries import SessionView

N_MICROGRAPHS = 24
MOST_CIRCLES = 600


@dataclass(frozen=True)
class Circle:
    """A pick in picture coordinates (row 0 of the micrograph is at the bottom of its picture)."""

    x: float
    y: float


@dataclass(frozen=True)
class RecentMicrograph:
    """One micrograph with what is known about it."""

    name: str
    picture: Picture
    height_px: int
    width_px: int
    circles: tuple[Circle, ...]
    radius_px: float
    n_picks: int | None
    numbers: tuple[tuple[str, float | None, str], ...]
    charts: tuple[Markup, ...] = ()
    """The path of the specimen, and its local motion."""
    set_aside: str | None = None
    own_params: tuple[str, ...] = ()
    """What was computed for it with parameters of its own, and who wanted it."""


@dataclass(frozen=True)
class ClassLine:
    """One class average in numbers."""

    id: int
    count: int
    share_percent: float
    resolution_ang: float | None


@dataclass(frozen=True)
class ClassSection:
    """The newest class averages of one step."""

    step: StepSummary
    version: int
    at: float
    count: int
    picture: Picture
    classes: tuple[ClassLine, ...]


def recent_micrographs(
    view: SessionView, steps: Sequence[StepSummary], album: Album, *, pixel_size_ang: float | None
) -> tuple[RecentMicrograph, ...]:
    """Return the newest micrographs, with the picks of the last picking step drawn on what it picked from."""
    picking = _last_with(steps, "Picks")
    shown = _micrograph_step(view, steps, picking or _last_with(steps, "CtfFit"))
    if shown is None:
        return ()
    newest = list(view.records(shown.name, newest_first=True, limit=N_MICROGRAPHS))
    units = [stored.unit for stored in newest]
    picks = view.records_of(picking.name, units) if picking else {}
    fits = {step.name: view.records_of(step.name, units) for step in steps if step.records.get("out") == "CtfFit"}
    reasons = {item.unit: f"{item.step}: {item.reason}" for item in view.rejected(limit=10 * N_MICROGRAPHS)}
    own = [one for one in view.decisions(units) if one.params is not None]
    return tuple(
        replace(
            _recent(
                stored,
                picks.get(stored.unit),
                {step: fit[stored.unit] for step, fit in fits.items() if stored.unit in fit},
                album,
                pixel_size_ang,
            ),
            set_aside=reasons.get(stored.unit),
            own_params=tuple(f"{one.step}: {one.sentence}" for one in own if one.unit == stored.unit),
        )
        for stored in newest
    )


def _last_with(steps: Sequence[StepSummary], record_type: str) -> StepSummary | None:
    return next((step for step in reversed(steps) if step.records.get("out") == record_type), None)


def _micrograph_step(view: SessionView, steps: Sequence[StepSummary], user: StepSummary | None) -> StepSummary | None:
    """Return the step whose micrographs are shown: the nearest above their user (picking, or CTF), else the last."""
    by_name = {step.name: step for step in steps}
    above = [user.name] if user else []
    for name in above:
        if by_name[name].records.get("out") == "Micrograph":
            return by_name[name]
        above.extend(step for step, _ in inputs_of(view.session.document, name) if step not in above)
    return _last_with(steps, "Micrograph")


def _recent(
    stored: StoredRecord, picks: StoredRecord | None, fits: Mapping[str, StoredRecord], album: Album, pixel_size_ang: float | None
) -> RecentMicrograph:
    micrograph = stored.record
    height_px, width_px = int(micrograph["height_px"]), int(micrograph["width_px"])
    radius_px = 0.012 * width_px
    if picks is not None and pixel_size_ang:
        radius_px = picks.record["diameter_ang"] / 2 / (pixel_size_ang * micrograph["bin"])
    numbers: list[tuple[str, float | None, str]] = []
    for step, fit in fits.items():
        numbers.append((step if len(fits) > 1 else "CTF", fit.record["resolution_ang"], "Å"))
    first = next((fit.record for fit in fits.values()), None)
    if first is not None:
        numbers.append(("Defocus", (first["defocus_u_ang"] + first["defocus_v_ang"]) / 2e4, "µm"))
    charts: tuple[Markup, ...] = ()
    if micrograph.get("motion"):
        scale, unit = (pixel_size_ang, "Å") if pixel_size_ang else (1.0, "px")
        moved, charts = _moved(micrograph["motion"], scale=scale, unit=unit, name=stored.name)
        numbers += moved
    return RecentMicrograph(
        name=stored.name,
        picture=album.embed(micrograph.get("thumbnail")),
        height_px=height_px,
        width_px=width_px,
        circles=_circles(picks, height_px),
        radius_px=radius_px,
        n_picks=None if picks is None else picks.record["count"],
        numbers=tuple(numbers),
        charts=charts,
    )


def _moved(
    motion: dict[str, Any], *, scale: float, unit: str, name: str
) -> tuple[list[tuple[str, float | None, str]], tuple[Markup, ...]]:
    """Return what is told and what is drawn of the motion of one specimen."""
    arrows = local_arrows(motion, scale=scale)
    numbers: list[tuple[str, float | None, str]] = [("Motion", motion["total_px"] * scale, unit)]
    if arrows:
        numbers.append(("Local motion up to", max(arrow.length for arrow in arrows), unit))
    drawn = draw_path(motion, scale=scale, unit=unit, name=name), draw_arrows(arrows, unit=unit, name=name)
    return numbers, tuple(chart for chart in drawn if chart is not None)


def _circles(picks: StoredRecord | None, height_px: int) -> tuple[Circle, ...]:
    block = picks.block if picks is not None else None
    if block is None:
        return ()
    table = from_block(block)[:MOST_CIRCLES]  # (n,)
    return tuple(Circle(float(x), height_px - float(y)) for y, x in zip(table["y_px"], table["x_px"], strict=True))


def class_sections(view: SessionView, steps: Sequence[StepSummary], album: Album) -> tuple[ClassSection, ...]:
    """Return the newest class averages of every step that makes some."""
    sections = []
    for step in steps:
        if step.records.get("out") != "ClassAverages":
            continue
        newest = next(iter(view.snapshots(step.name, limit=1)), None)
        if newest is None or newest.record is None:
            continue
        total = max(1, sum(one["count"] for one in newest.record["classes"]))
        lines = [
            ClassLine(one["id"], one["count"], 100 * one["count"] / total, one.get("resolution_ang"))
            for one in sorted(newest.record["classes"], key=lambda one: -one["count"])
        ]
        picture = album.embed(newest.record["picture"])
        sections.append(ClassSection(step, newest.version, newest.at, newest.record["count"], picture, tuple(lines)))
    return tuple(sections)
