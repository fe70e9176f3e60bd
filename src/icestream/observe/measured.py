"""Every measure that records declare, as numbers along the session: what a page draws as series and histogram."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from icestream.observe.conditions import read_conditions
from icestream.observe.kept_columns import KEPT
from icestream.observe.queries import SessionView, StepSummary
from icestream.observe.sampling import MOST_POINTS, Series, columns_as_series, read_fields, read_weights
from icestream.observe.scales import N_BINS, count_bins, limits_of, running_median
from icestream.observe.values import WEIGHT, field_at, paths_of, series_of, unit_in
from icestream.records import Measure, Number

MOST_VERSIONS = 200
MOST_MEASURED = 1_000_000
"""Of so many exposures each has its own number."""


@dataclass(frozen=True)
class MeasureOfStep:
    """A measure of one step; ``id`` names it in addresses: the step, a colon, and what monitoring calls it."""

    id: str
    step: str
    step_label: str
    label: str
    unit: str
    better: str | None
    origin: str
    """What it is measured from, where another measure could be taken for it."""
    whole: bool
    """It is measured for each version of a whole, not for each exposure."""
    hidden_at_zero: bool
    declared: Annotated[Measure, Field(exclude=True, repr=False)]


@dataclass(frozen=True)
class Histogram:
    """How often which value occurs, in equal bins from ``low`` to ``high``; the outermost hold what is beyond them."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class MeasuredSeries:
    """A measure along the session, thinned to every ``stride``-th exposure."""

    measure: MeasureOfStep
    exposures: tuple[int, ...]
    """Ordinal numbers of exposures, or numbers of versions."""
    values: tuple[float, ...]
    trend: tuple[float, ...]
    """The running median."""
    stride: int
    median: float
    histogram: Histogram


def list_measures(view: SessionView, steps: Sequence[StepSummary]) -> list[MeasureOfStep]:
    """Return every measure that is declared of what the steps make, in workflow order."""
    size, catalog = pixel_size_of(view), view.catalog()
    found = []
    for step in steps:
        known = catalog.description(step.records.get("out", ""))
        if known is None:
            continue
        for one in known.shown.measures:
            name, unit = f"{step.name}:{one.metric}", unit_in(one, size)
            told = (name, step.name, step.label, one.label, unit, one.better, one.origin, known.whole, one.hidden_at_zero)
            found.append(MeasureOfStep(*told, one))
    return found


def pixel_size_of(view: SessionView) -> float | None:
    """Return the pixel size of the movies in Å, if anybody said it."""
    return next((one.value for one in read_conditions(view) if one.name == "pixel_size_ang"), None)


def read_paths(view: SessionView, step: StepSummary, numbers: Sequence[Number], *, most: int = MOST_POINTS) -> dict[str, Series]:
    """Return path → series of what a step has stored of each exposure; nothing before its first run.

    Without thinning, what was read before is kept.
    """
    paths = tuple(dict.fromkeys(path for one in numbers for path in paths_of(one)))
    with view.reading() as connection:
        if connection is None or step.revision_id is None or not paths:
            return {}
        fields = tuple(path for path in paths if path != WEIGHT)
        if not fields:
            found = {}
        elif most >= MOST_MEASURED:
            found = columns_as_series(fields, KEPT.read(view.session, connection, step.revision_id, fields))
        else:
            found = read_fields(connection, step.revision_id, fields, most=most)
        return found if len(fields) == len(paths) else {**found, WEIGHT: read_weights(connection, step.revision_id, most=most)}


def read_series(
    view: SessionView, steps: Sequence[StepSummary], wanted: Sequence[MeasureOfStep], *, most: int = MOST_POINTS
) -> dict[str, Series]:
    """Return measure → series, each step read once; one that has no value yet is left out."""
    size = pixel_size_of(view)
    found: dict[str, Series] = {}
    for step in steps:
        mine = [one for one in wanted if one.step == step.name]
        if not mine:
            continue
        numbers = [one.declared for one in mine]
        paths = _read_versions(view, step.name, numbers) if mine[0].whole else read_paths(view, step, numbers, most=most)
        for one in mine:
            series = series_of(one.declared, paths, size) if paths else None
            if series is not None and series.values:
                found[one.id] = series
    return found


def _read_versions(view: SessionView, step: str, numbers: Sequence[Number]) -> dict[str, Series]:
    versions = [one for one in reversed(view.snapshots(step, limit=MOST_VERSIONS)) if one.record is not None]
    found = {}
    for path in dict.fromkeys(path for one in numbers for path in paths_of(one)):
        values = [(one.version, _number_at(one.record or {}, path)) for one in versions]
        told = [(version, value) for version, value in values if value is not None]
        found[path] = Series(tuple(version for version, _ in told), tuple(value for _, value in told))
    return found


def _number_at(record: Mapping[str, object], path: str) -> float | None:
    value = field_at(record, "count" if path == WEIGHT else path)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def measure_series(
    view: SessionView, steps: Sequence[StepSummary], wanted: Sequence[MeasureOfStep], *, most: int = MOST_POINTS
) -> list[MeasuredSeries]:
    """Return the series and the histogram of measures that have values."""
    found = read_series(view, steps, wanted, most=most)
    told = [(one, found[one.id]) for one in wanted if one.id in found]
    return [_describe(one, series) for one, series in told if not (one.hidden_at_zero and not any(series.values))]


def _describe(one: MeasureOfStep, series: Series) -> MeasuredSeries:
    low, high = limits_of(series.values)
    width = max(5, len(series.values) // 40)
    return MeasuredSeries(
        measure=one,
        exposures=series.exposures,
        values=series.values,
        trend=tuple(running_median(series.values, width=width)),
        stride=series.stride,
        median=statistics.median(series.values),
        histogram=Histogram(low, high, tuple(count_bins(series.values, low, high, N_BINS))),
    )
