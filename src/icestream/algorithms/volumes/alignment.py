"""Bringing one volume onto another: over all rotations, shifts and both hands; and onto the axes of a symmetry.

Volumes are compared on a few planes through the origin of Fourier space, each shell counting by its radius and not by its power.
A coarse search looks everywhere, about 15° apart; the best few of its poses are then improved by a pattern search.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.scoring import PolarGrid
from icestream.algorithms.volumes.projection import FourierVolume, slice_polar_2d, transform_volume
from icestream.algorithms.volumes.resample import mirror_volume_3d, turn_volume_3d
from icestream.algorithms.volumes.rotations import Rotations, rotation_distance_deg, rotations_about, turn_in_plane
from icestream.algorithms.volumes.views import all_views

Volume = NDArray[np.float32]
_COARSE_RINGS, _COARSE_ORDER, _COARSE_TURNS = 6, 2, 24
_TRIED = 4
_APART_DEG = 25.0
_FIRST_STEP_DEG, _LAST_STEP_DEG = 8.0, 0.25
_HALF_TURN = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Alignment:
    """What brings a volume onto another: mirror it if so said, turn it, then move it by ``shift_zyx_px``.

    ``correlation`` is that of the shells compared, each of unit power: 1 for the same volume.
    """

    rotation: Rotations
    shift_zyx_px: tuple[float, float, float]
    mirrored: bool
    correlation: float


@dataclass(frozen=True)
class _Planes:
    """Samples of Fourier space on planes: frames ``(j, 3, 3)``, polar grid, and each sample's point and weight."""

    frames: Rotations
    grid: PolarGrid

    @classmethod
    def of(cls, size: int, rings: int) -> "_Planes":
        return cls(all_views(0).rotations[[0, 1, 2, 3, 4, 5]], PolarGrid(size, rings, 4 * int(np.ceil(0.8 * np.pi * rings / 2))))

    @property
    def points(self) -> NDArray[np.float64]:
        """Frequencies of the samples as z, y, x in cycles per box: ``(m, 3)``."""
        angles, radii = self.grid.angles_rad(), self.grid.radii()
        flat = np.stack([np.outer(radii, np.cos(angles)).ravel(), np.outer(radii, np.sin(angles)).ravel()], axis=1)
        return np.concatenate([flat @ frame[:2] for frame in self.frames])[:, ::-1]

    @property
    def weights(self) -> NDArray[np.float32]:
        """The weight of each sample ``(m,)``; they sum to 1."""
        weight = np.tile(np.repeat(self.grid.radii(), self.grid.half), len(self.frames))
        weights: NDArray[np.float32] = (weight / weight.sum()).astype(np.float32)
        return weights

    def sample(self, volume: FourierVolume, rotations: Rotations) -> NDArray[np.complex64]:
        """Return the samples of a volume after each of ``(n, 3, 3)`` turns, each ring of unit power: ``(n, m)``."""
        many = (self.frames[None] @ rotations[:, None]).reshape(-1, 3, 3)
        shape = (len(rotations), len(self.frames), self.grid.n_rings, self.grid.half)
        polar = slice_polar_2d(volume, many, grid=self.grid).reshape(shape)
        power = np.square(np.abs(polar)).mean(axis=(1, 3), keepdims=True)
        even: NDArray[np.complex64] = (polar / np.sqrt(power + 1e-12 * (power.max() + 1e-30))).astype(np.complex64)
        return even.reshape(len(rotations), -1)


