"""The parts of the report that show pictures: recent images with what lies on them, and the parts of wholes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from icestream.io.blocks import from_block
from icestream.observe.answers import StepSummary, StoredRecord, StoredSnapshot
from icestream.observe.motion_field import MOST_POINTS, draw_arrows, local_arrows
from icestream.observe.panels import Artist, Newest
from icestream.observe.pictures import Picture
from icestream.observe.values import Told, field_at, tell
from icestream.records import Card, Gallery, Image, Number, Overlay, RowColumn

N_IMAGES = 24
MOST_CIRCLES = 600
N_VERSIONS = 20


@dataclass(frozen=True)
class Circle:
    """A position in picture coordinates (row 0 of the image is at the bottom of its picture)."""

    x: float
    y: float


@dataclass(frozen=True)
class RecentImage:
    """One image of an exposure with what is known about it."""

    name: str
    picture: Picture
    height_px: int
    width_px: int
    circles: tuple[Circle, ...]
    radius_px: float
    n_positions: int | None
    word: str
    """What a position is called."""
    numbers: tuple[Told, ...]
    charts: tuple[Markup, ...] = ()
    """The path of the specimen, and its local motion."""
    set_aside: str | None = None
    own_params: tuple[str, ...] = ()
    """What was computed for it with parameters of its own, and who wanted it."""
    unit: str = ""
    """The id of the exposure."""
    beside: tuple[tuple[str, Picture], ...] = ()
    """Further small pictures with their titles, such as its power spectrum."""


@dataclass(frozen=True)
class Version:
    """One version of a whole: how much went into it, and how many parts it has."""

    number: int
    at: float
    count: int
    parts: int


@dataclass(frozen=True)
class GallerySection:
    """The newest version of a whole of one step: its picture, and a table of its parts."""

    gallery: Gallery
    step: StepSummary
    version: int
    at: float
    count: int
    picture: Picture
    rows: tuple[tuple[float | None, ...], ...]
    history: tuple[Version, ...] = ()
    """The newest versions, newest first."""


def recent_images(artist: Artist, steps: Sequence[StepSummary]) -> tuple[RecentImage, ...]:
    """Return the newest images, with the positions of the last step that finds some drawn on what it found them in."""
    view, catalog = artist.view, artist.catalog
    shown = {step.name: catalog.shown(step.records.get("out")) for step in steps}
    finding = next((step for step in reversed(steps) if shown[step.name].overlay), None)
    user = finding or next((step for step in reversed(steps) if shown[step.name].beside), None)
    source = _image_step(artist, steps, user)
    image = None if source is None else shown[source.name].image
    if source is None or image is None:
        return ()
    newest = list(view.records(source.name, newest_first=True, limit=N_IMAGES))
    units = [stored.unit for stored in newest]
    overlay = None if finding is None else shown[finding.name].overlay
    found = {} if finding is None else view.records_of(finding.name, units)
    beside = {step.name: view.records_of(step.name, units) for step in steps if shown[step.name].beside}
    reasons = {item.unit: f"{item.step}: {item.reason}" for item in view.rejected(limit=10 * N_IMAGES)}
    own = [one for one in view.decisions(units) if one.params is not None]
    spectra = next(((step.name, one) for step in steps for one in shown[step.name].cards if one.picture and one.curve), None)
    with_spectrum = {} if spectra is None else beside.get(spectra[0]) or view.records_of(spectra[0], units)
    return tuple(
        _recent(
            artist,
            image,
            stored,
            (overlay, found.get(stored.unit)),
            _numbers_beside(artist, steps, {step: of[stored.unit] for step, of in beside.items() if stored.unit in of}),
            set_aside=reasons.get(stored.unit),
            own_params=tuple(f"{one.step}: {one.sentence}" for one in own if one.unit == stored.unit),
            pictures=_spectrum(artist, None if spectra is None else spectra[1], with_spectrum.get(stored.unit)),
        )
        for stored in newest
    )


def _spectrum(artist: Artist, card: Card | None, stored: StoredRecord | None) -> tuple[tuple[str, Picture], ...]:
    """Return the picture of the spectrum of an exposure with its title, if it has one."""
    if card is None or card.picture is None or stored is None:
        return ()
    picture = artist.embedder.embed(field_at(stored.record, card.picture.field))
    return ((card.picture.title, picture),) if picture.uri else ()


def _image_step(artist: Artist, steps: Sequence[StepSummary], user: StepSummary | None) -> StepSummary | None:
    """Return the step whose images are shown: the nearest above their user, else the last."""
    by_name = {step.name: step for step in steps}
    with_image = [step.name for step in steps if artist.catalog.shown(step.records.get("out")).image]
    above = [user.name] if user else []
    for name in above:
        if name in with_image:
            return by_name[name]
        above.extend(step for step in artist.view.inputs(name) if step not in above)
    return by_name[with_image[-1]] if with_image else None


def _numbers_beside(artist: Artist, steps: Sequence[StepSummary], beside: Mapping[str, StoredRecord]) -> tuple[Told, ...]:
    """Return the numbers of records that are of the same image; those of every step with its name, where there are several."""
    told: list[Told] = []
    types = {step.name: step.records["out"] for step in steps if step.name in beside}
    for name in dict.fromkeys(types.values()):
        mine = [step for step, one in types.items() if one == name]
        for one in artist.catalog.shown(name).beside:
            for step in mine if one.every_step else mine[:1]:
                found = tell((one.number,), beside[step].record, pixel_size_ang=artist.pixel_size_ang)
                told += [(step if one.every_step and len(mine) > 1 else label, value, unit) for label, value, unit in found]
    return tuple(told)


def _recent(
    artist: Artist,
    image: Image,
    stored: StoredRecord,
    on_it: tuple[Overlay | None, StoredRecord | None],
    beside: tuple[Told, ...],
    *,
    set_aside: str | None,
    own_params: tuple[str, ...],
    pictures: tuple[tuple[str, Picture], ...],
) -> RecentImage:
    record, (overlay, positions) = stored.record, on_it
    height_px, width_px = int(field_at(record, image.height)), int(field_at(record, image.width))
    radius_px, n_positions = 0.012 * width_px, None
    if overlay is not None and positions is not None:
        n_positions = int(field_at(positions.record, overlay.count))
        if artist.pixel_size_ang:
            diameter_ang = float(field_at(positions.record, overlay.diameter_ang))
            radius_px = diameter_ang / 2 / artist.scale(Number("", pixels="own"), record)
    moved, charts = _motion(artist, image, Newest(stored.name, record))
    return RecentImage(
        name=stored.name,
        picture=artist.embedder.embed(field_at(record, image.picture)),
        height_px=height_px,
        width_px=width_px,
        circles=_circles(overlay, positions, height_px),
        radius_px=radius_px,
        n_positions=n_positions,
        word="" if overlay is None else overlay.word,
        numbers=beside + tell(image.numbers, record, pixel_size_ang=artist.pixel_size_ang) + moved,
        charts=charts,
        set_aside=set_aside,
        own_params=own_params,
        unit=stored.unit,
        beside=pictures,
    )


def _motion(artist: Artist, image: Image, newest: Newest) -> tuple[tuple[Told, ...], tuple[Markup, ...]]:
    """Return what is told and what is drawn of the motion of one specimen."""
    path = None if image.path is None else artist.path(image.path, newest, most=MOST_POINTS)
    if image.motion_field is None:
        return (), () if path is None else (path,)
    unit = "Å" if artist.pixel_size_ang else "px"
    coefficients = field_at(newest.record, image.motion_field.coefficients)
    arrows = local_arrows(coefficients, scale=artist.pixel_size_ang or 1.0)
    told: tuple[Told, ...] = ((image.motion_field.label, max(arrow.length for arrow in arrows), unit),) if arrows else ()
    drawn = path, draw_arrows(arrows, unit=unit, name=newest.name)
    return told, tuple(chart for chart in drawn if chart is not None)


def _circles(overlay: Overlay | None, positions: StoredRecord | None, height_px: int) -> tuple[Circle, ...]:
    block = positions.block if positions is not None else None
    if block is None or overlay is None:
        return ()
    table = from_block(block)[:MOST_CIRCLES]  # (n,)
    return tuple(Circle(float(x), height_px - float(y)) for y, x in zip(table[overlay.y], table[overlay.x], strict=True))


def gallery_sections(artist: Artist, steps: Sequence[StepSummary]) -> tuple[GallerySection, ...]:
    """Return the newest version of every whole that has parts to show."""
    sections = []
    for step in steps:
        gallery = artist.catalog.shown(step.records.get("out")).gallery
        versions = [] if gallery is None else artist.view.snapshots(step.name, limit=N_VERSIONS)
        if gallery is None or not versions or versions[0].record is None:
            continue
        newest = versions[0]
        parts = sorted(field_at(newest.record or {}, gallery.rows) or [], key=lambda part: -part[gallery.order])
        columns = [_column(one, parts) for one in gallery.columns]
        rows = tuple(zip(*columns, strict=True))
        picture = artist.embedder.embed(field_at(newest.record or {}, gallery.picture.field))
        history = tuple(_version(gallery, one) for one in versions if one.record is not None)
        sections.append(GallerySection(gallery, step, newest.version, newest.at, history[0].count, picture, rows, history))
    return tuple(sections)


def _version(gallery: Gallery, stored: StoredSnapshot) -> Version:
    record = stored.record or {}
    return Version(
        stored.version, stored.at, int(field_at(record, gallery.count) or 0), len(field_at(record, gallery.rows) or [])
    )


def _column(column: RowColumn, parts: Sequence[Mapping[str, Any]]) -> list[float | None]:
    values = [part.get(column.field) for part in parts]
    if not column.share:
        return values
    total = max(1, sum(value or 0 for value in values))
    return [100 * (value or 0) / total for value in values]
