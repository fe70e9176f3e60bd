"""How many exposures, picks and particles are left after each step, down to the particles of a map."""

from collections.abc import Iterator
from dataclasses import dataclass

from icestream.observe.queries import SessionView


@dataclass(frozen=True)
class FunnelRow:
    """What one step has left."""

    step: str
    label: str
    exposures: int
    """Exposures with a result; of a version of a whole those of the session that reached the step."""
    set_aside: int
    """Exposures that the step rejected."""
    failed: int
    particles: int | None
    """Picks or particles in its results; unset where its records are of neither."""
    version: int | None
    """Of a whole: the newest, whose particles these are."""


def read_funnel(view: SessionView) -> list[FunnelRow]:
    """Return what each step that has seen exposures has left, in workflow order."""
    catalog, found = view.catalog(), list[FunnelRow]()
    for step in view.steps():
        known = catalog.description(step.records.get("out", ""))
        counts = step.counts
        version, particles = None, None
        if known is not None and not known.whole and any(column.name == "pid" for column in known.columns):
            particles = step.weight
        for number, count in _newest_whole(view, step.name):
            version, particles = number, count
        if counts.item or counts.rejected or counts.failed or version is not None:
            found.append(FunnelRow(step.name, step.label, counts.item, counts.rejected, counts.failed, particles, version))
    return found


def _newest_whole(view: SessionView, step: str) -> Iterator[tuple[int, int]]:
    """Give version and particles of the newest whole that keeps a table of its particles."""
    for snapshot in view.snapshots(step, limit=1):
        record = snapshot.record or {}
        if record.get("tables"):
            yield snapshot.version, int(record.get("count") or 0)
