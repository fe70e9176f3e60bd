"""What a judgement finds, and how it is written."""

import math
from dataclasses import dataclass, field

from icestream.alarms.rules import Rule

_THOUSAND = 10_000


@dataclass(frozen=True)
class Evidence:
    """One exposure that shows what is wrong; ``seq`` keeps it from being counted twice."""

    seq: int
    at: float
    exposure: str
    unit: str | None = None


@dataclass(frozen=True)
class Finding:
    """What a rule finds of one subject.

    ``raised`` tells whether it is bad enough to raise an alarm, ``holds`` whether it still is too bad to end one; between them
    an alarm stays as it is.
    """

    subject: str
    raised: bool
    holds: bool
    what: str = ""
    detail: str = ""
    look_at: str = ""
    page: str = ""
    since: float | None = None
    evidence: tuple[Evidence, ...] = field(default=())
    counts_exposures: bool = False


@dataclass(frozen=True)
class Judgement:
    """The rule and what it finds."""

    rule: Rule
    findings: tuple[Finding, ...]


def number_text(value: float) -> str:
    """Write a number with three digits."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:.0f}" if abs(value) >= _THOUSAND else f"{value:.3g}"
    return text.replace("-", "−")


def with_unit(value: float, unit: str) -> str:
    """Write a number with its unit."""
    return f"{number_text(value)}\N{NO-BREAK SPACE}{unit}" if unit and not unit.startswith("/") else f"{number_text(value)}{unit}"


def limits_text(low: float | None, high: float | None, unit: str) -> str:
    """Write what is allowed."""
    if low is None or high is None:
        return f"at most {with_unit(high, unit)}" if high is not None else f"at least {with_unit(low or 0.0, unit)}"
    return f"{number_text(low)} to {with_unit(high, unit)}"


def minutes_text(seconds: float) -> str:
    """Write a span."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f}\N{NO-BREAK SPACE}s"
    if minutes < 120:
        return f"{minutes:.0f}\N{NO-BREAK SPACE}min"
    hours = minutes / 60
    return f"{hours:.1f}\N{NO-BREAK SPACE}h" if hours < 48 else f"{hours / 24:.0f}\N{NO-BREAK SPACE}days"


def counted_text(count: int, thing: str) -> str:
    """Write a count."""
    return f"{count}\N{NO-BREAK SPACE}{thing}{'' if count == 1 else 's'}"
