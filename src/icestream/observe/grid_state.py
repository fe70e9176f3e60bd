"""Where the exposures of a session are on the grid: its squares and holes, put together from metadata and from the `GridMap`.

A hole has the position that the acquisition software lists. Otherwise it is where the stage was, moved by the shift of the beam
or image where enough exposures of listed holes tell what a shift means; otherwise just where the stage was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, select

from icestream.algorithms.grid.placing import Placement, fit_frame, fit_shift, group_positions
from icestream.flow.storage import Session, schema
from icestream.io.blocks import from_block
from icestream.observe.exposures import PublishedPicture
from icestream.observe.kept_columns import KEPT
from icestream.observe.queries import SessionView, StepSummary
from icestream.records import GridMap, StagePlace

MOST_EXPOSURES = 200_000
_SAME_HOLE_UM, _SAME_SQUARE_UM = 0.5, 15.0
_WORST_SHIFT_RMS_UM = 1.0
_LEAST_SIDE_UM = 4.0

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class AtlasPicture:
    """The picture of the atlas and where it is on the stage: its corner, and its sides from there, ``(y, x)`` in µm."""

    picture: PublishedPicture
    corner_yx_um: tuple[float, float]
    down_yx_um: tuple[float, float]
    right_yx_um: tuple[float, float]


@dataclass
class GridState:
    """Squares, holes and exposures; holes and exposures are columns of equal length, positions ``(n, 2)`` yx in µm."""

    squares: list[str] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    hole_square: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    hole_yx_um: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    listed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """Whether the acquisition software lists the hole."""
    wanted: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    """1: the software means to expose it, 0: it does not, -1: it does not say."""
    centres_yx_um: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    """Of the squares; not finite where nobody knows."""
    ordinals: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of the exposures that have a place, their numbers."""
    exposure_hole: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    exposure_yx_um: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    n_exposures: int = 0
    turn_deg: float = 0.0
    half_side_um: float = _LEAST_SIDE_UM
    shift: Placement | None = None
    software: str | None = None
    atlas: AtlasPicture | None = None
    missing: list[str] = field(default_factory=list)


@dataclass
class _Exposures:
    """What metadata say of exposures, by row."""

    ordinals: list[int] = field(default_factory=list)
    stage_yx_um: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    shift_yx: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    squares: list[str | None] = field(default_factory=list)
    holes: list[str | None] = field(default_factory=list)
    total: int = 0


def read_grid_state(view: SessionView, steps: Sequence[StepSummary]) -> GridState:
    """Put together what is known of the grid."""
    catalog = view.catalog()
    declared = [(step, catalog.shown(step.records.get("out")).place) for step in steps if step.revision_id is not None]
    source = next(((step, place) for step, place in declared if place is not None), None)
    with view.reading() as connection:
        if connection is None:
            return GridState(missing=["the session has not started"])
        exposures = _Exposures() if source is None else _read_exposures(view.session, connection, source[0], source[1])
    drawn = _read_map(view, steps)
    state = _assemble(exposures, drawn)
    state.missing = [*_complaints(source is not None, exposures, drawn, state), *state.missing]
    return state


def _read_exposures(session: Session, connection: Connection, step: StepSummary, place: StagePlace) -> _Exposures:
    """Read the places of all exposures that one step has made records of."""
    if step.revision_id is None:
        return _Exposures()
    numbers = [place.y, place.x, place.image_y, place.image_x, place.beam_y, place.beam_x]
    texts = [place.square, place.hole]
    rows = KEPT.read(session, connection, step.revision_id, numbers, texts)[-MOST_EXPOSURES:]
    known = [row for row in rows if row[1] is not None and row[2] is not None]
    values = np.array([[np.nan if one is None else one for one in row[1:7]] for row in known], np.float64).reshape(-1, 6)
    image = np.isfinite(values[:, 2:4]).all(axis=1)
    return _Exposures(
        ordinals=[row[0] for row in known],
        stage_yx_um=values[:, :2],
        shift_yx=np.where(image.any(), values[:, 2:4], values[:, 4:6]),
        squares=[row[7] for row in known],
        holes=[row[8] for row in known],
        total=len(rows),
    )


