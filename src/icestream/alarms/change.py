"""Whether a series has changed: the newest values against those before, and where its level changed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_NORMAL_MAD = 1.4826
"""The standard deviation of normal values is so many times their median absolute deviation."""


@dataclass(frozen=True)
class Change:
    """A change of level: medians before and after, ``shift`` in units of the scatter, and the index of the first value after."""

    before: float
    after: float
    shift: float
    at: int
    chance: float = 0.0
    """Probability that it is chance, where a test was made."""


def scatter_of(values: Sequence[float]) -> float:
    """Return a robust standard deviation, from the median absolute deviation."""
    middle = statistics.median(values)
    return _NORMAL_MAD * statistics.median(abs(value - middle) for value in values)


def compare_windows(values: Sequence[float], *, window: int, reference: int) -> Change | None:
    """Compare the newest ``window`` values with up to ``reference`` before; None where fewer than half of those are there."""
    newest, before = values[-window:], values[-window - reference : -window]
    if len(newest) < window or len(before) < max(2, reference // 2):
        return None
    return _change(before, newest, at=len(values) - window, chance=0.0)


def find_change_point(values: Sequence[float], *, least: int) -> Change | None:
    """Find where the level changed most, with at least ``least`` values on either side (Pettitt, Appl. Statist. 28, 126, 1979).

    The statistic is made of ranks, so that single odd values do not matter; ties count half. Its probability of chance is
    approximated by ``2 exp(-6 K² / (n³ + n²))``.
    """
    n = len(values)
    if n < 2 * least:
        return None
    order = sorted(range(n), key=lambda index: values[index])
    ranks = [0.0] * n
    start = 0
    while start < n:
        end = start
        while end + 1 < n and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            ranks[place] = (start + end) / 2 + 1
        start = end + 1
    best, at, total = -1.0, 0, 0.0
    for index in range(n - least):
        total += ranks[index]
        count = index + 1
        statistic = abs(2 * total - count * (n + 1))
        if count >= least and statistic > best:
            best, at = statistic, count
    chance = min(1.0, 2 * math.exp(-6 * best**2 / (n**3 + n**2)))
    return _change(values[:at], values[at:], at=at, chance=chance)


def _change(before: Sequence[float], after: Sequence[float], *, at: int, chance: float) -> Change:
    middle_before, middle_after = statistics.median(before), statistics.median(after)
    scatter = max(scatter_of(before), scatter_of(after))
    difference = middle_after - middle_before
    shift = math.copysign(math.inf, difference) if scatter == 0 and difference else difference / scatter if scatter else 0.0
    return Change(middle_before, middle_after, shift, at, chance)


def fit_slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return the slope of a straight line through points ``(x, y)`` by least squares; None where they are at one place."""
    if len(points) < 2:
        return None
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return None if spread == 0 else sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
