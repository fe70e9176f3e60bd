"""How the report writes numbers, times and spans."""

from datetime import UTC, datetime

from icestream.observe.scales import short_number


def quantity(value: float | None, unit: str) -> str:
    """Write a value with its unit, or a dash."""
    if value is None:
        return "–"
    return f"{short_number(value)}\N{NO-BREAK SPACE}{unit}" if unit else short_number(value)


def counted(count: int, thing: str) -> str:
    """Write a count with what is counted, in the plural where it is not one."""
    return f"{short_number(count)}\N{NO-BREAK SPACE}{thing}" + ("" if count == 1 else "s")


def moment(seconds: float | None) -> str:
    """Write a time in UTC."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock_time(seconds: float | None) -> str:
    """Write the time of day in UTC."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S UTC")


def span(seconds: float | None) -> str:
    """Write how long something took, with two units at most."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return quantity(seconds, "s") if seconds >= 0.001 else "< 0.001\N{NO-BREAK SPACE}s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes}\N{NO-BREAK SPACE}min {int(seconds % 60)}\N{NO-BREAK SPACE}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}\N{NO-BREAK SPACE}h {minutes}\N{NO-BREAK SPACE}min"
    return f"{hours // 24}\N{NO-BREAK SPACE}days {hours % 24}\N{NO-BREAK SPACE}h"
