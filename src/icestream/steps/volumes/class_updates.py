"""How streaming 3D classification goes on: poses for new particles, updates, and new starts whenever their number has doubled.

As in 2D, whatever is done depends on the particles seen, never on the time. New particles enter the sums with the next update,
together with those that have waited longest to be looked at again. At every doubling, and at the end, a classification of a
sample from random starts competes with the classes that there are; all particles are then compared with the better ones.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.classes.identity import count_shared, rename_classes
from icestream.algorithms.classify3d import (
    Classes3D,
    ClassVolumes,
    PosedParticles,
    Setting,
    classify_particles_3d,
    compare,
    correlate_classes_3d,
    evidence,
    make_volumes,
    share_by_likelihood,
    sharpness_of,
)
from icestream.algorithms.refine3d import Setting as Refining
from icestream.flow import Context
from icestream.records import ClassEvent
from icestream.steps.classify2d.engine import choose_replay
from icestream.steps.classify2d.segments import Prepared, Segment, join, pieces, read_table, rewrite_table, take
from icestream.steps.volumes.class_poses import KnownPoses, noise_left, references_of, search_poses
from icestream.steps.volumes.class_segments import (
    Classify3DState,
    Model,
    Sums,
    add_particles,
    load_model,
    posed_particles,
    reorder_sums,
    save_model,
    take_out,
)

_LAST_PASSES = 2
"""Passes over all particles at the end: volumes, then the shares by them."""


@dataclass(frozen=True)
class Call:
    """What stays the same during one call; ``stack_px`` is a working pixel in pixels of the stacks."""

    plan: Refining
    setting: Setting
    stack_px: float
    known: KnownPoses
    passes: int
    starts: int
    reservoir: int
    seed: int
    ctx: Context
    written: set[str] = field(default_factory=set)
    """Tables that this call has written."""

    def posed(self, part: Prepared) -> PosedParticles:
        """Return particles in the poses of their rows."""
        return posed_particles(part, plan=self.plan, setting=self.setting, stack_px=self.stack_px)

    def keep(self, segment: Segment, table: NDArray[np.void], suffix: str) -> Segment:
        """Publish what was found about the particles of a segment."""
        version, n_classes = self.ctx.version, self.setting.n_classes
        return self._instead(
            segment, rewrite_table(segment, table, n_classes=n_classes, version=version, suffix=suffix, ctx=self.ctx)
        )

    def keep_poses(self, segment: Segment, table: NDArray[np.void], suffix: str) -> Segment:
        """Publish poses of the particles of a segment, which are in no class yet."""
        with self.ctx.publish(f"_{suffix}_table.npy") as out, out.path.open("wb") as handle:
            np.save(handle, table, allow_pickle=False)
        return self._instead(segment, segment.model_copy(update={"table": out.ref}))

    def _instead(self, before: Segment, after: Segment) -> Segment:
        """Remove a table of this call that another one replaces; those of earlier calls are in a state that may come back."""
        if before.table in self.written and before.table != after.table:
            self.ctx.path(before.table).unlink(missing_ok=True)
        self.written.add(after.table)
        return after


def pose_segments(segments: list[Segment], sums: Sums | None, noise: NDArray[np.float32] | None, call: Call) -> list[Segment]:
    """Give a pose to every particle that has none: that of the volume, or else one that is searched in all classes together.

    Without ``sums`` of classes, the particles whose poses the volume has make what the others are searched in.
    """
    tables = [read_table(one, call.ctx) for one in segments]
    for table in tables:
        call.known.give(table)
    if sums is None:
        sums, noise = _sums_of_posed(segments, tables, call)
    if noise is not None and any((table["posed"] == 0).any() for table in tables):
        _, first = next(pieces(segments[0], tables[0], call.ctx))
        references = references_of(sums, noise, plan=call.plan)
        references = references_of(sums, noise_left(first, references, plan=call.plan), plan=call.plan)
        for segment, table in zip(segments, tables, strict=True):
            for _, piece in pieces(segment, table, call.ctx):
                search_poses(piece, references, plan=call.plan, stack_px=call.stack_px, number=call.known.number)
    return [call.keep_poses(one, table, f"posed{i}") for i, (one, table) in enumerate(zip(segments, tables, strict=True))]


def _sums_of_posed(
    segments: list[Segment], tables: list[NDArray[np.void]], call: Call
) -> tuple[Sums, NDArray[np.float32] | None]:
    """Return the sums of the particles that have a pose, as one class, and the power of their images; None without any."""
    sums: Sums | None = None
    power, count = np.zeros(call.plan.grid.n_rings), 0
    for segment, table in zip(segments, tables, strict=True):
        for _, piece in pieces(segment, table, call.ctx):
            rows = np.flatnonzero(piece.table["posed"] > 0)
            if len(rows):
                particles = call.posed(Prepared(piece.images[rows], piece.table[rows]))
                sums = add_particles(sums, particles, np.ones((len(rows), 1)), setting=call.setting)
                power, count = power + particles.polar.power.sum(axis=0), count + len(rows)
    return sums or [], (power / count).astype(np.float32) if count else None


def begin_classes(state: Classify3DState, call: Call) -> Classify3DState:
    """Find the first classes; all particles of the state have poses. Class 0 is the largest."""
    sample = _sample(state, call)
    found = _start(sample, call)
    order = np.argsort(-found.share.sum(axis=0), kind="stable")
    found = Classes3D(found.volumes.ordered(order), found.share[:, order], found.log_likelihood[:, order])
    model = Model([], _noise_of(sample), sharpness_of(found.log_likelihood))
    sums, tables = _pass_over(state.segments, found.volumes, found.share.mean(axis=0), model, call)
    k = call.setting.n_classes
    named = {"ids": list(range(k)), "born": [call.ctx.version] * k, "next_id": k}
    return _finish(state.model_copy(update=named), replace(model, sums=sums), tables, call)


def update_classes(state: Classify3DState, fresh: list[Segment], call: Call) -> Classify3DState:
    """Add new particles, which have poses, to the classes, and look again at as many of those looked at least recently."""
    model = load_model(state.model or "", call.ctx)
    volumes, size = make_volumes(model.sums, setting=call.setting), model.size / max(model.size.sum(), 1e-9)
    chosen = choose_replay(state.segments, sum(one.count for one in fresh))
    again = [state.segments[i] for i in chosen]
    sums, tables = _pass_over([*fresh, *again], volumes, size, model, call, onto=model.sums, counted=len(fresh))
    segments = list(state.segments)
    for i, table in zip(chosen, tables[len(fresh) :], strict=True):
        segments[i] = call.keep(segments[i], table, f"again{i}")
    segments += [call.keep(fresh[i], table, f"fresh{i}") for i, table in enumerate(tables[: len(fresh)])]
    return state.model_copy(update={"segments": segments, "model": save_model(replace(model, sums=sums), call.ctx)})


def converge_classes(state: Classify3DState, call: Call) -> Classify3DState:
    """Let new starts compete with the classes, compare all particles with the better ones, and keep who is who."""
    model = load_model(state.model or "", call.ctx)
    was = make_volumes(model.sums, setting=call.setting)
    sample = _sample(state, call)
    found = _start(sample, call)
    volumes, size = was, model.size / max(model.size.sum(), 1e-9)
    known, again = (
        evidence(sample, one, share, setting=call.setting, noise=model.noise)
        for one, share in ((was, size), (found.volumes, found.share.mean(axis=0)))
    )
    if again > known:
        volumes, size = found.volumes, found.share.mean(axis=0)
        model = replace(model, sharpness=sharpness_of(found.log_likelihood), noise=_noise_of(sample))
    sums, tables = _pass_over(state.segments, volumes, size, model, call)
    if call.ctx.closing:
        for _ in range(_LAST_PASSES - 1):
            total = np.array([[one.count for one in fold] for fold in sums]).sum(axis=0)
            volumes = make_volumes(sums, setting=call.setting)
            sums, tables = _pass_over(state.segments, volumes, total / total.sum(), model, call)
    new = make_volumes(sums, setting=call.setting)
    state, order = _keep_identity(state, was, new, tables, call)
    return _finish(state, replace(model, sums=reorder_sums(sums, order)), tables, call)


def _start(sample: PosedParticles, call: Call) -> Classes3D:
    def report(fraction: float, message: str) -> None:
        call.ctx.progress(fraction, message)

    return classify_particles_3d(
        sample, setting=call.setting, passes=call.passes, starts=call.starts, seed=call.seed, report=report
    )


def _noise_of(sample: PosedParticles) -> NDArray[np.float32]:
    noise: NDArray[np.float32] = sample.polar.power.mean(axis=0).astype(np.float32)
    return noise


def _sample(state: Classify3DState, call: Call) -> PosedParticles:
    """Draw a random sample of all particles."""
    starts = np.concatenate([[0], np.cumsum([one.count for one in state.segments])])
    most = min(int(starts[-1]), call.reservoir)
    chosen = np.sort(np.random.default_rng([call.ctx.seed, 1]).permutation(int(starts[-1]))[:most])
    parts = []
    for i, segment in enumerate(state.segments):
        rows = chosen[(chosen >= starts[i]) & (chosen < starts[i + 1])] - starts[i]
        if rows.size:
            parts.append(take(segment, rows, call.ctx))
    together = join(parts)
    call.known.give(together.table)
    return call.posed(together)


def _pass_over(
    segments: list[Segment],
    volumes: ClassVolumes,
    size: NDArray[np.float64],
    model: Model,
    call: Call,
    *,
    onto: Sums | None = None,
    counted: int | None = None,
) -> tuple[Sums, list[NDArray[np.void]]]:
    """Compare all particles of some segments with classes; return the sums with them, and their new tables.

    With ``onto``, the segments from number ``counted`` on are in these sums already: what they gave is taken out.
    """
    sums, tables, done = onto, list[NDArray[np.void]](), 0
    total = max(1, sum(one.count for one in segments))
    for number, segment in enumerate(segments):
        table = read_table(segment, call.ctx)
        for rows, piece in pieces(segment, table, call.ctx):
            particles = call.posed(piece)
            if counted is not None and number >= counted and sums is not None:
                sums = take_out(sums, add_particles(None, particles, piece.table["share"], setting=call.setting))
            if call.known.give(piece.table):
                particles = call.posed(piece)
            likelihood = compare(particles, volumes, setting=call.setting, noise=model.noise)
            share = share_by_likelihood(likelihood, size[None], sharpness=model.sharpness).astype(np.float32)
            sums = add_particles(sums, particles, share, setting=call.setting)
            _note(table[rows], likelihood, share, version=call.ctx.version)
            done += len(piece)
            call.ctx.progress(done / total, f"{done} of {total} particles")
        tables.append(table)
    return sums or [], tables


def _note(rows: NDArray[np.void], likelihood: NDArray[np.float64], share: NDArray[np.float32], *, version: int) -> None:
    """Write what was found into rows of a table."""
    every, best = np.arange(len(rows)), share.argmax(axis=1)
    rows["share"], rows["class_id"], rows["version"] = share, best, version
    rows["probability"], rows["score"] = share[every, best], likelihood[every, best]


def _keep_identity(
    state: Classify3DState, was: ClassVolumes, new: ClassVolumes, tables: list[NDArray[np.void]], call: Call
) -> tuple[Classify3DState, list[int]]:
    """Give classes the ids and places of those that they continue, also in tables; return the order of the new ones, too."""
    k, version = call.setting.n_classes, call.ctx.version
    old = np.concatenate([read_table(segment, call.ctx)["class_id"] for segment in state.segments])
    shared = count_shared(old, np.concatenate([table["class_id"] for table in tables]), n_old=k, n_new=k)
    likeness = correlate_classes_3d(was.volumes, new.volumes)
    renamed = rename_classes(tuple(state.ids), shared, likeness, next_id=state.next_id)
    place = np.empty(k, dtype=np.int32)
    place[renamed.order] = np.arange(k)
    for table in tables:
        table["class_id"] = place[table["class_id"]]
        table["share"] = table["share"][:, renamed.order]
    events = [
        ClassEvent(version=version, kind=one.kind, class_id=one.class_id, others=list(one.others), share=one.share)
        for one in renamed.changes
    ]
    born = [b if i == j else version for b, i, j in zip(state.born, state.ids, renamed.ids, strict=True)]
    changes = {"ids": list(renamed.ids), "born": born, "next_id": renamed.next_id, "events": [*state.events, *events]}
    return state.model_copy(update=changes), renamed.order.tolist()


def _finish(state: Classify3DState, model: Model, tables: list[NDArray[np.void]], call: Call) -> Classify3DState:
    """Keep what a pass over all particles has found."""
    segments = [call.keep(one, table, f"dense{i}") for i, (one, table) in enumerate(zip(state.segments, tables, strict=True))]
    changes = {"segments": segments, "model": save_model(model, call.ctx), "next_anneal": 2 * state.n_held}
    return state.model_copy(update=changes)
