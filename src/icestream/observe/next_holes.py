"""Which holes to expose next, for whoever drives the microscope: a table with a score that is learnt from what was exposed."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sqlalchemy import select

from icestream.algorithms.grid.choosing import Choice, choose_holes
from icestream.algorithms.grid.quality import Holes, measure_distance
from icestream.errors import SessionError
from icestream.flow.storage import schema
from icestream.io.holes import gather, read_hole_table
from icestream.observe.exposures import Range, read_range
from icestream.observe.grid_map import USUAL, measured, values_of
from icestream.observe.grid_state import GridState, read_grid_state
from icestream.observe.measured import MeasureOfStep, list_measures
from icestream.observe.queries import SessionView, StepSummary

MOST_NEXT = 1000
USUAL_LIMIT_ANG = 6.0
THICKNESSES = ("ice_transmission_mean_free_paths", "ctf_local_thickness_angstroms", "ice_ring_percent")
"""What may tell the thickness of the ice, as monitoring calls it; the first that a step measures is taken."""
_TAKEN_UM, _USUAL_DISTANCE = 0.5, 0.6


@dataclass(frozen=True)
class NextQuery:
    """What is asked: what a good exposure is, and how many holes are wanted.

    Attributes
    ----------
    good
        Ranges of measures that a good exposure is in; empty: a CTF resolution of at most 6 Å, where a step measures it.
    goes_with
        The measure that is predicted for holes nobody exposed, and their quality from it; unset: the thickness of the ice where a
        step measures it, otherwise the first measure of ``good``.
    explore
        What a standard deviation of a square's effect is worth: 0 takes what is best by what is known.
    limit
        At most so many holes.
    all_holes
        Also holes that the acquisition software does not mean to expose.
    """

    good: tuple[Range, ...] = ()
    goes_with: str | None = None
    explore: float = Choice.explore
    limit: int = 100
    all_holes: bool = False

    @classmethod
    def of_texts(cls, good: Sequence[str], goes_with: str | None, explore: float, limit: int, all_holes: bool) -> "NextQuery":
        """Return the question with ranges as ``MEASURE,LOW,HIGH``, either number of which may be empty.

        Raises
        ------
        SessionError
            One is not written so.
        """
        return cls(tuple(read_range(one) for one in good), goes_with, explore, limit, all_holes)


@dataclass(frozen=True)
class NextHole:
    """One hole that has not been exposed, the best first.

    Attributes
    ----------
    score
        What they are sorted by: ``expected`` and what the square would teach.
    expected
        Expected share of good exposures in this hole, 0 to 1.
    sd
        Standard deviation of ``expected``.
    sd_square
        The part of it that the square has: what an exposure there would teach about the others.
    n_seen_in_square
        Holes of the square that were exposed and judged.
    """

    rank: int
    hole: str
    square: str | None
    y_um: float
    x_um: float
    score: float
    expected: float
    sd: float
    sd_square: float
    n_seen_in_square: int


@dataclass(frozen=True)
class NextHoles:
    """The table, and what it was learnt from."""

    holes: tuple[NextHole, ...]
    n_candidates: int
    n_judged: int
    """Exposed holes that were judged."""
    good_share: float | None
    """Share of good exposures so far."""
    good: tuple[str, ...]
    """What a good exposure is, as sentences."""
    goes_with: str | None
    """The measure that is predicted for the holes."""
    explore: float
    missing: tuple[str, ...]
    """What is not known, and why, as sentences."""


def read_next_holes(view: SessionView, query: NextQuery, *, listed: Path | None = None) -> NextHoles:
    """Return which holes to expose next.

    Parameters
    ----------
    listed
        A table of holes to choose from (CSV or JSON, `icestream.io.holes`), in place of those that the session knows.

    Raises
    ------
    SessionError
        No step measures what a good exposure is judged by.
    FileFormatError
        The table cannot be read.
    """
    steps = view.steps()
    choices = [one for one in list_measures(view, steps) if not one.whole]
    ranges = query.good or _usual(choices)
    state = read_grid_state(view, steps)
    missing = list(state.missing)
    good = _judge(view, steps, choices, ranges, state)
    other = _goes_with(choices, query.goes_with, ranges)
    covariate = np.full(len(good), np.nan) if other is None else _scaled(values_of(state, measured(view, steps, other)))
    names, squares, square, yx_um, centres = _candidates(state, query, listed)
    if not names:
        missing.append("no hole is known that was not exposed: add the steps import_grid and map_grid, or give a table of holes")
    seen, quality, at = _seen_holes(state, good, covariate)
    n_judged = len(quality)
    wanted_square = np.where(square >= 0, square, len(squares))  # holes in no square are in one of their own
    centres = np.concatenate([centres, np.full((1, 2), np.nan)])
    distance = _distances(
        np.concatenate([state.hole_yx_um[seen], yx_um]), np.concatenate([_own(state, seen, len(squares)), wanted_square]), centres
    )
    choice = choose_holes(
        Holes(state.hole_yx_um[seen], _own(state, seen, len(squares)), distance[:n_judged]),
        quality,
        Holes(yx_um, wanted_square, distance[n_judged:]),
        centres_yx_um=centres,
        explore=query.explore,
        most=query.limit,
        covariate=at if np.isfinite(at).any() else None,
    )
    judged = good[np.isfinite(good)]
    return NextHoles(
        holes=tuple(_rows(choice, query.limit, names, [*squares, None], square, yx_um)),
        n_candidates=len(names),
        n_judged=n_judged,
        good_share=float(judged.mean()) if len(judged) else None,
        good=(*(_sentence(one, choices) for one in ranges), "no step failed or set it aside"),
        goes_with=None if other is None else other.id,
        explore=query.explore,
        missing=tuple(missing),
    )


def write_next_holes(found: NextHoles, form: str) -> str:
    """Return the table as text: ``json`` is the whole answer, ``csv`` the rows alone.

    Raises
    ------
    SessionError
        The format is neither.
    """
    if form not in ("json", "csv"):
        raise SessionError(f"the format is {form!r}; it must be text, json or csv")
    names = list(NextHole.__dataclass_fields__)
    if form == "csv":
        lines = [",".join(names)]
        lines += [",".join(_cell(getattr(one, name)) for name in names) for one in found.holes]
        return "\n".join(lines) + "\n"
    whole = {name: getattr(found, name) for name in NextHoles.__dataclass_fields__}
    whole["holes"] = [{name: getattr(one, name) for name in names} for one in found.holes]
    return json.dumps(whole, indent=1) + "\n"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


def _usual(choices: Sequence[MeasureOfStep]) -> tuple[Range, ...]:
    last = next((one for one in reversed(choices) if one.id.endswith(f":{USUAL}")), None)
    return () if last is None else (Range(last.id, None, USUAL_LIMIT_ANG),)


def _find(choices: Sequence[MeasureOfStep], wanted: str) -> MeasureOfStep:
    found = next((one for one in choices if one.id == wanted), None)
    if found is None:
        raise SessionError(
            f"{wanted[:200]!r}: no step measures this; there are {', '.join(one.id for one in choices) or 'none yet'}"
        )
    return found


def thickness_of(choices: Sequence[MeasureOfStep]) -> MeasureOfStep | None:
    """Return the measure that stands for the thickness of the ice, if a step measures one."""
    measured_by = {one.declared.metric: one for one in choices}  # of several steps the last in the workflow
    return next((measured_by[metric] for metric in THICKNESSES if metric in measured_by), None)


def _goes_with(choices: Sequence[MeasureOfStep], wanted: str | None, ranges: Sequence[Range]) -> MeasureOfStep | None:
    if wanted is not None:
        return _find(choices, wanted)
    ice = thickness_of(choices)
    return ice if ice is not None or not ranges else _find(choices, ranges[0].measure)


def _sentence(one: Range, choices: Sequence[MeasureOfStep]) -> str:
    found = _find(choices, one.measure)
    parts = [
        f"{word} {value:g} {found.unit}".strip()
        for word, value in (("at least", one.low), ("at most", one.high))
        if value is not None
    ]
    return f"{found.label} ({found.step_label}) is {' and '.join(parts) or 'known'}"


def _judge(
    view: SessionView, steps: Sequence[StepSummary], choices: Sequence[MeasureOfStep], ranges: Sequence[Range], state: GridState
) -> NDArray[np.float64]:
    """Return 1 for each good exposure, 0 for each other, NaN where it is too early to tell."""
    good = np.ones(len(state.ordinals))
    for one in ranges:
        values = values_of(state, measured(view, steps, _find(choices, one.measure)))
        inside = np.array([one.holds(value) for value in values.tolist()], bool)
        good = np.where(np.isfinite(values), good * inside, np.nan)
    aside, settled = _set_aside(view)
    ordinals = state.ordinals.tolist()
    if not ranges:
        good[[ordinal not in settled for ordinal in ordinals]] = np.nan
    good[[ordinal in aside for ordinal in ordinals]] = 0.0
    return good


def _set_aside(view: SessionView) -> tuple[set[int], set[int]]:
    """Return the numbers of exposures that a step failed or set aside, and of those that every step has decided about."""
    table, outcome = schema.exposure, schema.outcome
    with view.reading() as connection:
        if connection is None:
            return set(), set()
        active = [one.id for one in view.revisions(connection).values()]
        bad = outcome.c.revision.in_(active) & outcome.c.status.in_(("failed", "rejected"))
        asked = select(table.c.ordinal).join(outcome, outcome.c.unit == table.c.unit).where(bad)
        aside = {int(row.ordinal) for row in connection.execute(asked)}
        done = {int(row.ordinal) for row in connection.execute(select(table.c.ordinal).where(table.c.settled_by.is_not(None)))}
    return aside, done


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logarithm of a number that is never negative, such as a thickness; others as they are."""
    known = values[np.isfinite(values)]
    if len(known) == 0 or known.min() < 0 or known.max() <= 0:
        return values
    floor = max(float(np.quantile(known, 0.02)), 1e-3 * float(known.max()))
    return np.log(np.maximum(values, floor))


