"""The page of monitors: every measure that a rule is about with its limits, the machine over time, and the session as a whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from icestream.alarms.observations import Sample
from icestream.alarms.rules import (
    SUMMARY_UNITS,
    SYSTEM_UNITS,
    AgeingRule,
    AnyRule,
    DriftRule,
    MeasureRule,
    SummaryRule,
    SystemRule,
    SystemValue,
)
from icestream.observe.measured import MeasuredSeries, MeasureOfStep, list_measures, measure_series
from icestream.observe.queries import Arrivals, Overview, SessionView, StepSummary


@dataclass(frozen=True)
class Limit:
    """What a rule allows; a rule about change has neither value."""

    rule: str
    kind: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MonitoredMeasure:
    """A measure along the session, with the limits of the rules about it."""

    panel: str
    """What its record is about, such as CTF or Gain."""
    series: MeasuredSeries
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class SystemLine:
    """One value of the machine over time; a time at which it is not known has none."""

    value: SystemValue
    subject: str
    unit: str
    values: tuple[float | None, ...]
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class MachineSeen:
    """The machine over time: seconds since 1970, and a line for each value of it."""

    host: str | None
    times: tuple[float, ...]
    lines: tuple[SystemLine, ...]


@dataclass(frozen=True)
class SummaryFigure:
    """One figure of the session, with the limits of the rules about it."""

    name: str
    value: float | None
    unit: str
    limits: tuple[Limit, ...]


def read_monitored(view: SessionView, steps: Sequence[StepSummary], rules: Sequence[AnyRule]) -> list[MonitoredMeasure]:
    """Return every measure that a rule is about and that has values, in workflow order."""
    about = {one.id: limits for one in list_measures(view, steps) if (limits := _limits_of(one, rules))}
    wanted = [one for one in list_measures(view, steps) if one.id in about]
    catalog, panels = view.catalog(), {}
    for step in steps:
        panel = catalog.shown(step.records.get("out")).panel
        panels[step.name] = step.label if panel is None else panel.title
    return [MonitoredMeasure(panels[one.measure.step], one, about[one.measure.id]) for one in measure_series(view, steps, wanted)]


def rules_about_nothing(view: SessionView, rules: Sequence[AnyRule]) -> frozenset[str]:
    """Return the names of rules about a measure that no step of the session has, or none yet."""
    known = {name for one in list_measures(view, view.steps()) for name in (one.id, one.declared.metric)}
    about = (rule for rule in rules if isinstance(rule, MeasureRule | DriftRule | AgeingRule))
    return frozenset(rule.name for rule in about if rule.measure not in known)


def see_machine(samples: Sequence[Sample], rules: Sequence[AnyRule]) -> MachineSeen:
    """Return what samples say, as lines that a page draws; what no sample knows is left out."""
    lines = []
    for value in get_args(SystemValue):
        found = [one.values(value) for one in samples]
        limits = tuple(
            Limit(rule.name, rule.kind, rule.low, rule.high)
            for rule in rules
            if isinstance(rule, SystemRule) and rule.value == value
        )
        for subject in dict.fromkeys(name for one in found for name in one):
            told = tuple(one.get(subject) for one in found)
            lines.append(SystemLine(value, subject, SYSTEM_UNITS[value], told, limits))
    return MachineSeen(samples[-1].host if samples else None, tuple(one.at for one in samples), tuple(lines))


def summarise(overview: Overview, arrivals: Arrivals, rules: Sequence[AnyRule]) -> list[SummaryFigure]:
    """Return the figures of the session."""
    n = overview.exposures
    values = {
        "exposures": float(n),
        "exposures_per_hour": arrivals.per_hour,
        "failed": float(overview.failed),
        "failed_percent": 100 * overview.failed / n if n else None,
        "rejected": float(overview.rejected),
        "rejected_percent": 100 * overview.rejected / n if n else None,
    }
    return [
        SummaryFigure(
            name,
            value,
            next(unit for known, unit in SUMMARY_UNITS.items() if known == name),
            tuple(
                Limit(rule.name, rule.kind, rule.low, rule.high)
                for rule in rules
                if isinstance(rule, SummaryRule) and rule.value == name
            ),
        )
        for name, value in values.items()
    ]


def _limits_of(one: MeasureOfStep, rules: Sequence[AnyRule]) -> tuple[Limit, ...]:
    found = []
    for rule in rules:
        if isinstance(rule, MeasureRule | DriftRule | AgeingRule) and rule.measure in (one.id, one.declared.metric):
            low, high = (rule.low, rule.high) if isinstance(rule, MeasureRule) else (None, None)
            found.append(Limit(rule.name, rule.kind, low, high))
    return tuple(found)
