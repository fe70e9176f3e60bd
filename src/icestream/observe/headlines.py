"""The figures at the top of a page, which types of record declare, and which microscope a session is of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icestream.observe.catalog import Catalog
from icestream.observe.medians import RecentMedian, read_medians
from icestream.observe.queries import SessionView, StepSummary
from icestream.observe.values import field_at
from icestream.records import Headline

_MICROSCOPE = "metadata.microscope"


@dataclass(frozen=True)
class HeadlineFigure:
    """A figure that a type of record declares for the top of the page."""

    label: str
    value: float | None
    unit: str
    caption: str


def read_headlines(
    view: SessionView, steps: Sequence[StepSummary], medians: Mapping[str, Sequence[RecentMedian]] | None = None
) -> list[HeadlineFigure]:
    """Return the figures of a session. Without ``medians`` only those of the steps that figures are of are read."""
    catalog = view.catalog()
    declared = catalog.headlines(steps)
    if medians is None:
        medians = read_medians(view, [step for one, step in declared if one.of == "median"])
    found = []
    for one, step in declared:
        value, unit = _value_of(one, step, medians.get(step.name, ()))
        if one.of == "lowest":
            value, unit = lowest_of(view, catalog, one, step)
        found.append(HeadlineFigure(one.label, value, unit, one.caption))
    return found


def _value_of(one: Headline, step: StepSummary, medians: Sequence[RecentMedian]) -> tuple[float | None, str]:
    if one.of == "pace":
        return (None if step.pace.per_minute is None else step.pace.per_minute * 60), ""
    if one.of == "weight":
        return step.weight, ""
    return (medians[0].median, medians[0].unit) if medians else (None, "")


def lowest_of(view: SessionView, catalog: Catalog, one: Headline, step: StepSummary) -> tuple[float | None, str]:
    """Return the smallest value of a column in the newest version of a whole, and its unit; None where there is none."""
    gallery = catalog.shown(step.records.get("out")).gallery
    newest = next((found.record for found in view.snapshots(step.name, limit=1) if found.record is not None), None)
    if gallery is None or newest is None:
        return None, ""
    values = [row.get(one.column) for row in newest.get(gallery.rows, [])]
    known = [float(value) for value in values if isinstance(value, int | float)]
    unit = next((column.unit for column in gallery.columns if column.field == one.column), "")
    return min(known, default=None), unit


def read_microscope(view: SessionView, steps: Sequence[StepSummary]) -> str | None:
    """Return the microscope that the newest file of a source names; None where none does."""
    for step in steps:
        if step.kind == "source":
            for newest in view.records(step.name, newest_first=True, limit=1):
                named = field_at(newest.record, _MICROSCOPE)
                if isinstance(named, str) and named:
                    return named
    return None
