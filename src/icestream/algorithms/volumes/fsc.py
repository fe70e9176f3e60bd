"""How far two volumes agree: the Fourier shell correlation.

Harauz & van Heel (1986), Optik 73, 146. Thresholds and resolutions are those of `algorithms.frc`; 0.143 between half maps is 0.5
against the truth (Rosenthal & Henderson 2003, J. Mol. Biol. 333, 721).
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.frc import Curve, correlation_of_sums


def fourier_shell_correlation_3d(a: NDArray[Any], b: NDArray[Any]) -> tuple[Curve, Curve]:
    """Correlate two volumes shell by shell in Fourier space: 1 where they agree, about 0 where there is only noise.

    Parameters
    ----------
    a, b
        ``(n, n, n)``, n even, the same size; mask them softly before, sharp borders correlate too.

    Returns
    -------
    frequency, correlation
        ``(n // 2,)`` each; shell ``i`` is centred on ``i / n`` cycles per pixel. A shell without power has correlation 0.

    Raises
    ------
    ValueError
        If the shapes differ or are no cubes.
    """
    if a.shape != b.shape or a.ndim != 3 or len(set(a.shape)) != 1:
        raise ValueError(f"a shell correlation is of two cubes of one size; got {a.shape} and {b.shape}")
    size = a.shape[0]
    one, other = (fft.rfftn(np.asarray(volume, dtype=np.float32)) for volume in (a, b))
    cross, power_a, power_b = (
        sum_shells(part, size=size) for part in ((one * np.conj(other)).real, np.abs(one) ** 2, np.abs(other) ** 2)
    )
    return np.arange(size // 2) / size, correlation_of_sums(cross, power_a, power_b)


def sum_shells(values: NDArray[Any], *, size: int) -> Curve:
    """Sum real values on a half spectrum ``(n, n, n // 2 + 1)`` over shells one cycle per box wide: ``(n // 2,)``."""
    shell, twice = _shells(size)
    total = np.bincount(shell, weights=values.ravel() * twice, minlength=size)[: size // 2]
    return np.asarray(total, dtype=np.float64)


def spread_shells(curve: NDArray[Any], *, size: int) -> NDArray[np.float32]:
    """Return a value for each point of a half spectrum, that of its shell: ``(n, n, n // 2 + 1)``; 0 beyond the curve."""
    shell, _ = _shells(size)
    whole = np.zeros(size, np.float32)
    whole[: len(curve)] = curve
    return whole[shell].reshape(size, size, size // 2 + 1)


def filter_shells_3d(volume: NDArray[Any], curve: NDArray[Any]) -> NDArray[np.float32]:
    """Multiply each shell of a cube by a factor ``(n_shells,)``; shells beyond the last become 0."""
    size = volume.shape[0]
    spectrum = fft.rfftn(np.asarray(volume, dtype=np.float32)) * spread_shells(curve, size=size)
    filtered: NDArray[np.float32] = fft.irfftn(spectrum, s=volume.shape)
    return filtered


def soft_sphere_3d(box_px: int, *, radius_px: float, edge_px: float) -> NDArray[np.float32]:
    """Return a ball about voxel ``box // 2``: 1 inside ``radius_px``, falling to 0 over ``edge_px`` as a raised cosine."""
    y = (np.arange(box_px) - box_px // 2) ** 2
    distance = np.sqrt(y[:, None, None] + y[None, :, None] + y[None, None, :])
    ball: NDArray[np.float32] = (0.5 + 0.5 * np.cos(np.pi * np.clip((distance - radius_px) / edge_px, 0.0, 1.0))).astype(
        np.float32
    )
    return ball


@lru_cache(maxsize=4)
def _shells(size: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the shell of each point of a half spectrum, flat, and how often it counts."""
    along = (np.fft.fftfreq(size) * size) ** 2
    half = np.arange(size // 2 + 1.0) ** 2
    radius = np.sqrt(along[:, None, None] + along[None, :, None] + half[None, None, :])
    twice = np.full(radius.shape, 2.0)
    twice[:, :, 0] = 1.0
    if size % 2 == 0:
        twice[:, :, -1] = 1.0
    return np.minimum(np.rint(radius).astype(np.int64), size - 1).ravel(), twice.ravel()
