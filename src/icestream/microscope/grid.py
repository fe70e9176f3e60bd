"""A simulated grid: squares and holes with qualities of their own, which exposures show.

Squares are in rows on a mesh, holes in rows in each square, all turned by one angle on the stage. The ice is of log-normal
thickness: a trend over the grid, a step from square to square, a rim thicker than the middle, a smooth change within the
square, and chance. Dirt comes by square and by hole; some squares are empty.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.ndimage import gaussian_filter

from icestream.records import Record
from icestream.units import Angstrom, Degree, Micrometer

FIRST_SQUARE, FIRST_HOLE = 1_000_001, 5_000_001
_BEST_ICE_ANG, _ICE_TOLERANCE = 300.0, 0.5
_SHIFT_UNIT_UM, _SHIFT_TURN_DEG = 22.0, 38.0
_SIDE_BY_SIDE_UM = 0.35
_CLUSTER = 3


class GridSettings(BaseModel):
    """A grid of squares with holes; by default a 300 mesh with few holes, so that small sessions see many squares."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(4, ge=1, le=40, description="Rows of squares")
    columns: int = Field(4, ge=1, le=40, description="Squares in a row")
    pitch_um: Micrometer = Field(85.0, gt=0, description="From one square to the next")
    side_um: Micrometer = Field(36.0, gt=0, description="Side of the part of a square that has holes")
    hole_spacing_um: Micrometer = Field(4.5, gt=0, description="From one hole to the next")
    turn_deg: Degree = Field(8.0, description="By how much the grid is turned on the stage, from x towards y")
    visited_per_square: int = Field(8, ge=1, description="Holes of a square that are exposed before the next square")
    exposures_per_hole: int = Field(1, ge=1, le=9, description="Exposures of each hole that is exposed")
    empty: float = Field(0.1, ge=0, le=1, description="Share of the squares that have no ice")
    ice_ang: Angstrom = Field(300.0, gt=0, description="Median thickness of the ice")
    ice_spread: float = Field(0.5, ge=0, description="Standard deviation of the logarithm of the thickness between squares")
    dirt: float = Field(0.04, ge=0, le=0.5, description="Share of the field that dirt covers in a median square")

    @property
    def holes_per_side(self) -> int:
        """How many holes are in a row of a square."""
        return int(self.side_um / self.hole_spacing_um) + 1

    @property
    def n_exposures(self) -> int:
        """How many exposures there are if every square is visited."""
        return self.rows * self.columns * min(self.visited_per_square, self.holes_per_side**2) * self.exposures_per_hole


class HoleTruth(Record):
    """The hole that an exposure is of, and where on the stage."""

    square: int = Field(description="Number of the square, from 0")
    hole: int = Field(description="Number of the hole on the grid, from 0")
    y_um: Micrometer = Field(description="Where the exposure is")
    x_um: Micrometer
    stage_y_um: Micrometer = Field(description="Where the stage was; the rest of the way is a shift of the beam")
    stage_x_um: Micrometer
    ice_ang: Angstrom
    dirt: float = Field(description="Share of the field")
    good: float = Field(description="Chance that the exposure is a good one")


