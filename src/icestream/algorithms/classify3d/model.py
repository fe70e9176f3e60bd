"""What a 3D classification knows: sums of each class and fold of the particles, and the references that are made of them.

Particles are in four folds for good. Those of one fold are compared with volumes of the other three, so no particle is compared
with a volume that it is part of: without that, a particle resembles whatever class it was put into first, and random classes stay
as they are. A class is the mean of all particles plus a difference; the difference is filtered to what its halves agree on, which
is much less than the mean.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import combinations_with_replacement
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from icestream.algorithms.frc import frequency_at_threshold
from icestream.algorithms.scoring import PolarGrid
from icestream.algorithms.volumes import (
    PoseList,
    Rotations,
    VolumeSums,
    filter_shells_3d,
    fourier_shell_correlation_3d,
    no_sums,
    reconstruct_volume,
    soft_sphere_3d,
    sum_particles,
)
from icestream.algorithms.volumes.fsc import spread_shells, sum_shells

Volume = NDArray[np.float32]
Curve = NDArray[np.float64]

N_FOLDS = 4
"""Fold f is of half ``f % 2``."""
_LEAST_SHARE = 0.02
"""Smaller shares of a particle do not count for a class."""
_SHELLS_AHEAD = 2
_FIRST_SHELLS = 3
_LOCAL_PX = 2.0
_BY_CHANCE = 0.15
"""Local agreement of noise with noise."""


@dataclass(frozen=True)
class Setting:
    """What stays the same during a classification; lengths in pixels of the images.

    ``mask_radius_px`` is the radius of the ball that holds the particle, ``start_ring`` how far references are looked at before
    the halves of a difference agree on anything, in cycles per box.
    """

    grid: PolarGrid
    n_classes: int
    mask_radius_px: float
    edge_px: float
    start_ring: int
    symmetry: Rotations | None = None

    @property
    def overlap(self) -> float:
        """The fraction of the box within the mask on images, with half the edge."""
        return float(np.pi * (self.mask_radius_px + self.edge_px / 2) ** 2 / self.grid.box_px**2)

    @property
    def ball(self) -> Volume:
        """The soft mask on volumes."""
        return soft_sphere_3d(self.grid.box_px, radius_px=self.mask_radius_px, edge_px=self.edge_px)


@dataclass(frozen=True)
class ClassVolumes:
    """The volumes of classes ``(k, box, box, box)``: of all particles, of both halves, and those for each fold, without it.

    ``of_fold`` ``(4, k, box, box, box)`` are filtered and masked, ``volumes`` likewise, ``halves`` ``(2, k, …)`` are neither.
    ``correlation`` ``(shells,)`` is that of the differences between the halves, ``ring`` the last that they agree on.
    """

    volumes: Volume
    halves: Volume
    of_fold: Volume
    correlation: Curve
    ring: int


def sum_classes(
    images: NDArray[Any],
    contrast: NDArray[np.float32],
    *,
    rotations: Rotations,
    shift_yx_px: NDArray[Any],
    share: NDArray[np.float64],
    fold: NDArray[np.integer],
    setting: Setting,
    onto: list[list[VolumeSums]] | None = None,
) -> list[list[VolumeSums]]:
    """Add images to the sums of their fold and classes.

    Parameters
    ----------
    images, contrast, rotations, shift_yx_px
        As of `sum_particles`, one pose for each image.
    share
        ``(n, k)``, how much of each particle each class gets.
    fold
        ``(n,)``, 0 to 3.
    setting
        Of the classification.
    onto
        Sums to add to, by fold and class; they stay as they are.
    """
    size = images.shape[-1]
    begun = onto or [[no_sums(size) for _ in range(share.shape[1])] for _ in range(N_FOLDS)]
    sums: list[list[VolumeSums]] = []
    for f in range(N_FOLDS):
        sums.append([])
        for k in range(share.shape[1]):
            rows = np.flatnonzero((fold == f) & (share[:, k] > _LEAST_SHARE))
            poses = PoseList(
                np.arange(len(rows)),
                np.ascontiguousarray(rotations[rows]),
                np.asarray(shift_yx_px[rows], dtype=np.float64),
                share[rows, k].astype(np.float32),
            )
            whole = sum_particles(images[rows], contrast[rows], poses, group=setting.symmetry, onto=begun[f][k])
            sums[f].append(whole)
    return sums


def make_volumes(sums: list[list[VolumeSums]], *, setting: Setting) -> ClassVolumes:
    """Return the volumes of classes from sums by fold and class."""
    n_classes = len(sums[0])
    ball = setting.ball

    def mean_and_differences(folds: list[int]) -> tuple[Volume, Volume]:
        parts = [reduce(add, (sums[f][k] for f in folds)) for k in range(n_classes)]
        mean = reconstruct_volume(reduce(add, parts)) * ball
        modes = _nuisances(mean)
        return mean, np.stack([_without(reconstruct_volume(part) * ball - mean, modes) for part in parts])

    halves = [mean_and_differences([f for f in range(N_FOLDS) if f % 2 == half]) for half in (0, 1)]
    of_mean = fourier_shell_correlation_3d(halves[0][0], halves[1][0])[1]
    of_difference = _mean_correlation(halves[0][1], halves[1][1])
    ring = max(_last_ring(of_difference), setting.start_ring)
    mean_filter = _wiener(of_mean)
    difference_filter = _wiener(of_difference)
    difference_filter[: setting.start_ring + 1] = np.maximum(difference_filter[: setting.start_ring + 1], 0.5)

    where = _local_agreement(*(np.stack([filter_shells_3d(one, difference_filter) for one in half[1]]) for half in halves))

    def references(folds: list[int]) -> Volume:
        mean, differences = mean_and_differences(folds)
        base = filter_shells_3d(mean, mean_filter)
        return np.stack([base + where * filter_shells_3d(one, difference_filter) for one in differences])

    of_fold = np.stack([references([f for f in range(N_FOLDS) if f != own]) for own in range(N_FOLDS)])
    unmasked = [np.stack([reconstruct_volume(sums[half][k] + sums[half + 2][k]) for k in range(n_classes)]) for half in (0, 1)]
    return ClassVolumes(references(list(range(N_FOLDS))), np.stack(unmasked), of_fold, of_difference, ring)


def _without(difference: Volume, modes: NDArray[np.complex64]) -> Volume:
    """Return a difference without what nuisances make of the mean, shell by shell; ``modes`` are from `_nuisances`."""
    size = len(difference)
    spectrum = fft.rfftn(difference)
    overlap = np.stack([sum_shells((spectrum * np.conj(mode)).real, size=size) for mode in modes], axis=1)  # (s, m)
    gram = np.empty((len(overlap), len(modes), len(modes)))
    for a, b in combinations_with_replacement(range(len(modes)), 2):
        gram[:, a, b] = gram[:, b, a] = sum_shells((modes[a] * np.conj(modes[b])).real, size=size)
    ridge = 1e-6 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(len(modes)) + 1e-20 * np.eye(len(modes))
    share = np.linalg.solve(gram + ridge, overlap[:, :, None])[:, :, 0]  # (s, m)
    for mode, curve in zip(modes, share.T, strict=True):
        spectrum = spectrum - mode * spread_shells(curve, size=size)
    rest: Volume = fft.irfftn(spectrum, s=difference.shape).astype(np.float32)
    return rest


def _nuisances(mean: Volume) -> NDArray[np.complex64]:
    """Return the transforms of what tells particles apart that are the same ``(7, …)``: contrast, and errors of their poses.

    A class that is but the mean made stronger, moved or turned would gather the particles of strong contrast, or those whose
    poses err alike.
    """
    size = len(mean)
    spectrum = fft.rfftn(mean)
    along = [np.fft.fftfreq(size)[:, None, None], np.fft.fftfreq(size)[None, :, None], np.fft.rfftfreq(size)[None, None, :]]
    slopes = [fft.irfftn(2j * np.pi * axis * spectrum, s=mean.shape) for axis in along]  # z, y, x
    place = np.arange(size) - size // 2
    z, y, x = place[:, None, None], place[None, :, None], place[None, None, :]
    turns = [y * slopes[0] - z * slopes[1], z * slopes[2] - x * slopes[0], x * slopes[1] - y * slopes[2]]
    return np.stack([spectrum, *(fft.rfftn(one) for one in (*slopes, *turns))]).astype(np.complex64)


def _local_agreement(one: Volume, other: Volume) -> Volume:
    """Return what to multiply differences by voxel by voxel, from how far those of the halves ``(k, …)`` agree about it.

    Conformations differ in a part of the particle; elsewhere a difference is noise, which would blur the scores.
    """
    shared, power = (gaussian_filter(part.sum(axis=0), _LOCAL_PX) for part in (one * other, (one * one + other * other) / 2))
    agreement = np.divide(shared, power, out=np.zeros_like(shared), where=power > 0)
    surplus = np.clip((agreement - _BY_CHANCE) / (1 - _BY_CHANCE), 0.0, 1.0)
    weight: Volume = (2 * surplus / (1 + surplus)).astype(np.float32)
    return weight


def _mean_correlation(one: Volume, other: Volume) -> Curve:
    """Return the correlation by shell of the differences of all classes, mean."""
    return np.asarray(np.mean([fourier_shell_correlation_3d(a, b)[1] for a, b in zip(one, other, strict=True)], axis=0))


def _wiener(correlation: Curve) -> Curve:
    """Return what to multiply a map of all particles by, from the correlation of its halves: 0 beyond where they agree."""
    smooth = _smooth(correlation)
    last = min(_last_ring(correlation), len(smooth) - 1)
    weight = np.clip(2 * smooth / (1 + np.maximum(smooth, 0.0)), 0.0, 1.0)
    weight[0], weight[last + 1 :] = 1.0, 0.0
    return np.asarray(weight)


def _smooth(correlation: Curve) -> Curve:
    return np.convolve(np.pad(correlation, 1, mode="edge"), np.ones(3) / 3, mode="valid")


def _last_ring(correlation: Curve) -> int:
    """Return the last shell on which halves agree; the first few shells, which have few coefficients, are not asked."""
    smooth = _smooth(correlation)
    smooth[:_FIRST_SHELLS] = 1.0
    limit = frequency_at_threshold(np.arange(len(smooth), dtype=np.float64), smooth, threshold=0.143)
    return int(limit) + _SHELLS_AHEAD
