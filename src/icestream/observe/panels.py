"""The panels of the report: what is declared of a type of record, drawn from what a step has stored."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from icestream.observe.catalog import Catalog
from icestream.observe.charts import draw_curve, draw_histogram, draw_series
from icestream.observe.measured import read_paths
from icestream.observe.motion_field import draw_path
from icestream.observe.newest import Tallies
from icestream.observe.pictures import Picture, PictureEmbedder
from icestream.observe.queries import SessionView, StepSummary
from icestream.observe.sampling import Series
from icestream.observe.values import Told, combine, field_at, holds, paths_of, sentence_of, series_of, tell, unit_in
from icestream.records import Card, Curve, Measure, Number, Panel, Path, Tally, Text

_MOST_VERSIONS = 200
MOST_POINTS = 1000
"""A small chart shows no more; so what a report costs has a limit."""


@dataclass(frozen=True)
class DrawnMeasure:
    """One value of every exposure or version: its median and newest, and how it goes and spreads."""

    label: str
    unit: str
    median: float
    newest: float
    n_shown: int
    stride: int
    series: Markup
    histogram: Markup
    origin: str = ""
    """What it is measured from, where another measure could be taken for it."""


@dataclass(frozen=True)
class DrawnCard:
    """The newest record of a step, or something of the whole step: in numbers and drawn."""

    title: str
    numbers: tuple[Told, ...]
    subtitle: str = ""
    picture: Picture | None = None
    picture_title: str = ""
    chart: Markup | None = None
    note: str = ""
    warning: str = ""


@dataclass(frozen=True)
class DrawnPanel:
    """What the report shows of one step."""

    title: str
    step: StepSummary
    measures: tuple[DrawnMeasure, ...]
    newest: DrawnCard | None
    plots: tuple[DrawnCard, ...] = ()
    heading: str | None = None
    """What is said beside the title instead of the name of the step."""


@dataclass(frozen=True)
class Newest:
    """The newest record of a step, and the exposure it is of."""

    name: str
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Artist:
    """What is needed to draw: the session, its types of record, its pixel size, and who embeds pictures."""

    view: SessionView
    catalog: Catalog
    embedder: PictureEmbedder
    pixel_size_ang: float | None
    tallies: Tallies = field(default_factory=Tallies)
    units: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """Unit → the one in which it is shown instead, and by what values are multiplied."""

    def panels(self, steps: Sequence[StepSummary]) -> list[DrawnPanel]:
        """Draw the panel of every step whose records have one; cards that belong in another's panel are put there."""
        drawn: list[DrawnPanel] = []
        guests: list[tuple[str, DrawnPanel]] = []
        for step in steps:
            panel = self.catalog.shown(step.records.get("out")).panel
            found = None if panel is None else self._panel(step, panel)
            if panel is None or found is None:
                continue
            drawn.append(found)
            if panel.within is not None:
                guests.append((panel.within, found))
        for within, guest in guests:
            if any(one.title == within for one in drawn):
                cards = tuple(replace(card, subtitle=card.subtitle or guest.step.label) for card in guest.plots)
                others = [one for one in drawn if one is not guest]
                drawn = [replace(one, plots=one.plots + cards) if one.title == within else one for one in others]
        return drawn

    def _panel(self, step: StepSummary, panel: Panel) -> DrawnPanel | None:
        known = self.catalog.description(step.records.get("out", ""))
        if known is not None and known.whole:
            newest, found = self._versions(step, panel.measures)
            measures = [_draw_version_measure(one, series_of(one, found, self.pixel_size_ang)) for one in panel.measures if found]
        else:
            newest = self._newest(step)
            found = self.series(step, panel.measures)
            measures = [
                self._measure(one, series_of(one, found, self.pixel_size_ang))
                for one in panel.measures
                if found and not (one.hidden_when and newest and holds(one.hidden_when, newest.record))
            ]
        drawn = tuple(one for one in measures if one is not None)
        cards = [] if newest is None else [(one.title, self._card(one, newest)) for one in panel.cards]
        of_newest = next((card for title, card in cards if title is None), None)
        plots = tuple(card for title, card in cards if title is not None and card is not None)
        plots = (*self._tallies(step, panel.tallies), *plots)
        return DrawnPanel(panel.title, step, drawn, of_newest, plots) if drawn or of_newest or plots else None

    def _measure(self, measure: Measure, series: Series) -> DrawnMeasure | None:
        if measure.hidden_at_zero and not any(series.values):
            return None
        drawn = draw_measure(series, label=measure.label, unit=unit_in(measure, self.pixel_size_ang), units=self.units)
        return None if drawn is None else replace(drawn, origin=measure.origin)

    def _newest(self, step: StepSummary) -> Newest | None:
        stored = next(self.view.records(step.name, newest_first=True, limit=1), None)
        return None if stored is None else Newest(stored.name, stored.record)

    def _tallies(self, step: StepSummary, tallies: Sequence[Tally]) -> tuple[DrawnCard, ...]:
        """Add up what is counted by reason; a tally of which everything is zero is left out."""
        drawn: list[DrawnCard] = []
        with self.view.reading() as connection:
            if connection is None or step.revision_id is None:
                return ()
            for tally in tallies:
                total = self.tallies.add_up(connection, step.revision_id, tally.field)
                if any(total.values()):
                    numbers = tuple((reason, float(count), tally.unit) for reason, count in total.items())
                    drawn.append(DrawnCard(tally.title, numbers, note="Of all exposures so far."))
        return tuple(drawn)

    def series(self, step: StepSummary, numbers: Sequence[Number]) -> dict[str, Series]:
        """Return path → series of what a step has stored; nothing before its first run."""
        return read_paths(self.view, step, numbers, most=MOST_POINTS)

    def one_series(self, step: StepSummary, field: str, *, factor: float, unit: str) -> tuple[Series, str]:
        """Return one field times a factor, in the unit in which that is shown, and this unit; empty before the first run."""
        found = self.series(step, (Number("", field),)).get(field, Series((), ()))
        shown, scale = self.units.get(unit, (unit, 1.0))
        return Series(found.exposures, tuple(value * factor * scale for value in found.values), found.stride), shown

    def _versions(self, step: StepSummary, numbers: Sequence[Number]) -> tuple[Newest | None, dict[str, Series]]:
        """Return the newest version of a whole, and path → series along its versions."""
        versions = [one for one in reversed(self.view.snapshots(step.name, limit=_MOST_VERSIONS)) if one.record is not None]
        found = {}
        for path in dict.fromkeys(path for one in numbers for path in paths_of(one)):
            values = [(one.version, field_at(one.record or {}, path)) for one in versions]
            told = [(version, float(value)) for version, value in values if value is not None]
            found[path] = Series(tuple(version for version, _ in told), tuple(value for _, value in told))
        newest = Newest(f"version {versions[-1].version}", versions[-1].record or {}) if versions else None
        return newest, found

    def _card(self, card: Card, newest: Newest) -> DrawnCard | None:
        record = newest.record
        ref = None if card.picture is None else field_at(record, card.picture.field)
        chart = self.curve(card.curve, newest) if card.curve is not None else None
        chart = self.path(card.path, newest) if card.path is not None else chart
        captions = [one.caption for one, there in ((card.curve or card.path, chart), (card.picture, ref)) if one and there]
        drawn = DrawnCard(
            card.title if card.title is not None else newest.name,
            tell(card.numbers, record, pixel_size_ang=self.pixel_size_ang),
            subtitle=" ".join(_sentences((card.subtitle,) if card.subtitle else (), record)),
            picture=self.embedder.embed(str(ref)) if ref else None,
            picture_title="" if card.picture is None else card.picture.title,
            chart=chart,
            note=join_sentences([*captions, *_sentences(card.texts, record)]),
            warning=" ".join(_sentences(card.warnings, record)),
        )
        return drawn if drawn.numbers or drawn.picture or drawn.chart or drawn.warning else None

    def curve(self, curve: Curve, newest: Newest) -> Markup | None:
        """Draw a curve with its fit; None where they have no points, or not as many."""
        curves = [field_at(newest.record, path) or [] for path in (curve.x, curve.measured, curve.fitted)]
        if len(curves[0]) < 2 or len({len(one) for one in curves}) > 1:
            return None
        mark = None if curve.mark is None else field_at(newest.record, curve.mark)
        return draw_curve(*curves, mark=1 / mark if mark else None, x_unit=curve.x_unit, label=f"{curve.title} of {newest.name}")

    def path(self, path: Path, newest: Newest, *, most: int | None = None) -> Markup | None:
        """Draw a path, at most so many points of it; None where it has less than two."""
        length = Number("", path.field, "px", pixels=path.pixels)
        return draw_path(
            field_at(newest.record, path.field),
            scale=self.scale(length, newest.record),
            unit=unit_in(length, self.pixel_size_ang),
            label=f"{path.title} in {newest.name}",
            most=most,
        )

    def scale(self, length: Number, record: Mapping[str, Any]) -> float:
        """Return by what lengths of a record are multiplied to be in the unit in which they are shown."""
        return combine(length, (1.0, field_at(record, "bin") or 1.0), self.pixel_size_ang)


