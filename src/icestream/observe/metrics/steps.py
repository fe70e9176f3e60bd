"""The metrics of one step of a session."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy import Connection

from icestream.flow.declaration import FailureKind
from icestream.observe.answers import Counts, StoredSnapshot
from icestream.observe.catalog import Catalog
from icestream.observe.metrics import names
from icestream.observe.metrics.families import Samples
from icestream.observe.metrics.measured import measure_family, measured_values, quantiles
from icestream.observe.metrics.newest import Seen
from icestream.observe.metrics.tally import Tally
from icestream.observe.one_exposure import published_pictures
from icestream.observe.order import ActiveRevision
from icestream.observe.stored import read_snapshots
from icestream.observe.values import field_at
from icestream.records import Gallery, Shown

OUTCOMES = ("item", "rejected", "failed", "skipped", "absent")
QUEUE = ("waiting", "running")


def read_newest_versions(connection: Connection, revisions: Mapping[str, ActiveRevision]) -> dict[str, StoredSnapshot]:
    """Return step → the newest version that it has published."""
    found = {}
    for name, revision in revisions.items():
        for one in read_snapshots(connection, {name: revision}, limit=1):
            found[name] = one
    return found


@dataclass(frozen=True)
class StepMetrics:
    """Adds what is known of one step to the samples of its session."""

    samples: Samples
    session: str
    revision: ActiveRevision

    @property
    def labels(self) -> tuple[str, str]:
        """The labels of all that is said of the step."""
        return self.session, self.revision.step

    def add_info(self, use: str, label: str) -> None:
        """Add what it runs."""
        one = self.revision
        self.samples.add(names.STEP, 1, *self.labels, use, label, str(one.type_version), one.software, str(one.number))

    def add_counts(self, counts: Counts, tally: Tally) -> None:
        """Add what it has decided, what waits, and what went wrong."""
        one = self.revision
        for state in (*OUTCOMES, *QUEUE):
            self.samples.add(names.UNITS, getattr(counts, state), *self.labels, state)
        for status in OUTCOMES:
            self.samples.add(names.OUTCOMES, tally.decisions[one.id, status], *self.labels, status)
        for kind in FailureKind:
            self.samples.add(names.FAILURES, tally.failures[one.id, kind.value] or None, *self.labels, kind.value)

    def add_pace(self, per_minute: float | None, *, is_open: bool) -> None:
        """Add how fast it goes, and whether anything is still to come."""
        self.samples.add(names.RATE, None if per_minute is None else per_minute / 60, *self.labels)
        self.samples.add(names.OPEN, is_open, *self.labels)

    def add_newest(self, seen: Sequence[Seen], catalog: Catalog, *, particles: int) -> None:
        """Add what its newest results measured and cost."""
        for family, values in (
            (names.LATENCY, [one.latency_s for one in seen]),
            (names.WALL, [one.wall_s for one in seen]),
            (names.CPU, [one.cpu_s for one in seen]),
        ):
            for quantile, value in quantiles([one for one in values if one is not None]).items():
                self.samples.add(family, value, *self.labels, quantile)
        shown = catalog.shown(seen[-1].record_type) if seen else Shown()
        for measure in shown.measures:
            told = [one.values[measure.metric] for one in seen if measure.metric in one.values]
            if measure.hidden_at_zero and not any(told):
                continue
            family = measure_family(measure, whole=False)
            for quantile, value in quantiles(told).items():
                self.samples.add(family, value, *self.labels, quantile)
        if any(one.of == "weight" for one in shown.headlines):
            self.samples.add(names.PARTICLES, particles, *self.labels)
        if seen:
            self._add_pictures(seen[-1].pictures)

    def add_version(self, version: StoredSnapshot, catalog: Catalog, *, pixel_size_ang: float | None) -> None:
        """Add the newest version of a whole that it has published."""
        self.samples.add(names.VERSION, version.version, *self.labels)
        self.samples.add(names.PUBLISHED, version.at, *self.labels)
        if version.record is None:
            return
        shown = catalog.shown(version.record_type)
        values = measured_values(shown, version.record, pixel_size_ang=pixel_size_ang)
        for measure in shown.measures:
            self.samples.add(measure_family(measure, whole=True), values.get(measure.metric), *self.labels)
        if shown.gallery is not None:
            self._add_gallery(shown.gallery, version.record)
        if not version.pruned:
            pictures = published_pictures(shown, version.record)
            self._add_pictures({field: title for field, (title, _) in pictures.items()})

    def _add_gallery(self, gallery: Gallery, record: Mapping[str, object]) -> None:
        parts = field_at(record, gallery.rows) or []
        self.samples.add(names.PARTS, len(parts), *self.labels)
        self.samples.add(names.MEMBERS, field_at(record, gallery.count), *self.labels)
        sizes = [float(part[gallery.order] or 0) for part in parts]
        self.samples.add(names.LARGEST, max(sizes) / sum(sizes) if sum(sizes) > 0 else None, *self.labels)

    def _add_pictures(self, pictures: Mapping[str, str]) -> None:
        """Add where pictures are served; the address stays while what it shows becomes newer."""
        session, step = (quote(label, safe="") for label in self.labels)
        for field, title in pictures.items():
            path = f"/api/v1/sessions/{session}/newest/{step}/{quote(field, safe='')}"
            self.samples.add(names.PICTURE, 1, *self.labels, title, path)
