"""Point groups in any orientation: their operations, and where they may lie in a map, by its self-rotation function."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from icestream.algorithms.map_quality.self_rotation import Axes, CrossHarmonics, fold_scores, scan_axes, turn_spectra

Matrices = NDArray[np.float64]
"""``(n, 3, 3)``, acting on x y z."""

_CUBIC = {
    "T": (3, 3, np.arccos(-1 / 3)),  # main axis, the other axis, the angle between them
    "O": (4, 4, np.pi / 2),
    "I": (5, 5, np.arctan(2.0)),
}
_N_PEAKS = 4
_APART = np.cos(np.deg2rad(15))


@dataclass(frozen=True)
class PlacedGroup:
    """A point group about axes of its own.

    Attributes
    ----------
    name
        As in RELION: C7, D2, T, O, I.
    main_axis
        ``(3,)``, of the highest order (3 for T), x y z.
    second_axis
        ``(3,)``: of a twofold across it (D), or of another axis of the same order (T, O, I); None for C.
    """

    name: str
    main_axis: NDArray[np.float64]
    second_axis: NDArray[np.float64] | None = None

    @property
    def orders(self) -> tuple[int, int]:
        """Orders of the main and the second axis; 1 where there is none."""
        if self.name in _CUBIC:
            return _CUBIC[self.name][0], _CUBIC[self.name][1]
        return int(self.name[1:]), 2 if self.name[0] == "D" else 1

    def operations(self) -> Matrices:
        """Return all operations ``(g, 3, 3)``, that which does nothing first."""
        first, second = self.orders
        turns = [_turn(self.main_axis, 2 * np.pi / first)]
        if self.second_axis is not None:
            turns.append(_turn(self.second_axis, 2 * np.pi / second))
        return _close(turns)

    def turned(self, by: Matrices) -> "PlacedGroup":
        """Return the group with its axes turned."""
        return PlacedGroup(self.name, by @ self.main_axis, None if self.second_axis is None else by @ self.second_axis)


def _turn(axis: NDArray[np.float64], angle: float) -> Matrices:
    return np.asarray(Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix())


def _close(turns: list[Matrices]) -> Matrices:
    """Return all products of some turns; at most 60 are looked for."""
    found = [np.eye(3)]
    for one in found:
        for turn in turns:
            product = turn @ one
            if len(found) < 60 and min(float(np.abs(product - known).max()) for known in found) > 0.05:
                found.append(product)
    return np.stack(found)


def score_operations(cross: CrossHarmonics, operations: Matrices) -> NDArray[np.float64]:
    """Return how the halves correlate after each operation but the first, relative to no turn: about 1 for symmetries."""
    vectors = Rotation.from_matrix(operations[1:]).as_rotvec()
    angles = np.linalg.norm(vectors, axis=1)
    axes = np.round(vectors / angles[:, None], 6)
    axes *= np.where(axes @ [1.0, 0.01, 0.0001] < 0, -1.0, 1.0)[:, None]  # a turn and its reverse score the same
    distinct, which = np.unique(axes, axis=0, return_inverse=True)
    spectra = turn_spectra(cross, distinct)[which.ravel()]
    orders = np.arange(spectra.shape[1])
    scores: NDArray[np.float64] = np.sum(spectra * np.cos(orders * angles[:, None]), axis=1) / spectra.sum(axis=1)
    return scores


def place_groups(cross: CrossHarmonics, *, most_order: int, worth: float = 0.0) -> list[PlacedGroup]:
    """Return the best place of each group: C and D up to an order, T, O and I.

    Groups whose main axis scores less than ``worth`` anywhere are left out.
    """
    axes, spectra = scan_axes(cross)
    tree = cKDTree(np.concatenate([axes, -axes]))
    maps = {order: fold_scores(spectra, order) for order in range(2, most_order + 1)}
    peaks = {order: _refined_peaks(cross, axes, scores, order) for order, scores in maps.items() if scores.max() > worth - 0.1}
    placed = [PlacedGroup(f"C{order}", found[0]) for order, found in peaks.items()]
    for name, (main, second, apart) in [*((f"D{order}", (order, 2, np.pi / 2)) for order in peaks), *_CUBIC.items()]:
        if main in peaks:
            placed.append(_with_second(cross, name, peaks[main], apart, (tree, maps[second]), second))
    return placed


def _refined_peaks(cross: CrossHarmonics, axes: Axes, scores: NDArray[np.float64], order: int) -> list[NDArray[np.float64]]:
    """Return the best axes of an order, well apart, the best first."""
    found: list[NDArray[np.float64]] = []
    for index in np.argsort(-scores)[:2000]:
        if all(abs(float(axes[index] @ known)) < _APART for known in found):
            found.append(axes[index])
        if len(found) == _N_PEAKS:
            break
    return [_climb_axis(cross, found[0], order), *found[1:]]


def _climb_axis(cross: CrossHarmonics, axis: NDArray[np.float64], order: int) -> NDArray[np.float64]:
    """Move an axis to the top of its score."""
    for step_deg in (2.5, 1.2, 0.6, 0.3):
        tried = np.concatenate([axis[None], _beside(axis, np.deg2rad(step_deg))])
        axis = tried[int(np.argmax(fold_scores(turn_spectra(cross, tried), order)))]
    return axis


def _beside(axis: NDArray[np.float64], angle: float) -> Axes:
    """Return eight axes at an angle from one."""
    across, other = _frame(axis)
    turn = np.arange(8) * np.pi / 4
    beside = np.cos(angle) * axis + np.sin(angle) * (np.cos(turn)[:, None] * across + np.sin(turn)[:, None] * other)
    return np.asarray(beside)


def _frame(axis: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two unit vectors across an axis and each other."""
    least = np.eye(3)[int(np.argmin(np.abs(axis)))]
    across = np.cross(axis, least)
    across /= np.linalg.norm(across)
    return across, np.cross(axis, across)


