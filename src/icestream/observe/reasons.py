"""Reasons that differ in numbers only, told once: how many, and from which number to which."""

import re
from collections.abc import Iterable

from icestream.observe.answers import ReasonCount

_NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")


def group_reasons(reasons: Iterable[ReasonCount]) -> list[ReasonCount]:
    """Return reasons with those of one step merged that differ in numbers only, the most frequent first.

    Numbers that differ are told as the lowest and the highest: ``moved 11.2 … 55.8 Å, allowed are 10 Å``.
    """
    groups: dict[tuple[str, str], list[ReasonCount]] = {}
    for one in reasons:
        groups.setdefault((one.step, _NUMBER.sub("\0", one.reason)), []).append(one)
    merged = [
        ReasonCount(step, _tell_together([one.reason for one in group]), sum(one.count for one in group))
        for (step, _), group in groups.items()
    ]
    return sorted(merged, key=lambda one: -one.count)


def _tell_together(texts: list[str]) -> str:
    words = _NUMBER.split(texts[0])
    columns = zip(*(_NUMBER.findall(text) for text in texts), strict=True)
    told = [_tell_range(column) for column in columns]
    return "".join(word + number for word, number in zip(words, [*told, ""], strict=True))


def _tell_range(numbers: tuple[str, ...]) -> str:
    low, high = (choose(numbers, key=_value) for choose in (min, max))
    return low if _value(low) == _value(high) else f"{low} … {high}"


def _value(number: str) -> float:
    return float(number.replace("−", "-"))
