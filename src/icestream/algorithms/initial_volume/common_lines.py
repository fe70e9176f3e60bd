"""Orientations of class averages from their common lines: a way to a volume that shares nothing with alternating assignment.

The transforms of any two projections of one volume agree along a line through the origin. Where that line is in each of many
pairs tells the orientations of all, up to one turn and the hand: they are the top three eigenvectors of a matrix of the lines'
directions (Singer & Shkolnisky 2011, SIAM J. Imaging Sci. 4, 543). What random pairs contribute fills the other eigenvectors, so
the gap after the third says how far to believe them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify2d import sum_poses_2d
from icestream.algorithms.initial_volume.setting import VolumeSetting, level_at
from icestream.algorithms.initial_volume.views import volume_from_views
from icestream.algorithms.scoring import Polar, PolarParticles, Poses, Real, reference_orders_2d, sample_polar_2d
from icestream.algorithms.volumes import Rotations

_SHIFT_SHARE, _SHIFT_STEP_PX = 0.06, 1.0
_LEAST_IMAGES = 6


@dataclass(frozen=True)
class CommonLines:
    """Where the transforms of images agree.

    ``angle_rad`` ``(n, n)``: row ``i``, column ``j`` is the direction, from x towards y, of the line in image ``i`` that it
    shares with ``j``. ``correlation`` ``(n, n)`` is how far both agree there, 0 on the diagonal.
    """

    angle_rad: NDArray[np.float64]
    correlation: NDArray[np.float64]


@dataclass(frozen=True)
class CommonLineVolume:
    """A volume ``(n, n, n)`` from common lines, the orientations of the images, and the fourth eigenvalue over the third.

    ``gap`` is near 0 for lines that are right, near 1 for lines at random.
    """

    volume: NDArray[np.float32]
    rotations: Rotations
    gap: float


def find_common_lines(polar: Polar, *, box_px: int, max_shift_px: float) -> CommonLines:
    """Find the common line of each pair of images.

    Parameters
    ----------
    polar
        ``(n, n_rings, half)``, images with little noise, without a CTF.
    box_px
        The box that the rings are cycles of.
    max_shift_px
        Largest shift of one image against the other along the line.
    """
    n, rings, half = polar.shape
    rays = (polar * np.sqrt(np.arange(1, rings + 1, dtype=np.float32))[:, None]).transpose(0, 2, 1)  # (n, half, n_rings)
    rays = rays / np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-20)
    whole = np.concatenate([rays, np.conj(rays)], axis=1)  # the full circle
    steps = int(max_shift_px / _SHIFT_STEP_PX)
    shifts = np.arange(-steps, steps + 1) * _SHIFT_STEP_PX
    ramps = np.exp((2j * np.pi / box_px) * np.outer(shifts, np.arange(1, rings + 1))).astype(np.complex64)
    angle, correlation = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n - 1):
        own = (np.conj(rays[i])[None] * ramps[:, None, :]).reshape(-1, rings)  # (shifts * half, n_rings)
        for j in range(i + 1, n):
            agreement = (own @ whole[j].T).real.reshape(len(shifts), half, 2 * half)
            _, mine, other = np.unravel_index(int(agreement.argmax()), agreement.shape)
            angle[i, j], angle[j, i] = mine * np.pi / half, other * np.pi / half
            correlation[i, j] = correlation[j, i] = agreement.max()
    return CommonLines(angle, correlation)


def rotations_from_common_lines(lines: CommonLines, *, weight: NDArray[np.floating] | None = None) -> tuple[Rotations, float]:
    """Return the rotations of images ``(n, 3, 3)``, up to one turn and the hand of all, and the fourth eigenvalue over the third.

    Parameters
    ----------
    lines
        Of all pairs.
    weight
        ``(n,)``, how far each image is trusted; equally when unset.

    Raises
    ------
    ValueError
        There are fewer than 6 images.
    """
    n = len(lines.angle_rad)
    if n < _LEAST_IMAGES:
        raise ValueError(f"orientations from common lines need at least {_LEAST_IMAGES} images; got {n}")
    trust = np.ones(n) if weight is None else np.sqrt(weight / np.mean(weight))
    pairs = trust[:, None] * trust * np.clip(lines.correlation, 0, None) ** 2
    directions = np.stack([np.cos(lines.angle_rad), np.sin(lines.angle_rad)], axis=-1)  # (n, n, 2)
    blocks = pairs[:, :, None, None] * directions[:, :, :, None] * directions.transpose(1, 0, 2)[:, :, None, :]
    matrix = blocks.transpose(0, 2, 1, 3).reshape(2 * n, 2 * n)
    degree = np.sqrt(np.repeat(pairs.sum(axis=1), 2)) + 1e-12
    values, vectors = np.linalg.eigh(matrix / degree[:, None] / degree)
    top = (vectors[:, -3:] / degree[:, None]).reshape(n, 2, 3)  # rows x and y of each rotation, up to one matrix
    rows = top @ _orthonormal(top)
    third = np.cross(rows[:, 0], rows[:, 1])
    u, _, vt = np.linalg.svd(np.stack([rows[:, 0], rows[:, 1], third], axis=1))
    rotations: Rotations = u @ vt
    rotations[np.linalg.det(rotations) < 0, 2] *= -1
    return rotations, float(max(values[-4], 0.0) / max(values[-3], 1e-12))


def volume_from_averages(images: Real, count: NDArray[np.floating], *, setting: VolumeSetting) -> CommonLineVolume:
    """Return the volume of class averages, oriented by their common lines.

    Parameters
    ----------
    images
        ``(n, box, box)``, of the working box, bright, masked, corrected for the CTF.
    count
        ``(n,)``, particles of each; averages count by the square root.
    setting
        The working box; its symmetry does not enter.
    """
    grid = setting.grid
    polar = sample_polar_2d(images, grid=grid)[:, : setting.middle_ring]
    lines = find_common_lines(polar, box_px=grid.box_px, max_shift_px=_SHIFT_SHARE * grid.box_px)
    weight = np.sqrt(np.maximum(count, 1.0)).astype(np.float32)
    rotations, gap = rotations_from_common_lines(lines, weight=weight)
    level = level_at(setting, setting.middle_ring)
    orders = reference_orders_2d(images, grid=grid) * weight[:, None, None]
    n = len(images)
    # Each average counts in both half sets, which then agree by themselves: the volume is filtered by its ring alone.
    twice = np.tile(np.arange(n), 2)
    even = np.repeat(weight[twice, None], grid.n_rings, axis=1).astype(np.float32)
    particles = PolarParticles(orders[twice].astype(np.complex64), even, even, np.repeat([0, 1], n).astype(np.int8))
    centre = int(np.flatnonzero((level.shifts_yx_px == 0).all(axis=1))[0])
    poses = Poses(
        np.arange(2 * n, dtype=np.int32), twice.astype(np.int32), np.zeros(2 * n, np.int32), np.full(2 * n, centre, np.int32),
        np.ones(2 * n, np.float32), np.zeros(2 * n, np.float32), np.zeros((2 * n, 1), np.float32),
    )  # fmt: skip
    sums = sum_poses_2d(particles, poses, level=level, n_classes=n, n_rings=setting.middle_ring)
    return CommonLineVolume(volume_from_views(sums, rotations, setting=setting)[0], rotations, gap)


def _orthonormal(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix ``(3, 3)`` that makes the two rows ``(n, 2, 3)`` of all images most nearly orthonormal."""
    first, second = rows[:, 0], rows[:, 1]

    def products(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        i, j = np.triu_indices(3)
        both = a[:, i] * b[:, j] + a[:, j] * b[:, i]
        return np.asarray(np.where(i == j, both / 2, both))

    n = len(rows)
    system = np.concatenate([products(first, first), products(second, second), products(first, second)])
    wanted = np.concatenate([np.ones(2 * n), np.zeros(n)])
    upper = np.linalg.lstsq(system, wanted, rcond=None)[0]
    gram = np.zeros((3, 3))
    gram[np.triu_indices(3)] = upper
    gram = gram + gram.T - np.diag(np.diag(gram))
    value, vector = np.linalg.eigh(gram)
    return np.asarray(vector * np.sqrt(np.maximum(value, 1e-9 * value.max())))
