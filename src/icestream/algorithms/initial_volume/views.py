"""A volume from what images add up to in each view, and the views of a volume as references.

Images are added up in the plane of their view first and only those sums go into the volume, so its cost does not grow with their
number; it is exact where poses are on the grid.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.classify2d import Sums
from icestream.algorithms.initial_volume.setting import VolumeSetting
from icestream.algorithms.scoring import Polar, PolarGrid, polar_from_orders
from icestream.algorithms.volumes import (
    Rotations,
    VolumeSums,
    all_views,
    asymmetric_views,
    fourier_shell_correlation_3d,
    mean_rotation,
    no_sums,
    order_for_spacing,
    reconstruct_volume,
    soft_sphere_3d,
    view_orders_2d,
)
from icestream.algorithms.volumes import transform_volume as transform

_LEAST, _MOST = 0.02, 0.995
"""Shell correlations between which the halves are believed."""
_DETAIL_ANG = 25.0
_TEST_RATIO = 10.0
"""Signal-to-noise ratio assumed of each half when the halves are compared."""


def search_views(setting: VolumeSetting, order: int, *, generator: np.random.Generator | None = None) -> Rotations:
    """Return views to search, ``(k, 3, 3)``: of the whole sphere, or of one asymmetric unit of the symmetry.

    With a generator the grid of a particle without symmetry is turned at random, so that no direction is preferred in the long
    run.
    """
    if len(setting.group) > 1:
        return asymmetric_views(order, group=setting.group).rotations
    whole = all_views(order).rotations
    return whole if generator is None else whole @ mean_rotation(generator.normal(size=(1, 3, 3)))


def fine_order(setting: VolumeSetting) -> int:
    """Return the order of a grid of views as far apart as 25 Å at the rim of the particle, 15° at most and 7° at least."""
    rim_deg = np.rad2deg(_DETAIL_ANG / (2 * setting.radius_px * setting.pixel_size_ang))
    return int(np.clip(order_for_spacing(float(rim_deg)), 2, 3))


def view_references(volume: NDArray[np.float32], views: Rotations, *, setting: VolumeSetting) -> Polar:
    """Return the views of a volume as references for the scoring kernel: ``(k, n_orders, n_rings)``."""
    return view_orders_2d(transform(volume), views, grid=setting.grid)


def volume_from_views(sums: Sums, views: Rotations, *, setting: VolumeSetting) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the volume of sums over images in each view, filtered to what its halves agree on, and how far they do.

    Parameters
    ----------
    sums
        Per half set and view.
    views
        ``(k, 3, 3)``.
    setting
        Box, ball and symmetry.

    Returns
    -------
    volume, correlation
        ``(n, n, n)`` within its ball, and ``(n // 2,)`` between the halves. Both halves followed one reference, so the
        correlation says how much noise there is and not how far to believe the volume.
    """
    size = setting.grid.box_px
    ball = soft_sphere_3d(size, radius_px=setting.radius_px, edge_px=setting.edge_px)
    first, second = (add_views(sums.signal[h], sums.ctf_squared[h, :, 0], views, setting=setting) for h in (0, 1))
    rings = sums.signal.shape[-1]
    flat = np.full(rings + 1, _TEST_RATIO)
    halves = [reconstruct_volume(part, signal_to_noise=flat) * ball for part in (first, second)]
    correlation = fourier_shell_correlation_3d(*halves)[1]
    padded = np.pad(correlation, 1, mode="edge")
    smooth = np.clip((padded[:-2] + padded[1:-1] + padded[2:]) / 3, _LEAST, _MOST)
    ratio = (2 * smooth / (1 - smooth))[: rings + 1]
    return (reconstruct_volume(first + second, signal_to_noise=ratio) * ball).astype(np.float32), correlation


def add_views(signal: Polar, ctf_squared: NDArray[np.floating], views: Rotations, *, setting: VolumeSetting) -> VolumeSums:
    """Add sums over images in their view to the sums of a volume.

    Parameters
    ----------
    signal, ctf_squared
        ``(k, n_orders, n_rings)`` and ``(k, n_rings)``; views that nobody chose are left out.
    views
        ``(k, 3, 3)``.
    setting
        Box and symmetry.
    """
    start = no_sums(setting.grid.box_px)
    total, weight = start.signal, start.weight
    grid = PolarGrid(setting.grid.box_px, signal.shape[-1], setting.grid.n_angles)
    used = np.flatnonzero(ctf_squared.sum(axis=1) > 0)
    area = (grid.radii() * (2 * np.pi / grid.n_angles)).astype(np.float32)  # of a sample, in Fourier pixels
    polar = polar_from_orders(np.ascontiguousarray(signal[used].transpose(0, 2, 1)), grid=grid) * area[:, None]
    heavy = (ctf_squared[used] * area).astype(np.float32)  # (used, n_rings)
    angles, radii = grid.angles_rad(), grid.radii()
    points = np.stack([np.outer(radii, np.cos(angles)), np.outer(radii, np.sin(angles))], axis=-1)  # (n_rings, half, 2)
    matrices = np.einsum("kij,gjl->kgil", views[used], setting.group)  # (used, g, 3, 3)
    _spread(polar.astype(np.complex64), heavy, points, np.ascontiguousarray(matrices), setting.grid.box_px, total, weight)
    return VolumeSums(total, weight, setting.grid.box_px, float(len(used)))


@njit(cache=True, fastmath=True)
def _spread(  # noqa: PLR0917 - numba wants positions
    polar: Polar,
    heavy: NDArray[np.float32],
    points: NDArray[np.float64],
    matrices: NDArray[np.float64],
    size: int,
    signal: NDArray[np.complex64],
    weight: NDArray[np.float32],
) -> None:
    """Spread samples over the eight nearest points of ``signal`` and ``weight``, new arrays of the caller."""
    m = signal.shape[0]
    scale = m / size
    for v in range(polar.shape[0]):
        for g in range(matrices.shape[1]):
            matrix = matrices[v, g]
            for r in range(polar.shape[1]):
                for a in range(polar.shape[2]):
                    kx, ky = points[r, a, 0], points[r, a, 1]
                    x = scale * (matrix[0, 0] * kx + matrix[1, 0] * ky)
                    y = scale * (matrix[0, 1] * kx + matrix[1, 1] * ky)
                    z = scale * (matrix[0, 2] * kx + matrix[1, 2] * ky)
                    value = polar[v, r, a]
                    if x < 0.0:
                        x, y, z, value = -x, -y, -z, np.conj(value)
                    left, top, front = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
                    dx, dy, dz = np.float32(x - left), np.float32(y - top), np.float32(z - front)
                    for c in range(2):
                        k = (front + c) % m
                        wz = dz if c else 1 - dz
                        for b in range(2):
                            j = (top + b) % m
                            share = wz * (dy if b else 1 - dy)
                            signal[k, j, left] += (share * (1 - dx)) * value
                            weight[k, j, left] += (share * (1 - dx)) * heavy[v, r]
                            signal[k, j, left + 1] += (share * dx) * value
                            weight[k, j, left + 1] += (share * dx) * heavy[v, r]