def _with_second(
    cross: CrossHarmonics,
    name: str,
    mains: list[NDArray[np.float64]],
    apart: float,
    scan: tuple[cKDTree, NDArray[np.float64]],
    order: int,
) -> PlacedGroup:
    """Return a group about the main axis and the second one that score best together."""
    tree, scores = scan
    turn = np.deg2rad(np.arange(0, 360, 2.0))[:, None]
    best, chosen = -np.inf, PlacedGroup(name, mains[0], _frame(mains[0])[0])
    for axis in mains:
        across, other = _frame(axis)
        second = np.cos(apart) * axis + np.sin(apart) * (np.cos(turn) * across + np.sin(turn) * other)
        found = scores[tree.query(second)[1] % len(scores)]
        group = PlacedGroup(name, axis, second[int(np.argmax(found))])
        score = float(found.max() + fold_scores(turn_spectra(cross, axis[None]), group.orders[0])[0])
        best, chosen = max((best, chosen), (score, group), key=lambda pair: pair[0])
    return _turn_second(cross, chosen, order)


def _turn_second(cross: CrossHarmonics, group: PlacedGroup, order: int) -> PlacedGroup:
    """Move the second axis about the main one to the top of its score."""
    axis, second = group.main_axis, group.second_axis
    turns = np.deg2rad(np.arange(-4, 4.1, 1.0))
    tried = Rotation.from_rotvec(turns[:, None] * axis).apply(second)
    scores = fold_scores(turn_spectra(cross, tried), order)
    return PlacedGroup(group.name, axis, tried[int(np.argmax(scores))])


def refine_group(cross: CrossHarmonics, group: PlacedGroup) -> PlacedGroup:
    """Turn a group as a whole to where its operations score best."""
    best = float(score_operations(cross, group.operations()).mean())
    for step_deg in (2.0, 1.0, 0.5, 0.25):
        for _ in range(4):
            turns = [
                Rotation.from_rotvec(sign * np.deg2rad(step_deg) * axis).as_matrix() for axis in np.eye(3) for sign in (-1, 1)
            ]
            tried = [group.turned(np.asarray(turn)) for turn in turns]
            scores = [float(score_operations(cross, one.operations()).mean()) for one in tried]
            if max(scores) <= best:
                break
            best, group = max(scores), tried[int(np.argmax(scores))]
    return group
