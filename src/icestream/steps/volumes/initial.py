"""The first volume of a particle, from nothing but its images: several starts, each judged by particles it did not see."""

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.initial_volume import (
    Evidence,
    SignalPower,
    find_initial_volume,
    match_signal,
    measure_signal,
    weigh_evidence,
)
from icestream.algorithms.volume_consensus import compare_volumes, decide, place_volumes
from icestream.flow import Context, Field, step
from icestream.records import SCHERES_2012, Acquisition, JudgedVolume, Method, Particles, Text
from icestream.steps.volumes.judged import (
    ParticleSet,
    VolumeSearchParams,
    describe_candidates,
    publish_judged,
    read_particle_set,
)

_HELD_SHARE, _MOST_HELD = 6, 400
_ENTROPY = "entropy"
READS = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")


class InitialVolumeParams(VolumeSearchParams):
    """How initial volumes are searched."""

    starts: int = Field(4, ge=1, le=50, description="Random starts; each is a search of its own")
    quick_particles: int = Field(500, ge=50, description="Particles that a start begins with; it ends with all")
    passes: int = Field(24, ge=8, le=200, description="Passes of a start over these")
    tries: int = Field(2, ge=1, le=20, description="Quick beginnings of a start, of which the best goes on")


@step.map(
    "initial_volume",
    version=1,
    reads=READS,
    memory_gb=2,
    method=Method(
        (Text("An initial volume was found from {starts} random starts at {limit_ang} Å, by alternating assignment."),),
        (SCHERES_2012,),
    ),
)
def find_volume_of_set(
    particles: list[Particles], params: InitialVolumeParams, acquisition: Acquisition, ctx: Context
) -> JudgedVolume:
    """Find an initial volume of a closed set of particles from random starts.

    A start alternates between views that choose their share of the particles and particles that choose their view, from coarse to
    fine. A sixth of the particles is held out. They say how much of their signal each start explains beyond its phase-randomised
    twins; a start that does not explain enough is not believed. The map is the best start; where no start is right its verdict
    is "none", and it is not to be used.

    Raises
    ------
    ItemError
        The set has fewer than 100 particles, their boxes differ, or an acquisition value is unset.
    """
    found = read_particle_set(particles, acquisition, params, ctx)
    held = np.zeros(len(found.polar), bool)
    held[np.random.default_rng(ctx.seed).permutation(len(held))[: min(len(held) // _HELD_SHARE, _MOST_HELD)]] = True
    power = measure_signal(found.polar)
    starts = [_start(found, held, power, number, params, ctx) for number in range(params.starts)]
    volumes, entropy, evidence = (list(part) for part in zip(*starts, strict=True))
    ctx.progress(0.92, "comparing starts")
    agreement = compare_volumes(volumes, setting=found.setting)
    best, agrees = decide(evidence, agreement)
    return publish_judged(
        found,
        volumes[best],
        placed=place_volumes(volumes, best, setting=found.setting),
        candidates=describe_candidates(evidence, agreement, best, agrees, entropy),
        agreement=agreement,
        evidence=evidence[best],
        is_map=bool(agrees.any()),
        ctx=ctx,
    )


def _start(
    found: ParticleSet, held: NDArray[np.bool_], power: SignalPower, number: int, params: InitialVolumeParams, ctx: Context
) -> tuple[NDArray[np.float32], float, Evidence]:
    """Make one start, or read it where an earlier attempt has made it; and judge it."""
    known = ctx.checkpoint_dir / f"start{number:03d}.npz"
    if known.is_file():
        with np.load(known, allow_pickle=False) as stored:
            volume, entropy = stored["volume"], float(stored[_ENTROPY])
    else:

        def report(fraction: float, message: str) -> None:
            ctx.progress(0.1 + 0.8 * (number + fraction) / params.starts, f"start {number + 1} of {params.starts}, {message}")

        made = find_initial_volume(
            found.polar.take(~held),
            setting=found.setting,
            seed=ctx.seed + number,
            quick=params.quick_particles,
            passes=params.passes,
            tries=params.tries,
            report=report,
        )
        volume, entropy = match_signal(made.volume, power, setting=found.setting), made.view_entropy
        known.parent.mkdir(parents=True, exist_ok=True)
        partial = known.with_suffix(".partial.npz")
        np.savez(partial, volume=volume, entropy=entropy)
        partial.replace(known)
    evidence = weigh_evidence(found.polar.take(held), volume, power, setting=found.setting, seed=ctx.seed)
    return volume, round(min(entropy, 1.0), 4), evidence
