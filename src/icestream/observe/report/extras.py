"""What a facility adds to the report without a template: columns of the table of exposures, and plots of any field."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from markupsafe import Markup

from icestream.observe.answers import StepSummary
from icestream.observe.charts import draw_histogram, draw_scatter_of_two, draw_series
from icestream.observe.exposures import ExposureRow, TableQuery, read_table
from icestream.observe.measured import MeasureOfStep
from icestream.observe.panels import Artist
from icestream.observe.report.customising import Customised, FieldOf, Plot
from icestream.observe.values import field_at
from icestream.records import record_named


@dataclass(frozen=True)
class Column:
    """A column of the table of exposures; ``id`` is the step and the metric or field."""

    id: str
    label: str
    unit: str
    origin: str = ""


@dataclass(frozen=True)
class Row:
    """The newest exposures, one a row."""

    name: str
    unit: str
    """The id of the exposure."""
    number: int
    state: str
    reason: str
    values: tuple[float | str | None, ...]


@dataclass(frozen=True)
class ExposureRows:
    """The table of exposures."""

    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    total: int = 0


@dataclass(frozen=True)
class DrawnPlot:
    """A plot that the facility asks for, of one step."""

    title: str
    step: str
    charts: tuple[Markup, ...]
    note: str = ""


def read_exposure_rows(artist: Artist, steps: Sequence[StepSummary], customised: Customised) -> ExposureRows:
    """Return the newest exposures with every measure that is not left out, and what is added."""
    asked = customised.settings.exposures
    if asked.rows == 0:
        return ExposureRows()
    table = read_table(artist.view, steps, TableQuery(limit=asked.rows))
    kept = [one for one in table.columns if not _is_left_out(one, asked.leave_out)]
    shown = [one for one in kept if _says_something(one, [row.values.get(one.id) for row in table.rows])]
    columns = [Column(one.id, _label(one, shown), one.unit, one.origin) for one in shown]
    names = [one.id for one in shown]
    units = [row.unit for row in table.rows]
    added: list[dict[str, Any]] = []
    for index, one in enumerate(asked.add):
        for step in _steps_of(one, ("exposures", "add", index), steps, customised):
            found = artist.view.records_of(step.name, units) if units else {}
            columns.append(Column(f"{step.name}:{one.field}", one.title, one.unit))
            added.append({unit: _scaled(field_at(stored.record, one.field), one.factor) for unit, stored in found.items()})
    rows = tuple(_row(row, names, [values.get(row.unit) for values in added]) for row in table.rows)
    return ExposureRows(tuple(columns), rows, table.total)


def _is_left_out(one: MeasureOfStep, names: Sequence[str]) -> bool:
    metric = one.id.partition(":")[2]
    return any(name in (one.id, metric) or name.casefold() == one.label.casefold() for name in names)


def _says_something(one: MeasureOfStep, values: Sequence[float | None]) -> bool:
    told = [value for value in values if value is not None]
    return any(told) if one.hidden_at_zero else bool(told)


def _label(one: MeasureOfStep, columns: Sequence[MeasureOfStep]) -> str:
    """Return the label of a column, with the step where several steps measure the same."""
    same = sum(other.label == one.label for other in columns) > 1
    return f"{one.label}, {one.step_label}" if same else one.label


def _row(row: ExposureRow, names: Sequence[str], added: Sequence[float | str | None]) -> Row:
    reason = "; ".join([*(f"{mark.step}: {mark.reason}" for mark in row.marks), *row.decisions])
    return Row(row.name, row.unit, row.number, row.state, reason, (*(row.values.get(name) for name in names), *added))


def _scaled(value: Any, factor: float) -> float | str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return value * factor
    return value if isinstance(value, str) else None


def _steps_of(
    one: FieldOf, place: tuple[str | int, ...], steps: Sequence[StepSummary], customised: Customised
) -> list[StepSummary]:
    """Return the steps that store a field; a field that there is nowhere is a mistake, a step that is not there is none."""
    mine = [step for step in steps if step.name == one.step or (one.record is not None and step.records.get("out") == one.record)]
    found = []
    for step in mine:
        record = record_named(step.records.get("out", ""))
        missing = None if record is None else _missing(record, one.field)
        if missing is not None:
            told = f"{step.records['out']} has no field {one.field!r}; {missing}"
            customised.tell((*place, "field"), told)
        else:
            found.append(step)
    return found


def _missing(record: Any, path: str) -> str | None:
    """Say what there is where a path leads nowhere; None where it leads to a field."""
    known = record
    for part in path.split("."):
        fields: dict[str, Any] | None = getattr(known, "model_fields", None)
        if fields is None:
            return None  # a map of names: what is in it differs
        if part not in fields:
            return f"its fields are {', '.join(fields)}"
        hint = fields[part].annotation
        known = next((inner for inner in (hint, *get_args(hint)) if hasattr(inner, "model_fields")), None)
    return None


def draw_plots(artist: Artist, steps: Sequence[StepSummary], customised: Customised) -> tuple[DrawnPlot, ...]:
    """Draw what is asked for; a plot of a step that the session does not have is left out."""
    drawn = []
    for index, plot in enumerate(customised.settings.plots):
        place: tuple[str | int, ...] = ("plots", index)
        for step in _steps_of(plot, place, steps, customised):
            others = [] if plot.against is None else _steps_of(plot.against, (*place, "against"), steps, customised)
            made = _draw(artist, plot, step, others)
            if made is not None:
                drawn.append(made)
    return tuple(drawn)


def _draw(artist: Artist, plot: Plot, step: StepSummary, others: Sequence[StepSummary]) -> DrawnPlot | None:
    series, unit = artist.one_series(step, plot.field, factor=plot.factor, unit=plot.unit)
    label = f"{plot.title}{f' ({unit})' if unit else ''}"
    title = plot.title_ or plot.title
    if not series.values:
        return None
    if plot.against is None:
        charts = []
        if plot.kind != "histogram":
            charts.append(draw_series(series, label=f"{label} of each exposure, in order of arrival"))
        if plot.kind != "series":
            charts.append(draw_histogram(series.values, label=f"{label}: distribution", unit=unit))
        every = f"One in every {series.stride} exposures is shown." if series.stride > 1 else ""
        return DrawnPlot(title, step.label, tuple(charts), every)
    if not others:
        return None
    other, other_unit = artist.one_series(others[0], plot.against.field, factor=plot.against.factor, unit=plot.against.unit)
    known = dict(zip(other.exposures, other.values, strict=True))
    both = [(known[n], value) for n, value in zip(series.exposures, series.values, strict=True) if n in known]
    if not both:
        return None
    across = f"{plot.against.title}{f' ({other_unit})' if other_unit else ''}"
    chart = draw_scatter_of_two([x for x, _ in both], [y for _, y in both], x_unit=other_unit, label=f"{label} against {across}")
    return DrawnPlot(title, step.label, (chart,), f"Horizontal: {across}; vertical: {label}.")
