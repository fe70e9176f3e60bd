"""A volume from particles whose poses are known: weighted sums in Fourier space, and their division.

Each particle adds ``C X`` to the samples of its slice and ``C²`` to their weights, ``X`` its transform and ``C`` its contrast
transfer; the quotient is the least-squares volume, with a prior added to the weights the most probable one (Scheres 2012, J. Mol.
Biol. 415, 406). Samples are spread over the eight nearest points of a doubly fine grid, for which the volume is corrected. Sums
are additive: those of half sets, of parts of the data, and of computers can be added.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.volumes.rotations import Rotations

_PADDING = 2
_LEAST_WEIGHT = 1e-3
"""Of the mean weight of a shell: the least that anything is divided by."""


@dataclass(frozen=True)
class VolumeSums:
    """What particles add up to, on the half of a grid ``m = 2 size`` wide that x >= 0 covers.

    ``signal`` ``(m, m, m // 2 + 1)`` and ``weight``, the same; the centre of the particle is the origin. ``count`` is the sum of
    the weights of the particles.
    """

    signal: NDArray[np.complex64]
    weight: NDArray[np.float32]
    size: int
    count: float

    def __add__(self, other: "VolumeSums") -> "VolumeSums":
        return VolumeSums(self.signal + other.signal, self.weight + other.weight, self.size, self.count + other.count)

    def scaled(self, factor: float) -> "VolumeSums":
        """Return the sums times a factor."""
        signal, weight = (self.signal * np.float32(factor)), (self.weight * np.float32(factor))
        return VolumeSums(signal, weight, self.size, self.count * factor)


@dataclass(frozen=True)
class PoseList:
    """Poses of images, of which one may have several: row ``i`` says that image ``image[i]`` is seen so with ``weight[i]``.

    ``rotations`` ``(p, 3, 3)``, ``shift_yx_px`` ``(p, 2)``: where the centre of the particle is, beyond pixel ``box // 2``.
    """

    image: NDArray[np.int64]
    rotations: Rotations
    shift_yx_px: NDArray[np.float64]
    weight: NDArray[np.float32]


def single_poses(rotations: Rotations, shift_yx_px: NDArray[Any]) -> PoseList:
    """Return one pose for each image."""
    n = len(rotations)
    return PoseList(np.arange(n), rotations, np.asarray(shift_yx_px, dtype=np.float64), np.ones(n, dtype=np.float32))


def no_sums(size: int) -> VolumeSums:
    """Return the sums of nothing for boxes of ``size``."""
    shape = (_PADDING * size, _PADDING * size, _PADDING * size // 2 + 1)
    return VolumeSums(np.zeros(shape, np.complex64), np.zeros(shape, np.float32), size, 0.0)


def sum_particles(
    images: NDArray[Any],
    contrast: NDArray[np.float32],
    poses: PoseList,
    *,
    group: Rotations | None = None,
    max_ring: int | None = None,
    onto: VolumeSums | None = None,
) -> VolumeSums:
    """Add up images in their poses.

    Parameters
    ----------
    images
        ``(n, box, box)``, box even, background about 0.
    contrast
        ``(n, box, box // 2 + 1)``, the contrast transfer of each, positive where bright stays bright.
    poses
        Of the images.
    group
        ``(g, 3, 3)``; each image counts once in each of these equivalent poses.
    max_ring
        Cycles per box up to which samples are added; up to Nyquist when unset.
    onto
        Sums to add to; they stay as they are.
    """
    size = images.shape[-1]
    start = no_sums(size) if onto is None else onto
    signal, weight = start.signal.copy(), start.weight.copy()
    spectra = fft.rfft2(np.asarray(images, dtype=np.float32)) * contrast
    operations = np.eye(3)[None] if group is None else np.ascontiguousarray(group, dtype=np.float64)
    ring = min(size // 2 - 1, max_ring or size)
    given = (poses.image, poses.rotations, poses.shift_yx_px + size // 2, poses.weight)
    _spread(spectra, np.square(contrast), given, operations, ring, signal, weight)
    return VolumeSums(signal, weight, size, start.count + float(poses.weight.sum()))


def reconstruct_volume(sums: VolumeSums, *, signal_to_noise: NDArray[np.float64] | None = None) -> NDArray[np.float32]:
    """Divide sums: the volume ``(size, size, size)``, its centre at ``size // 2``.

    Parameters
    ----------
    sums
        Of the particles.
    signal_to_noise
        ``(n_shells,)``, how many times the power of the signal is that of the noise of the volume, by shell of one cycle per box;
        shells beyond it are left out. Nothing is expected of the signal when unset.
    """
    signal, weight = _joined(sums.signal), _joined(sums.weight)
    shell = _shells(sums.size)
    mean = _mean_by_shell(weight, shell, sums.size)  # (size // 2 + 1,)
    floor = np.float32(_LEAST_WEIGHT) * mean
    prior = np.zeros_like(mean)
    kept = mean > 0
    if signal_to_noise is not None:
        ratio = np.zeros_like(mean)
        n = min(len(ratio), len(signal_to_noise))
        ratio[:n] = signal_to_noise[:n]
        kept &= ratio > 0
        prior = mean / np.maximum(ratio, 1e-6)
    floor[~kept] = np.inf
    divisor = np.maximum(weight + prior.astype(np.float32)[shell], np.maximum(floor, 1e-20).astype(np.float32)[shell])
    return _volume_of((signal / divisor).astype(np.complex64), sums.size)


def mean_weights(sums: VolumeSums) -> NDArray[np.float64]:
    """Return the mean weight of a sample by shell of one cycle per box: ``(size // 2 + 1,)``."""
    return _mean_by_shell(_joined(sums.weight), _shells(sums.size), sums.size)


def _volume_of(spectrum: NDArray[np.complex64], size: int) -> NDArray[np.float32]:
    m = _PADDING * size
    whole = fft.fftshift(fft.irfftn(spectrum, s=(m, m, m), overwrite_x=True))  # centre at m // 2
    start = m // 2 - size // 2
    cut = whole[start : start + size, start : start + size, start : start + size]
    profile = np.sinc((np.arange(size) - size // 2) / m) ** 2  # of the linear spreading
    profile = profile.astype(np.float32)
    volume: NDArray[np.float32] = cut / (profile[:, None, None] * profile[None, :, None] * profile[None, None, :])
    return volume


def _joined(half: NDArray[Any]) -> NDArray[Any]:
    """Add on the plane x = 0 what the opposite points have, which is not stored elsewhere."""
    whole = half.copy()
    plane = half[:, :, 0]
    whole[:, :, 0] += np.conj(np.roll(plane[::-1, ::-1], (1, 1), axis=(0, 1)))
    return whole


def _shells(size: int) -> NDArray[np.int64]:
    """Return the shell of one cycle per box of each point, at most ``size // 2 + 1``, which is for those beyond all."""
    m = _PADDING * size
    along = np.fft.fftfreq(m) * m / _PADDING
    half = np.arange(m // 2 + 1) / _PADDING
    radius = np.sqrt(along[:, None, None] ** 2 + along[None, :, None] ** 2 + half[None, None, :] ** 2)
    return np.minimum(np.rint(radius).astype(np.int64), size // 2)


def _mean_by_shell(values: NDArray[np.float32], shell: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    count = np.bincount(shell.ravel(), minlength=size // 2 + 1)
    total = np.bincount(shell.ravel(), weights=values.ravel(), minlength=size // 2 + 1)
    return np.asarray(total / np.maximum(count, 1))


@njit(cache=True, fastmath=True)
def _spread(  # noqa: PLR0917 - numba wants positions
    spectra: NDArray[np.complex64],
    squared: NDArray[np.float32],
    poses: tuple[NDArray[np.int64], Rotations, NDArray[np.float64], NDArray[np.float32]],
    operations: Rotations,
    max_ring: int,
    signal: NDArray[np.complex64],
    weight: NDArray[np.float32],
) -> None:
    """Add slices to ``signal`` and ``weight``, copies of the caller."""
    image, rotations, centre, share = poses
    size = spectra.shape[1]
    m = signal.shape[0]
    scale = m / size
    for i in range(image.size):
        y_ramp = np.exp((2j * np.pi * centre[i, 0] / size) * (np.arange(size) - size // 2)).astype(np.complex64)
        x_ramp = np.exp((2j * np.pi * centre[i, 1] / size) * np.arange(size // 2 + 1)).astype(np.complex64)
        for g in range(operations.shape[0]):
            matrix = rotations[i] @ operations[g]
            for row in range(size):
                ky = row if row < size // 2 else row - size
                for kx in range(max_ring + 1):
                    if kx * kx + ky * ky > max_ring * max_ring:
                        continue
                    own = share[i] * np.float32(0.5 if kx == 0 else 1.0)  # on kx = 0 the opposite sample is stored too
                    value = own * spectra[image[i], row, kx] * y_ramp[ky + size // 2] * x_ramp[kx]
                    heavy = own * squared[image[i], row, kx]
                    x = scale * (matrix[0, 0] * kx + matrix[1, 0] * ky)
                    y = scale * (matrix[0, 1] * kx + matrix[1, 1] * ky)
                    z = scale * (matrix[0, 2] * kx + matrix[1, 2] * ky)
                    if x < 0.0:
                        x, y, z, value = -x, -y, -z, np.conj(value)
                    left, top, front = int(np.floor(x)), int(np.floor(y)), int(np.floor(z))
                    dx, dy, dz = np.float32(x - left), np.float32(y - top), np.float32(z - front)
                    for c in range(2):
                        wz = dz if c else 1 - dz
                        k = (front + c) % m
                        for b in range(2):
                            wzy = wz * (dy if b else 1 - dy)
                            j = (top + b) % m
                            signal[k, j, left] += (wzy * (1 - dx)) * value
                            weight[k, j, left] += (wzy * (1 - dx)) * heavy
                            signal[k, j, left + 1] += (wzy * dx) * value
                            weight[k, j, left + 1] += (wzy * dx) * heavy
