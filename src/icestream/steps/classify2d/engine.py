"""The classification itself, one for all ways to use it: first classes, updates by what is new, anneals, dense passes.

Whatever is done depends on the particles seen, never on the time. New particles enter the sums with the next update, together
with those that have waited longest to be looked at again. Whenever the number of particles has doubled, and at the end, classes
are annealed on a sample of all particles; the result replaces the classes only if it explains the particles better, each half set
judged by averages of the other. A dense pass over all particles follows, so that averages and assignments are of one version. A
closed set is the same thing with everything new at once.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.blending import add_sums, blend_sums, reorder_classes
from icestream.algorithms.classes.identity import carry_counts, correlate_images_2d, count_shared, rename_classes
from icestream.algorithms.classify2d import Averages, Model, Sums, anneal, seed_averages
from icestream.algorithms.frc import resolution_at_threshold_ang
from icestream.algorithms.scoring import PolarParticles, join_particles
from icestream.flow import Context
from icestream.records import ClassEvent
from icestream.steps.classify2d.params import Classify2DParams
from icestream.steps.classify2d.passes import Scale, independent_correlation, judge, look_at_segments, restore
from icestream.steps.classify2d.segments import (
    Segment,
    read_table,
    rewrite_table,
    take,
)
from icestream.steps.classify2d.state import Classify2DState, count_members, load_model, save_model

_BALANCED = 0.6
_JUDGED = 1000
_LAST_PASSES = 2
"""Dense passes at the end: averages, then the assignments to them."""


@dataclass(frozen=True)
class Call:
    """What stays the same during one call."""

    params: Classify2DParams
    scale: Scale
    ctx: Context
    version: int
    closing: bool
    """Nothing will come after it."""

    def random(self, salt: int) -> np.random.Generator:
        """Return random numbers that are the same at every repetition."""
        return np.random.default_rng([self.ctx.seed, salt])

    def pass_over(self, segments: list[Segment], averages: Averages) -> tuple[Sums, list[NDArray[np.void]]]:
        """Compare all particles of some segments with averages; return their sums, and their tables with what was found."""
        return look_at_segments(
            segments, averages, scale=self.scale, version=self.version, ctx=self.ctx, report=self.ctx.progress
        )

    def keep(self, segment: Segment, table: NDArray[np.void], suffix: str) -> Segment:
        """Publish what was found about the particles of a segment."""
        n_classes = self.params.n_classes
        known = rewrite_table(segment, table, n_classes=n_classes, version=self.version, suffix=suffix, ctx=self.ctx)
        if (
            segment.version in (0, self.version) and segment.table != known.table
        ):  # written earlier in this call; no state names it
            self.ctx.path(segment.table).unlink(missing_ok=True)
        return known


def classify(state: Classify2DState, fresh: list[Segment], call: Call) -> Classify2DState:
    """Take new particles in, and anneal if their number has doubled or the stream has closed."""
    n_particles = state.n_particles + _count(fresh)
    if state.model is None and fresh:
        state = _begin(state, fresh, call)
    elif fresh:
        state = _update(state, fresh, call)
    state = state.model_copy(update={"n_particles": n_particles})
    if call.closing or n_particles >= state.next_anneal:
        state = _converge(state, call)
    return state


def _count(segments: list[Segment]) -> int:
    return sum(segment.count for segment in segments)


def _begin(state: Classify2DState, fresh: list[Segment], call: Call) -> Classify2DState:
    """Find the first classes in a sample of the first particles; a dense pass follows."""
    sample = _sample(fresh, call)
    averages = seed_averages(sample, setting=call.scale.setting, seed=call.ctx.seed)
    model = anneal(
        sample,
        averages,
        setting=call.scale.setting,
        first_ring=call.scale.setting.start_ring,
        iterations=call.params.first_iterations,
        balanced=_BALANCED,
        report=call.ctx.progress,
    )
    return state.model_copy(update={"segments": fresh, "model": save_model(model, call.ctx), "next_anneal": 0})


def _update(state: Classify2DState, fresh: list[Segment], call: Call) -> Classify2DState:
    """Add new particles to the sums, and look again at as many of those that were looked at least recently."""
    model, setting = load_model(state.model or "", call.ctx), call.scale.setting
    before = np.array(count_members(state))
    new, tables = call.pass_over(fresh, model.averages)
    known = [call.keep(one, table, f"fresh{i}") for i, (one, table) in enumerate(zip(fresh, tables, strict=True))]
    segments, sums = [*state.segments, *known], model.sums
    chosen = choose_replay(state.segments, _count(fresh))
    if chosen:
        replayed = [state.segments[i] for i in chosen]
        again, tables = call.pass_over(replayed, model.averages)
        n_replayed = np.sum([one.counts for one in replayed], axis=0)
        sums = blend_sums(sums, again, n_before=before, n_replayed=n_replayed, forgetting=setting.forgetting)
        for i, one in zip(chosen, tables, strict=True):
            segments[i] = call.keep(segments[i], one, f"again{i}")
    sums = add_sums(sums, new)
    averages = restore(sums, model.averages, setting=setting)
    updated = Model(averages, sums, state.n_particles + _count(fresh))
    return state.model_copy(update={"segments": segments, "model": save_model(updated, call.ctx)})


def choose_replay(segments: list[Segment], count: int) -> list[int]:
    """Return the segments that were looked at least recently, with at least ``count`` particles if there are so many."""
    chosen: list[int] = []
    total = 0
    for i in sorted(range(len(segments)), key=lambda i: (segments[i].version, i)):
        if total >= count:
            break
        chosen.append(i)
        total += segments[i].count
    return sorted(chosen)


def _sample(segments: list[Segment], call: Call) -> PolarParticles:
    """Draw a random sample of all particles, at most ``reservoir_particles``."""
    sizes = np.array([segment.count for segment in segments])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    most = min(int(starts[-1]), call.params.reservoir_particles)
    chosen = np.sort(call.random(1).permutation(int(starts[-1]))[:most])
    parts = []
    for i, segment in enumerate(segments):
        rows = chosen[(chosen >= starts[i]) & (chosen < starts[i + 1])] - starts[i]
        if rows.size:
            parts.append(call.scale.polar(take(segment, rows, call.ctx)))
    return join_particles(parts)


def _converge(state: Classify2DState, call: Call) -> Classify2DState:
    """Anneal, if classes are there already; pass over all particles; keep who is who."""
    if state.model is None:
        return state
    setting, known = call.scale.setting, bool(state.ids)
    was = load_model(state.model, call.ctx)
    sample = _sample(state.segments, call)
    found, tables = _anneal_again(was, sample, call) if known else was, list[NDArray[np.void]]()
    for _ in range(_LAST_PASSES if call.closing else 1):
        sums, tables = call.pass_over(state.segments, found.averages)
        found = Model(restore(sums, found.averages, setting=setting), sums, state.n_particles)
    if known:
        state, found, tables = _keep_identity(state, was, found, tables, call)
    else:
        k = setting.n_classes
        state = state.model_copy(update={"ids": list(range(k)), "born": [call.version] * k, "next_id": k})
    segments = [call.keep(one, table, f"dense{i}") for i, (one, table) in enumerate(zip(state.segments, tables, strict=True))]
    changes = {
        "segments": segments,
        "model": save_model(found, call.ctx),
        "next_anneal": 2 * state.n_particles,
        "resolution_ang": _resolutions(found, sample, call),
    }
    return state.model_copy(update=changes)


def _anneal_again(model: Model, sample: PolarParticles, call: Call) -> Model:
    """Anneal a copy; return it if it explains the particles better than the classes did, otherwise the classes."""
    setting = call.scale.setting
    copy = anneal(
        sample,
        model.averages,
        setting=setting,
        first_ring=setting.warm_ring,
        iterations=call.params.first_iterations if call.closing else call.params.anneal_iterations,
        report=call.ctx.progress,
    )
    judges = sample.take(np.sort(call.random(2).permutation(len(sample))[:_JUDGED]))
    noise = model.averages.noise_power
    better = judge(copy, judges, noise, setting=setting) > judge(model, judges, noise, setting=setting)
    return copy if better else model


def _keep_identity(
    state: Classify2DState, was: Model, found: Model, tables: list[NDArray[np.void]], call: Call
) -> tuple[Classify2DState, Model, list[NDArray[np.void]]]:
    """Give the classes of a dense pass the ids and places of those that they continue."""
    k = call.scale.setting.n_classes
    old = np.concatenate([read_table(segment, call.ctx)["class_id"] for segment in state.segments])
    new = np.concatenate([table["class_id"] for table in tables])
    shared = count_shared(old, new, n_old=k, n_new=k)
    correlation = correlate_images_2d(
        was.averages.images, found.averages.images, old_frc=was.averages.correlation, new_frc=found.averages.correlation
    )
    renamed = rename_classes(tuple(state.ids), shared, correlation, next_id=state.next_id)
    place = np.empty(k, dtype=np.int32)
    place[renamed.order] = np.arange(k)
    for table in tables:
        table["class_id"] = place[table["class_id"]]
    version = call.version
    events = [
        ClassEvent(version=version, kind=one.kind, class_id=one.class_id, others=list(one.others), share=one.share)
        for one in renamed.changes
    ]
    born = [b if i == j else version for b, i, j in zip(state.born, state.ids, renamed.ids, strict=True)]
    changes = {"ids": list(renamed.ids), "born": born, "next_id": renamed.next_id, "events": [*state.events, *events]}
    changes["settled"] = carry_counts(state.settled, tuple(state.ids), renamed, shared, correlation)
    return state.model_copy(update=changes), reorder_classes(found, renamed.order), tables


def _resolutions(model: Model, sample: PolarParticles, call: Call) -> list[float | None]:
    """Return the resolution of each class, by half sets that followed averages of their own."""
    size = call.scale.setting.grid.box_px
    curves = independent_correlation(model, sample, setting=call.scale.setting)
    frequency = np.arange(curves.shape[1] + 1) / size
    pixel_ang = call.scale.box_ang / size
    return [
        resolution_at_threshold_ang(frequency, np.r_[1.0, curve], threshold=0.143, pixel_size_ang=pixel_ang) for curve in curves
    ]
