"""Values along the session, thinned to what a page can show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, Connection, FromClause, Integer, func, literal, select

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
    stride = stride_for(_newest_ordinal(connection) + 1, most=most)
    columns = [json_number(result.c.record, path) for path in paths]
    chosen = _every(stride, _newest_ordinal(connection))
    found: dict[str, tuple[list[int], list[float]]] = {path: ([], []) for path in paths}
    key = json_text(outcome.c["keys"], "out")
    rows = connection.execute(
        select(exposure.c.ordinal, *columns)
        .select_from(
            _sampled(chosen)
            .join(outcome, (outcome.c.unit == exposure.c.unit) & (outcome.c.revision == revision))
            .join(result, result.c.key == key)
        )
        .where(outcome.c.status == "item")
        .order_by(exposure.c.ordinal)
    )
    for ordinal, *values in rows:
        for path, value in zip(paths, values, strict=True):
            if value is not None:
                found[path][0].append(ordinal)
                found[path][1].append(value)
    return {path: Series(tuple(ordinals), tuple(values), stride) for path, (ordinals, values) in found.items()}


def columns_as_series(paths: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> dict[str, Series]:
    """Return path → series of rows of the number of an exposure and a value of each path."""
    found = {}
    for column, path in enumerate(paths, 1):
        told = [(row[0], row[column]) for row in rows if row[column] is not None]
        found[path] = Series(tuple(ordinal for ordinal, _ in told), tuple(value for _, value in told), 1)
    return found


def read_weights(connection: Connection, revision: int, *, most: int = MOST_POINTS) -> Series:
    """Return the weight (particles) of each exposure at a step, without reading a record."""
    outcome, exposure = schema.outcome, schema.exposure
    newest = _newest_ordinal(connection)
    stride = stride_for(newest + 1, most=most)
    rows = connection.execute(
        select(exposure.c.ordinal, outcome.c.weight)
        .select_from(
            _sampled(_every(stride, newest)).join(outcome, (outcome.c.unit == exposure.c.unit) & (outcome.c.revision == revision))
        )
        .where(outcome.c.status == "item")
        .order_by(exposure.c.ordinal)
    ).all()
    return Series(tuple(ordinal for ordinal, _ in rows), tuple(float(value) for _, value in rows), stride)


def _every(stride: int, newest: int) -> CTE | None:
    """Return the numbers of the exposures to look at, made by the store, so that the others cost nothing; None is all of them."""
    if stride == 1:
        return None
    numbers = select(literal(0, Integer).label("ordinal")).cte("numbers", recursive=True)
    return numbers.union_all(select(numbers.c.ordinal + stride).where(numbers.c.ordinal + stride <= newest))


def _sampled(chosen: CTE | None) -> FromClause:
    exposure = schema.exposure
    return exposure if chosen is None else chosen.join(exposure, exposure.c.ordinal == chosen.c.ordinal)


def _newest_ordinal(connection: Connection) -> int:
    newest = connection.execute(select(func.max(schema.exposure.c.ordinal))).scalar()
    return -1 if newest is None else int(newest)
