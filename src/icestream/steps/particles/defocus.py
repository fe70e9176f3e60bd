"""Samples that are balanced over the defocus: learned what the session has, then a share of each range is kept."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from icestream.flow import (
    Accumulator,
    Context,
    Exposure,
    Field,
    ItemError,
    Params,
    Progress,
    Update,
    Verdict,
    keep,
    reject,
    step,
    wait,
)
from icestream.io.particles import particles_table, remove_particles
from icestream.records import CtfFit, DefocusDistribution, Micrograph, Particles, Record
from icestream.steps.streams.membership import draw_lot

_NAMES = ("defocus_u_ang", "defocus_v_ang")


class DefocusDistributionParams(Params):
    """How the distribution is counted, and when there is enough of it."""

    bin_um: float = Field(0.1, gt=0, le=5, description="Width of a range of defocus")
    first_count: int = Field(
        2000, ge=1, description="Particles (without particles: exposures) before the first distribution; samples wait for it"
    )


class DefocusState(Record):
    """What has been counted: each range by its number."""

    counts: dict[int, int] = Field(default_factory=dict)


@step.accumulate("defocus_distribution", version=1, memory_gb=0.1)
class DefocusDistributions(Accumulator[DefocusState, DefocusDistribution]):
    """Count how often each defocus occurs, of particles or, without particles, of exposures.

    A distribution is published after the first ones, whenever their number has doubled, and at the end.
    """

    portion = 200

    def when(self, progress: Progress, params: DefocusDistributionParams) -> Verdict:
        """Wait for the first, and then for as many as there have been."""
        target = max(progress.passed_weight, params.first_count)
        if progress.stream_closed or progress.waiting_weight >= target:
            return keep()
        return wait(f"{progress.waiting_weight} of {target}")

    def start(self, params: DefocusDistributionParams, ctx: Context) -> DefocusState:
        """Return the state before the first exposure."""
        return DefocusState()

    def add(
        self,
        state: DefocusState,
        exposures: Sequence[Exposure],
        particles: Sequence[Particles | None],
        ctf: Sequence[CtfFit],
        params: DefocusDistributionParams,
        ctx: Context,
    ) -> Update[DefocusState]:
        """Count the particles of exposures, or the exposures."""
        counts = dict(state.counts)
        for fit, some in zip(ctf, particles, strict=True):
            defocus_ang = defocus_of(fit) if some is None else defocus_of_particles(some)
            numbers, found = np.unique(range_numbers(defocus_ang, params.bin_um), return_counts=True)
            for number, count in zip(numbers.tolist(), found.tolist(), strict=True):
                counts[number] = counts.get(number, 0) + count
        return Update(state.model_copy(update={"counts": counts}))

    def emit(self, state: DefocusState, params: DefocusDistributionParams, ctx: Context) -> DefocusDistribution:
        """Return the counts from the lowest range that occurs to the highest."""
        numbers = sorted(state.counts)
        first, last = (numbers[0], numbers[-1]) if numbers else (0, -1)
        return DefocusDistribution(
            first_range=first,
            bin_um=params.bin_um,
            counts=[state.counts.get(number, 0) for number in range(first, last + 1)],
        )


class DefocusSampleParams(Params):
    """How large the sample is."""

    fraction: float = Field(
        gt=0, le=1, description="Share that is kept of what was counted: of common defocus less, of rare defocus up to all"
    )
    seed: int = Field(0, description="Another seed chooses others")


@step.filter("sample_defocus", version=1)
def sample_by_defocus(
    ctf: CtfFit,
    distribution: DefocusDistribution,
    params: DefocusSampleParams,
    ctx: Context,
    *,
    micrograph: Micrograph | None = None,  # noqa: ARG001 - it is passed on
) -> Verdict:
    """Keep a share of the exposures in which every defocus is equally frequent, as far as there are enough of it.

    An exposure is drawn by its content, so it is kept or not in every run alike; a larger share with the same seed and
    distribution contains the smaller one.
    """
    (share,) = kept_shares(distribution, defocus_of(ctf), params.fraction)
    lot = draw_lot("defocus", params.seed, ctx.exposure.id)
    return keep() if lot < share else reject(f"not among the {share:.0%} that are kept of this defocus")


@step.map("balance_defocus", version=1, memory_gb=0.2)
def balance_defocus(
    particles: Particles, distribution: DefocusDistribution, params: DefocusSampleParams, ctx: Context
) -> Particles:
    """Keep a share of the particles in which every defocus is equally frequent, as far as there are enough of it.

    Each particle is drawn by its exposure and its ``pid`` and judged by its own defocus, so it is kept or not in every run alike.
    The others are kept beside them as removed; no image is copied.

    Raises
    ------
    ItemError
        The particles have no CTF.
    """
    table = particles_table(particles)
    shares = kept_shares(distribution, defocus_of_particles(particles), params.fraction)
    lots = np.array([draw_lot("defocus", params.seed, f"{ctx.exposure.id}:{pid}") for pid in table["pid"].tolist()])
    return remove_particles(particles, {"defocus is frequent": lots >= shares})


def kept_shares(distribution: DefocusDistribution, defocus_ang: NDArray[np.float64], fraction: float) -> NDArray[np.float64]:
    """Return which share of its range is kept for each defocus ``(n,)``: all of ranges that hold no more than the common level.

    The level is where all ranges, cut to it, hold the wanted fraction of everything. A defocus that was not seen yet is kept.
    """
    counts = np.array(distribution.counts, dtype=np.float64)
    level = water_level(counts, fraction)
    numbers = range_numbers(defocus_ang, distribution.bin_um) - distribution.first_range
    known = (numbers >= 0) & (numbers < len(counts))
    held = np.zeros(len(numbers))
    held[known] = counts[numbers[known]]
    shares: NDArray[np.float64] = np.minimum(1.0, level / np.maximum(held, 1.0))
    return np.where(held > 0, shares, 1.0)


def water_level(counts: NDArray[np.float64], fraction: float) -> float:
    """Return the number to which ``counts`` must be cut so that ``fraction`` of their sum is left; infinite for all of it."""
    if fraction >= 1 or not counts.sum():
        return math.inf
    rising = np.sort(counts)
    wanted, below = fraction * rising.sum(), 0.0
    for index, count in enumerate(rising):
        rest = len(rising) - index
        if below + count * rest >= wanted:
            return float((wanted - below) / rest)
        below += count
    return math.inf


def range_numbers(defocus_ang: NDArray[np.float64], bin_um: float) -> NDArray[np.int64]:
    """Return the numbers of the ranges, from 0 at no defocus, in which defocus values ``(n,)`` are."""
    return np.floor(defocus_ang * 1e-4 / bin_um).astype(np.int64)


def defocus_of(ctf: CtfFit) -> NDArray[np.float64]:
    """Return the mean defocus of a micrograph: ``(1,)``."""
    return np.array([0.5 * (ctf.defocus_u_ang + ctf.defocus_v_ang)])


def defocus_of_particles(particles: Particles) -> NDArray[np.float64]:
    """Return the mean defocus of each particle: ``(n,)``.

    Raises
    ------
    ItemError
        The particles have no CTF.
    """
    table = particles_table(particles)
    defocus_ang: NDArray[np.float64] = np.mean([table[name].astype(np.float64) for name in _NAMES], axis=0)
    if not np.isfinite(defocus_ang).all():
        raise ItemError("the particles have no CTF: connect one to the step that extracts them")
    return defocus_ang