def _read_map(view: SessionView, steps: Sequence[StepSummary]) -> tuple[GridMap, str, str] | None:
    """Return the newest map of the grid that a step has made, its key, and the step."""
    for step in steps:
        if step.records.get("out") != GridMap.stored_name:
            continue
        newest = next((one for one in view.snapshots(step.name, limit=5) if one.record is not None), None)
        if newest is None or newest.record is None:
            continue
        with view.reading() as connection:
            if connection is None:
                return None
            block = connection.execute(select(schema.result.c.block).where(schema.result.c.key == newest.key)).scalar()
        if block is not None:
            return GridMap.model_validate({**newest.record, "block": block}), newest.key, step.name
    return None


def _assemble(exposures: _Exposures, drawn: tuple[GridMap, str, str] | None) -> GridState:
    state = GridState(n_exposures=exposures.total, ordinals=np.array(exposures.ordinals, np.int64))
    square_of: dict[str, int] = {}
    hole_of: dict[str, int] = {}
    if drawn is not None:
        _take_map(state, drawn, square_of, hole_of)
    listed_yx = state.hole_yx_um
    mine = np.array([hole_of.get(_key(name, square), -1) for name, square in _named(exposures, hole_of)], np.int64)
    known = mine >= 0
    if known.any():
        shift = fit_shift(exposures.shift_yx[known], exposures.stage_yx_um[known], listed_yx[mine[known]])
        state.shift = shift if shift is not None and shift.rms_um <= _WORST_SHIFT_RMS_UM else None
    placed = exposures.stage_yx_um
    if state.shift is not None:
        moved = placed + state.shift.place(np.nan_to_num(exposures.shift_yx))
        shifted = np.atleast_1d(np.isfinite(exposures.shift_yx).all(axis=1))
        placed = np.where(shifted[:, None], moved, placed)
    state.exposure_yx_um = placed
    _add_holes(state, exposures, mine, placed, square_of)
    _measure_squares(state)
    return state


def _named(exposures: _Exposures, hole_of: Mapping[str, int]) -> list[tuple[str | None, str | None]]:
    """Return hole and square of each exposure; a square that the list of holes does not name is left away."""
    pairs = zip(exposures.holes, exposures.squares, strict=True)
    return [(hole, square if _key(hole, square) in hole_of else None) for hole, square in pairs]


def _key(hole: str | None, square: str | None) -> str:
    """Return what names a hole: with its square, or alone where holes have names of their own on the whole grid."""
    return f"{square or ''}/{hole or ''}"


def _take_map(state: GridState, drawn: tuple[GridMap, str, str], square_of: dict[str, int], hole_of: dict[str, int]) -> None:
    grid, key, step = drawn
    rows = from_block(grid.block)
    state.software, state.missing = grid.software, list(grid.missing)
    state.squares = [one.name for one in grid.squares]
    square_of.update({name: number for number, name in enumerate(state.squares)})
    state.holes = [str(name) for name in rows["hole"]]
    state.hole_square = rows["square"].astype(np.int64)
    state.hole_yx_um = np.column_stack([rows["y_um"], rows["x_um"]])
    state.listed, state.wanted = np.ones(len(rows), bool), rows["wanted"].astype(np.int64)
    for number, (name, square) in enumerate(zip(state.holes, state.hole_square.tolist(), strict=True)):
        hole_of.setdefault(_key(name, state.squares[square] if square >= 0 else None), number)
        hole_of.setdefault(_key(name, None), number)
    missing = [(np.nan if one.y_um is None else one.y_um, np.nan if one.x_um is None else one.x_um) for one in grid.squares]
    state.centres_yx_um = np.array(missing, np.float64).reshape(-1, 2)
    if grid.picture is not None and grid.place is not None:
        place = grid.place
        picture = PublishedPicture(key, "picture", step)
        state.atlas = AtlasPicture(picture, place.corner_yx_um, place.down_yx_um, place.right_yx_um)


