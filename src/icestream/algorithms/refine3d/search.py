"""Finding poses of particles in a volume: everywhere on a grid, or near where they were, and then off the grid.

The search is the scoring kernel's: views of the volume are its references. Everywhere it is coarse, up to the resolution at
which the views of one order are a Fourier pixel apart; what it finds likely is climbed from, first with few rings and then, for
the best, with all (coarse to fine as in Scheres 2012, J. Struct. Biol. 180, 519, without a finer grid).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.refine3d.climb import Slope, climb_poses, explained_power, frame_volume, sample_weights
from icestream.algorithms.refine3d.model import Model, Setting
from icestream.algorithms.scoring import (
    Bank,
    PolarGrid,
    PolarParticles,
    Poses,
    PoseWindows,
    group_shifts,
    make_bank,
    make_level,
    polar_from_orders,
    search_poses_2d,
    search_windows_2d,
)
from icestream.algorithms.volumes import (
    PoseList,
    Rotations,
    Views,
    all_views,
    asymmetric_views,
    transform_volume,
    turn_between,
    turn_in_plane,
    view_orders_2d,
    view_spacing_deg,
    views_within,
)

_COARSE_RING = 10
_SPARED = 7.0
"""How much less likely than the best, as a logarithm, a cell may be that is climbed from."""
_CANDIDATES = 6
_CLIMBED_ON = 2
_STEPS = 4
_WINDOW_DEG = 16.0
_LEAST_WEIGHT = 0.05


@dataclass(frozen=True)
class Reference:
    """The volume of one half set, ready for its particles: ``bank`` of ``views``, ``slope`` to be climbed, and what to weigh by.

    ``everywhere``: all poses are looked at, otherwise those near the last ones.
    """

    bank: Bank
    views: Views
    slope: Slope
    noise_power: NDArray[np.float32]
    ring: int
    everywhere: bool


@dataclass(frozen=True)
class Found:
    """What was found of some images: the best pose of each, and all that count.

    ``rotations`` ``(n, 3, 3)``, ``shift_yx_px`` ``(n, 2)``, ``score`` and ``probability`` ``(n,)``; ``poses`` numbers the same
    images. ``unexplained`` ``(n_rings,)`` is the power that the best poses leave, summed over the images.
    """

    rotations: Rotations
    shift_yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    probability: NDArray[np.float64]
    poses: PoseList
    unexplained: NDArray[np.float64]


def make_reference(model: Model, half: int, *, setting: Setting, everywhere: bool) -> Reference:
    """Make the views of the volume of a half set."""
    grid = setting.grid
    ring = min(model.ring, grid.n_rings)
    coarse = min(ring, _COARSE_RING)
    reach = 2 * np.pi * coarse * 2 * (setting.particle_radius_px + setting.edge_px) / grid.box_px
    level = make_level(
        grid,
        n_rings=coarse,
        n_turns=min(4 * int(np.ceil(reach / 4)), grid.n_angles),
        shift_step_px=max(1.0, grid.box_px / coarse / 4),
        max_shift_px=setting.max_shift_px,
    )
    order = 3 if view_spacing_deg(2) > 1.5 * np.rad2deg(grid.box_px / (2 * setting.mask_radius_px * coarse)) else 2
    views = asymmetric_views(order, group=setting.group) if everywhere else all_views(order)
    transform = transform_volume(model.references[half])
    noise = model.noise_power[half]
    few = PolarGrid(grid.box_px, coarse, grid.n_angles)
    orders = view_orders_2d(transform, views.rotations, grid=few)
    bank = make_bank(orders, grid=few, level=level, noise_power=noise, overlap=setting.overlap)
    return Reference(bank, views, frame_volume(transform, ring=grid.n_rings), noise, ring, everywhere)


def find_poses(
    particles: PolarParticles,
    reference: Reference,
    *,
    setting: Setting,
    rotations: Rotations | None = None,
    shift_yx_px: NDArray[np.float64] | None = None,
) -> Found:
    """Find the poses of particles of one half set.

    Parameters
    ----------
    particles
        On the grid of the setting.
    reference
        Of their half set.
    rotations, shift_yx_px
        The last poses ``(n, 3, 3)`` and ``(n, 2)``; unset where there are none yet.

    Raises
    ------
    ValueError
        The search is to be near the last poses, and there are none.
    """
    known = None if rotations is None or shift_yx_px is None else (rotations, shift_yx_px)
    if reference.everywhere:
        cells = search_poses_2d(particles, reference.bank, negligible=_SPARED, most=200)
    elif known is None:
        raise ValueError("a search near the last poses needs them")
    else:
        windows = _windows_near(*known, reference)
        cells = search_windows_2d(particles, reference.bank, windows, negligible=_SPARED, most=200)
    image, start, shift = _candidates(cells, reference)
    if known is not None:
        image = np.concatenate([image, np.arange(len(particles))])
        start, shift = np.concatenate([start, known[0]]), np.concatenate([shift, known[1]])
    return _climb(particles, reference, setting, (image, start, shift))


def _windows_near(rotations: Rotations, shift_yx_px: NDArray[np.float64], reference: Reference) -> PoseWindows:
    """Return where to look near known poses: views, turns and shifts around them."""
    level = reference.bank.level
    near = views_within(reference.views, rotations[:, 2], radius_deg=_WINDOW_DEG)
    particle = np.repeat(np.arange(len(near)), [len(some) for some in near])
    view = np.concatenate(near)
    turn = turn_between(reference.views.rotations[view], rotations[particle])
    n_turns = level.grid.n_angles
    width = min(2 * int(np.ceil(_WINDOW_DEG / 360 * n_turns)) + 1, n_turns)
    first = (np.rint(turn / (2 * np.pi) * n_turns).astype(np.int64) - width // 2) % n_turns
    # The kernel shifts before it turns: the shift in the image, turned back.
    y, x = shift_yx_px[particle].T
    moved = np.stack([y * np.cos(turn) - x * np.sin(turn), y * np.sin(turn) + x * np.cos(turn)], axis=1)
    apart = np.square(level.shifts_yx_px[:, None] - level.shifts_yx_px).sum(axis=-1)
    step = max(np.sqrt(np.sort(apart, axis=1)[:, 1].min()) if len(apart) > 1 else 1.0, 1.0)
    groups = [np.flatnonzero(row <= (1.01 * step) ** 2).astype(np.int32) for row in apart]
    nearest = np.square(moved[:, None] - level.shifts_yx_px).sum(axis=-1).argmin(axis=1)
    starts, shifts = group_shifts(groups)
    return PoseWindows(
        particle.astype(np.int32),
        view.astype(np.int32),
        first.astype(np.int32),
        np.full(len(view), width, np.int32),
        nearest.astype(np.int32),
        np.zeros(len(view), np.float32),
        starts,
        shifts,
    )


def _candidates(cells: Poses, reference: Reference) -> tuple[NDArray[np.int64], Rotations, NDArray[np.float64]]:
    """Return the best pose of each of the best views of each image: its number, rotation and shift."""
    level = reference.bank.level
    order = np.lexsort((-cells.weight, cells.particle))
    pair = cells.particle[order].astype(np.int64) * len(reference.views) + cells.class_id[order]
    _, first = np.unique(pair, return_index=True)
    rows = order[np.sort(first)]  # the best of each view, by image and falling weight
    image = cells.particle[rows]
    rank = np.arange(len(rows)) - np.searchsorted(image, image)
    rows = rows[rank < _CANDIDATES]
    turn = cells.turn[rows] * (2 * np.pi / level.grid.n_angles)
    y, x = level.shifts_yx_px[cells.shift[rows]].T
    moved = np.stack([x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) - y * np.sin(turn)], axis=1)
    rotations = turn_in_plane(reference.views.rotations[cells.class_id[rows]], turn)
    return cells.particle[rows].astype(np.int64), rotations, moved


def _climb(
    particles: PolarParticles,
    reference: Reference,
    setting: Setting,
    start: tuple[NDArray[np.int64], Rotations, NDArray[np.float64]],
) -> Found:
    """Climb from candidates with few rings, then from the best with all that are believed."""
    grid = setting.grid
    samples = polar_from_orders(np.swapaxes(particles.signal, 1, 2), grid=grid)  # (n, n_rings, half)
    weight = sample_weights(grid, noise_power=reference.noise_power, overlap=setting.overlap)
    image, rotations, shift = start

    climb = partial(
        climb_poses,
        samples,
        particles.ctf_squared,
        reference.slope,
        grid=grid,
        weight=weight,
        shift_sigma_px=max(setting.max_shift_px / 2, 1e-3),
        steps=_STEPS,
    )
    few = min(reference.ring, _COARSE_RING)
    rough = climb(image=image, rotations=rotations, shift_yx_px=shift, ring=few)
    kept = _best_few(image, rough.score, _CLIMBED_ON if reference.ring > few else 3)
    image, rotations, shift, score = image[kept], rough.rotations[kept], rough.shift_yx_px[kept], rough.score[kept]
    if reference.ring > few:
        fine = climb(image=image, rotations=rotations, shift_yx_px=shift, ring=reference.ring)
        rotations, shift, score = fine.rotations, fine.shift_yx_px, fine.score
    top = np.full(len(particles), -np.inf)
    np.maximum.at(top, image, score)
    share = np.exp(score - top[image])
    twin = _repeated(image, rotations, score)
    share[twin] = 0.0
    total = np.bincount(image, weights=share, minlength=len(particles))
    share /= total[image]
    best = np.lexsort((-share, image))
    best = best[np.searchsorted(image[best], np.arange(len(particles)))]
    counted = share >= _LEAST_WEIGHT
    poses = PoseList(image[counted], rotations[counted], shift[counted], share[counted].astype(np.float32))
    explained = explained_power(
        samples, particles.ctf_squared, reference.slope, image=np.arange(len(particles)), rotations=rotations[best],
        shift_yx_px=shift[best], grid=grid,
    )  # fmt: skip
    left = (particles.power - explained).sum(axis=0)
    return Found(rotations[best], shift[best], score[best], share[best], poses, left)


def _best_few(image: NDArray[np.int64], score: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the rows of the ``count`` best of each image, by image and falling score."""
    order = np.lexsort((-score, image))
    rank = np.arange(len(order)) - np.searchsorted(image[order], image[order])
    return order[rank < count]


def _repeated(image: NDArray[np.int64], rotations: Rotations, score: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which poses are those of a better one of the same image, within a degree or so; rows are sorted by image."""
    repeated = np.zeros(len(image), dtype=bool)
    for back in range(1, 3):
        same = np.flatnonzero(image[back:] == image[:-back])
        near = np.einsum("nij,nij->n", rotations[same], rotations[same + back]) > 1 + 2 * np.cos(np.deg2rad(2.0))
        worse = np.where(score[same] < score[same + back], same, same + back)
        repeated[worse[near]] = True
    return repeated
