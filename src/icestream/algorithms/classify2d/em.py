"""Streaming classification: seeding, mini-batches, and annealed passes over everything at hand.

Expectation maximisation over class, rotation and shift (Scheres 2012, J. Mol. Biol. 415, 406), online with a falling step size
(Cappé & Moulines 2009, J. R. Stat. Soc. B 71, 593), from coarse to fine resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify2d.model import (
    Averages,
    References,
    Sums,
    estimate_references_2d,
    render_averages_2d,
    smooth_curves,
    sum_poses_2d,
)
from icestream.algorithms.scoring import (
    Bank,
    Cascade,
    Level,
    Polar,
    PolarGrid,
    PolarParticles,
    Poses,
    Real,
    make_bank,
    make_level,
    polish_poses_2d,
    prepare_images_2d,
    reference_orders_2d,
    search_cascade_2d,
    search_poses_2d,
)

_BALANCED = 0.02
"""Largest logarithm of a class's size over the mean at which classes count as equally large."""
_RINGS_AHEAD = 3
"""Rings that are looked at beyond those on which the half sets agree."""


@dataclass(frozen=True)
class Setting:
    """What stays the same during a classification; lengths in pixels of the working box.

    ``overlap`` is the fraction of the box that the mask on the particles leaves, ``mask_radius_px`` the radius of the classes,
    ``start_ring`` where an anneal from scratch begins, ``warm_ring`` where a later one does.
    """

    grid: PolarGrid
    n_classes: int
    mask_radius_px: float
    edge_px: float
    max_shift_px: float
    start_ring: int
    warm_ring: int
    tau_fudge: float
    forgetting: float

    @property
    def particle_radius_px(self) -> float:
        """The radius within which particles are looked at: the class wherever it may have moved to."""
        return min(self.mask_radius_px + self.max_shift_px, self.grid.box_px / 2 - self.edge_px)

    @property
    def overlap(self) -> float:
        """The fraction of the box within that radius, with half the edge."""
        return float(np.pi * (self.particle_radius_px + self.edge_px / 2) ** 2 / self.grid.box_px**2)


@dataclass(frozen=True)
class Model:
    """The classification so far: the averages, the sums they come from (in units of all particles seen), and their count."""

    averages: Averages
    sums: Sums
    n_seen: int


@dataclass(frozen=True)
class Assignment:
    """The best pose of each particle: class, rotation, shift in working pixels ``(n, 2)``, its probability, its gain.

    The average rotated by ``psi_deg`` (from x towards y) and then moved by ``shift_yx_px`` looks like the particle. ``score``
    is the log likelihood ratio against pure noise.
    """

    class_id: NDArray[np.int32]
    psi_deg: Real
    shift_yx_px: NDArray[np.float32]
    probability: Real
    score: Real


def prepare_particles_2d(images: NDArray[Any], ctf: Real, *, setting: Setting, half_set: NDArray[np.int8]) -> PolarParticles:
    """Crop, mask and sample particle images and apply their CTF.

    Parameters
    ----------
    images
        ``(n, box, box)``, background mean 0 and spread 1.
    ctf
        ``(n, n_rings, half)`` on the polar grid, positive where bright stays bright.
    setting
        Grid and mask.
    half_set
        ``(n,)``, 0 or 1.
    """
    return prepare_images_2d(
        images,
        ctf,
        grid=setting.grid,
        mask_radius_px=setting.particle_radius_px,
        edge_px=setting.edge_px,
        half_set=half_set,
    )


def level_at(setting: Setting, ring: int) -> Level:
    """Return a search that is as coarse as rings up to ``ring`` allow: quarter-wave shifts, angles of one Fourier pixel."""
    grid = setting.grid
    needed = 2 * np.pi * ring * 2 * (setting.particle_radius_px + setting.edge_px) / grid.box_px
    turns = grid.n_angles if ring >= grid.n_rings else min(4 * int(np.ceil(needed / 4)), grid.n_angles)
    step = shift_step(setting, ring)
    return make_level(grid, n_rings=ring, n_turns=turns, shift_step_px=step, max_shift_px=setting.max_shift_px)


