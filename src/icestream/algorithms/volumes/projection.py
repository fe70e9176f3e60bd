"""Views of a volume by the Fourier slice theorem: as polar samples for the scoring kernel, as spectra, and as images."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import frequency_grid_2d
from icestream.algorithms.scoring import Polar, PolarGrid, angular_orders
from icestream.algorithms.volumes.rotations import Rotations

_PADDING = 2
_AT_ONCE = 64


@dataclass(frozen=True)
class FourierVolume:
    """The padded transform of a volume, ready to be sliced.

    ``coefficients`` is the ``rfftn`` of the volume after padding and gridding correction, ``(m, m, m // 2 + 1)`` with
    ``m = 2 n``; the origin of space is the centre of the volume.
    """

    coefficients: NDArray[np.complex64]
    size: int


def transform_volume(volume: NDArray[np.float32]) -> FourierVolume:
    """Prepare an even cube ``(n, n, n)`` with its centre at ``n // 2`` for slicing.

    The cube is padded twofold and divided by the transform of the cubic B-spline that slices are interpolated with.
    """
    size = volume.shape[0]
    padded_size = _PADDING * size
    offset = np.arange(size) - size // 2
    spline = np.sinc(offset / padded_size) ** 4  # (n,)
    corrected = volume / (spline[:, None, None] * spline[None, :, None] * spline[None, None, :])
    padded = np.zeros((padded_size,) * 3, np.float32)
    start = padded_size // 2 - size // 2
    padded[start : start + size, start : start + size, start : start + size] = corrected
    return FourierVolume(fft.rfftn(fft.ifftshift(padded)).astype(np.complex64), size)


def slice_polar_2d(volume: FourierVolume, rotations: Rotations, *, grid: PolarGrid) -> Polar:
    """Return the transforms of views on polar samples: ``(n, n_rings, n_angles // 2)``, the centre of the view at the origin.

    A view is the sum over voxels along the line of sight. ``grid`` must have the box of the volume.
    """
    angles, radii = grid.angles_rad(), grid.radii()
    points = np.stack([np.outer(radii, np.cos(angles)), np.outer(radii, np.sin(angles))], axis=-1).reshape(-1, 2)
    return _slices(volume, rotations, points).reshape(len(rotations), grid.n_rings, grid.half)


def view_orders_2d(volume: FourierVolume, rotations: Rotations, *, grid: PolarGrid) -> Polar:
    """Return views as references for the scoring kernel, their angular orders: ``(n, n_orders, n_rings)``."""
    out = np.empty((len(rotations), grid.half, grid.n_rings), dtype=np.complex64)
    for first in range(0, len(rotations), _AT_ONCE):
        polar = slice_polar_2d(volume, rotations[first : first + _AT_ONCE], grid=grid)  # (b, n_rings, half)
        out[first : first + _AT_ONCE] = angular_orders(polar, n_orders=grid.half).transpose(0, 2, 1)
    return out


def slice_spectra_2d(volume: FourierVolume, rotations: Rotations) -> NDArray[np.complex64]:
    """Return the transforms of views: ``(n, size, size // 2 + 1)``, the origin of space at pixel (0, 0).

    What is beyond ``size // 2 - 1`` cycles per box is 0. Interpolation is by cubic B-splines with exact correction; against
    analytic projections the error is below a few parts in a thousand.
    """
    size = volume.size
    inside, points = _spectrum_points(size)
    out = np.zeros((len(rotations), size, size // 2 + 1), np.complex64)
    out[:, inside] = _slices(volume, rotations, points)
    return out


def project_volume_2d(
    volume: FourierVolume, rotations: Rotations, *, shift_yx_px: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Return views as images ``(n, size, size)``, the centre of the volume at pixel ``size // 2`` plus the shift ``(n, 2)``."""
    shifts = np.zeros((len(rotations), 2)) if shift_yx_px is None else np.asarray(shift_yx_px, dtype=np.float64)
    ky, kx = frequency_grid_2d(volume.size, volume.size)
    centre = volume.size // 2
    images = np.empty((len(rotations), volume.size, volume.size), np.float32)
    for first in range(0, len(rotations), _AT_ONCE):
        y, x = (centre + shifts[first : first + _AT_ONCE]).T[:, :, None, None]
        ramp = np.exp(-2j * np.pi * (y * ky + x * kx)).astype(np.complex64)  # (b, size, size // 2 + 1)
        spectra = slice_spectra_2d(volume, rotations[first : first + _AT_ONCE]) * ramp
        images[first : first + _AT_ONCE] = fft.irfft2(spectra, s=(volume.size, volume.size))
    return images


@lru_cache(maxsize=8)
def _spectrum_points(size: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return which points of a half spectrum are sliced, and where they are: ``(m, 2)`` of kx and ky in cycles per box."""
    ky, kx = np.meshgrid(np.rint(np.fft.fftfreq(size) * size), np.arange(size // 2 + 1.0), indexing="ij")
    inside = ky * ky + kx * kx < (size // 2 - 1) ** 2
    return inside, np.stack([kx[inside], ky[inside]], axis=-1)


def _slices(volume: FourierVolume, rotations: Rotations, points: NDArray[np.float64]) -> NDArray[np.complex64]:
    """Return the transform at points ``(m, 2)`` of kx and ky, in cycles per box, of each view: ``(n, m)``."""
    out = np.empty((len(rotations), len(points)), np.complex64)
    _gather(volume.coefficients, np.ascontiguousarray(rotations, dtype=np.float64), points, volume.size, out)
    return out


@njit(cache=True)
def spline_weights(fraction: float, weights: NDArray[np.float32]) -> None:
    """Fill the four weights of the cubic B-spline, array of the caller, at a fraction of the way to the second sample."""
    rest = 1.0 - fraction
    weights[0] = rest**3 / 6.0
    weights[1] = (4.0 - 6.0 * fraction**2 + 3.0 * fraction**3) / 6.0
    weights[2] = (4.0 - 6.0 * rest**2 + 3.0 * rest**3) / 6.0
    weights[3] = fraction**3 / 6.0


@njit(cache=True, fastmath=True)
def _gather(
    coefficients: NDArray[np.complex64],
    rotations: Rotations,
    points: NDArray[np.float64],
    size: int,
    out: NDArray[np.complex64],
) -> None:
    padded = coefficients.shape[0]
    scale = padded / size
    weights = np.zeros((3, 4), np.float32)
    for n in range(rotations.shape[0]):
        matrix = rotations[n]
        for p in range(points.shape[0]):
            x = scale * (matrix[0, 0] * points[p, 0] + matrix[1, 0] * points[p, 1])
            y = scale * (matrix[0, 1] * points[p, 0] + matrix[1, 1] * points[p, 1])
            z = scale * (matrix[0, 2] * points[p, 0] + matrix[1, 2] * points[p, 1])
            mirrored = x < 0.0  # the transform of a real volume: the opposite point has the conjugate
            if mirrored:
                x, y, z = -x, -y, -z
            left, top, front = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
            spline_weights(x - left, weights[0])
            spline_weights(y - top, weights[1])
            spline_weights(z - front, weights[2])
            value = np.complex64(0)
            for c in range(4):
                k = (front + c - 1) % padded
                for b in range(4):
                    j = (top + b - 1) % padded
                    line = np.complex64(0)
                    if left >= 1:
                        for a in range(4):
                            line += weights[0, a] * coefficients[k, j, left + a - 1]
                    else:
                        line += weights[0, 0] * np.conj(coefficients[-k % padded, -j % padded, 1])
                        for a in range(1, 4):
                            line += weights[0, a] * coefficients[k, j, left + a - 1]
                    value += weights[2, c] * weights[1, b] * line
            out[n, p] = np.conj(value) if mirrored else value
