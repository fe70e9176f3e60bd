"""The map of the grid: squares and holes where they are on the stage, with any number that is measured of exposures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from icestream.errors import SessionError
from icestream.flow.storage import schema
from icestream.observe.grid_state import AtlasPicture, GridState, read_grid_state
from icestream.observe.measured import MOST_MEASURED, MeasureOfStep, list_measures, read_series
from icestream.observe.queries import SessionView, StepSummary
from icestream.observe.scales import limits_of

MOST_HOLES = 6000
"""Of a grid with more holes, only those of the square that is asked for are given."""

MOST_OF_HOLE = 200
USUAL = "ctf_resolution_angstroms"
COUNT = "exposures"
"""Stands for the number of exposures where the id of a measure is expected."""


@dataclass(frozen=True)
class SquareOnMap:
    """One grid square; its position is unset where nobody knows it. ``value`` is the median of its exposures."""

    name: str
    y_um: float | None
    x_um: float | None
    n_holes: int
    n_exposed: int
    """Of its holes."""
    n_exposures: int
    value: float | None


@dataclass(frozen=True)
class ExposureOnMap:
    """One exposure of a hole, where it is on the stage."""

    unit: str
    number: int
    name: str
    y_um: float
    x_um: float
    value: float | None


@dataclass(frozen=True)
class HoleOnMap:
    """One hole; ``value`` is the median of its exposures, which are listed where the holes of one square were asked for."""

    name: str
    square: str | None
    y_um: float
    x_um: float
    listed: bool
    """The acquisition software gives its position; otherwise it is that of its exposures."""
    wanted: bool | None
    """Whether the software means to expose it, where it says so."""
    n_exposures: int
    value: float | None
    exposures: tuple[ExposureOnMap, ...] = ()


@dataclass(frozen=True)
class ShiftOnStage:
    """What a shift of beam or image moves an exposure by: ``(y, x) = matrix @ shift``, learnt from exposures of listed holes."""

    matrix_um: tuple[tuple[float, float], tuple[float, float]]
    rms_um: float
    n_exposures: int


@dataclass(frozen=True)
class GridMapData:
    """The map: all positions are those of the stage in µm, ``y`` up and ``x`` to the right, as the software states them."""

    colour: str
    """What it is coloured by: the id of a measure, or ``exposures`` for their number."""
    label: str
    unit: str
    better: str | None
    low: float
    high: float
    """The range of the colours: values beyond it have the outermost ones."""
    choices: tuple[MeasureOfStep, ...]
    squares: tuple[SquareOnMap, ...]
    holes: tuple[HoleOnMap, ...]
    """Those of the square that was asked for; otherwise all, or none where there are more than 6,000."""
    n_holes: int
    n_exposures: int
    n_placed: int
    """Exposures whose place is known."""
    turn_deg: float
    """By how much squares are turned, from x towards y."""
    half_side_um: float
    software: str | None
    atlas: AtlasPicture | None
    shift: ShiftOnStage | None
    missing: tuple[str, ...]
    """What is not known, and why, as sentences."""


def read_grid_map(view: SessionView, *, colour: str | None = None, square: str | None = None) -> GridMapData:
    """Return the map, coloured by a measure; by the CTF resolution if none is named, where a step measures it.

    Raises
    ------
    SessionError
        No step measures this, or there is no such square.
    """
    steps = view.steps()
    choices = tuple(one for one in list_measures(view, steps) if not one.whole)
    chosen = choose_measure(choices, colour)
    state = read_grid_state(view, steps)
    if square is not None and square not in state.squares:
        raise SessionError(f"{square!r}: no square is called so; there are {len(state.squares)}")
    values = np.full(len(state.ordinals), np.nan)
    if chosen is not None:
        values = values_of(state, measured(view, steps, chosen))
    counts = np.bincount(state.exposure_hole, minlength=len(state.holes))
    of_holes = counts.astype(float) if chosen is None else medians(state.exposure_hole, values, len(state.holes))
    known = of_holes[np.isfinite(of_holes)] if chosen is not None else of_holes
    low, high = limits_of(known.tolist(), margin=0.0) if len(known) else (0.0, 1.0)
    return GridMapData(
        colour=COUNT if chosen is None else chosen.id,
        label="Exposures" if chosen is None else chosen.label,
        unit="" if chosen is None else chosen.unit,
        better=None if chosen is None else chosen.better,
        low=low,
        high=high,
        choices=choices,
        squares=_squares(state, counts, None if chosen is None else values),
        holes=_holes(view, state, counts, of_holes, values, square),
        n_holes=len(state.holes),
        n_exposures=state.n_exposures,
        n_placed=len(state.ordinals),
        turn_deg=state.turn_deg,
        half_side_um=state.half_side_um,
        software=state.software,
        atlas=state.atlas,
        shift=_shift(state),
        missing=tuple(state.missing),
    )


def choose_measure(choices: Sequence[MeasureOfStep], wanted: str | None) -> MeasureOfStep | None:
    """Return the measure of an id; None is the number of exposures.

    Raises
    ------
    SessionError
        No step measures this.
    """
    if wanted == COUNT:
        return None
    if wanted is None:
        judging = [one for one in choices if one.better is not None]
        return next((one for one in reversed(judging) if one.id.endswith(f":{USUAL}")), judging[-1] if judging else None)
    found = next((one for one in choices if one.id == wanted), None)
    if found is None:
        raise SessionError(
            f"{wanted[:200]!r}: no step measures this; there are {', '.join([COUNT, *(one.id for one in choices)])}"
        )
    return found


def measured(view: SessionView, steps: Sequence[StepSummary], one: MeasureOfStep) -> dict[int, float]:
    """Return number of the exposure → value."""
    series = read_series(view, steps, [one], most=MOST_MEASURED).get(one.id)
    return {} if series is None else dict(zip(series.exposures, series.values, strict=True))


def values_of(state: GridState, found: Mapping[int, float]) -> NDArray[np.float64]:
    """Return the value of each exposure that has a place; NaN where there is none."""
    return np.array([found.get(ordinal, np.nan) for ordinal in state.ordinals.tolist()], np.float64)


def medians(group: NDArray[np.int64], values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return the median of the values of each group; NaN where it has none."""
    found = np.full(count, np.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.lexsort((values[known], group[known]))]
    if len(order) == 0:
        return found
    sorted_groups, sorted_values = group[order], values[order]
    names, first, size = np.unique(sorted_groups, return_index=True, return_counts=True)
    found[names] = (sorted_values[first + (size - 1) // 2] + sorted_values[first + size // 2]) / 2
    return found


def _squares(state: GridState, counts: NDArray[np.int64], values: NDArray[np.float64] | None) -> tuple[SquareOnMap, ...]:
    n_squares = len(state.squares)
    inside = state.hole_square >= 0
    n_holes = np.bincount(state.hole_square[inside], minlength=n_squares)
    n_exposed = np.bincount(state.hole_square[inside & (counts > 0)], minlength=n_squares)
    square_of = state.hole_square[state.exposure_hole]
    placed = square_of >= 0
    n_exposures = np.bincount(square_of[placed], minlength=n_squares)
    of_squares = n_exposures.astype(float) if values is None else medians(square_of[placed], values[placed], n_squares)
    return tuple(
        SquareOnMap(
            name=name,
            y_um=_known(state.centres_yx_um[number, 0]),
            x_um=_known(state.centres_yx_um[number, 1]),
            n_holes=int(n_holes[number]),
            n_exposed=int(n_exposed[number]),
            n_exposures=int(n_exposures[number]),
            value=_known(of_squares[number]),
        )
        for number, name in enumerate(state.squares)
    )


def _holes(
    view: SessionView,
    state: GridState,
    counts: NDArray[np.int64],
    of_holes: NDArray[np.float64],
    values: NDArray[np.float64],
    square: str | None,
) -> tuple[HoleOnMap, ...]:
    wanted = np.arange(len(state.holes))
    if square is not None:
        wanted = np.flatnonzero(state.hole_square == state.squares.index(square))
    elif len(wanted) > MOST_HOLES:
        return ()
    exposures = {} if square is None else _exposures(view, state, values, wanted)
    return tuple(
        HoleOnMap(
            name=state.holes[hole],
            square=state.squares[state.hole_square[hole]] if state.hole_square[hole] >= 0 else None,
            y_um=round(float(state.hole_yx_um[hole, 0]), 4),
            x_um=round(float(state.hole_yx_um[hole, 1]), 4),
            listed=bool(state.listed[hole]),
            wanted=None if state.wanted[hole] < 0 else bool(state.wanted[hole]),
            n_exposures=int(counts[hole]),
            value=_known(of_holes[hole]),
            exposures=tuple(exposures.get(hole, ())),
        )
        for hole in wanted.tolist()
    )


def _exposures(
    view: SessionView, state: GridState, values: NDArray[np.float64], wanted: NDArray[np.int64]
) -> dict[int, list[ExposureOnMap]]:
    """Return hole → its newest exposures."""
    rows = np.flatnonzero(np.isin(state.exposure_hole, wanted))
    ordinals = state.ordinals[rows].tolist()
    table = schema.exposure
    with view.reading() as connection:
        if connection is None or not ordinals:
            return {}
        asked = select(table.c.ordinal, table.c.unit, table.c.name).where(table.c.ordinal.between(min(ordinals), max(ordinals)))
        named = {row.ordinal: row for row in connection.execute(asked)}
    found: dict[int, list[ExposureOnMap]] = {}
    for row, ordinal in zip(rows[::-1].tolist(), ordinals[::-1], strict=True):
        mine = found.setdefault(int(state.exposure_hole[row]), [])
        if ordinal in named and len(mine) < MOST_OF_HOLE:
            y_um, x_um = (round(float(one), 4) for one in state.exposure_yx_um[row])
            said = named[ordinal]
            mine.append(ExposureOnMap(said.unit, ordinal, said.name, y_um, x_um, _known(values[row])))
    return found


def _shift(state: GridState) -> ShiftOnStage | None:
    if state.shift is None:
        return None
    (a, b), (c, d) = state.shift.matrix.tolist()
    return ShiftOnStage(((a, b), (c, d)), state.shift.rms_um, state.shift.n_points)


def _known(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