def shift_step(setting: Setting, ring: int) -> float:
    """Return a quarter of the shortest wave on rings up to ``ring``, at least a pixel."""
    return max(1.0, setting.grid.box_px / ring / 4)


def expect(
    particles: PolarParticles, averages: Averages, *, setting: Setting, level: Level, log_class_prior: Real | None = None
) -> Poses:
    """Search the poses of particles against class averages."""
    orders = reference_orders_2d(averages.images, grid=setting.grid)
    return search_classes(particles, orders, averages.noise_power, setting=setting, level=level, log_class_prior=log_class_prior)


def search_classes(
    particles: PolarParticles,
    orders: Polar,
    noise_power: Real,
    *,
    setting: Setting,
    level: Level,
    log_class_prior: Real | None = None,
) -> Poses:
    """Search the poses of particles against classes ``(k, n_orders, n_rings)``: all poses, or from coarse to fine."""

    def bank_at(some: Level) -> Bank:
        return make_bank(orders, grid=setting.grid, level=some, noise_power=noise_power, overlap=setting.overlap)

    coarse = coarse_level(setting, level)
    if coarse is None:
        return search_poses_2d(particles, bank_at(level), log_prior=log_class_prior)
    return search_cascade_2d(particles, Cascade(bank_at(coarse), bank_at(level)), log_prior=log_class_prior)


def coarse_level(setting: Setting, level: Level) -> Level | None:
    """Return the level on which to search before ``level``, with two thirds of its rings; None where that is too few to see by.

    Shifts are half as far apart again: at 50 references, SNR 0.05 and 28 rings the right pose is lost once in 250 particles,
    with shifts twice as far apart once in 10.
    """
    rings, turns = 2 * level.grid.n_rings // 3, level.grid.n_angles // 2
    if rings < 2 * setting.start_ring or turns % 2:
        return None
    step = 1.5 * shift_step(setting, level.grid.n_rings)
    return make_level(setting.grid, n_rings=rings, n_turns=turns, shift_step_px=step, max_shift_px=setting.max_shift_px)


def maximise(sums: Sums, *, setting: Setting, level: Level, noise_power: Real) -> Averages:
    """Turn sums into averages; rings beyond the level keep their noise."""
    references = estimate(sums, setting=setting, noise_power=noise_power)
    if references.orders.shape[-1] != level.grid.n_rings:
        raise ValueError(f"the sums have {references.orders.shape[-1]} rings, the level has {level.grid.n_rings}")
    return render(references, setting=setting)


def estimate(sums: Sums, *, setting: Setting, noise_power: Real) -> References:
    """Turn sums into references; rings beyond those of the sums keep their noise."""
    n_rings = sums.signal.shape[-1]
    new = estimate_references_2d(
        sums,
        grid=setting.grid,
        mask_radius_px=setting.mask_radius_px,
        edge_px=setting.edge_px,
        tau_fudge=setting.tau_fudge,
    )
    return replace(new, noise_power=np.concatenate([new.noise_power, noise_power[n_rings:]]).astype(np.float32))


def render(references: References, *, setting: Setting) -> Averages:
    """Turn references into images to be shown and stored."""
    return render_averages_2d(references, grid=setting.grid, mask_radius_px=setting.mask_radius_px, edge_px=setting.edge_px)


