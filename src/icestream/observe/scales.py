"""Axes of charts: limits that outliers do not stretch, ticks on round numbers, short numbers."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

N_BINS = 28
"""A histogram has so many bins."""


@dataclass(frozen=True)
class Axis:
    """A linear map from ``low … high`` to ``start … end`` of the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return where ``value`` is drawn; what lies outside is drawn at the edge."""
        inside = min(max(value, self.low), self.high)
        return self.start + (inside - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, about: int = 3) -> list[float]:
        """Return round numbers between the limits."""
        raw = (self.high - self.low) / max(about, 1)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]

    def labels(self, about: int = 3) -> list[tuple[float, str]]:
        """Return the ticks with their numbers, with as many figures as tell them apart."""
        ticks = self.ticks(about)
        if len(ticks) < 2:
            return [(tick, short_number(tick)) for tick in ticks]
        digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
        return [(tick, _shortened(f"{tick:,.{digits}f}")) for tick in ticks]


def limits_of(values: Sequence[float], *, margin: float = 0.06) -> tuple[float, float]:
    """Return limits that hold all values but the outermost outliers."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    if len(ordered) >= 20:
        lower, _, upper = statistics.quantiles(ordered, n=4)
        reach = 4 * (upper - lower)
        low, high = (max(low, lower - reach), min(high, upper + reach)) if reach > 0 else (low, high)
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
        return low, high
    pad = margin * (high - low)
    return (0.0 if low >= 0 > low - pad else low - pad), high + pad


def count_bins(values: Sequence[float], low: float, high: float, n_bins: int) -> list[int]:
    """Count values in equal bins; those outside count in the first and last."""
    counts = [0] * n_bins
    for value in values:
        place = int((value - low) / (high - low) * n_bins)
        counts[min(max(place, 0), n_bins - 1)] += 1
    return counts


def running_median(values: Sequence[float], *, width: int) -> list[float]:
    """Return the median of ``width`` neighbours at each place, fewer at the ends."""
    half = width // 2
    return [statistics.median(values[max(0, index - half) : index + half + 1]) for index in range(len(values))]


def short_number(value: float) -> str:
    """Write a number with three figures that matter and thin groups of thousands."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    digits = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-12))
    return _shortened(f"{value:,.{min(digits, 6)}f}")


def _shortened(text: str) -> str:
    """Return a decimal number without zeros at its end, with a true minus."""
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "−")
