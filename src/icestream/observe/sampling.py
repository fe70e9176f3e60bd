"""Values along the session, thinned to what a page can show."""

import json
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from icestream.flow.storage import json_number, json_text, schema

MOST_POINTS = 2000


@dataclass(frozen=True)
class Series:
    """One value per exposure, in order of arrival; every ``stride``-th exposure was read."""

    exposures: tuple[int, ...]
    values: tuple[float, ...]
    stride: int = 1


def stride_for(n_exposures: int, *, most: int = MOST_POINTS) -> int:
    """Return the smallest power of two that thins ``n_exposures`` to ``most``, so that the choice is stable as they grow."""
    stride = 1
    while -(-n_exposures // stride) > most:
        stride *= 2
    return stride


def read_fields(connection: Connection, revision: int, paths: tuple[str, ...], *, most: int = MOST_POINTS) -> dict[str, Series]:
    """Return path → series of numbers in the stored records of a revision; ``paths`` are like ``motion.total_px``.

    The store picks the exposures before it looks into a record: long records of skipped exposures are never read.
    """
    outcome, exposure, result = schema.outcome, schema.exposure, schema.result
    stride = _stride(connection, most)
    columns = [json_number(result.c.record, path) for path in paths]
    found: dict[str, tuple[list[int], list[float]]] = {path: ([], []) for path in paths}
    key = json_text(outcome.c["keys"], "out")
    rows = connection.execute(
        select(exposure.c.ordinal, *columns)
        .select_from(
            exposure.join(outcome, (outcome.c.unit == exposure.c.unit) & (outcome.c.revision == revision)).join(
                result, result.c.key == key
            )
        )
        .where((outcome.c.status == "item") & (exposure.c.ordinal % stride == 0))
        .order_by(exposure.c.ordinal)
    )
    for ordinal, *values in rows:
        for path, value in zip(paths, values, strict=True):
            if value is not None:
                found[path][0].append(ordinal)
                found[path][1].append(value)
    return {path: Series(tuple(ordinals), tuple(values), stride) for path, (ordinals, values) in found.items()}


def add_up_counts(connection: Connection, revision: int, path: str) -> dict[str, int]:
    """Return reason → count, added up over all exposures of a revision; the field at ``path`` is a list of both."""
    outcome, result = schema.outcome, schema.result
    rows = connection.execute(
        select(json_text(result.c.record, path))
        .select_from(outcome.join(result, result.c.key == json_text(outcome.c["keys"], "out")))
        .where((outcome.c.revision == revision) & (outcome.c.status == "item"))
        .order_by(outcome.c.seq)
    )
    total: dict[str, int] = {}
    for listed in rows.scalars():
        for part in json.loads(listed or "[]"):
            total[part["reason"]] = total.get(part["reason"], 0) + part["count"]
    return total


def read_weights(connection: Connection, revision: int, *, most: int = MOST_POINTS) -> Series:
    """Return the weight (particles) of each exposure at a step, without reading a record."""
    outcome, exposure = schema.outcome, schema.exposure
    stride = _stride(connection, most)
    rows = connection.execute(
        select(exposure.c.ordinal, outcome.c.weight)
        .select_from(exposure.join(outcome, (outcome.c.unit == exposure.c.unit) & (outcome.c.revision == revision)))
        .where((outcome.c.status == "item") & (exposure.c.ordinal % stride == 0))
        .order_by(exposure.c.ordinal)
    ).all()
    return Series(tuple(ordinal for ordinal, _ in rows), tuple(float(value) for _, value in rows), stride)


def _stride(connection: Connection, most: int) -> int:
    newest = connection.execute(select(func.max(schema.exposure.c.ordinal))).scalar()
    return stride_for(0 if newest is None else int(newest) + 1, most=most)
