"""2D classification of a stream, whose class averages sharpen while particles arrive, and of a closed set."""

from collections.abc import Sequence

import numpy as np

from icestream.flow import Accumulator, Context, Exposure, ItemError, Progress, Update, Verdict, keep, step, wait
from icestream.io.image import read_stack
from icestream.records import (
    KIMANIUS_2021,
    SCHERES_2012,
    YANG_2012,
    Acquisition,
    ClassAssignments,
    ClassAverages,
    Method,
    Particles,
    Record,
    Text,
)
from icestream.steps.classify2d.averages import assignment_record, member_tables, publish_averages
from icestream.steps.classify2d.engine import Call, classify
from icestream.steps.classify2d.params import Classify2DParams, plan_for
from icestream.steps.classify2d.passes import Scale
from icestream.steps.classify2d.segments import OPTICS, TABLE, Prepared, Segment, join, prepare, shrink_2d, write_segment
from icestream.steps.classify2d.state import Classify2DState, HeldExposure, load_model

_LARGEST_SEGMENT = 10_000
"""Particles that are prepared in memory before they are written."""
READS = ("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast")


@step.accumulate(
    "classify2d",
    version=2,
    assigns=ClassAssignments,
    reads=READS,
    memory_gb=2,
    method=Method(
        (Text("Particles were sorted into {n_classes} 2D classes as they arrived, to {limit_ang} Å, by likelihood."),),
        (
            SCHERES_2012,
            YANG_2012,
            KIMANIUS_2021,
        ),
    ),
)
class Classify2D(Accumulator[Classify2DState, ClassAverages]):
    """Sort particles into 2D classes as they arrive, and anneal again whenever their number has doubled.

    A class keeps its id and its place in the stack of averages for good; an id is never given again. An assignment says: the
    average turned by ``psi_deg`` (from x towards y) and then moved by ``(shift_y_px, shift_x_px)``, in pixels of the particle
    stack, looks like the particle. In RELION's words ``rlnAnglePsi = -psi_deg`` (it turns from y towards x) and
    ``rlnOriginX = -shift_x_px``. ``score`` is the log likelihood ratio against pure noise. The assignments of this step are those
    that particles got as they came; the newest of all are with the averages.
    """

    portion = 200

    def when(self, progress: Progress, params: Classify2DParams) -> Verdict:
        """Start at ``first_particles``, go on by a share of what there is, and finish when the stream has closed."""
        later = max(params.batch_particles, int(params.batch_share * progress.passed_weight))
        target = later if progress.passed_weight else params.first_particles
        if progress.stream_closed or progress.waiting_weight >= target:
            return keep()
        return wait(f"{progress.waiting_weight} of {target} particles")

    def start(self, params: Classify2DParams, ctx: Context) -> Classify2DState:
        """Return the state before the first particle."""
        return Classify2DState(seed=ctx.seed, settled=[0] * params.n_classes)

    def add(
        self,
        state: Classify2DState,
        exposures: Sequence[Exposure],
        particles: Sequence[Particles],
        *,
        acquisition: Sequence[Acquisition],
        params: Classify2DParams,
        ctx: Context,
    ) -> Update[Classify2DState]:
        """Fold the particles of new exposures in; at a doubling or at the end pass over all that came so far.

        Raises
        ------
        ItemError
            If an acquisition value is unset, or the boxes of two exposures differ in size.
        """
        state, fresh = take_in(
            state, [(one.id, one.name) for one in exposures], particles, acquisition=acquisition, params=params, ctx=ctx
        )
        found: dict[str, Record] = {}
        picks_keys = {one.id: some.picks_key for one, some in zip(exposures, particles, strict=True)}
        if fresh or (state.model is not None and ctx.closing):
            call = begin_call(state, params, ctx, version=ctx.version, closing=ctx.closing)
            state = classify(held_particles(state, call), fresh, call)
            for segment in state.segments[-len(fresh) :] if fresh else ():
                rows = member_tables(segment, ctx)
                found |= {
                    name: assignment_record(table, state.ids, version=ctx.version, picks_key=picks_keys[name])
                    for name, table in rows.items()
                }
        nothing = assignment_record(np.empty(0, dtype=TABLE), None, version=ctx.version)
        return Update(state, {one.id: found.get(one.id, nothing) for one in exposures})

    def emit(self, state: Classify2DState, params: Classify2DParams, ctx: Context) -> ClassAverages:
        """Write the class averages as a stack and as a picture."""
        return publish_averages(state, params, ctx, version=ctx.version)