def align_volume_3d(moving: Volume, reference: Volume, *, max_ring: int, max_shift_px: float, hands: bool = True) -> Alignment:
    """Find what brings a volume onto another of the same even size.

    Parameters
    ----------
    moving, reference
        ``(n, n, n)``, masked, centred to within ``max_shift_px``.
    max_ring
        Cycles per box up to which they are compared.
    max_shift_px
        Largest shift along each axis that the coarse search tries.
    hands
        Try the other hand too.

    Raises
    ------
    ValueError
        The volumes differ in size.
    """
    if moving.shape != reference.shape:
        raise ValueError(f"volumes to be aligned must be of one size; got {moving.shape} and {reference.shape}")
    size = moving.shape[0]
    own, target = transform_volume(moving), transform_volume(reference)
    fine = _Planes.of(size, min(max_ring, size // 2 - 1))
    wanted = np.conj(fine.sample(target, np.eye(3)[None])[0]) * fine.weights
    best: Alignment | None = None
    for rotation, shift, inverted in _coarse(own, target, size, min(_COARSE_RINGS, max_ring), max_shift_px, hands):

        def score(turns: Rotations, shifts: NDArray[np.float64], inverted: bool = inverted) -> NDArray[np.float64]:
            samples = fine.sample(own, turns)
            samples = np.conj(samples) if inverted else samples
            ramps = np.exp((-2j * np.pi / size) * (shifts @ fine.points.T)).astype(np.complex64)
            return np.asarray(((samples * ramps) @ wanted).real, dtype=np.float64) if len(turns) else np.empty(0)

        turn, moved, value = _climb(score, rotation, shift, step_px=size / fine.grid.n_rings / 8)
        if best is None or value > best.correlation:
            # The point inversion is the mirror image turned by half a turn about z.
            whole = turn @ _HALF_TURN if inverted else turn
            best = Alignment(whole, (float(moved[0]), float(moved[1]), float(moved[2])), inverted, value)
    if best is None:
        raise ValueError("there is nothing to be aligned")
    return best


def apply_alignment_3d(volume: Volume, alignment: Alignment) -> Volume:
    """Return a volume mirrored, turned and moved as an alignment says."""
    start = mirror_volume_3d(volume) if alignment.mirrored else volume
    return turn_volume_3d(start, alignment.rotation, shift_zyx_px=alignment.shift_zyx_px)


def orient_to_symmetry_3d(volume: Volume, group: Rotations, *, max_ring: int) -> tuple[Volume, float]:
    """Turn a volume so that its symmetry axes are those of a group ``(g, 3, 3)``, and move them through the centre.

    Returns
    -------
    volume, correlation
        The turned volume, and the mean correlation with itself under the rotations of the group: 1 if it has the symmetry.
    """
    size = volume.shape[0]
    own = transform_volume(volume)
    others = group[1:] if len(group) <= 7 else group[np.linspace(1, len(group) - 1, 6).astype(int)]
    planes = _Planes.of(size, min(_COARSE_RINGS, max_ring))

    def score_on(planes: _Planes, turns: Rotations, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        points = planes.points
        moved = np.exp((-2j * np.pi / size) * (shifts @ points.T))
        first = planes.sample(own, turns) * moved
        total = np.zeros(len(turns))
        for operation in others:
            turned = points @ operation[::-1, ::-1].T  # frequencies that the operation brings here, z, y, x
            again = planes.sample(own, operation @ turns) * np.exp((-2j * np.pi / size) * (shifts @ turned.T))
            total += (np.conj(first) * again * planes.weights).sum(axis=1).real
        return total / len(others)

    grid = _rotation_grid()
    rough = np.concatenate([score_on(planes, part, np.zeros((len(part), 3))) for part in np.array_split(grid, 16)])
    fine = _Planes.of(size, min(max_ring, size // 2 - 1))
    found = [
        _climb(lambda turns, shifts: score_on(fine, turns, shifts), grid[i], np.zeros(3), step_px=size / fine.grid.n_rings / 8)
        for i in _distinct(grid, rough)
    ]
    turn, shift, value = max(found, key=lambda one: one[2])
    return turn_volume_3d(volume, turn, shift_zyx_px=(float(shift[0]), float(shift[1]), float(shift[2]))), float(value)


def _rotation_grid() -> Rotations:
    """Return rotations about 15° apart, everywhere: ``(n, 3, 3)``."""
    views = all_views(_COARSE_ORDER).rotations
    turns = np.arange(_COARSE_TURNS) * (2 * np.pi / _COARSE_TURNS)
    return np.concatenate([turn_in_plane(views, np.full(len(views), turn)) for turn in turns])


def _coarse(
    own: FourierVolume, target: FourierVolume, size: int, rings: int, max_shift_px: float, hands: bool
) -> list[tuple[Rotations, NDArray[np.float64], bool]]:
    """Return the best few rotations, shifts and hands of the search everywhere."""
    planes, grid = _Planes.of(size, rings), _rotation_grid()
    step = size / rings / 4
    reach = int(np.ceil(max_shift_px / step))
    axis = np.arange(-reach, reach + 1) * step
    shifts = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    shifts = shifts[np.linalg.norm(shifts, axis=1) <= max_shift_px + step / 2]
    wanted = np.conj(planes.sample(target, np.eye(3)[None])[0]) * planes.weights
    ramps = (np.exp((-2j * np.pi / size) * (planes.points @ shifts.T)) * wanted[:, None]).astype(np.complex64)
    samples = planes.sample(own, grid)
    found: list[tuple[float, Rotations, NDArray[np.float64], bool]] = []
    for inverted in (False, True) if hands else (False,):
        scores = ((np.conj(samples) if inverted else samples) @ ramps).real  # (n, shifts)
        top = scores.max(axis=1)
        found += [(float(top[i]), grid[i], shifts[scores[i].argmax()], inverted) for i in _distinct(grid, top)]
    found.sort(key=lambda one: -one[0])
    return [(rotation, shift, inverted) for _, rotation, shift, inverted in found[: _TRIED + (2 if hands else 0)]]


def _distinct(grid: Rotations, score: NDArray[np.floating]) -> list[int]:
    """Return the places of the best rotations that are far from each other."""
    chosen: list[int] = []
    for i in np.argsort(-score)[:400]:
        if all(rotation_distance_deg(grid[i : i + 1], grid[j : j + 1])[0] > _APART_DEG for j in chosen):
            chosen.append(int(i))
        if len(chosen) == _TRIED:
            break
    return chosen


def _climb(
    score: Callable[[Rotations, NDArray[np.float64]], NDArray[np.float64]],
    rotation: Rotations,
    shift: NDArray[np.float64],
    *,
    step_px: float,
) -> tuple[Rotations, NDArray[np.float64], float]:
    """Improve a rotation and a shift by steps along each axis, halved where none helps."""
    angle, move = _FIRST_STEP_DEG, step_px
    best = float(score(rotation[None], shift[None])[0])
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    while angle >= _LAST_STEP_DEG:
        turns = np.concatenate([rotations_about(np.deg2rad(angle) * axes) @ rotation, np.repeat(rotation[None], 6, axis=0)])
        shifts = np.concatenate([np.repeat(shift[None], 6, axis=0), shift + move * axes])
        values = score(turns, shifts)
        i = int(values.argmax())
        if values[i] > best + 1e-6:
            rotation, shift, best = turns[i], shifts[i], float(values[i])
        else:
            angle, move = angle / 2, move / 2
    return rotation, shift, best
