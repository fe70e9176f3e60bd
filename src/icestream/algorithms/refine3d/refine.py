"""Refinement by the gold standard: two half sets that never share, from an initial volume to a map.

Each iteration finds the poses of all particles in the volume of their half set, adds them up, and lets the agreement of the half
volumes say how far the next one looks (Scheres & Chen 2012, Nat. Methods 9, 853). Everything that an iteration needs of
the one before is in `Model` and the poses, so it can stop and go on anywhere; particles come in portions of any size.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.refine3d.model import (
    START_SHARE,
    Maps,
    Model,
    Setting,
    agreed_frequency,
    make_maps,
    start_model,
    update_model,
)
from icestream.algorithms.refine3d.search import Found, Reference, find_poses, make_reference
from icestream.algorithms.refine3d.verdict import Verdict, judge_refinement
from icestream.algorithms.scoring import PolarParticles, Real, join_particles, prepare_images_2d
from icestream.algorithms.volumes import PoseList, Rotations, VolumeSums, no_sums, rotation_distance_deg, sum_particles

_EVERYWHERE = 3
"""Iterations at the beginning that look at all poses."""
_LEAST_ITERATIONS = 5
_SETTLED_RINGS = 0.3
_SETTLED_DEG = 0.25
_JUDGES = 600
"""Particles that noise is measured from at the beginning, and that judge at the end."""


@dataclass(frozen=True)
class Portion:
    """Some particles at the working size: ``rows`` where they are among all, images, contrast, half sets.

    ``images`` ``(n, box, box)``, background mean 0 and spread 1; ``polar_contrast`` ``(n, n_rings, half)`` and ``contrast``
    ``(n, box, box // 2 + 1)``, positive where bright stays bright; ``half_set`` ``(n,)`` 0 or 1.
    """

    rows: NDArray[np.int64]
    images: NDArray[np.float32]
    polar_contrast: Real
    contrast: NDArray[np.float32]
    half_set: NDArray[np.int8]


@dataclass(frozen=True)
class PoseTable:
    """The newest pose of every particle: ``rotations`` ``(n, 3, 3)``, ``shift_yx_px`` ``(n, 2)``, ``score``, ``probability``."""

    rotations: Rotations
    shift_yx_px: NDArray[np.float64]
    score: NDArray[np.float64]
    probability: NDArray[np.float64]


@dataclass(frozen=True)
class Progress:
    """A refinement after some iterations.

    ``poses`` is unset before the first. ``changes`` holds for each iteration the ring of agreement and the median turn of poses.
    """

    model: Model
    poses: PoseTable | None
    iteration: int
    changes: tuple[tuple[float, float], ...]

    @property
    def settled(self) -> bool:
        """Whether neither resolution nor poses changed over the last two iterations."""
        if self.iteration < _LEAST_ITERATIONS:
            return False
        (before, _), (middle, turned_middle), (last, turned) = self.changes[-3:]
        flat = last - before < _SETTLED_RINGS and last - middle < _SETTLED_RINGS
        return flat and min(turned, turned_middle) < _SETTLED_DEG


def begin(volume: NDArray[Any], portions: Iterable[Portion], *, setting: Setting) -> Progress:
    """Return a refinement before its first iteration: the noise is that of some portions."""
    power, squared, count = np.zeros(setting.grid.n_rings), np.zeros(setting.grid.n_rings), 0
    for portion in portions:
        particles = _prepare(portion, setting)
        power += particles.power.sum(axis=0)
        squared += particles.ctf_squared.sum(axis=0)
        count += len(particles)
    model = start_model(volume, power / max(count, 1), squared / max(count, 1), setting=setting)
    return Progress(model, None, 0, ())


def iterate(
    progress: Progress,
    portions: Iterable[Portion],
    *,
    setting: Setting,
    count: int,
    report: Callable[[int], None] | None = None,
) -> tuple[Progress, Maps]:
    """Look at all particles once, and return the refinement after it with its maps.

    Parameters
    ----------
    progress
        What is known.
    portions
        All particles, each once.
    setting
        What stays the same.
    count
        How many particles there are.
    report
        Called after each portion with the number of particles so far; it may raise to stop.
    """
    everywhere = progress.iteration < _EVERYWHERE
    if progress.iteration == 0:
        progress, portions = _rescaled(progress, portions, setting)
    references = tuple(make_reference(progress.model, half, setting=setting, everywhere=everywhere) for half in (0, 1))
    table = _empty_table(count)
    sums, unexplained, counts = [no_sums(setting.grid.box_px)] * 2, np.zeros((2, setting.grid.n_rings)), np.zeros(2)
    done = 0
    for portion in portions:
        for half in (0, 1):
            mine = np.flatnonzero(portion.half_set == half)
            if len(mine) == 0:
                continue
            some = _take(portion, mine)
            found = _find(some, references[half], progress.poses, setting)
            sums[half] = _add(some, found.poses, sums[half], setting)
            unexplained[half] += found.unexplained
            counts[half] += len(mine)
            _note(table, some.rows, found)
        done += len(portion.rows)
        if report is not None:
            report(done)
    pair = (sums[0], sums[1])
    maps = make_maps(pair, setting=setting)
    noise = _noise(unexplained, counts, progress.model.noise_power)
    model = update_model(pair, maps, noise, setting=setting)
    turned = _median_turn(progress.poses, table, setting)
    changes = (*progress.changes, (agreed_frequency(maps.correlation), turned))
    return Progress(model, table, progress.iteration + 1, changes), maps


@dataclass(frozen=True)
class Refined:
    """The end of a refinement."""

    progress: Progress
    maps: Maps
    verdict: Verdict


def refine_volume(
    volume: NDArray[Any],
    portions: Callable[[], Iterable[Portion]],
    *,
    setting: Setting,
    count: int,
    most_iterations: int = 15,
    seed: int = 0,
    kept: tuple[Progress, Maps] | None = None,
    keep: Callable[[Progress, Maps], None] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Refined:
    """Refine from an initial volume until nothing changes.

    Parameters
    ----------
    volume, setting, count
        As of `begin` and `iterate`.
    portions
        Gives all particles anew whenever it is called.
    most_iterations
        After which it ends at the latest.
    seed
        Of the verdict.
    kept
        What ``keep`` was given last, to go on from there; unset: begin with the volume.
    keep
        Called after each iteration.
    report
        Called after each portion with the iterations that are done and the number of particles of this one; it may raise to stop.
    """
    progress, maps = kept or (begin(volume, _first(portions()), setting=setting), None)
    while maps is None or (progress.iteration < most_iterations and not progress.settled):
        told = None if report is None else partial(report, progress.iteration)
        progress, maps = iterate(progress, portions(), setting=setting, count=count, report=told)
        if keep is not None:
            keep(progress, maps)
    return Refined(progress, maps, judge(progress, portions(), setting=setting, seed=seed))


def judge(progress: Progress, portions: Iterable[Portion], *, setting: Setting, seed: int) -> Verdict:
    """Judge the end of a refinement by its first particles."""
    particles = join_particles([_prepare(portion, setting) for portion in _first(portions)])
    return judge_refinement(particles.take(np.arange(min(len(particles), _JUDGES))), progress.model, setting=setting, seed=seed)


def _first(portions: Iterable[Portion]) -> list[Portion]:
    """Return the first portions, until they have enough particles to judge by."""
    some: list[Portion] = []
    for portion in portions:
        some.append(portion)
        if sum(len(part.rows) for part in some) >= _JUDGES:
            break
    return some


def _rescaled(progress: Progress, portions: Iterable[Portion], setting: Setting) -> tuple[Progress, Iterable[Portion]]:
    """Return a beginning whose volume has the contrast of the first portion, and all portions."""
    whole = iter(portions)
    first = next(whole)
    model = progress.model
    factors = []
    for half in (0, 1):
        mine = np.flatnonzero(first.half_set == half)[:300]
        if len(mine) == 0:
            continue
        reference = make_reference(model, half, setting=setting, everywhere=True)
        some = _take(first, mine)
        particles = _prepare(some, setting)
        found = find_poses(particles, reference, setting=setting)
        factors.append(_contrast_factor(particles, found, setting))
    factor = np.float32(np.clip(np.mean(factors), 0.2, 5.0))
    scaled = replace(model, references=model.references * factor)

    def again() -> Iterable[Portion]:
        yield first
        yield from whole

    return replace(progress, model=scaled), again()


def _contrast_factor(particles: PolarParticles, found: Found, setting: Setting) -> float:
    """Return what views, which have `START_SHARE` of the power, should be multiplied by to explain most of it."""
    rings = slice(0, setting.start_ring)
    total = particles.power.sum(axis=0)
    areas = setting.grid.radii()[rings]
    share = float(((total - found.unexplained)[rings] * areas).sum() / max((total[rings] * areas).sum(), 1e-30))
    return (share + START_SHARE) / (2 * START_SHARE)


def _find(some: Portion, reference: Reference, poses: PoseTable | None, setting: Setting) -> Found:
    particles = _prepare(some, setting)
    if poses is None:
        return find_poses(particles, reference, setting=setting)
    return find_poses(
        particles,
        reference,
        setting=setting,
        rotations=poses.rotations[some.rows],
        shift_yx_px=poses.shift_yx_px[some.rows],
    )


def _add(some: Portion, poses: PoseList, onto: VolumeSums, setting: Setting) -> VolumeSums:
    return sum_particles(some.images, some.contrast, poses, group=setting.group, onto=onto)


def _prepare(portion: Portion, setting: Setting) -> PolarParticles:
    return prepare_images_2d(
        portion.images,
        portion.polar_contrast,
        grid=setting.grid,
        mask_radius_px=setting.particle_radius_px,
        edge_px=setting.edge_px,
        half_set=portion.half_set,
    )


def _take(portion: Portion, mine: NDArray[np.int64]) -> Portion:
    return Portion(
        portion.rows[mine],
        portion.images[mine],
        portion.polar_contrast[mine],
        portion.contrast[mine],
        portion.half_set[mine],
    )


def _empty_table(count: int) -> PoseTable:
    return PoseTable(np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 2)), np.zeros(count), np.zeros(count))


def _note(table: PoseTable, rows: NDArray[np.int64], found: Found) -> None:
    """Write what was found into a table that this iteration has just made."""
    table.rotations[rows], table.shift_yx_px[rows] = found.rotations, found.shift_yx_px
    table.score[rows], table.probability[rows] = found.score, found.probability


def _noise(unexplained: NDArray[np.float64], counts: NDArray[np.float64], before: Real) -> Real:
    """Return the noise of each half: what its views leave, on average, of each ring."""
    noise = unexplained / np.maximum(counts, 1)[:, None]
    kept: Real = np.maximum(noise, 0.05 * before).astype(np.float32)
    return kept


def _median_turn(before: PoseTable | None, after: PoseTable, setting: Setting) -> float:
    if before is None:
        return 180.0
    return float(np.median(rotation_distance_deg(before.rotations, after.rotations, group=setting.group)))