def seed_averages(particles: PolarParticles, *, setting: Setting, seed: int, subset: int = 4) -> Averages:
    """Return starting classes: low-pass filtered averages of ``subset`` random particles each, turned at random.

    Small subsets keep the classes different: an average of many particles in random turns is a featureless disc.
    """
    rng = np.random.default_rng(seed)
    level = level_at(setting, setting.start_ring)
    chosen = rng.permutation(len(particles))[: subset * setting.n_classes]
    n = len(chosen)
    class_id = (np.arange(n) % setting.n_classes).astype(np.int32)
    some = replace(particles.take(chosen), half_set=(np.arange(n) // setting.n_classes % 2).astype(np.int8))
    centre = int(np.flatnonzero((level.shifts_yx_px == 0).all(axis=1))[0])
    poses = Poses(
        np.arange(n, dtype=np.int32),
        class_id,
        rng.integers(0, level.grid.n_angles, n).astype(np.int32),
        np.full(n, centre, dtype=np.int32),
        np.ones(n, dtype=np.float32),
        np.zeros(n, dtype=np.float32),
        np.zeros((n, setting.n_classes), dtype=np.float32),
    )
    noise = particles.power.mean(axis=0).astype(np.float32)
    sums = sum_poses_2d(some, poses, level=level, n_classes=setting.n_classes)
    references = estimate(sums, setting=setting, noise_power=noise)
    both = references.unmasked[1:].mean(axis=0)
    return replace(render(replace(references, unmasked=np.stack([both, both, both])), setting=setting), noise_power=noise)


def anneal(
    particles: PolarParticles,
    averages: Averages,
    *,
    setting: Setting,
    first_ring: int,
    iterations: int,
    balanced: float = 0.0,
    report: Callable[[float, str], None] | None = None,
) -> Model:
    """Repeat full passes over ``particles`` while the resolution rises from ``first_ring`` to the last ring.

    Of the ``iterations``, at least one, the last three are at full resolution; during the first fraction ``balanced`` of them
    the classes are held equally large. ``report`` is called before each with the fraction done and a message.
    """
    last = setting.grid.n_rings
    orders, noise_power = reference_orders_2d(averages.images, grid=setting.grid), averages.noise_power
    handicap: Real | None = None
    seen = last
    for i in range(iterations):
        if report is not None:
            report(i / iterations, f"pass {i + 1} of {iterations}")
        rise = min(1.0, i / max(1, iterations - 3))
        level = level_at(setting, min(round(first_ring + (last - first_ring) * rise), seen))
        search = partial(search_classes, particles, orders, noise_power, setting=setting, level=level)
        poses = search(log_class_prior=handicap)
        if i < balanced * iterations:
            correction = balance_classes(poses.class_gain)
            handicap = correction if handicap is None else handicap + correction
            poses = search(log_class_prior=handicap) if i == 0 else poses
        else:
            handicap = None
        rings = last if i == iterations - 1 else min(level.grid.n_rings + _RINGS_AHEAD, last)
        sums = sum_poses_2d(particles, poses, level=level, n_classes=setting.n_classes, n_rings=rings)
        references = estimate(sums, setting=setting, noise_power=noise_power)
        seen = max(rings_seen(references) + _RINGS_AHEAD, setting.start_ring)
        noise_power = references.noise_power
        orders = pad_rings(reseed(references, sums) if i < iterations - 3 else references.orders, setting)
    return Model(render(references, setting=setting), sums, len(particles))


def level_of(averages: Averages, setting: Setting) -> Level:
    """Return the search that goes as far as the half sets of averages agree."""
    return level_at(setting, max(rings_seen(averages) + _RINGS_AHEAD, setting.start_ring))


def rings_seen(averages: Averages | References) -> int:
    """Return the last ring on which the half sets of any class agree: beyond it a search sees only noise."""
    agreed = (smooth_curves(averages.correlation) > 0).any(axis=0)
    return int(np.flatnonzero(agreed)[-1]) + 1 if agreed.any() else 0


def pad_rings(orders: Polar, setting: Setting) -> Polar:
    """Return references with the orders and rings of the whole grid; what a level did not reach is 0."""
    _, n_orders, n_rings = orders.shape
    grid = setting.grid
    return np.pad(orders, ((0, 0), (0, grid.half - n_orders), (0, grid.n_rings - n_rings)))


def balance_classes(class_gain: Real) -> Real:
    """Return a handicap per class under which all classes attract equally many particles.

    Without it the first average that happens to be sharper attracts all particles, as Yang, Fang, Chittuluru, Asturias &
    Penczek (2012), Structure 20, 237, describe. The handicaps solve an optimal transport problem by Sinkhorn's iteration.

    Parameters
    ----------
    class_gain
        ``(n, k)``, log likelihood ratio of each particle's best pose in each class.
    """
    gain = class_gain.astype(np.float64)
    temperature = max(1.0, 0.1 * float(np.median(gain.max(axis=1) - gain.min(axis=1))))
    scaled = (gain - gain.max(axis=1, keepdims=True)) / temperature  # (n, k)
    handicap = np.zeros(gain.shape[1])
    for _ in range(100):
        share = np.exp(scaled + handicap - (scaled + handicap).max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        excess = np.log(np.maximum(share.mean(axis=0) * gain.shape[1], 1e-6))
        handicap -= excess
        if np.abs(excess).max() < _BALANCED:
            break
    balanced: Real = (handicap * temperature).astype(np.float32)
    return balanced


def reseed(references: References, sums: Sums) -> Polar:
    """Replace classes that hardly any particle chose by one half set of the most populous ones, which keep the other half."""
    weight = sums.weight.sum(axis=0).copy()  # (k,)
    fair = weight.sum() / len(weight)
    orders = references.orders.copy()
    for k in np.argsort(weight, kind="stable"):
        donor = int(np.argmax(weight))
        if weight[k] > 0.2 * fair or weight[donor] < 1.5 * fair:
            continue
        orders[k], orders[donor] = references.halves[0, donor], references.halves[1, donor]
        weight[donor] /= 2
        weight[k] = weight[donor]
    return orders


def add_batch(model: Model, particles: PolarParticles, *, n_fresh: int, setting: Setting) -> Model:
    """Fold particles, ``n_fresh`` of them new and the others seen before, into a model by one online step."""
    level = level_of(model.averages, setting)
    poses = expect(particles, model.averages, setting=setting, level=level)
    fresh = sum_poses_2d(particles, poses, level=level, n_classes=setting.n_classes, n_rings=setting.grid.n_rings)
    n_seen = model.n_seen + n_fresh
    step = (n_fresh / n_seen) ** setting.forgetting
    sums = model.sums.decayed((1 - step) * n_seen / model.n_seen, fresh, step * n_seen / len(particles))
    references = estimate(sums, setting=setting, noise_power=model.averages.noise_power)
    return Model(render(references, setting=setting), sums, n_seen)


def assign(particles: PolarParticles, model: Model, *, setting: Setting) -> Assignment:
    """Return the best pose of each particle, polished to between the steps of the search."""
    level = level_of(model.averages, setting)
    poses = expect(particles, model.averages, setting=setting, level=level)
    return commit(particles, poses, model.averages, setting=setting, level=level)


def commit(particles: PolarParticles, poses: Poses, averages: Averages, *, setting: Setting, level: Level) -> Assignment:
    """Return the most likely of the poses that a search at a level found for each particle, polished."""
    best = poses.best()  # (n,)
    polished = polish_poses_2d(
        particles,
        reference_orders_2d(averages.images, grid=setting.grid),
        class_id=poses.class_id[best],
        psi_rad=poses.turn[best] * (2 * np.pi / level.grid.n_angles),
        shift_yx_px=level.shifts_yx_px[poses.shift[best]],
        grid=setting.grid,
        level=level,
        shift_step_px=shift_step(setting, level.grid.n_rings),
        noise_power=averages.noise_power,
        overlap=setting.overlap,
    )
    psi = polished.psi_rad % (2 * np.pi)
    y, x = polished.shift_yx_px.T
    moved = np.stack([x * np.sin(psi) + y * np.cos(psi), x * np.cos(psi) - y * np.sin(psi)], axis=1)  # (n, 2)
    return Assignment(
        poses.class_id[best], np.rad2deg(psi).astype(np.float32), moved.astype(np.float32), poses.weight[best], poses.gain
    )
