"""Shells of constant frequency of the transform of a map, and what is done shell by shell."""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.frc import correlation_of_sums
from icestream.algorithms.volumes.fsc import sum_shells

Map = NDArray[Any]
Spectrum = NDArray[np.complex128]
Curve = NDArray[np.float64]


def transform_3d(volume: Map) -> Spectrum:
    """Return the half transform ``(b, b, b // 2 + 1)`` of a map, in double precision."""
    spectrum: Spectrum = fft.rfftn(np.asarray(volume, dtype=np.float64))
    return spectrum


def invert_3d(spectrum: Spectrum, *, box_px: int) -> NDArray[np.float32]:
    """Return the map ``(b, b, b)`` behind a half transform."""
    return np.asarray(fft.irfftn(spectrum, s=(box_px,) * 3), dtype=np.float32)


@lru_cache(maxsize=8)
def frequency_axes(box_px: int) -> tuple[Curve, Curve, Curve]:
    """Return ``kz, ky, kx`` of a half transform in whole cycles per box, shaped to broadcast, read-only."""
    whole = np.asarray(np.fft.fftfreq(box_px, 1 / box_px), dtype=np.float64)  # (b,)
    axes = (whole[:, None, None], whole[None, :, None], np.arange(box_px // 2 + 1, dtype=np.float64)[None, None, :])
    for axis in axes:
        axis.flags.writeable = False
    return axes


@lru_cache(maxsize=8)
def shell_radius(box_px: int) -> Curve:
    """Return ``|k|`` of a half transform ``(b, b, b // 2 + 1)`` in cycles per box, read-only."""
    kz, ky, kx = frequency_axes(box_px)
    radius: Curve = np.sqrt(kz * kz + ky * ky + kx * kx)
    radius.flags.writeable = False
    return radius


@lru_cache(maxsize=8)
def shell_numbers(box_px: int) -> NDArray[np.int64]:
    """Return the number of the shell of each coefficient, ``|k|`` rounded, flat; read-only."""
    numbers = np.rint(shell_radius(box_px)).astype(np.int64).ravel()
    numbers.flags.writeable = False
    return numbers


def correlate_shells(spectrum_1: Spectrum, spectrum_2: Spectrum, *, box_px: int) -> Curve:
    """Return the Fourier shell correlation of two half transforms: ``(b // 2,)``, 0 where there is no power."""
    cross = sum_shells(np.real(spectrum_1 * np.conj(spectrum_2)), size=box_px)
    power_1, power_2 = (sum_shells(np.abs(one) ** 2, size=box_px) for one in (spectrum_1, spectrum_2))
    return correlation_of_sums(cross, power_1, power_2)


def mean_shells(values: NDArray[Any], *, box_px: int) -> Curve:
    """Return the mean of real values of a half transform over each shell: ``(b // 2,)``."""
    return sum_shells(values, size=box_px) / sum_shells(np.ones(values.shape), size=box_px)


def weight_shells(spectrum: Spectrum, weights: Curve, *, box_px: int) -> Spectrum:
    """Multiply a half transform by a weight that is interpolated between shells; beyond the last shell it is 0."""
    radius = shell_radius(box_px)
    weighted: Spectrum = spectrum * np.interp(radius, np.arange(len(weights)), weights, right=0.0)
    return weighted


def low_pass_3d(volume: Map, *, resolution_ang: float, pixel_size_ang: float, edge_shells: float = 2.0) -> NDArray[np.float32]:
    """Remove what is finer than ``resolution_ang``, with a cosine edge of ``edge_shells``."""
    box_px = volume.shape[0]
    limit = box_px * pixel_size_ang / resolution_ang
    shells = np.arange(box_px, dtype=np.float64)
    weights = 0.5 + 0.5 * np.cos(np.pi * np.clip((shells - limit) / edge_shells + 0.5, 0.0, 1.0))
    return invert_3d(weight_shells(transform_3d(volume), weights, box_px=box_px), box_px=box_px)


def randomise_phases_3d(spectrum: Spectrum, *, from_shell: int, box_px: int, rng: np.random.Generator) -> Spectrum:
    """Return a half transform with the same amplitudes and random phases from a shell on.

    The phases are those of the transform of white noise, so that the map behind it is real.
    """
    noise = transform_3d(rng.standard_normal((box_px,) * 3))
    phases = noise / np.maximum(np.abs(noise), 1e-30)
    beyond = shell_radius(box_px) >= from_shell - 0.5
    randomised: Spectrum = np.where(beyond, np.abs(spectrum) * phases, spectrum)
    return randomised


@lru_cache(maxsize=4)
def distance_from_centre(box_px: int) -> NDArray[np.float32]:
    """Return the distance of each voxel from the centre, px, read-only."""
    axis = np.arange(box_px, dtype=np.float32) - box_px // 2
    square = axis * axis
    distance: NDArray[np.float32] = np.sqrt(square[:, None, None] + square[None, :, None] + square[None, None, :])
    distance.flags.writeable = False
    return distance
