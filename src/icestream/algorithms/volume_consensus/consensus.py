"""The consensus of candidate volumes: judged on the same held-out particles, compared, and those that are right made into one.

No candidate is right because others look like it: failed searches can fail alike. It must explain particles that it was not made
from better than its phase-randomised twins do; if none does, there is no consensus.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.initial_volume import (
    Evidence,
    VolumeSetting,
    match_signal,
    measure_signal,
    refine_initial,
    weigh_evidence,
)
from icestream.algorithms.scoring import PolarParticles
from icestream.algorithms.volume_consensus.agreement import Agreement, align_to, compare_volumes
from icestream.algorithms.volume_consensus.swarm import SwarmSetting, move_swarm
from icestream.algorithms.volumes import apply_alignment_3d, orient_to_symmetry_3d, symmetrise_volume_3d

Volume = NDArray[np.float32]
Report = Callable[[float, str], None]


@dataclass(frozen=True)
class VolumeConsensus:
    """What candidates come to.

    ``volume`` is the consensus, None where no candidate is right; ``placed`` are the candidates in its frame, or in that of the
    best one; ``evidence`` what held-out particles say of each, ``own_evidence`` what they say of the consensus. ``best`` is the
    candidate that fits best, and ``agrees`` ``(n,)`` tells which candidates the consensus is made of.
    """

    volume: Volume | None
    placed: tuple[Volume, ...]
    agreement: Agreement
    evidence: tuple[Evidence, ...]
    own_evidence: Evidence | None
    best: int
    agrees: NDArray[np.bool_]


def find_consensus(
    candidates: Sequence[Volume],
    particles: PolarParticles,
    *,
    setting: VolumeSetting,
    swarm: SwarmSetting,
    seed: int,
    held_share: float = 0.25,
    most_held: int = 500,
    eligible: NDArray[np.bool_] | None = None,
    report: Report | None = None,
) -> VolumeConsensus:
    """Judge, compare and merge candidate volumes.

    Parameters
    ----------
    candidates
        One or more volumes of the working box, bright and masked, in any frame and of either hand.
    particles
        That judge and improve them. Each candidate is judged by the same ones, drawn by ``seed``: ``held_share`` of all, at most
        ``most_held``. The swarm is scored on some of the others, and the rest improves the consensus.
    setting, swarm, seed
        Box and symmetry; how the swarm moves; of all that is random.
    eligible
        ``(n,)``, which candidates a consensus may be made of; all if unset. The others are judged and compared.

    Raises
    ------
    ValueError
        There is no candidate.
    """
    if not candidates:
        raise ValueError("a consensus needs at least one candidate volume")
    power = measure_signal(particles)
    held_rows = np.random.default_rng(seed).permutation(len(particles))
    count = min(max(1, int(held_share * len(particles))), most_held)
    held = particles.take(np.sort(held_rows[:count]))
    tested = count + min(swarm.n_test, (len(particles) - count) // 4)
    test, train = particles.take(np.sort(held_rows[count:tested])), particles.take(np.sort(held_rows[tested:]))
    matched = [match_signal(one, power, setting=setting) for one in _oriented(candidates, setting)]
    evidence = []
    for number, one in enumerate(matched):
        if report is not None:
            report(0.3 * number / len(matched), f"judging candidate {number + 1} of {len(matched)}")
        evidence.append(weigh_evidence(held, one, power, setting=setting, seed=seed))
    agreement = compare_volumes(matched, setting=setting, report=_part(report, 0.3, 0.5))
    best, agrees = decide(evidence, agreement, eligible)
    placed = place_volumes(matched, best, setting=setting)
    if not agrees.any():
        return VolumeConsensus(None, placed, agreement, tuple(evidence), None, best, agrees)
    starts = [placed[i] for i in np.flatnonzero(agrees)]
    moved = move_swarm(starts, train, test, power, setting=setting, swarm=swarm, seed=seed, report=_part(report, 0.5, 0.95))
    volume = refine_initial(train, moved.volume, setting=setting, passes=2).volume
    own = weigh_evidence(held, volume, power, setting=setting, seed=seed)
    return VolumeConsensus(volume, placed, agreement, tuple(evidence), own, best, agrees)


def decide(
    evidence: Sequence[Evidence], agreement: Agreement, eligible: NDArray[np.bool_] | None = None
) -> tuple[int, NDArray[np.bool_]]:
    """Return the best candidate and which ones the consensus is made of: those that are right and like the best one; maybe none.

    The best candidate is the right one, or if there is none any one, that explains most. Those that are not ``eligible`` do not
    count as right.
    """
    right = np.array([one.is_right for one in evidence])
    right &= True if eligible is None else eligible
    explained = np.array([one.explained for one in evidence])
    best = int(np.where(right, explained, explained - 10.0).argmax())
    return best, right & (agreement.group == agreement.group[best])


def _oriented(candidates: Sequence[Volume], setting: VolumeSetting) -> list[Volume]:
    """Bring candidates to the axes of a symmetry, if there is one."""
    group = setting.group
    if len(group) == 1:
        return list(candidates)
    ring = setting.middle_ring
    return [symmetrise_volume_3d(orient_to_symmetry_3d(one, group, max_ring=ring)[0], group) for one in candidates]


def place_volumes(volumes: Sequence[Volume], best: int, *, setting: VolumeSetting) -> tuple[Volume, ...]:
    """Return all volumes in the frame and hand of the best one."""
    return tuple(
        volume if number == best else apply_alignment_3d(volume, align_to(volume, volumes[best], setting=setting))
        for number, volume in enumerate(volumes)
    )


def _part(report: Report | None, first: float, last: float) -> Report | None:
    """Return a report of a part of the work."""
    if report is None:
        return None

    def told(fraction: float, message: str) -> None:
        report(first + (last - first) * fraction, message)

    return told