def _add_holes(state: GridState, exposures: _Exposures, mine: Numbers, placed: Floats, square_of: dict[str, int]) -> None:
    """Add the holes of exposures that no list names: by their own names, or as positions close together."""
    loose = np.flatnonzero(mine < 0)
    nameless = [int(row) for row in loose if not exposures.holes[row]]
    groups = group_positions(placed[nameless], gap_um=_SAME_HOLE_UM)
    keys = {int(row): _key(exposures.holes[row], exposures.squares[row]) for row in loose}
    keys.update({row: f"at {group}" for row, group in zip(nameless, groups.tolist(), strict=True)})
    number_of: dict[str, int] = {}
    first = len(state.holes)
    for row in loose.tolist():
        mine[row] = first + number_of.setdefault(keys[row], len(number_of))
    state.exposure_hole = mine
    members: list[list[int]] = [[] for _ in number_of]
    for row in loose.tolist():
        members[mine[row] - first].append(row)
    if not members:
        return
    yx_um = np.array([placed[one].mean(axis=0) for one in members])
    named = [exposures.holes[one[0]] or f"{len(state.holes) + number + 1}" for number, one in enumerate(members)]
    squares = _squares_of_loose(state, [exposures.squares[one[0]] for one in members], yx_um, square_of)
    state.holes = [*state.holes, *named]
    state.hole_square = np.concatenate([state.hole_square, squares])
    state.hole_yx_um = np.concatenate([state.hole_yx_um, yx_um])
    state.listed = np.concatenate([state.listed, np.zeros(len(members), bool)])
    state.wanted = np.concatenate([state.wanted, np.full(len(members), -1)])


def _squares_of_loose(state: GridState, names: Sequence[str | None], yx_um: Floats, square_of: dict[str, int]) -> Numbers:
    """Return the square of each hole: by its name, or with those nearby."""
    nameless = [number for number, name in enumerate(names) if not name]
    groups = group_positions(yx_um[nameless], gap_um=_SAME_SQUARE_UM)
    full: list[str] = [name or "" for name in names]
    for number, group in zip(nameless, groups.tolist(), strict=True):
        full[number] = f"group {group + 1}"
    for name in full:
        if name not in square_of:
            square_of[name] = len(state.squares)
            state.squares.append(name)
    return np.array([square_of[name] for name in full], np.int64)


def _measure_squares(state: GridState) -> None:
    """Find the centres that nobody lists, and how squares are turned."""
    centres = np.full((len(state.squares), 2), np.nan)
    centres[: len(state.centres_yx_um)] = state.centres_yx_um
    inside = state.hole_square >= 0
    for number in np.flatnonzero(~np.isfinite(centres).all(axis=1)).tolist():
        own = state.hole_yx_um[state.hole_square == number]
        if len(own):
            centres[number] = (own.min(axis=0) + own.max(axis=0)) / 2
    state.centres_yx_um = centres
    offsets = state.hole_yx_um[inside] - centres[state.hole_square[inside]]
    offsets = offsets[np.isfinite(offsets).all(axis=1)]
    if len(offsets):
        state.turn_deg, half_um = fit_frame(offsets[:: max(1, len(offsets) // 4000)])
        state.half_side_um = max(half_um + 1.5, _LEAST_SIDE_UM)


def _complaints(has_place: bool, exposures: _Exposures, drawn: object, state: GridState) -> list[str]:
    said = []
    n_placed = len(exposures.ordinals)
    if not has_place or (exposures.total and n_placed == 0):
        said.append("no exposure says where the stage was: its XML (EPU) or mdoc (SerialEM) is missing beside the movies")
    elif n_placed < exposures.total:
        said.append(f"{exposures.total - n_placed} of {exposures.total} exposures do not say where the stage was")
    if n_placed and not any(exposures.holes):
        said.append("no exposure names its hole: exposures closer than 0.5 µm count as one hole")
    if n_placed and drawn is None:
        said.append("squares, holes that were not exposed, and the atlas are unknown: add the steps import_grid and map_grid")
    shifted = n_placed and bool(np.isfinite(exposures.shift_yx).all(axis=1).any()) and float(np.nanstd(exposures.shift_yx)) > 0
    if shifted and state.shift is None:
        shared = n_placed and len(np.unique(np.round(exposures.stage_yx_um, 1), axis=0)) < len(set(exposures.holes))
        where = "; holes that share a position of the stage are drawn on each other" if shared else ""
        said.append(f"what a shift of the beam means on the stage is unknown: too few exposures are of listed holes{where}")
    return said
