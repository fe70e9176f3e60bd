"""The first volume of a particle, from nothing but its images: several starts, each judged by particles it did not see."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.initial_volume import (
    Evidence,
    InitialVolume,
    SignalPower,
    Start,
    find_initial_volume,
    match_signal,
    measure_signal,
    refine_initial,
    volume_from_averages,
    weigh_evidence,
)
from icestream.algorithms.volume_consensus import compare_volumes, decide, place_volumes
from icestream.algorithms.volumes import orient_to_symmetry_3d, symmetrise_volume_3d
from icestream.flow import Context, Field, ItemError, step
from icestream.records import SCHERES_2012, Acquisition, ClassAverages, ClassSelection, JudgedVolume, Method, Particles, Text
from icestream.steps.classify2d.static import read_references
from icestream.steps.volumes.checkpoints import keep_arrays, load_arrays, read_kept
from icestream.steps.volumes.gathered import combine_seeds
from icestream.steps.volumes.judged import (
    READS,
    ParticleSet,
    VolumeSearchParams,
    describe_candidates,
    in_plane,
    publish_judged,
    read_particle_set,
)

_HELD_SHARE, _MOST_HELD = 6, 400
_LEAST_CLASSES = 6
_ENTROPY = "entropy"


class InitialVolumeParams(VolumeSearchParams):
    """How initial volumes are searched."""

    starts: int = Field(4, ge=1, le=50, description="Random starts; each is a search of its own")
    common_lines: bool = Field(
        True, description="Make one more candidate from the common lines of class averages, where these are linked"
    )
    quick_particles: int = Field(500, ge=50, description="Particles that a start begins with; it ends with all")
    passes: int = Field(24, ge=8, le=200, description="Passes of a start over these")
    tries: int = Field(2, ge=1, le=20, description="Quick beginnings of a start, of which the best goes on")
    seed: int = Field(0, ge=0, description="Number that changes all that is random, to repeat the step and compare results")


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
    particles: list[Particles],
    params: InitialVolumeParams,
    acquisition: Acquisition,
    ctx: Context,
    *,
    classes: ClassAverages | None = None,
    selection: ClassSelection | None = None,
) -> JudgedVolume:
    """Find an initial volume of a closed set of particles from random starts, and from the common lines of class averages.

    A start alternates between views that choose their share of the particles and particles that choose their view, from coarse to
    fine. A sixth of the particles is held out. They say how much of their signal each start explains beyond its phase-randomised
    twins; a start that does not explain enough is not believed. The map is the best start; where no start is right its verdict
    is "none", and it is not to be used. With class averages, or those of a selection, their common lines give one more
    candidate by a way that shares nothing with the others; it is the last one. Each pass is kept: a new attempt goes on after it.

    Raises
    ------
    ItemError
        The set has fewer than 100 particles, their boxes differ, or an acquisition value is unset.
    """
    found = read_particle_set(particles, acquisition, params, ctx)
    held = np.zeros(len(found.polar), bool)
    seed = combine_seeds(ctx.seed, params.seed)
    held[np.random.default_rng(seed).permutation(len(held))[: min(len(held) // _HELD_SHARE, _MOST_HELD)]] = True
    search = _Search(found.part(~held), found.part(held), measure_signal(found.polar), seed, ctx)
    starts = [_start(search, number, params) for number in range(params.starts)]
    if params.common_lines and classes is not None:
        starts += _from_averages(search, classes, selection, raw_pixel_ang=acquisition.need("pixel_size_ang"))
    ctx.progress(0.92, "comparing candidates")
    volumes, evidence = [one.volume for one in starts], [one.evidence for one in starts]
    agreement = compare_volumes(volumes, setting=found.setting)
    best, agrees = decide(evidence, agreement)
    return publish_judged(
        found,
        volumes[best],
        placed=place_volumes(volumes, best, setting=found.setting),
        candidates=describe_candidates(evidence, agreement, best, agrees, [one.view_entropy for one in starts]),
        agreement=agreement,
        evidence=evidence[best],
        is_map=bool(agrees.any()),
        ctx=ctx,
    )


@dataclass(frozen=True)
class _Search:
    """What all candidates of a set share: particles that make volumes, those held out, and the power of both."""

    train: ParticleSet
    held: ParticleSet
    power: SignalPower
    seed: int
    ctx: Context

    def judge(self, volume: NDArray[np.float32], view_entropy: float | None) -> "_Candidate":
        """Let the particles that were held out judge a volume."""
        evidence = weigh_evidence(self.held.polar, volume, self.power, setting=self.held.setting, seed=self.seed)
        return _Candidate(volume, view_entropy, evidence)


@dataclass(frozen=True)
class _Candidate:
    """A volume of the working box, how evenly its views are populated if that is known, and what particles say of it."""

    volume: NDArray[np.float32]
    view_entropy: float | None
    evidence: Evidence


def _start(search: _Search, number: int, params: InitialVolumeParams) -> _Candidate:
    """Make one start, or go on with it where an earlier attempt stopped; and judge it."""

    def make(at: _Unfinished) -> InitialVolume:
        return find_initial_volume(
            search.train.polar,
            setting=search.train.setting,
            seed=search.seed + number,
            quick=params.quick_particles,
            passes=params.passes,
            tries=params.tries,
            report=report,
            kept=at.read(),
            keep=at.keep,
        )

    def report(fraction: float, message: str) -> None:
        _report(search.ctx, 0.1 + 0.8 * (number + fraction) / params.starts, f"start {number + 1} of {params.starts}, {message}")

    return _candidate(search, f"start{number:03d}", make)


def _candidate(search: _Search, name: str, make: "Callable[[_Unfinished], InitialVolume]") -> _Candidate:
    """Make a candidate, or read it where an earlier attempt has made it; and judge it."""
    known = search.ctx.checkpoint_dir / f"{name}.npz"
    kept = read_kept(known, _read_candidate)
    unfinished = _Unfinished(search.ctx.checkpoint_dir / f"unfinished_{name}.npz")
    if kept is None:
        made = make(unfinished)
        volume = match_signal(made.volume, search.power, setting=search.train.setting)
        kept = volume, round(min(made.view_entropy, 1.0), 4)
        keep_arrays(known, volume=volume, entropy=kept[1])
    unfinished.path.unlink(missing_ok=True)
    return search.judge(*kept)


@dataclass(frozen=True)
class _Unfinished:
    """Where the passes of a candidate are kept that is not made yet."""

    path: Path

    def keep(self, start: Start) -> None:
        """Keep what a pass came to."""
        keep_arrays(self.path, **{name: np.asarray(value) for name, value in vars(start).items()})

    def read(self) -> Start | None:
        """Return what the last pass came to, if there is one."""
        return read_kept(self.path, self._read)

    @staticmethod
    def _read(path: Path) -> Start:
        one = load_arrays(path)
        return Start(int(one["passes"]), one["volume"], one["best"], float(one["best_gain"]), str(one["random"]))


def _report(ctx: Context, fraction: float, message: str) -> None:
    if ctx.cancelled():
        raise ItemError("was cancelled")
    ctx.progress(fraction, message)


def _read_candidate(path: Path) -> tuple[NDArray[np.float32], float]:
    stored = load_arrays(path)
    return stored["volume"], float(stored[_ENTROPY])


def _from_averages(
    search: _Search, classes: ClassAverages, selection: ClassSelection | None, *, raw_pixel_ang: float
) -> list[_Candidate]:
    """Return the candidate from common lines, improved by the particles; none where there are too few classes."""
    selected = None if selection is None else {one.id for one in selection.classes if one.selected}
    places = [place for place, info in enumerate(classes.classes) if info.count and (selected is None or info.id in selected)]
    if len(places) < _LEAST_CLASSES:
        return []
    setting = search.train.setting

    def make(at: _Unfinished) -> InitialVolume:
        _report(search.ctx, 0.9, f"common lines of {len(places)} classes")
        begun = at.read()
        if begun is None:
            zoom = (classes.pixel_size_ang or classes.bin * raw_pixel_ang) / setting.pixel_size_ang
            images = read_references(classes, places, setting=in_plane(setting), zoom=zoom, ctx=search.ctx)
            begun = Start(0, _volume_of(images, classes, places, search), np.zeros(0, np.float32), -np.inf, "")
            at.keep(begun)
        start = begun
        return refine_initial(
            search.train.polar,
            start.volume,
            setting=setting,
            first=start.passes,
            report=lambda fraction, message: _report(search.ctx, 0.9 + 0.02 * fraction, f"common lines, {message}"),
            keep=lambda done, volume: at.keep(replace(start, passes=done, volume=volume)),
        )

    return [_candidate(search, "averages", make)]


def _volume_of(images: NDArray[np.float32], classes: ClassAverages, places: list[int], search: _Search) -> NDArray[np.float32]:
    """Return the volume of class averages by their common lines, with the symmetry and the contrast of the particles."""
    setting = search.train.setting
    count = np.array([classes.classes[place].count for place in places], dtype=np.float64)
    start = volume_from_averages(images, count, setting=setting).volume
    if len(setting.group) > 1:
        start, _ = orient_to_symmetry_3d(start, setting.group, max_ring=setting.middle_ring)
        start = symmetrise_volume_3d(start, setting.group)
    return match_signal(start, search.power, setting=setting)
