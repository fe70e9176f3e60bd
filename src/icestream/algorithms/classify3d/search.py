"""How likely each particle is each class, by the scoring kernel, near the pose that it has in all of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.classify3d.model import N_FOLDS, Setting, Volume
from icestream.algorithms.scoring import (
    Level,
    PolarParticles,
    PoseWindows,
    Real,
    group_shifts,
    make_bank,
    make_level,
    prepare_images_2d,
    search_windows_2d,
)
from icestream.algorithms.volumes import Rotations, transform_volume, view_orders_2d

_AT_ONCE = 64


def prepare_centred(
    images: NDArray[Any],
    ctf: Real,
    *,
    shift_yx_px: NDArray[Any],
    setting: Setting,
    half_set: NDArray[np.int8],
) -> PolarParticles:
    """Move images so that their particles are in the middle, and prepare them for the kernel.

    Parameters
    ----------
    images
        ``(n, box, box)``, background mean 0 and spread 1.
    ctf
        ``(n, n_rings, half)`` on the grid of the setting, positive where bright stays bright.
    shift_yx_px
        ``(n, 2)``, where the centre of each particle is, beyond pixel ``box // 2``.
    setting, half_set
        Of the classification; ``(n,)``, 0 or 1.
    """
    size = images.shape[-1]
    y, x = np.asarray(shift_yx_px, dtype=np.float32).T[:, :, None, None]
    ky = np.fft.fftfreq(size).astype(np.float32)[:, None]
    kx = np.arange(size // 2 + 1, dtype=np.float32) / np.float32(size)
    moved = fft.irfft2(fft.rfft2(np.asarray(images, np.float32)) * np.exp(2j * np.pi * (y * ky + x * kx)), s=(size, size))
    return prepare_images_2d(
        moved.astype(np.float32),
        ctf,
        grid=setting.grid,
        mask_radius_px=setting.mask_radius_px,
        edge_px=setting.edge_px,
        half_set=half_set,
    )


def score_classes(
    particles: PolarParticles,
    of_fold: Volume,
    *,
    rotations: Rotations,
    fold: NDArray[np.integer],
    ring: int,
    noise_power: Real,
    setting: Setting,
    loose: bool = True,
) -> NDArray[np.float64]:
    """Return the log likelihood ratio against noise of each particle in each class ``(n, k)``.

    Parameters
    ----------
    particles
        Centred.
    of_fold
        ``(4, k, box, box, box)``: the volumes that particles of each fold are compared with.
    rotations, fold
        ``(n, 3, 3)`` and ``(n,)`` of each particle.
    ring
        The last ring that is looked at.
    noise_power
        ``(n_rings,)``.
    setting
        Of the classification.
    loose
        In each class the best of one step of the turn and the shift to either side counts; otherwise the pose itself.
    """
    ring = min(ring, setting.grid.n_rings)
    level = _level(setting, ring, loose=loose)
    out = np.empty((len(particles), of_fold.shape[1]))
    for f in range(N_FOLDS):
        views = [transform_volume(np.ascontiguousarray(volume)) for volume in of_fold[f]]
        rows = np.flatnonzero(fold == f)
        for first in range(0, len(rows), _AT_ONCE):
            some = rows[first : first + _AT_ONCE]
            orders = [view_orders_2d(view, rotations[some], grid=setting.grid) for view in views]
            bank = make_bank(
                np.concatenate(orders), grid=setting.grid, level=level, noise_power=noise_power, overlap=setting.overlap
            )
            gains = search_windows_2d(particles.take(some), bank, _windows(len(some), len(views), level, loose=loose)).class_gain
            own = np.arange(len(views))[None] * len(some) + np.arange(len(some))[:, None]  # (b, k)
            out[some] = np.take_along_axis(gains, own, axis=1)
    return out


def _level(setting: Setting, ring: int, *, loose: bool) -> Level:
    """Return one step about the pose: turns of a Fourier pixel at the rim of the particle, shifts of a quarter wave."""
    needed = 2 * np.pi * ring * 2 * (setting.mask_radius_px + setting.edge_px) / setting.grid.box_px
    turns = min(4 * int(np.ceil(needed / 4)), setting.grid.n_angles)
    step = max(1.0, setting.grid.box_px / ring / 4) if loose else 1.0
    reach = step * 1.01 if loose else 0.0
    return make_level(setting.grid, n_rings=ring, n_turns=turns, shift_step_px=step, max_shift_px=reach)


def _windows(n: int, n_classes: int, level: Level, *, loose: bool) -> PoseWindows:
    """Return for each of ``n`` particles a window for each class; reference ``k * n + i`` is particle i in class k."""
    rows = n * n_classes
    starts, shifts = group_shifts([np.arange(len(level.shifts_yx_px), dtype=np.int32)])
    particle = np.repeat(np.arange(n, dtype=np.int32), n_classes)
    reference = (np.tile(np.arange(n_classes), n) * n + particle).astype(np.int32)
    first, count = (level.grid.n_angles - 1, 3) if loose else (0, 1)
    return PoseWindows(
        particle,
        reference,
        np.full(rows, first, np.int32),
        np.full(rows, count, np.int32),
        np.zeros(rows, np.int32),
        np.zeros(rows, np.float32),
        starts,
        shifts,
    )
