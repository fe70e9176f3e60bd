"""A swarm of aligned volumes that improve on particles and learn from each other.

Each volume is improved on a random part of the particles and scored on one validation set, the same for all. It then moves with
some of its last movement, towards the best it has been and towards the best of all (Kennedy & Eberhart 1995, Proc. ICNN 4, 1942;
for volumes Sorzano et al. 2018, J. Struct. Biol. 204, 329).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.initial_volume import (
    SignalPower,
    VolumeSetting,
    improve,
    level_at,
    match_signal,
    search_views,
    view_references,
)
from icestream.algorithms.scoring import PolarParticles, make_bank, search_poses_2d
from icestream.algorithms.volumes import order_for_spacing

Volume = NDArray[np.float32]
_INERTIA, _OWN, _COMMON = 0.7, 0.7, 0.7
"""How much of the last movement is kept, and how far a volume is drawn to its own best and to the best of all, at most."""
_PATIENCE = 4


@dataclass(frozen=True)
class SwarmSetting:
    """How a swarm moves: the most rounds, the angle between views, particles that improve a volume and that judge it."""

    rounds: int = 15
    min_angle_deg: float = 10.0
    n_train: int = 500
    n_test: int = 100


@dataclass(frozen=True)
class Swarm:
    """Where a swarm came to: the ``volume``, its score after each round, and the best of each member."""

    volume: Volume
    scores: tuple[float, ...]
    bests: tuple[Volume, ...]


def move_swarm(
    starts: Sequence[Volume],
    train: PolarParticles,
    test: PolarParticles,
    power: SignalPower,
    *,
    setting: VolumeSetting,
    swarm: SwarmSetting,
    seed: int,
    report: Callable[[float, str], None] | None = None,
) -> Swarm:
    """Improve and merge volumes that are aligned to each other.

    Parameters
    ----------
    starts
        Volumes of the working box, aligned.
    train, test
        Particles that improve the volumes, and others that judge them.
    power
        Of signal and noise.
    setting, swarm, seed
        Box and symmetry; how the swarm moves; of the random parts.

    Returns
    -------
    swarm
        Its volume is the mean of the best of each member and of the best of all, or the best of all where that is better.
    """
    generator = np.random.default_rng(seed)
    order = order_for_spacing(swarm.min_angle_deg)
    judges = test.take(np.sort(generator.permutation(len(test))[: swarm.n_test]))
    at = [match_signal(one, power, setting=setting) for one in starts]
    moving = [np.zeros_like(one) for one in at]
    best = list(at)
    value = [score_volume(judges, one, power, order, setting=setting) for one in at]
    scores = [max(value)]
    for number in range(swarm.rounds):
        if report is not None:
            report(number / swarm.rounds, f"round {number + 1} of {swarm.rounds}")
        top = best[int(np.argmax(value))]
        for i in range(len(at)):
            some = train.take(np.sort(generator.permutation(len(train))[: swarm.n_train]))
            views = search_views(setting, order)
            level = level_at(setting, setting.grid.n_rings)
            own = match_signal(improve(some, at[i], views, setting=setting, level=level).volume, power, setting=setting)
            score = score_volume(judges, own, power, order, setting=setting)
            if score > value[i]:
                best[i], value[i] = own, score
            to_own, to_top = _OWN * generator.uniform(), _COMMON * generator.uniform()
            moving[i] = np.clip(_INERTIA * moving[i] + to_own * (best[i] - own) + to_top * (top - own), -own.max(), own.max())
            at[i] = (own + moving[i]).astype(np.float32)
        scores.append(max(value))
        if len(scores) > _PATIENCE and scores[-1] <= scores[-1 - _PATIENCE]:
            break
    top = best[int(np.argmax(value))]
    merged = match_signal((np.mean(best, axis=0) + top) / 2, power, setting=setting)
    if score_volume(judges, merged, power, order, setting=setting) < max(value):
        merged = top
    return Swarm(merged, tuple(scores), tuple(best))


def score_volume(particles: PolarParticles, volume: Volume, power: SignalPower, order: int, *, setting: VolumeSetting) -> float:
    """Return the log likelihood ratio of a particle in a volume against noise alone, mean."""
    bank = make_bank(
        view_references(volume, search_views(setting, order), setting=setting),
        grid=setting.grid,
        level=level_at(setting, setting.grid.n_rings),
        noise_power=power.noise,
        overlap=setting.overlap,
    )
    return float(search_poses_2d(particles, bank, most=1).gain.mean())
