"""How near results come to the truth: motion, defocus and picks. Class averages are in `score_classes`."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from icestream.microscope.truth import ExposureTruth

Positions = NDArray[np.floating]


@dataclass(frozen=True)
class PickScore:
    """How picks compare with the truth; ``distance_px`` ``(n_matched,)`` is how far matched picks are from their particles.

    A ratio of nothing by nothing is NaN.
    """

    n_found: int
    n_true: int
    distance_px: NDArray[np.float64]

    @property
    def n_matched(self) -> int:
        """Number of picks that are particles."""
        return len(self.distance_px)

    @property
    def distance_median_px(self) -> float:
        """Median distance of matched picks from their particles."""
        return float(np.median(self.distance_px)) if self.n_matched else float("nan")

    @property
    def distance_rms_px(self) -> float:
        """Root mean square distance of matched picks from their particles."""
        return float(np.sqrt(np.mean(self.distance_px**2))) if self.n_matched else float("nan")

    @property
    def precision(self) -> float:
        """Fraction of the picks that are particles."""
        return self.n_matched / self.n_found if self.n_found else float("nan")

    @property
    def recall(self) -> float:
        """Fraction of the particles that were picked."""
        return self.n_matched / self.n_true if self.n_true else float("nan")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        total = self.n_found + self.n_true
        return 2 * self.n_matched / total if total else float("nan")


def motion_error_px(found_global_yx_px: Positions, truth: ExposureTruth) -> float:
    """Return the rms distance of a found trajectory ``(n_frames, 2)`` from the true one, after removing the mean offset.

    Raises
    ------
    ValueError
        The trajectories have different lengths.
    """
    true = np.array(truth.global_yx_px, np.float64)
    found = np.asarray(found_global_yx_px, np.float64)
    if found.shape != true.shape:
        raise ValueError(f"{truth.name}: trajectory of shape {found.shape}, the truth has {true.shape}")
    difference = found - true
    difference -= difference.mean(0)
    return float(np.sqrt((difference**2).sum(1).mean()))


def defocus_error_ang(defocus_u_ang: float, defocus_v_ang: float, truth: ExposureTruth) -> float:
    """Return found minus true mean defocus; positive is too much underfocus."""
    return 0.5 * (defocus_u_ang + defocus_v_ang) - truth.mean_defocus_ang


def astigmatism_error_ang(defocus_u_ang: float, defocus_v_ang: float, angle_deg: float, truth: ExposureTruth) -> float:
    """Return the distance of found and true astigmatism as vectors ``(U - V) (cos 2a, sin 2a)``, so that angles close at 180°."""

    def vector(u: float, v: float, angle: float) -> complex:
        return complex((u - v) * np.exp(2j * np.deg2rad(angle)))

    true = vector(truth.defocus_u_ang, truth.defocus_v_ang, truth.astigmatism_angle_deg)
    return abs(vector(defocus_u_ang, defocus_v_ang, angle_deg) - true)


def match_picks(found_yx_px: Positions, true_yx_px: Positions, *, radius_px: float) -> PickScore:
    """Match picks and particles one to one: as many pairs within ``radius_px`` as possible, of these the nearest.

    Parameters
    ----------
    found_yx_px, true_yx_px
        ``(n, 2)`` and ``(m, 2)``.
    radius_px
        The largest distance of a pick from its particle.
    """
    found = np.asarray(found_yx_px, np.float64).reshape(-1, 2)
    true = np.asarray(true_yx_px, np.float64).reshape(-1, 2)
    if not len(found) or not len(true):
        return PickScore(len(found), len(true), np.empty(0))
    near = cKDTree(found).sparse_distance_matrix(cKDTree(true), radius_px, output_type="coo_matrix")
    return PickScore(len(found), len(true), np.sqrt(_match_groups(near, radius_px=radius_px)))


def _match_groups(near: coo_matrix, *, radius_px: float) -> list[float]:
    """Return the squared distances of the best pairs; groups with no pair in common are solved one by one."""
    n_found, n_true = near.shape
    edges = coo_matrix((np.ones(near.nnz), (near.row, near.col + n_found)), shape=(n_found + n_true,) * 2)
    group = connected_components(edges, directed=False)[1]
    order = np.argsort(group[near.row], kind="stable")
    borders = np.flatnonzero(np.diff(group[near.row][order])) + 1
    squares: list[float] = []
    for members in np.split(order, borders):
        if not len(members):
            continue
        rows, row = np.unique(near.row[members], return_inverse=True)
        columns, column = np.unique(near.col[members], return_inverse=True)
        # A forbidden pair costs more than any chain of allowed ones, so the number of pairs comes first.
        forbidden = (min(len(rows), len(columns)) + 1) * (radius_px**2 + 1.0)
        cost = np.full((len(rows), len(columns)), forbidden)
        cost[row, column] = near.data[members] ** 2
        chosen = cost[linear_sum_assignment(cost)]
        squares += [float(value) for value in chosen if value < forbidden]
    return squares
