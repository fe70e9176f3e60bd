"""The medians of what the newest records of each step measure, for a look at the session on a terminal."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from icestream.observe.conditions import read_conditions
from icestream.observe.queries import SessionView, StepSummary
from icestream.observe.values import holds, unit_in, value_of

RECENT_RECORDS = 50
"""So many of the newest exposures are looked at."""


@dataclass(frozen=True)
class RecentMedian:
    """One measure of a step: its median over the newest records, and the newest value."""

    label: str
    unit: str
    metric: str
    better: str | None
    median: float
    newest: float
    n: int


def read_medians(view: SessionView, steps: Sequence[StepSummary]) -> dict[str, tuple[RecentMedian, ...]]:
    """Return step → the medians of its newest records; steps that measure nothing are left out."""
    size = next((one.value for one in read_conditions(view) if one.name == "pixel_size_ang"), None)
    catalog = view.catalog()
    found = {}
    for step in steps:
        known = catalog.description(step.records.get("out", ""))
        if known is None or not known.shown.measures:
            continue
        if known.whole:
            records = [one.record for one in view.snapshots(step.name, limit=1) if one.record is not None]
        else:
            records = [one.record for one in view.records(step.name, newest_first=True, limit=RECENT_RECORDS)]
        medians = []
        for one in known.shown.measures:
            told = [value for record in records if (value := value_of(one, record, pixel_size_ang=size)) is not None]
            meaningless = one.hidden_when is not None and bool(records) and holds(one.hidden_when, records[0])
            if told and not meaningless and not (one.hidden_at_zero and not any(told)):
                middle = statistics.median(told)
                medians.append(RecentMedian(one.label, unit_in(one, size), one.metric, one.better, middle, told[0], len(told)))
        if medians:
            found[step.name] = tuple(medians)
    return found
