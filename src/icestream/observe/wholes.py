"""The versions of wholes that have parts to show, such as 2D classes: their picture, and a table of the parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icestream.errors import IcestreamError, SessionError
from icestream.flow.declaration import find_step
from icestream.io.blocks import from_block
from icestream.observe.exposures import PublishedPicture
from icestream.observe.queries import SessionView, StoredSnapshot
from icestream.observe.values import field_at
from icestream.records import ClassAssignments, Gallery, RowColumn, parts_in_a_row

MOST_VERSIONS = 500
_SELECTS = "select_classes"


@dataclass(frozen=True)
class PartColumn:
    """A column of the table of parts."""

    label: str
    unit: str


@dataclass(frozen=True)
class PartSelection:
    """What a step selects of the parts of a whole; ``keep`` and ``drop`` are what people decided by hand."""

    step: str
    label: str
    version: int | None
    """Of the whole that it looked at."""
    selected: Mapping[int, bool]
    by_hand: tuple[int, ...]
    keep: tuple[int, ...]
    drop: tuple[int, ...]


@dataclass(frozen=True)
class GalleryData:
    """One version of a whole: the picture of its parts, and a row for each of them, the largest first."""

    step: str
    label: str
    title: str
    version: int
    versions: tuple[int, ...]
    """Those that can be shown, oldest first."""
    at: float
    count: int
    word: str
    picture: PublishedPicture | None
    columns: tuple[PartColumn, ...]
    rows: tuple[tuple[float | None, ...], ...]
    ids: tuple[int, ...]
    """What names the part of each row for good; empty where nothing does."""
    places: tuple[int, ...]
    """Where the part of each row is in the picture, whose squares are ``in_a_row`` to a row."""
    in_a_row: int
    selecting: tuple[PartSelection, ...]
    """What steps have selected of the parts."""


def read_galleries(view: SessionView, *, step: str | None = None, version: int | None = None) -> list[GalleryData]:
    """Return the newest version, or a wanted one, of every whole that has parts to show, or of one step."""
    catalog, found = view.catalog(), []
    chosen = view.order if step is None else [step]
    for name in chosen:
        stored = [one for one in view.snapshots(name, limit=MOST_VERSIONS) if one.record is not None]
        wanted = next((one for one in stored if version in (None, one.version)), None)
        gallery = None if wanted is None else catalog.shown(wanted.record_type).gallery
        if wanted is not None and gallery is not None:
            found.append(_read_gallery(view, gallery, wanted, tuple(sorted(one.version for one in stored))))
    return found


def _read_gallery(view: SessionView, gallery: Gallery, stored: StoredSnapshot, versions: tuple[int, ...]) -> GalleryData:
    record: Mapping[str, Any] = stored.record or {}
    parts = sorted(field_at(record, gallery.rows) or [], key=lambda part: -part[gallery.order])
    columns = [_column(one, parts) for one in gallery.columns]
    order = [part.get(gallery.identity) for part in field_at(record, gallery.rows) or []] if gallery.identity else []
    ids = tuple(int(part[gallery.identity]) for part in parts) if gallery.identity else ()
    named = field_at(record, gallery.picture.field) and not stored.pruned
    spec = view.session.document.steps.get(stored.step)
    return GalleryData(
        step=stored.step,
        label=stored.step if spec is None else spec.label or stored.step,
        title=gallery.title,
        version=stored.version,
        versions=versions,
        at=stored.at,
        count=int(field_at(record, gallery.count) or 0),
        word=gallery.word,
        picture=PublishedPicture(stored.key, gallery.picture.field, gallery.picture.title) if named else None,
        columns=tuple(PartColumn(one.label, one.unit) for one in gallery.columns),
        rows=tuple(zip(*columns, strict=True)),
        ids=ids,
        places=tuple(order.index(one) for one in ids),
        in_a_row=parts_in_a_row(len(order)),
        selecting=tuple(_read_selections(view, stored.step)) if ids else (),
    )


def _read_selections(view: SessionView, whole: str) -> Iterator[PartSelection]:
    """Give what the steps that read a whole have selected of its parts, as the newest of their versions says."""
    for step, spec in view.session.document.steps.items():
        if whole not in view.inputs(step) or not selects_classes(spec.use):
            continue
        newest = next((one for one in view.snapshots(step, limit=1) if one.record is not None), None)
        decided = [] if newest is None or newest.record is None else newest.record.get("classes", [])
        yield PartSelection(
            step=step,
            label=spec.label or step,
            version=None if newest is None or newest.record is None else newest.record.get("version"),
            selected={int(one["id"]): bool(one["selected"]) for one in decided},
            by_hand=tuple(int(one["id"]) for one in decided if one.get("by") == "hand"),
            keep=tuple(spec.params.get("keep", ())),
            drop=tuple(spec.params.get("drop", ())),
        )


def selects_classes(use: str) -> bool:
    """Tell whether a type of step selects classes, also by hand."""
    try:
        return find_step(use).name == _SELECTS
    except IcestreamError:  # of a plugin that is not installed
        return False


@dataclass(frozen=True)
class MemberExposure:
    """An exposure with particles in a class."""

    unit: str
    name: str
    count: int
    of: int
    """How many particles of it were assigned."""


@dataclass(frozen=True)
class Members:
    """Where the particles of a class come from, of the newest exposures."""

    part: int
    looked_at: int
    particles: int
    exposures: tuple[MemberExposure, ...]


def read_members(view: SessionView, step: str, part: int, *, newest: int) -> Members:
    """Return which of the newest exposures have particles in a class, as they were assigned when they came.

    Raises
    ------
    SessionError
        The step assigns no particles.
    """
    if not gives_assignments(view, step):
        raise SessionError(f"{step!r}: is no step of this session that assigns particles to classes")
    found, looked_at = [], 0
    for record in view.records(step, output="assignments", newest_first=True, limit=newest):
        block = record.block
        if block is None:
            continue
        looked_at += 1
        column = from_block(block)["class_id"]
        count = int((column == part).sum())
        if count:
            found.append(MemberExposure(record.unit, record.name, count, len(column)))
    return Members(part, looked_at, sum(one.count for one in found), tuple(found))


def gives_assignments(view: SessionView, step: str) -> bool:
    """Tell whether a step says of each particle in which class it is."""
    spec = view.session.document.steps.get(step)
    try:
        return spec is not None and find_step(spec.use).assigns is ClassAssignments
    except IcestreamError:  # of a plugin that is not installed
        return False


def _column(column: RowColumn, parts: Sequence[Mapping[str, Any]]) -> list[float | None]:
    values = [part.get(column.field) for part in parts]
    if not column.share:
        return values
    total = max(1, sum(value or 0 for value in values))
    return [100 * (value or 0) / total for value in values]
