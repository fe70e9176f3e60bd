"""Projections of a phantom from any direction, by the Fourier slice theorem."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.fourier import frequency_grid_2d

_PADDING = 2


@dataclass(frozen=True)
class FourierVolume:
    """The padded transform of a volume, ready to be sliced.

    ``coefficients`` is the ``rfftn`` of the volume after padding and gridding correction, ``(m, m, m // 2 + 1)`` with
    ``m = 2 n``; the origin of space is the centre of the volume.
    """

    coefficients: NDArray[np.complex64]
    size: int


def rotation_matrix(rot_deg: float, tilt_deg: float, psi_deg: float) -> NDArray[np.float64]:
    """Return the ZYZ rotation of RELION that takes xyz of the volume to xyz of the view: ``(3, 3)``.

    Convention of Heymann, Chagoyen & Belnap (2005), J. Struct. Biol. 151, 196: first about z by ``rot``, then about the new y
    by ``tilt``, then about the new z by ``psi``.
    """
    rot, tilt, psi = np.deg2rad([rot_deg, tilt_deg, psi_deg])

    def about_z(angle: float) -> NDArray[np.float64]:
        return np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    about_y = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
    matrix: NDArray[np.float64] = about_z(psi) @ about_y @ about_z(rot)
    return matrix


def random_angles_deg(count: int, *, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw uniform random orientations: ``(count, 3)`` of rot, tilt, psi."""
    rot = generator.uniform(-180, 180, count)
    tilt = np.rad2deg(np.arccos(generator.uniform(-1, 1, count)))
    psi = generator.uniform(-180, 180, count)
    return np.stack([rot, tilt, psi], axis=1)  # (count, 3)


def transform_volume(volume: NDArray[np.float32]) -> FourierVolume:
    """Prepare an even cube ``(n, n, n)`` with its centre at ``n // 2`` for slicing.

    The cube is padded twofold and divided by the transform of the cubic B-spline that `project_spectrum_2d` interpolates with.
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


@njit(cache=True)
def _spline_weights(fraction: float, weights: NDArray[np.float64]) -> None:
    rest = 1.0 - fraction
    weights[0] = rest**3 / 6.0
    weights[1] = (4.0 - 6.0 * fraction**2 + 3.0 * fraction**3) / 6.0
    weights[2] = (4.0 - 6.0 * rest**2 + 3.0 * rest**3) / 6.0
    weights[3] = fraction**3 / 6.0


@njit(cache=True)
def _slice(coefficients: NDArray[np.complex64], matrix: NDArray[np.float64], size: int, out: NDArray[np.complex64]) -> None:
    padded = coefficients.shape[0]
    scale = padded / size
    weights = np.zeros((3, 4))
    start = np.zeros(3, np.int64)
    for row in range(size):
        ky = row if row < (size + 1) // 2 else row - size
        for kx in range(size // 2 + 1):
            if ky * ky + kx * kx >= (size // 2 - 1) ** 2:
                continue
            for axis in range(3):  # x, y, z of the volume: the transposed rotation of (kx, ky, 0)
                position = scale * (matrix[0, axis] * kx + matrix[1, axis] * ky)
                start[axis] = int(np.floor(position))
                _spline_weights(position - start[axis], weights[axis])
            value = 0.0 + 0.0j
            for c in range(4):
                z = start[2] + c - 1
                for b in range(4):
                    y = start[1] + b - 1
                    outer = weights[2, c] * weights[1, b]
                    for a in range(4):
                        x = start[0] + a - 1
                        if x >= 0:
                            value += outer * weights[0, a] * coefficients[z % padded, y % padded, x]
                        else:
                            value += outer * weights[0, a] * np.conj(coefficients[-z % padded, -y % padded, -x])
            out[row, kx] = value


def project_spectrum_2d(volume: FourierVolume, *, rot_deg: float, tilt_deg: float, psi_deg: float) -> NDArray[np.complex64]:
    """Return the transform of one projection: ``(n, n // 2 + 1)``, the origin of space at pixel (0, 0).

    The projection is the sum over voxels along the view; multiply by the pixel size for an integral. Interpolation is by cubic
    B-splines with exact correction; against analytic projections the error is below a few parts in a thousand.
    """
    out = np.zeros((volume.size, volume.size // 2 + 1), np.complex64)
    _slice(volume.coefficients, rotation_matrix(rot_deg, tilt_deg, psi_deg), volume.size, out)
    return out


def project_2d(
    volume: FourierVolume, *, rot_deg: float, tilt_deg: float, psi_deg: float, shift_yx_px: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float32]:
    """Return one projection ``(n, n)``; the centre of the volume lies at pixel ``n // 2`` plus the shift."""
    spectrum = project_spectrum_2d(volume, rot_deg=rot_deg, tilt_deg=tilt_deg, psi_deg=psi_deg)
    ky, kx = frequency_grid_2d(volume.size, volume.size)
    centre = volume.size // 2
    ramp = np.exp(-2j * np.pi * ((centre + shift_yx_px[0]) * ky + (centre + shift_yx_px[1]) * kx))  # (n, n // 2 + 1)
    image: NDArray[np.float32] = fft.irfft2(spectrum * ramp.astype(np.complex64), s=(volume.size, volume.size))
    return image
