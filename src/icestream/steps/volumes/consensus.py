"""The consensus of initial volumes: which candidates held-out particles believe, and the one volume that these make."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.volume_consensus import SwarmSetting, find_consensus
from icestream.algorithms.volumes import soft_sphere_3d
from icestream.flow import Context, Degree, Field, ItemError, step
from icestream.records import Acquisition, JudgedVolume, Method, Particles, Text, Volume
from icestream.steps.volumes.gathered import read_map
from icestream.steps.volumes.judged import (
    READS,
    ParticleSet,
    VolumeSearchParams,
    describe_candidates,
    publish_judged,
    read_particle_set,
)


class VolumeConsensusParams(VolumeSearchParams):
    """How candidates are judged and merged."""

    rounds: int = Field(15, ge=0, le=100, description="Most rounds of the swarm; it ends earlier when nothing gets better")
    min_angle_deg: Degree = Field(10.0, ge=3, le=30, description="Angle between views in the swarm")
    train_particles: int = Field(500, ge=50, description="Particles that improve a volume in a round, a random part of all")
    test_particles: int = Field(100, ge=20, description="Particles that judge volumes in the swarm, the same in all rounds")


@step.map(
    "consensus_volumes",
    version=1,
    reads=READS,
    memory_gb=2,
    method=Method((Text("Initial volumes were judged by particles that were held out, aligned, and merged by a swarm."),)),
)
def agree_on_volumes(
    particles: list[Particles], volumes: list[Volume], params: VolumeConsensusParams, acquisition: Acquisition, ctx: Context
) -> JudgedVolume:
    """Judge candidate volumes by the same held-out particles, align those that are right, and merge them.

    Candidates may be of `initial_volume` or imported, of either hand, in any frame, and of any box and pixel. Each must explain
    more of the particles than its phase-randomised twins do. Those that do, and that are like the best of them, are improved and
    merged by a swarm; where none does the verdict is "none", and the map is the best candidate as it was. What they are merged to
    is judged by the same particles: if it explains too little, its verdict is "none" too. A candidate whose own verdict is
    "none" is judged and compared, but not merged; if that is so of all, there is no consensus.

    Raises
    ------
    ItemError
        There is no candidate, a set has fewer than 100 particles, their boxes differ, or an acquisition value is unset.
    """
    if not volumes:
        raise ItemError("a consensus needs at least one candidate volume")
    eligible = np.array([one.verdict == "map" for one in volumes])
    found = read_particle_set(particles, acquisition, params, ctx)
    raw_ang = acquisition.need("pixel_size_ang")
    candidates = [read_candidate(one, raw_ang, found, ctx) for one in volumes]
    swarm = SwarmSetting(params.rounds, params.min_angle_deg, params.train_particles, params.test_particles)
    made = find_consensus(
        candidates,
        found.polar,
        setting=found.setting,
        swarm=swarm,
        seed=ctx.seed,
        eligible=eligible,
        report=lambda fraction, message: ctx.progress(0.1 + 0.85 * fraction, message),
    )
    merged, refused = made.own_evidence is not None, volumes[made.best].reason
    return publish_judged(
        found,
        made.placed[made.best] if made.volume is None else made.volume,
        placed=made.placed,
        candidates=describe_candidates(made.evidence, made.agreement, made.best, made.agrees, [None] * len(volumes)),
        agreement=made.agreement,
        evidence=made.evidence[made.best] if made.own_evidence is None else made.own_evidence,
        is_map=made.own_evidence is not None and made.own_evidence.is_right,
        what="the merged volume" if merged else "the best candidate",
        reason=None if eligible.any() else f"no candidate is a map; of the best of them it was said: {refused or 'none'}",
        ctx=ctx,
    )


def read_candidate(volume: Volume, raw_pixel_ang: float, found: ParticleSet, ctx: Context) -> NDArray[np.float32]:
    """Return a map in the working box: ``(n, n, n)``, masked."""
    setting = found.setting
    size, pixel_ang = setting.grid.box_px, setting.pixel_size_ang
    whole = read_map(volume, ctx, size=size, pixel_size_ang=pixel_ang, raw_pixel_ang=raw_pixel_ang)
    return (whole * soft_sphere_3d(size, radius_px=setting.radius_px, edge_px=setting.edge_px)).astype(np.float32)