def _seen_holes(
    state: GridState, good: NDArray[np.float64], covariate: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the holes with a judged exposure, their shares of good ones, and the means of the covariate."""
    judged = np.isfinite(good)
    n_holes = len(state.holes)
    counts = np.bincount(state.exposure_hole[judged], minlength=n_holes)
    seen = np.flatnonzero(counts)
    share = np.bincount(state.exposure_hole[judged], good[judged], n_holes)[seen] / counts[seen]
    known = judged & np.isfinite(covariate)
    n_known = np.bincount(state.exposure_hole[known], minlength=n_holes)[seen]
    total = np.bincount(state.exposure_hole[known], covariate[known], n_holes)[seen]
    return seen, share, np.where(n_known > 0, total / np.maximum(n_known, 1), np.nan)


def _own(state: GridState, holes: NDArray[np.int64], nowhere: int) -> NDArray[np.int64]:
    square = state.hole_square[holes]
    return np.where(square >= 0, square, nowhere)


def _distances(yx_um: NDArray[np.float64], square: NDArray[np.int64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far holes are from the centres of their squares, 0 to 1; a usual distance where there is no square."""
    there = np.isfinite(centres[square]).all(axis=1)
    distance = np.full(len(square), _USUAL_DISTANCE)
    distance[there] = measure_distance(yx_um[there], square[there], centres)
    return distance


_Candidates = tuple[list[str], list[str], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _candidates(state: GridState, query: NextQuery, listed: Path | None) -> _Candidates:
    """Return names, names of squares, number of the square, positions, and centres of squares of the holes to choose from."""
    squares, centres = list(state.squares), state.centres_yx_um
    if listed is None:
        names, square, yx_um, wanted = state.holes, state.hole_square, state.hole_yx_um, state.wanted
        kept = state.listed.copy()
    else:
        table = gather(read_hole_table(listed))
        rows = table.rows()
        for one in table.places():
            if one.name not in squares:
                squares.append(one.name)
                centres = np.concatenate(
                    [centres, [[math.nan if one.y_um is None else one.y_um, math.nan if one.x_um is None else one.x_um]]]
                )
        number = np.array([*(squares.index(one.name) for one in table.squares), -1], np.int64)
        names, square = [str(name) for name in rows["hole"]], number[rows["square"]]
        yx_um, wanted = np.column_stack([rows["y_um"], rows["x_um"]]), rows["wanted"].astype(np.int64)
        kept = np.ones(len(names), bool)
    if not query.all_holes:
        kept &= wanted != 0
    own = ~state.listed[state.exposure_hole]
    taken = np.concatenate([state.hole_yx_um[np.unique(state.exposure_hole)], state.exposure_yx_um[own]])
    if len(taken) and len(yx_um):
        kept &= cKDTree(taken).query(yx_um)[0] > _TAKEN_UM
    which = np.flatnonzero(kept)
    return [names[one] for one in which.tolist()], squares, square[which], yx_um[which], centres


def _rows(
    choice: Choice,
    limit: int,
    names: Sequence[str],
    squares: Sequence[str | None],
    square: NDArray[np.int64],
    yx_um: NDArray[np.float64],
) -> Iterator[NextHole]:
    promise = choice.promise
    for rank, index in enumerate(choice.order[:limit].tolist(), 1):
        yield NextHole(
            rank=rank,
            hole=names[index],
            square=squares[square[index]],
            y_um=round(float(yx_um[index, 0]), 4),
            x_um=round(float(yx_um[index, 1]), 4),
            score=round(float(choice.score[index]), 4),
            expected=round(float(promise.expected[index]), 4),
            sd=round(float(promise.sd[index]), 4),
            sd_square=round(float(promise.sd_square[index]), 4),
            n_seen_in_square=int(promise.n_seen[index]),
        )
