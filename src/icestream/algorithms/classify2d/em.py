"""Streaming classification: seeding, mini-batches, and annealed passes over everything at hand.

Expectation maximisation over class, rotation and shift (Scheres 2012, J. Mol. Biol. 415, 406), online with a falling step size
(Cappé & Moulines 2009, J. R. Stat. Soc. B 71, 593), from coarse to fine resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify2d.model import Averages, Sums, estimate_averages_2d, sum_poses_2d
from icestream.algorithms.classify2d.polar import PolarGrid, Real, sample_polar_2d, soft_disc_2d
from icestream.algorithms.classify2d.search import Level, PolarParticles, Poses, make_level, search_poses_2d
from icestream.algorithms.fourier import crop_fourier_2d


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
    size = setting.grid.box_px
    small = crop_fourier_2d(np.asarray(images, dtype=np.float32), new_shape=(size, size))  # (n, size, size)
    offset = (images.shape[-1] // 2) * size / images.shape[-1] - size // 2
    mask = soft_disc_2d(size, radius_px=setting.particle_radius_px, edge_px=setting.edge_px)
    polar = sample_polar_2d(small * mask, grid=setting.grid, offset_px=offset)  # (n, n_rings, half)
    power = (np.abs(polar) ** 2).mean(axis=-1)  # (n, n_rings)
    return PolarParticles((polar * ctf).astype(np.complex64), (ctf * ctf).astype(np.float32), power, half_set)


def level_at(setting: Setting, ring: int) -> Level:
    """Return a search that is as coarse as rings up to ``ring`` allow: quarter-wave shifts, angles of one Fourier pixel."""
    grid = setting.grid
    needed = 2 * np.pi * ring * 2 * (setting.particle_radius_px + setting.edge_px) / grid.box_px
    stride = max([q for q in (1, 2, 3, 4) if grid.half % q == 0 and grid.n_angles // q >= needed], default=1)
    step = max(1.0, grid.box_px / ring / 4)
    return make_level(grid, n_rings=ring, stride=stride, shift_step_px=step, max_shift_px=setting.max_shift_px)


def expect(
    particles: PolarParticles, averages: Averages, *, setting: Setting, level: Level, log_class_prior: Real | None = None
) -> Poses:
    """Search the poses of particles against class averages."""
    return search_poses_2d(
        particles,
        sample_polar_2d(averages.images, grid=level.grid),
        noise_power=averages.noise_power[: level.grid.n_rings],
        level=level,
        overlap=setting.overlap,
        log_class_prior=np.zeros(setting.n_classes, dtype=np.float32) if log_class_prior is None else log_class_prior,
    )


def maximise(sums: Sums, *, setting: Setting, level: Level, noise_power: Real) -> Averages:
    """Turn sums into averages; rings beyond the level keep their noise."""
    new = estimate_averages_2d(
        sums,
        grid=level.grid,
        mask_radius_px=setting.mask_radius_px,
        edge_px=setting.edge_px,
        tau_fudge=setting.tau_fudge,
    )
    noise = np.concatenate([new.noise_power, noise_power[level.grid.n_rings :]]).astype(np.float32)
    return replace(new, noise_power=noise)


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
    averages = maximise(sums, setting=setting, level=level, noise_power=noise)
    return replace(averages, images=averages.halves.mean(axis=0), noise_power=noise)


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
    for i in range(iterations):
        if report is not None:
            report(i / iterations, f"pass {i + 1} of {iterations}")
        rise = min(1.0, i / max(1, iterations - 3))
        level = level_at(setting, round(first_ring + (last - first_ring) * rise))
        poses = expect(particles, averages, setting=setting, level=level)
        if i < balanced * iterations:
            handicap = balance_classes(poses.class_gain)
            poses = expect(particles, averages, setting=setting, level=level, log_class_prior=handicap)
        sums = sum_poses_2d(particles, poses, level=level, n_classes=setting.n_classes)
        averages = maximise(sums, setting=setting, level=level, noise_power=averages.noise_power)
        if i < iterations - 3:
            averages = reseed(averages, sums)
    return Model(averages, sums, len(particles))


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
        handicap -= np.log(np.maximum(share.mean(axis=0) * gain.shape[1], 1e-6))
    balanced: Real = (handicap * temperature).astype(np.float32)
    return balanced


def reseed(averages: Averages, sums: Sums) -> Averages:
    """Replace classes that hardly any particle chose by one half set of the most populous ones, which keep the other half."""
    weight = sums.weight.sum(axis=0).copy()  # (k,)
    fair = weight.sum() / len(weight)
    images = averages.images.copy()
    for k in np.argsort(weight, kind="stable"):
        donor = int(np.argmax(weight))
        if weight[k] > 0.2 * fair or weight[donor] < 1.5 * fair:
            continue
        images[k], images[donor] = averages.halves[0, donor], averages.halves[1, donor]
        weight[donor] /= 2
        weight[k] = weight[donor]
    return replace(averages, images=images)


def add_batch(model: Model, particles: PolarParticles, *, n_fresh: int, setting: Setting) -> Model:
    """Fold particles, ``n_fresh`` of them new and the others seen before, into a model by one online step."""
    level = level_at(setting, setting.grid.n_rings)
    poses = expect(particles, model.averages, setting=setting, level=level)
    fresh = sum_poses_2d(particles, poses, level=level, n_classes=setting.n_classes)
    n_seen = model.n_seen + n_fresh
    step = (n_fresh / n_seen) ** setting.forgetting
    sums = model.sums.decayed((1 - step) * n_seen / model.n_seen, fresh, step * n_seen / len(particles))
    return Model(maximise(sums, setting=setting, level=level, noise_power=model.averages.noise_power), sums, n_seen)


def assign(particles: PolarParticles, model: Model, *, setting: Setting) -> Assignment:
    """Return the best pose of each particle."""
    level = level_at(setting, setting.grid.n_rings)
    poses = expect(particles, model.averages, setting=setting, level=level)
    order = np.lexsort((-poses.weight, poses.particle))
    best = order[np.searchsorted(poses.particle[order], np.arange(len(particles)))]  # (n,)
    turn = poses.turn[best].astype(np.float64)
    psi = turn * (2 * np.pi / level.grid.n_angles)
    y, x = level.shifts_yx_px[poses.shift[best]].T
    moved = np.stack([x * np.sin(psi) + y * np.cos(psi), x * np.cos(psi) - y * np.sin(psi)], axis=1)  # (n, 2)
    return Assignment(
        poses.class_id[best], np.rad2deg(psi).astype(np.float32), moved.astype(np.float32), poses.weight[best], poses.gain
    )
