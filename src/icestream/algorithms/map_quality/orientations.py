"""How evenly views cover a map: efficiency of their distribution, and resolution by direction.

Naydenova & Russo (2017), Nat. Commun. 8, 629: each view fills a plane of the transform; where planes are missing, the point
spread function is wide. Conical correlation: Tan et al. (2017), Nat. Methods 14, 793.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from icestream.algorithms.map_quality.shells import (
    Curve,
    Map,
    frequency_axes,
    shell_numbers,
    shell_radius,
    transform_3d,
)

Directions = NDArray[np.float64]
"""Unit vectors ``(n, 3)``, x y z."""

_N_RADII = 400


@lru_cache(maxsize=8)
def spread_directions(count: int, *, half: bool = True) -> Directions:
    """Return nearly uniform directions on a sphere, or on its upper half, by a golden spiral; read-only."""
    number = np.arange(count) + 0.5
    z = 1 - number / count if half else 1 - 2 * number / count
    turn = np.pi * (3 - np.sqrt(5)) * number
    across = np.sqrt(1 - z * z)
    directions: Directions = np.stack([across * np.cos(turn), across * np.sin(turn), z], axis=1)
    directions.flags.writeable = False
    return directions


@dataclass(frozen=True)
class ViewCoverage:
    """How views cover a sphere.

    Attributes
    ----------
    efficiency
        1 where all directions are equally well seen; 0 or less where the point spread function is drawn out to a line.
    widths
        ``(n,)`` of the point spread function, by direction, relative to that of uniform views.
    directions
        ``(n, 3)``, the upper half of the sphere.
    """

    efficiency: float
    widths: Curve
    directions: Directions


def measure_coverage(views: Directions, *, operations: NDArray[np.float64] | None = None, details: float = 20.0) -> ViewCoverage:
    """Measure how evenly views cover all directions.

    A view along ``v`` fills the plane across it, with an envelope that is a Gaussian; its part of the point spread function is
    ``exp(-|x across v|² / 2)``. Along a direction ``n`` the sum over all views falls to ``1 / e²`` of its top at a radius
    ``R(n)``; the efficiency is ``1 - 2 std(R) / mean(R)``.

    Few views are uneven by chance. So the variance of ``R`` is the covariance of what two halves of the views give, to which
    chance does not add.

    Parameters
    ----------
    views
        ``(n, 3)``, unit vectors along the beam in the frame of the map.
    operations
        ``(g, 3, 3)``, the symmetry of the map: each turns the views.
    details
        Diameter of the particle over its resolution, which bounds the width of the point spread function.

    Raises
    ------
    ValueError
        No views.
    """
    if not len(views):
        raise ValueError("no views to measure the coverage of")
    directions, floor = spread_directions(512), (1 / details) ** 2
    whole, *halves = (_widths(part, operations, floor) for part in (views, views[::2], views[1::2] if len(views) > 1 else views))
    variance = float(np.mean((halves[0] - halves[0].mean()) * (halves[1] - halves[1].mean())))
    of_even = np.asarray(1 - ((np.arange(2000) + 0.5) / 2000) ** 2, dtype=np.float64)
    even = _fall_radius(of_even[None, :], np.full(2000, 1 / 2000), floor=floor)
    return ViewCoverage(1 - 2 * float(np.sqrt(max(variance, 0.0))) / float(whole.mean()), whole / even[0], directions)


def _widths(views: Directions, operations: NDArray[np.float64] | None, floor: float) -> Curve:
    """Return the radius of the point spread function of some views along 512 directions."""
    all_views = views if operations is None else np.einsum("gij,nj->gni", operations, views).reshape(-1, 3)
    counts, seen = count_views(all_views, n_bins=4096)
    used = counts > 0
    cosine = np.clip(spread_directions(512) @ seen[used].T, -1, 1)  # (512, n)
    return _fall_radius(np.maximum(1 - cosine**2, 0.0), counts[used] / counts.sum(), floor=floor)


def count_views(views: Directions, *, n_bins: int) -> tuple[Curve, Directions]:
    """Count views in bins of equal area on the upper half of the sphere; a view and its opposite are one.

    Returns
    -------
    counts, directions
        ``(n_bins,)`` and ``(n_bins, 3)``.
    """
    directions = spread_directions(n_bins)
    tree = cKDTree(np.concatenate([directions, -directions]))
    nearest = tree.query(views)[1] % n_bins
    return np.bincount(nearest, minlength=n_bins).astype(np.float64), directions


def _fall_radius(across: NDArray[np.float64], weights: Curve, *, floor: float) -> Curve:
    """Return where ``sum of weights * exp(-r² (across + floor) / 2)`` falls to ``1 / e²``, for each row."""
    n_bins = 256
    bins = np.minimum((across * n_bins).astype(np.int64), n_bins - 1)  # (m, n)
    rows = np.arange(len(across))[:, None] * n_bins
    table = np.bincount(
        (rows + bins).ravel(), weights=np.broadcast_to(weights, across.shape).ravel(), minlength=len(across) * n_bins
    )
    middle = (np.arange(n_bins) + 0.5) / n_bins + floor
    low, high = np.full(len(across), 1.0), np.full(len(across), 2.0 / np.sqrt(floor) + 2.0)
    spread = table.reshape(len(across), n_bins)
    for _ in range(40):
        radius = 0.5 * (low + high)
        value = np.sum(spread * np.exp(-0.5 * radius[:, None] ** 2 * middle), axis=1)
        low, high = np.where(value > np.exp(-2), radius, low), np.where(value > np.exp(-2), high, radius)
    return np.asarray(0.5 * (low + high))


@dataclass(frozen=True)
class ConicalFsc:
    """Shell correlations within cones.

    Attributes
    ----------
    curves
        ``(n, shells)``.
    directions
        ``(n, 3)``, the axes of the cones.
    resolution_ang
        ``(n,)`` at 0.143; infinite where a cone never agrees.
    area_ratio
        Least over largest area under the curves, 1 where the map is isotropic.
    """

    curves: NDArray[np.float64]
    directions: Directions
    resolution_ang: Curve
    area_ratio: float


def measure_conical_fsc(
    half_1: Map,
    half_2: Map,
    mask: NDArray[np.float32],
    *,
    pixel_size_ang: float,
    n_cones: int = 256,
    half_angle_deg: float = 20.0,
) -> ConicalFsc:
    """Correlate two half maps under a mask within cones about many directions."""
    box_px = half_1.shape[0]
    spectra = transform_3d(half_1 * mask), transform_3d(half_2 * mask)
    values = (np.real(spectra[0] * np.conj(spectra[1])), np.abs(spectra[0]) ** 2, np.abs(spectra[1]) ** 2)
    n_fine, n_shells = 2048, box_px // 2
    kz, ky, kx = np.broadcast_arrays(*frequency_axes(box_px))
    radius = np.maximum(shell_radius(box_px), 1e-9).ravel()
    used = (shell_numbers(box_px) < n_shells) & (radius > 0.5)
    unit = np.stack([kx.ravel()[used], ky.ravel()[used], kz.ravel()[used]], axis=1) / radius[used, None]
    fine = spread_directions(n_fine)
    place = cKDTree(np.concatenate([fine, -fine])).query(unit)[1] % n_fine
    at = place * n_shells + shell_numbers(box_px)[used]
    weight = np.where(np.isin(kx.ravel()[used], (0, box_px // 2)), 1.0, 2.0)
    sums = [
        np.bincount(at, weights=one.ravel()[used] * weight, minlength=n_fine * n_shells).reshape(n_fine, n_shells)
        for one in values
    ]
    axes = spread_directions(n_cones)
    within = (np.abs(axes @ fine.T) >= np.cos(np.deg2rad(half_angle_deg))).astype(np.float64)  # (cones, fine)
    cross, power_1, power_2 = (within @ one for one in sums)  # (cones, shells)
    scale = np.sqrt(power_1 * power_2)
    curves = np.divide(cross, scale, out=np.zeros_like(scale), where=scale > 0)
    curves[:, 0] = 1.0
    limits = np.array([_limit(curve) for curve in curves])
    with np.errstate(divide="ignore"):
        resolution = box_px * pixel_size_ang / limits
    areas = np.array(
        [float(np.sum(np.clip(curve[: int(np.ceil(limit)) + 1], 0, 1))) for curve, limit in zip(curves, limits, strict=True)]
    )
    return ConicalFsc(curves, axes, resolution, float(areas.min() / areas.max()) if areas.max() > 0 else 0.0)


def _limit(curve: Curve) -> float:
    """Return the shell, with a fraction, where a curve first stays below 0.143 for two shells; 0 if it begins there."""
    low = curve[1:] < 0.143
    low[:-1] &= low[1:]
    below = np.flatnonzero(low) + 1
    if not below.size:
        return float(len(curve) - 1)
    at = int(below[0])
    if at == 1:
        return 0.0
    drop = float(curve[at - 1] - curve[at])
    return at - 1 + (float(curve[at - 1]) - 0.143) / drop if drop > 0 else float(at)
