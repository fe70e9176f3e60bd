"""Measures as monitoring sees them: in base units, under the names that records declare."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from icestream.observe.metrics.families import Family
from icestream.observe.values import holds, value_of
from icestream.records import Measure, Shown

_BASE = {"_percent": ("_ratio", 0.01), "_micrometers": ("_angstroms", 1e4)}
"""Ending of a metric → that of its base unit, and the factor that leads there."""


def base_name(metric: str) -> tuple[str, float]:
    """Return a declared metric under the name of its base unit, and the factor of its values.

    What a plugin declares is made a name: one that is none would cost the answer of all sessions.
    """
    name = f"icestream_{re.sub('[^a-z0-9]+', '_', metric.lower()).strip('_')}"
    for ending, (base, factor) in _BASE.items():
        if name.endswith(ending):
            return name.removesuffix(ending) + base, factor
    return name, 1.0


def measured_values(shown: Shown, record: Mapping[str, Any], *, pixel_size_ang: float | None) -> dict[str, float]:
    """Return metric → value of a record in base units; a length in pixels is left out where nobody knows the pixel size."""
    found = {}
    for one in shown.measures:
        meaningless = one.hidden_when is not None and holds(one.hidden_when, record)
        if meaningless or (one.pixels is not None and not pixel_size_ang):
            continue
        value = value_of(one, record, pixel_size_ang=pixel_size_ang)
        if value is not None:
            found[one.metric] = value * base_name(one.metric)[1]
    return found


def measure_family(measure: Measure, *, whole: bool) -> Family:
    """Return the family of a measure: quantiles of the newest exposures, or the value of the newest version of a whole."""
    name, _ = base_name(measure.metric)
    if whole:
        return Family(name, "gauge", f"{measure.label}, of the newest version", ("session", "step"))
    return Family(name, "summary", f"{measure.label}, of the newest 50 exposures", ("session", "step", "quantile"))


QUANTILES = (0.1, 0.5, 0.9)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """Return quantile → value, between neighbours where it falls between them."""
    ordered = sorted(values)
    found = {}
    for share in QUANTILES if ordered else ():
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        found[f"{share:g}"] = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return found
