"""The reference page of records: their fields, the columns of their tables, what stores call them, and what is shown of them."""

import inspect
from collections.abc import Iterator

from icestream import records
from icestream.records import (
    acquisition,
    classes,
    ctf,
    ctf_local,
    denoised,
    export,
    gain,
    map_quality,
    masks,
    micrograph,
    motion,
    movie,
    particle_size,
    particles,
    picks,
    quality,
    templates,
    volumes,
)
from icestream.records.shown import Card, Measure, Number, Shown
from reference_parts import fields_table, page, table

_SUBJECTS = (
    acquisition,
    movie,
    gain,
    motion,
    micrograph,
    quality,
    masks,
    ctf,
    ctf_local,
    denoised,
    picks,
    particle_size,
    templates,
    particles,
    classes,
    export,
    volumes,
    map_quality,
)
"""The modules of records, in the order of processing."""


def own_records() -> list[type[records.Record]]:
    """Return the record types by subject, in the order of their declaration."""
    return [
        member
        for subject in _SUBJECTS
        for member in vars(subject).values()
        if isinstance(member, type) and issubclass(member, records.Record) and member.__module__ == subject.__name__
    ]


def records_page() -> str:
    """Return the page."""
    parts = [
        "What flows from step to step. A `table` is a NumPy structured array kept in the store; its columns are little-endian. A "
        "record without a stored name is part of another.",
    ]
    for record in own_records():
        kind = "A snapshot: later versions replace it." if issubclass(record, records.Snapshot) else ""
        fields = fields_table(record) if record.model_fields else ""
        parts += [f"## {record.__name__}", inspect.cleandoc(record.__doc__ or ""), kind, _stored(record), fields]
        parts += [*_columns(record), *_shown(record.shown)]
    return page("Records", *parts)


def _stored(record: type[records.Record]) -> str:
    if not record.stored_name:
        return ""
    former = ", ".join(f"`{name}`" for name in record.former_names)
    before = f"; older stores call it {former}" if former else ""
    return f"Stored as `{record.stored_name}`, schema version {record.schema_version}{before}."


def _columns(record: type[records.Record]) -> Iterator[str]:
    tables = {"the table": record.block_columns} | {f"`{name}`": columns for name, columns in record.further_columns.items()}
    for name, columns in tables.items():
        if columns:
            rows = ([f"`{one.name}`", f"`{one.dtype}`", one.unit, one.description] for one in columns)
            yield table([f"column of {name}", "dtype", "unit", "description"], rows)


def _shown(shown: Shown) -> Iterator[str]:
    if shown.measures:
        rows = ([one.label, _made_of(one), one.unit or "", one.better or "", f"`{one.metric}`"] for one in shown.measures)
        yield table(["followed along the session", "from", "unit", "good", "metric"], rows)
        told = [f"- {one.label}: {one.origin}" for one in shown.measures if one.origin]
        if told:
            yield "\n".join(["What they say:", "", *told])
    said = [*(_of_card(card) for card in shown.cards), *_roles(shown)]
    if said:
        yield "\n".join(["What is shown:", "", *(f"- {one}" for one in said)])


def _made_of(measure: Measure) -> str:
    if measure.how == "weight":
        return "the number of particles"
    fields = " and ".join(f"`{name}`" for name in (measure.field, measure.second) if name)
    how = {"mean": "the mean of ", "distance": "the difference of "}.get(measure.how, "")
    pixels = {"raw": ", in Å by the pixel size", "own": ", in Å by the pixel size and `bin`"}
    return f"{how}{fields}{pixels.get(measure.pixels or '', '')}"


def _of_card(card: Card) -> str:
    numbers = ", ".join(_short(one) for one in card.numbers)
    drawn = ", ".join(one.title.lower() for one in (card.picture, card.curve, card.path) if one is not None)
    return f"{card.title or 'newest'}: {numbers}{f'; drawn: {drawn}' if drawn else ''}"


def _short(number: Number) -> str:
    return f"{number.label} ({number.unit})" if number.unit else number.label


def _roles(shown: Shown) -> Iterator[str]:
    if shown.image is not None:
        yield "an image of the exposure, among the recent ones"
    if shown.overlay is not None:
        yield "circles on the image of the exposure"
    if shown.beside:
        yield f"below the image of the exposure: {', '.join(_short(one.number) for one in shown.beside)}"
    if shown.gallery is not None:
        yield f"a picture with a table: {', '.join(one.label for one in shown.gallery.columns)}"
    for one in shown.headlines:
        yield f"at the top of the report: {one.label}, {one.caption}"
    if shown.place is not None:
        yield "the place on the grid"
