"""An initial volume by alternating assignment: from random poses, coarse to fine, first few images and then all.

Views choose images and images choose views in turn (`assignment`) while the resolution rises (Barnett, Greengard, Pataki & Spivak
2017, SIAM J. Imaging Sci. 10, 1170, call that frequency marching). The last passes weigh all likely poses of an image, as
expectation maximisation does (Scheres 2012, J. Mol. Biol. 415, 406).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classify2d import sum_poses_2d
from icestream.algorithms.initial_volume.assignment import (
    images_choose_views,
    poses_in_views,
    view_entropy,
    views_choose_images,
)
from icestream.algorithms.initial_volume.setting import VolumeSetting, level_at
from icestream.algorithms.initial_volume.views import fine_order, search_views, view_references, volume_from_views
from icestream.algorithms.scoring import Level, PolarParticles, Poses, make_bank, search_poses_2d
from icestream.algorithms.volumes import Rotations, orient_to_symmetry_3d, symmetrise_volume_3d

COARSE_VIEWS = 2
"""Order of the grid of views of the quick part, 15° apart."""
_STILL = 8
"""Passes at the first resolution."""
_SOFT = 3
"""Passes at the end of the quick part that weigh all likely poses."""
_AMONG = 0.03
_FINAL_SHIFT_ANG = 8.0

Report = Callable[[float, str], None]


@dataclass(frozen=True)
class InitialVolume:
    """A volume ``(n, n, n)`` of the working box, how far its halves agree ``(n // 2,)``, and how evenly its views are populated.

    ``mean_gain`` is the log likelihood ratio of an image of those that it was made of, against noise alone.
    """

    volume: NDArray[np.float32]
    correlation: NDArray[np.float64]
    view_entropy: float
    mean_gain: float


def find_initial_volume(
    particles: PolarParticles,
    *,
    setting: VolumeSetting,
    seed: int,
    quick: int = 500,
    passes: int = 24,
    tries: int = 2,
    report: Report | None = None,
) -> InitialVolume:
    """Find a volume from random poses: quickly with some of the images, then with all.

    A symmetry is not imposed before the quick part has found a volume without it: under a large group a random start is a
    featureless ball that few ways lead out of. The volume is then turned to the axes of the group.

    Parameters
    ----------
    particles
        At least 50, better some hundreds, on the grid of ``setting``.
    setting
        Box, resolution, symmetry.
    seed
        Of the start: which images, which poses, which order.
    quick
        Images that a start is made with.
    passes
        Over these.
    tries
        Quick starts, of which the one that fits its images best goes on.
    report
        Called before each pass with the fraction done and a message.

    Raises
    ------
    ValueError
        There are fewer than 50 images, too few passes or no tries.
    """
    if len(particles) < 50 or passes < _STILL or tries < 1:
        raise ValueError(
            f"an initial volume needs at least 50 images, {_STILL} passes and a try; "
            f"got {len(particles)} images, {passes} passes and {tries} tries"
        )
    free = replace(setting, symmetry="C1")
    begun: list[InitialVolume] = []
    for number in range(tries):
        generator = np.random.default_rng([seed, number])
        some = particles.take(np.sort(generator.permutation(len(particles))[:quick]))
        start = random_volume(some, setting=free, generator=generator)
        told = None if report is None else partial(_told, report, number, tries)
        begun.append(march(some, start, setting=free, generator=generator, passes=passes, report=told))
    volume = max(begun, key=lambda one: one.mean_gain).volume
    if report is not None:
        report(0.7, "all particles")
    if len(setting.group) > 1:
        oriented, _ = orient_to_symmetry_3d(volume, setting.group, max_ring=setting.middle_ring)
        volume = symmetrise_volume_3d(oriented, setting.group)
    return refine_initial(particles, volume, setting=setting)


def _told(report: Report, number: int, tries: int, fraction: float, message: str) -> None:
    report(0.7 * (number + fraction) / tries, f"try {number + 1} of {tries}, {message}")


def random_volume(particles: PolarParticles, *, setting: VolumeSetting, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return the volume of images in random poses: a blob of the size of the particle."""
    level = level_at(setting, setting.start_ring)
    views = search_views(setting, COARSE_VIEWS)
    n, k = len(particles), len(views)
    centre = int(np.flatnonzero((level.shifts_yx_px == 0).all(axis=1))[0])
    poses = Poses(
        np.arange(n, dtype=np.int32),
        generator.integers(0, k, n).astype(np.int32),
        generator.integers(0, level.grid.n_angles, n).astype(np.int32),
        np.full(n, centre, np.int32),
        np.ones(n, np.float32),
        np.zeros(n, np.float32),
        np.zeros((n, k), np.float32),
    )
    sums = sum_poses_2d(particles, poses, level=level, n_classes=k, n_rings=setting.start_ring)
    return volume_from_views(sums, views, setting=setting)[0]


def march(
    particles: PolarParticles,
    volume: NDArray[np.float32],
    *,
    setting: VolumeSetting,
    generator: np.random.Generator,
    passes: int,
    report: Report | None = None,
) -> InitialVolume:
    """Alternate the two rules of assignment while the resolution rises to the middle ring, and end with soft passes."""
    rise = max(passes - _STILL - 2, 1)
    found: InitialVolume | None = None
    for i in range(passes):
        if report is not None:
            report(i / passes, f"pass {i + 1} of {passes}")
        up = min(1.0, max(0.0, (i - _STILL) / rise))
        ring = round(setting.start_ring + (setting.middle_ring - setting.start_ring) * up)
        views = search_views(setting, COARSE_VIEWS, generator=generator)
        rule = None if i >= passes - _SOFT else i % 2 == 0
        level = level_at(setting, ring)
        found = improve(particles, volume, views, setting=setting, level=level, views_choose=rule, generator=generator)
        volume = found.volume
    if found is None:
        raise ValueError(f"at least one pass is needed; got {passes}")
    return found


def refine_initial(
    particles: PolarParticles, volume: NDArray[np.float32], *, setting: VolumeSetting, passes: int = 3
) -> InitialVolume:
    """Improve a volume with all images by soft passes at fine views, the last ones to the last ring.

    Raises
    ------
    ValueError
        There is no pass to be made.
    """
    found: InitialVolume | None = None
    reach = min(setting.max_shift_px, _FINAL_SHIFT_ANG / setting.pixel_size_ang)
    for i in range(passes):
        ring = setting.middle_ring if i == 0 else setting.grid.n_rings
        views = search_views(setting, COARSE_VIEWS if i == 0 else fine_order(setting))
        found = improve(particles, volume, views, setting=setting, level=level_at(setting, ring, max_shift_px=reach))
        volume = found.volume
    if found is None:
        raise ValueError(f"at least one pass is needed; got {passes}")
    return found


def improve(
    particles: PolarParticles,
    volume: NDArray[np.float32],
    views: Rotations,
    *,
    setting: VolumeSetting,
    level: Level,
    views_choose: bool | None = None,
    generator: np.random.Generator | None = None,
) -> InitialVolume:
    """Make one pass: poses of all images in a volume, and the volume that they give.

    ``views_choose`` True lets views choose images, False images choose views, both by ``generator``; unset, each image counts in
    all its likely poses.
    """
    bank = make_bank(
        view_references(volume, views, setting=setting),
        grid=setting.grid,
        level=level,
        noise_power=particles.power.mean(axis=0).astype(np.float32),
        overlap=setting.overlap,
    )
    if views_choose is None or generator is None:
        poses = search_poses_2d(particles, bank)
    else:
        gain = search_poses_2d(particles, bank, most=1).class_gain
        chosen = (
            views_choose_images(gain, generator=generator)
            if views_choose
            else images_choose_views(gain, among=_AMONG, generator=generator)
        )
        poses = poses_in_views(particles, bank, chosen)
    sums = sum_poses_2d(particles, poses, level=level, n_classes=len(views), n_rings=level.grid.n_rings)
    new, correlation = volume_from_views(sums, views, setting=setting)
    return InitialVolume(new, correlation, view_entropy(poses, len(views)), float(poses.gain.mean()))