@step.map("classify2d_batch", version=1, reads=READS, memory_gb=2)
def classify_batch(particles: list[Particles], params: Classify2DParams, acquisition: Acquisition, ctx: Context) -> ClassAverages:
    """Sort a closed set of particles into 2D classes, to convergence.

    Every set is a classification of its own, from the start, by the same engine and parameters as `classify2d`; the numbers of
    particles to wait for do not apply. Voltage, spherical aberration, amplitude contrast and pixel size must be values of the
    session, because a set has none of its own.

    Raises
    ------
    ItemError
        The set has no particles, their boxes differ, or an acquisition value is unset.
    """
    if not any(one.count for one in particles):
        raise ItemError(f"{ctx.exposure.name}: the set has no particles")
    start = Classify2DState(seed=ctx.seed, settled=[0] * params.n_classes)
    names = [(one.origin or "", f"{ctx.exposure.name}, micrograph {number}") for number, one in enumerate(particles, 1)]
    state, fresh = take_in(start, names, particles, acquisition=[acquisition] * len(particles), params=params, ctx=ctx)
    state = classify(state, fresh, begin_call(state, params, ctx, version=1, closing=True))
    averages = publish_averages(state, params, ctx, version=1)
    for ref in [state.model, *(segment.images for segment in state.segments)]:  # a set is not continued
        if ref is not None:
            ctx.path(ref).unlink(missing_ok=True)
    return averages


def take_in(
    state: Classify2DState,
    names: Sequence[tuple[str, str]],
    particles: Sequence[Particles],
    *,
    acquisition: Sequence[Acquisition],
    params: Classify2DParams,
    ctx: Context,
) -> tuple[Classify2DState, list[Segment]]:
    """Put the particles of new exposures, whose ids and names are ``names``, into segments; all must have one box."""
    parts, fresh = list[Prepared](), list[Segment]()
    for i, (exposure_id, name) in enumerate(names):
        if not particles[i].count:
            continue
        state = _check_box(state, name, particles[i], acquisition[i])
        size = plan_for(params, box_px=state.box_px or 0, pixel_size_ang=state.pixel_size_ang or 0.0).grid.box_px
        ordinal = state.n_exposures + i
        parts.append(
            prepare(
                particles[i],
                acquisition[i],
                size=size,
                name=name,
                exposure_id=exposure_id,
                ordinal=ordinal,
                ctx=ctx,
            )
        )
        if sum(len(part) for part in parts) >= _LARGEST_SEGMENT:
            fresh.append(write_segment(join(parts), suffix=f"fresh{len(fresh)}", ctx=ctx))
            parts = []
    if parts:
        fresh.append(write_segment(join(parts), suffix=f"fresh{len(fresh)}", ctx=ctx))
    return state.model_copy(update={"n_exposures": state.n_exposures + len(names)}), fresh


def begin_call(state: Classify2DState, params: Classify2DParams, ctx: Context, *, version: int, closing: bool) -> Call:
    """Return what stays the same during a call; the state knows its box."""
    box_px, pixel_ang = state.box_px or 0, state.pixel_size_ang or 0.0
    setting = plan_for(params, box_px=box_px, pixel_size_ang=pixel_ang)
    return Call(params, Scale(setting, box_px * pixel_ang, box_px / setting.grid.box_px), ctx, version, closing)


def _check_box(state: Classify2DState, name: str, particles: Particles, acquisition: Acquisition) -> Classify2DState:
    """Remember the box of the first particles; later ones must have the same."""
    pixel_size_ang = acquisition.need("pixel_size_ang") * particles.bin
    if state.box_px is None:
        return state.model_copy(update={"box_px": particles.box_px, "bin": particles.bin, "pixel_size_ang": pixel_size_ang})
    if state.box_px != particles.box_px or abs(pixel_size_ang / (state.pixel_size_ang or 1.0) - 1) > 0.005:
        raise ItemError(
            f"{name}: box of {particles.box_px} px at {pixel_size_ang:g} Å; "
            f"this classification began with {state.box_px} px at {state.pixel_size_ang:g} Å"
        )
    return state


def held_particles(state: Classify2DState, call: Call) -> Classify2DState:
    """Return the state with what version 1 held in a segment, assigned to the classes that it had; nothing else changes.

    Version 1 wrote down neither the micrograph of its particles nor their assignments: they are looked at again, and steps that
    join particles find only those that came later.
    """
    if not state.held or state.model is None:
        return state
    segment = write_segment(join([_read(one, call) for one in state.held]), suffix="held", ctx=call.ctx)
    averages = load_model(state.model, call.ctx).averages
    _, (table,) = call.pass_over([segment], averages)
    known = call.keep(segment, table, "held")
    return state.model_copy(update={"held": [], "segments": [known, *state.segments]})


def _read(exposure: HeldExposure, call: Call) -> Prepared:
    images = read_stack(call.ctx.path(exposure.stack))  # (n, box, box)
    if len(images) != exposure.count:
        raise ItemError(f"{exposure.stack}: holds {len(images)} images, its record says {exposure.count}")
    optics = np.load(call.ctx.path(exposure.table), allow_pickle=False)
    table = np.zeros(exposure.count, dtype=TABLE)
    table["micrograph"], table["exposure"] = exposure.id.encode(), exposure.id.encode()
    table["pid"], table["slice"] = optics["pid"], np.arange(exposure.count)
    table["half"] = (np.arange(exposure.count) + exposure.ordinal) % 2
    table["sign"], table["flipped"] = 1 if exposure.inverted else -1, exposure.phase_flipped
    for name in OPTICS:
        table[name] = optics[name]
    for name in ("voltage_kv", "cs_mm", "amplitude_contrast"):
        table[name] = getattr(exposure, name)
    return Prepared(shrink_2d(images, size=call.scale.setting.grid.box_px).astype(np.float16), table)