class SimulatedGrid:
    """All squares and holes: positions ``(n, 2)`` yx in µm, and what each hole is like, ``(n,)``."""

    def __init__(self, settings: GridSettings, generator: np.random.Generator) -> None:
        self.settings = settings
        side, n_squares = settings.holes_per_side, settings.rows * settings.columns
        turn = _turn(settings.turn_deg)
        rows, columns = np.divmod(np.arange(n_squares), settings.columns)
        middle = np.array([settings.rows - 1, settings.columns - 1]) / 2
        flat = (np.column_stack([rows, columns]) - middle) * settings.pitch_um
        self.centres_yx_um = flat @ turn.T + generator.uniform(-300, 300, 2)  # (k, 2)
        steps = (np.stack(np.meshgrid(*[np.arange(side)] * 2, indexing="ij"), axis=-1).reshape(-1, 2) - (side - 1) / 2) * (
            settings.hole_spacing_um
        )
        self.square = np.repeat(np.arange(n_squares), side * side)
        self.yx_um = self.centres_yx_um[self.square] + np.tile(steps @ turn.T, (n_squares, 1))
        distance = np.tile(np.linalg.norm(steps, axis=1), n_squares) / max(float(np.linalg.norm(steps, axis=1).max()), 1e-9)
        of_square, within = self._ice_logarithms(generator, flat, distance, side)
        self.empty = generator.random(n_squares) < settings.empty
        self.ice_ang = np.where(self.empty[self.square], 0.0, settings.ice_ang * np.exp(of_square[self.square] + within))
        covered = settings.dirt * np.exp(0.8 * generator.normal(size=n_squares))[self.square]
        self.dirt = np.minimum(covered * np.exp(0.7 * generator.normal(size=len(self.square))), 0.6)
        self.good = self._chances()
        self.visited = self._choose_visited(generator)

    def _ice_logarithms(
        self, generator: np.random.Generator, flat: NDArray[np.float64], distance: NDArray[np.float64], side: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        spread = self.settings.ice_spread
        slope = generator.normal(size=2)
        trend = flat @ slope / max(float(np.abs(flat @ slope).max(initial=0.0)), 1e-9)
        of_square = spread * (0.8 * trend + 0.8 * generator.normal(size=len(flat)))
        smooth = np.concatenate([_smooth(generator, side) for _ in range(len(flat))])
        within = 0.9 * (distance**2 - 0.35) + 0.25 * smooth + 0.1 * generator.normal(size=len(distance))
        return of_square, within

    def _chances(self) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            off = np.log(self.ice_ang / _BEST_ICE_ANG) / _ICE_TOLERANCE
        chance: NDArray[np.float64] = 0.95 * np.exp(-0.5 * off**2) * (1 - self.dirt) ** 2
        return chance

    def _choose_visited(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Return which holes are exposed, in order: some of each square, square by square."""
        per_square = self.settings.holes_per_side**2
        count = min(self.settings.visited_per_square, per_square)
        chosen = [
            number * per_square + np.sort(generator.permutation(per_square)[:count]) for number in range(len(self.centres_yx_um))
        ]
        return np.concatenate(chosen)

    def expose(self, index: int) -> HoleTruth:
        """Return which hole exposure ``index`` is of; after the last one it begins again."""
        each = self.settings.exposures_per_hole
        place = index // each
        hole = int(self.visited[place % len(self.visited)])
        aside = np.zeros(2)
        if each > 1:
            angle = 2 * np.pi * (index % each) / each
            aside = _SIDE_BY_SIDE_UM * np.array([np.sin(angle), np.cos(angle)])
        y_um, x_um = self.yx_um[hole] + aside
        stage = self.yx_um[self._stage_hole(hole)]
        return HoleTruth(
            square=int(self.square[hole]),
            hole=hole,
            y_um=round(float(y_um), 4),
            x_um=round(float(x_um), 4),
            stage_y_um=round(float(stage[0]), 4),
            stage_x_um=round(float(stage[1]), 4),
            ice_ang=float(self.ice_ang[hole]),
            dirt=float(self.dirt[hole]),
            good=float(self.good[hole]),
        )

    def _stage_hole(self, hole: int) -> int:
        """Return the hole at which the stage stands while the beam goes to holes around it: the middle of a block of holes."""
        side = self.settings.holes_per_side
        square, inside = divmod(hole, side * side)
        row, column = (min(part // _CLUSTER * _CLUSTER + _CLUSTER // 2, side - 1) for part in divmod(inside, side))
        return square * side * side + row * side + column


@lru_cache(maxsize=4)
def _make_grid(settings_json: str, seed: int, key: int) -> SimulatedGrid:
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))
    return SimulatedGrid(GridSettings.model_validate_json(settings_json), generator)


def make_grid(settings: GridSettings, *, seed: int, key: int) -> SimulatedGrid:
    """Return the grid of a seed; the last few are remembered."""
    return _make_grid(settings.model_dump_json(), seed, key)


def beam_shift_yx(truth: HoleTruth) -> tuple[float, float]:
    """Return by what the beam is shifted from where the stage is, in units of its own, as microscopes state it."""
    y, x = _turn(_SHIFT_TURN_DEG) @ np.array([truth.y_um - truth.stage_y_um, -(truth.x_um - truth.stage_x_um)]) / _SHIFT_UNIT_UM
    return float(y), float(x)


def square_label(number: int) -> str:
    """Return what the Navigator calls a square."""
    return f"sq{number + 1}"


def hole_label(hole: int) -> str:
    """Return what the Navigator calls a hole."""
    return f"h{hole + 1}"


def _turn(angle_deg: float) -> NDArray[np.float64]:
    """Return what turns ``(y, x)`` by an angle from x towards y."""
    cos, sin = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[cos, sin], [-sin, cos]])


def _smooth(generator: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return a smooth pattern of unit spread over the holes of a square ``(side²,)``."""
    pattern = gaussian_filter(generator.normal(size=(side, side)), 1.6, mode="nearest")
    flat: NDArray[np.float64] = (pattern / max(float(pattern.std()), 1e-9)).ravel()
    return flat
