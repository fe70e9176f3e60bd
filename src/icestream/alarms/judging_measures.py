"""Judging measures of records: limits, drift, ageing."""

import statistics
from collections.abc import Iterable, Iterator, Mapping

from icestream.alarms.change import Change, compare_windows, find_change_point
from icestream.alarms.finding import Evidence, Finding, limits_text, number_text, with_unit
from icestream.alarms.observations import Measured, Value
from icestream.alarms.rules import AgeingRule, DriftRule, MeasureRule
from icestream.counting import counted

CLEAR_SHARE = 0.5
"""A drift or ageing ends when less than so much of what raised it is left."""


def chosen(measure: str, measured: Iterable[Measured]) -> Iterator[Measured]:
    """Give the measures that a rule is about: those of a name, or one of one step."""
    return (one for one in measured if measure in (one.metric, one.id))


def judge_limits(rule: MeasureRule, measured: Iterable[Measured]) -> Iterator[Finding]:
    """Count the newest exposures that are outside the limits."""
    for one in chosen(rule.measure, measured):
        window = 1 if one.whole else rule.window
        newest = one.values[-window:]
        outside = [value for value in newest if rule.outside(value.value)]
        not_well = [value for value in newest if rule.outside(value.value, margin=rule.margin)]
        needed = 1 if one.whole else rule.count
        ends_at = 0 if one.whole else rule.ends_at
        allowed = limits_text(rule.low, rule.high, one.unit)
        worst = _worst(outside, rule) if outside else None
        shown = "" if worst is None else f"; the worst is {with_unit(worst.value, one.unit)} ({worst.exposure})"
        of = "the newest version" if one.whole else f"{len(outside)} of the newest {counted(len(newest), 'exposure')}"
        verb = "is" if one.whole or len(outside) == 1 else "are"
        yield Finding(
            subject=one.id,
            raised=len(outside) >= needed,
            holds=len(not_well) > ends_at,
            what=f"{one.label} is outside its limits",
            detail=f"{of} {verb} outside the limits ({allowed}){shown}",
            look_at=_look_at(one, outside[-1] if outside else None),
            page=_page(one, outside[-1] if outside else None),
            since=outside[0].at if outside else None,
            evidence=_evidence(outside),
            counts_exposures=not one.whole,
        )


def judge_drift(rule: DriftRule, measured: Iterable[Measured]) -> Iterator[Finding]:
    """Compare the newest exposures with those before."""
    for one in chosen(rule.measure, measured):
        values = [value.value for value in one.values[-rule.window - rule.reference :]]
        change = _find_change(rule, values)
        if change is None:
            continue
        offset = len(one.values) - len(values)
        first = one.values[offset + change.at]
        size, difference = _counted(rule, one, change.shift), _counted(rule, one, change.after - change.before)
        likely = rule.by == "window" or change.chance <= rule.significance
        since = f"from {first.exposure} on" if rule.by == "change_point" else f"in the newest {rule.window}"
        after = one.values[offset + change.at :]
        yield Finding(
            subject=one.id,
            raised=likely and size >= rule.shift and difference >= rule.least_change,
            holds=size >= CLEAR_SHARE * rule.shift and difference >= CLEAR_SHARE * rule.least_change,
            what=f"{one.label} has changed",
            detail=f"the median went from {with_unit(change.before, one.unit)} to {with_unit(change.after, one.unit)} {since}, "
            f"{number_text(abs(change.shift))} times the scatter of single exposures",
            look_at=_look_at(one, first),
            page="series",
            since=first.at,
            evidence=_evidence(after),
            counts_exposures=not one.whole,
        )


def judge_ageing(rule: AgeingRule, measured: Iterable[Measured], lowest: Mapping[str, float]) -> Iterator[Finding]:
    """Compare the newest versions with the lowest so far."""
    for one in chosen(rule.measure, measured):
        if len(one.values) < rule.window:
            continue
        newest = statistics.median(value.value for value in one.values[-rule.window :])
        best = min(newest, lowest.get(one.id, newest))
        grown = newest / best if best > 0 else 1.0
        yield Finding(
            subject=one.id,
            raised=grown >= rule.factor,
            holds=grown - 1 >= CLEAR_SHARE * (rule.factor - 1),
            what=f"{one.label} grows",
            detail=f"{with_unit(newest, one.unit)} now, {number_text(grown)} times the lowest, {with_unit(best, one.unit)}",
            look_at=f"the pictures of {one.step_label}: a new reference may be needed",
            page="monitors",
            since=one.values[-rule.window].at,
        )


def lowest_of(rules: Iterable[AgeingRule], measured: tuple[Measured, ...], known: Mapping[str, float]) -> dict[str, float]:
    """Return the lowest median of each measure whose ageing is watched."""
    found = dict(known)
    for rule in rules:
        for one in chosen(rule.measure, measured):
            for end in range(rule.window, len(one.values) + 1):
                middle = statistics.median(value.value for value in one.values[end - rule.window : end])
                found[one.id] = min(middle, found.get(one.id, middle))
    return found


def _find_change(rule: DriftRule, values: list[float]) -> Change | None:
    if rule.by == "window":
        return compare_windows(values, window=rule.window, reference=rule.reference)
    return find_change_point(values, least=rule.window)


def _counted(rule: DriftRule, one: Measured, amount: float) -> float:
    """Return how far a change goes in the direction that counts; below zero where it goes the other way."""
    better = {"low": "high", "high": "low", None: "any"}[one.better]
    direction = better if rule.direction == "worse" else rule.direction
    return abs(amount) if direction == "any" else amount if direction == "high" else -amount


def _worst(outside: list[Value], rule: MeasureRule) -> Value:
    def distance(one: Value) -> float:
        below = 0.0 if rule.low is None else rule.low - one.value
        above = 0.0 if rule.high is None else one.value - rule.high
        return max(below, above)

    return max(outside, key=distance)


def _evidence(values: Iterable[Value]) -> tuple[Evidence, ...]:
    return tuple(Evidence(value.seq, value.at, value.exposure, value.unit) for value in values)


def _look_at(one: Measured, value: Value | None) -> str:
    if one.whole or value is None:
        return f"the newest version of {one.step_label}"
    return f"the exposure {value.exposure} and the series of {one.label} ({one.step_label})"


def _page(one: Measured, value: Value | None) -> str:
    return "monitors" if one.whole or value is None else f"exposures/{value.unit or value.exposure}"