def draw_measure(
    series: Series, *, label: str, unit: str, units: Mapping[str, tuple[str, float]] | None = None
) -> DrawnMeasure | None:
    """Draw a value of every exposure; None where there is nothing to draw. Charts are in the units in which they are shown."""
    if not series.values:
        return None
    shown, factor = (units or {}).get(unit, (unit, 1.0))
    drawn = series if factor == 1 else Series(series.exposures, tuple(factor * value for value in series.values), series.stride)
    return DrawnMeasure(
        label=label,
        unit=unit,
        median=statistics.median(series.values),
        newest=series.values[-1],
        n_shown=len(series.values),
        stride=series.stride,
        series=draw_series(drawn, label=f"{label}{f' ({shown})' if shown else ''} of each exposure, in order of arrival"),
        histogram=draw_histogram(drawn.values, label=f"{label}: distribution", unit=shown),
    )


def _draw_version_measure(measure: Measure, series: Series) -> DrawnMeasure | None:
    values, label = series.values, measure.label
    if not values:
        return None
    chart = draw_series(series, label=f"{label} of each version", word="version ") if len(values) > 1 else Markup("")
    return DrawnMeasure(label, measure.unit or "", statistics.median_high(values), values[-1], len(values), 1, chart, Markup(""))


def _sentences(texts: Sequence[Text], record: Mapping[str, Any]) -> list[str]:
    return [said for text in texts if (said := sentence_of(text, record))]


def join_sentences(sentences: Sequence[str]) -> str:
    """Return sentences one after the other, each but the last with its full stop."""
    said = [one for one in sentences if one]
    return " ".join([*(one if one.endswith(".") else f"{one}." for one in said[:-1]), *said[-1:]])
