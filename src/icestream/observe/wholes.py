"""The versions of wholes that have parts to show, such as 2D classes: their picture, and a table of the parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icestream.observe.answers import StoredSnapshot
from icestream.observe.exposures import PublishedPicture
from icestream.observe.queries import SessionView
from icestream.observe.values import field_at
from icestream.records.shown import Gallery, RowColumn

MOST_VERSIONS = 500


@dataclass(frozen=True)
class PartColumn:
    """A column of the table of parts."""

    label: str
    unit: str


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
    )


def _column(column: RowColumn, parts: Sequence[Mapping[str, Any]]) -> list[float | None]:
    values = [part.get(column.field) for part in parts]
    if not column.share:
        return values
    total = max(1, sum(value or 0 for value in values))
    return [100 * (value or 0) / total for value in values]
