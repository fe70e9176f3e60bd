"""Passes over particles: which class average each one shows, and what all of them add up to."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.classes.blending import add_sums, keep_supported
from icestream.algorithms.classes.outliers import measure_match
from icestream.algorithms.classify2d import (
    Assignment,
    Averages,
    Model,
    Setting,
    Sums,
    assign,
    commit,
    estimate,
    expect,
    level_of,
    render,
    smooth_curves,
    sum_poses_2d,
)
from icestream.algorithms.fourier import frequency_radius_2d
from icestream.algorithms.scoring import PolarParticles
from icestream.flow import Context, ItemError
from icestream.steps.classify2d.segments import Prepared, Segment, note_assignment, pieces, read_table, sample_polar


@dataclass(frozen=True)
class Scale:
    """How the working images relate to the particle stacks: side of the box in Å, stack pixels in a working pixel."""

    setting: Setting
    box_ang: float
    stack_px: float

    def polar(self, prepared: Prepared) -> PolarParticles:
        """Make particles ready for comparison."""
        return sample_polar(prepared, setting=self.setting, box_ang=self.box_ang)


def look(particles: PolarParticles, averages: Averages, *, setting: Setting) -> tuple[Sums, Assignment]:
    """Compare particles with averages once; return what they add up to, and the best pose of each."""
    level = level_of(averages, setting)
    poses = expect(particles, averages, setting=setting, level=level)
    sums = sum_poses_2d(particles, poses, level=level, n_classes=setting.n_classes, n_rings=setting.grid.n_rings)
    return sums, commit(particles, poses, averages, setting=setting, level=level)


def match_of(
    particles: PolarParticles, found: Assignment, averages: Averages, *, setting: Setting
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how much of its class each particle has, and what it has beside it, at low resolution: ``(n,)`` each."""
    n_rings = min(setting.grid.n_rings, 2 * setting.start_ring)
    return measure_match(particles, averages.images, found, noise_power=averages.noise_power, grid=setting.grid, n_rings=n_rings)


def restore(sums: Sums, old: Averages, *, setting: Setting) -> Averages:
    """Turn sums into averages; classes that nobody supports keep their old ones."""
    new = render(estimate(sums, setting=setting, noise_power=old.noise_power), setting=setting)
    return keep_supported(old, new, sums.weight.sum(axis=0))


def look_at_segments(
    segments: list[Segment],
    averages: Averages,
    *,
    scale: Scale,
    version: int,
    ctx: Context,
    report: Callable[[float, str], None] | None = None,
) -> tuple[Sums, list[NDArray[np.void]]]:
    """Pass over all particles of some segments, in pieces; return their sums, and their tables with the new assignments."""
    total: Sums | None = None
    tables = []
    done, count = 0, max(1, sum(segment.count for segment in segments))
    for segment in segments:
        table = read_table(segment, ctx)
        for rows, piece in pieces(segment, table, ctx):
            polar = scale.polar(piece)
            sums, found = look(polar, averages, setting=scale.setting)
            total = sums if total is None else add_sums(total, sums)
            note_assignment(table[rows], found, scale=scale.stack_px, version=version)
            table["amplitude"][rows], table["residual"][rows] = match_of(polar, found, averages, setting=scale.setting)
            done += len(piece)
            if report is not None:
                report(done / count, f"{done} of {count} particles")
        tables.append(table)
    if total is None:
        raise ItemError("a pass over particles needs at least one")
    return total, tables


def half_averages(averages: Averages) -> tuple[Averages, Averages]:
    """Return averages of each half set alone, filtered to what the halves agree on.

    Particles of one half that are compared with the averages of the other judge a classification they had no part in.
    """
    box = averages.images.shape[-1]
    curves = smooth_curves(averages.correlation)  # (k, n_rings); the Wiener filter of a half set is its FRC
    by_ring = np.zeros((len(curves), box))
    by_ring[:, 1 : curves.shape[1] + 1] = curves[:, : box - 1]
    ring = np.minimum(np.rint(frequency_radius_2d(box, box) * box).astype(np.int64), box - 1)
    weights = by_ring[:, ring]  # (k, box, box // 2 + 1)
    weights[:, 0, 0] = 1.0

    def alone(half: int) -> Averages:
        images = fft.irfft2(fft.rfft2(averages.halves[half]) * weights, s=(box, box)).astype(np.float32)
        return replace(averages, images=images)

    return alone(0), alone(1)


def judge(model: Model, particles: PolarParticles, noise_power: NDArray[np.float32], *, setting: Setting) -> float:
    """Return the cross-validated log likelihood ratio of a particle, mean: each half set against the averages of the other."""
    total = 0.0
    for half, averages in enumerate(half_averages(replace(model.averages, noise_power=noise_power))):
        rows = np.flatnonzero(particles.half_set != half)
        if rows.size:
            total += float(assign(particles.take(rows), replace(model, averages=averages), setting=setting).score.sum())
    return total / max(len(particles), 1)


def independent_correlation(model: Model, particles: PolarParticles, *, setting: Setting, passes: int = 2) -> NDArray[np.float64]:
    """Return the FRC ``(k, n_rings)`` of half sets that were aligned to averages of their own, as all particles would give it.

    What two halves share because both were aligned to one average is lost while each follows its own. The signal-to-noise ratio
    of a subset grows with the number of particles.
    """
    parts: list[Sums] = []
    for half, start in enumerate(half_averages(model.averages)):
        mine = particles.take(np.flatnonzero(particles.half_set == half))
        if not len(mine):
            return model.averages.correlation
        averages, sums = start, None
        for _ in range(passes):
            sums, _found = look(mine, averages, setting=setting)
            doubled = add_sums(sums, replace(sums, signal=sums.signal[::-1], ctf_squared=sums.ctf_squared[::-1]))
            averages = replace(averages, images=_filtered(restore(doubled, averages, setting=setting), model.averages))
        parts.append(sums if sums is not None else model.sums)
    whole = restore(add_sums(*parts), model.averages, setting=setting)
    curve = np.clip(whole.correlation, 0.0, 0.999)
    more = model.n_seen / max(len(particles), 1)
    ratio = more * curve / (1 - curve)
    return ratio / (1 + ratio)


def _filtered(half: Averages, whole: Averages) -> NDArray[np.float32]:
    """Return the images of one half set, filtered by the agreement of both."""
    return half_averages(replace(half, correlation=whole.correlation))[0].images
