"""Numbers and sentences of stored records, as what is shown of them declares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import Formatter
from typing import Any

from icestream.observe.sampling import Series
from icestream.records import Card, Number, Shown, StagePlace, Text, When

Told = tuple[str, float | None, str]
"""A number as it is shown: label, value, unit."""

_RATES = (("recall", "recall"), ("precision", "precision"))

WEIGHT = "@weight"
"""Stands for the number of particles where a path of a field is expected."""


def field_at(record: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``motion.total_px``; None where a part of it is unset."""
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def holds(when: When | None, record: Mapping[str, Any]) -> bool:
    """Tell whether a condition holds for a record."""
    if when is None:
        return True
    value = field_at(record, when.field)
    if value is None or (when.equals is not None and value != when.equals):
        return False
    return when.begins is None or str(value).startswith(when.begins)


def sentence_of(text: Text, record: Mapping[str, Any]) -> str | None:
    """Return a sentence with its fields filled in; None where one is unset or its condition does not hold."""
    if not holds(text.when, record):
        return None
    said = []
    for literal, path, form, _ in Formatter().parse(text.template):
        said.append(literal)
        if path is None:
            continue
        value = field_at(record, path)
        written = "" if value is None else _written(value, form or "")
        if not written:
            return None
        said.append(written)
    return "".join(said)


def _written(value: Any, form: str) -> str:
    if form == "counts":
        return ", ".join(f"{part['count']} {part['reason']}" for part in value if part["count"])
    if form == "list":
        return ", ".join(str(part) for part in value)
    if form == "rates":
        return "; ".join(_rates(part) for part in value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if form == "words":
        return text.replace("_", " ")
    return text[:1].upper() + text[1:] if form == "sentence" else text


def _rates(part: Mapping[str, Any]) -> str:
    """Write what is known of a picker."""
    known = [f"{word} {100 * part[name]:.0f} %" for name, word in _RATES if part.get(name) is not None]
    return ", ".join([f"{part['name']}: {part['n_picks']} picks", *known])


def unit_in(number: Number, pixel_size_ang: float | None) -> str:
    """Return the unit in which a number is shown."""
    return "Å" if number.pixels is not None and pixel_size_ang else number.unit or ""


def paths_of(number: Number) -> tuple[str, ...]:
    """Return the fields that a number is made of."""
    if number.how == "weight":
        return (WEIGHT,)
    return tuple(path for path in (number.field, number.second, "bin" if number.pixels == "own" else "") if path)


def combine(number: Number, values: Sequence[float], pixel_size_ang: float | None) -> float:
    """Return a number from the values at its paths."""
    value = values[0]
    if number.how == "mean":
        value = (values[0] + values[1]) / 2
    elif number.how == "distance":
        value = abs(values[0] - values[1])
    scale = 1.0
    if number.pixels is not None and pixel_size_ang:
        scale = pixel_size_ang * (values[-1] if number.pixels == "own" else 1.0)
    return value * number.factor * scale


def value_of(number: Number, record: Mapping[str, Any], *, pixel_size_ang: float | None = None) -> float | None:
    """Return a number of one record; None where a field is unset. That of its particles is in its field ``count``."""
    values = []
    for path in paths_of(number):
        value = field_at(record, "count" if path == WEIGHT else path)
        if number.how == "length" and isinstance(value, list):
            value = len(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        values.append(float(value))
    return combine(number, values, pixel_size_ang)


def tell(numbers: Sequence[Number], record: Mapping[str, Any], *, pixel_size_ang: float | None = None) -> tuple[Told, ...]:
    """Return those numbers of a record that it has."""
    told = [(one, value_of(one, record, pixel_size_ang=pixel_size_ang)) for one in numbers]
    return tuple((one.label, value, unit_in(one, pixel_size_ang)) for one, value in told if value is not None)


def series_of(number: Number, found: Mapping[str, Series], pixel_size_ang: float | None) -> Series:
    """Return a number along the session, from the series at its paths, where all of them have a value."""
    inputs = [found[path] for path in paths_of(number)]
    others = [dict(zip(one.exposures, one.values, strict=True)) for one in inputs[1:]]
    exposures, values = [], []
    for exposure, value in zip(inputs[0].exposures, inputs[0].values, strict=True):
        if all(exposure in other for other in others):
            exposures.append(exposure)
            values.append(combine(number, [value, *(other[exposure] for other in others)], pixel_size_ang))
    return Series(tuple(exposures), tuple(values), inputs[0].stride)


def tell_record(shown: Shown, record: Mapping[str, Any], *, pixel_size_ang: float | None = None) -> tuple[Told, ...]:
    """Return every number that is shown of a record, each once, and where on the grid it was taken."""
    measures = [one for one in shown.measures if one.hidden_when is None or not holds(one.hidden_when, record)]
    numbers = [*measures, *(number for card in shown.cards for number in _labelled(card)), *_stage(shown.place)]
    once: dict[tuple[str, ...], Number] = {}
    for one in numbers:
        once.setdefault((one.field, one.second, one.how), one)
    return tell(list(once.values()), record, pixel_size_ang=pixel_size_ang)


def _labelled(card: Card) -> tuple[Number, ...]:
    """Return the numbers of a card; those of one that has a title say so."""
    return card.numbers if card.title is None else tuple(replace(one, label=f"{card.title}, {one.label}") for one in card.numbers)


def _stage(place: StagePlace | None) -> tuple[Number, ...]:
    return () if place is None else (Number("Stage y", place.y, "µm"), Number("Stage x", place.x, "µm"))


def pictures_in(shown: Shown, record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the title and file of every picture that is shown of a record."""
    declared = [card.picture for card in shown.cards] + ([shown.gallery.picture] if shown.gallery else [])
    found = [(one.title, field_at(record, one.field)) for one in declared if one is not None]
    return tuple((title, str(ref)) for title, ref in found if ref)


def notes_in(shown: Shown, record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sentences that stand wherever the exposure of a record is named."""
    return tuple(said for note in shown.notes if (said := sentence_of(note, record)) is not None)
