"""Streaming 2D classification: class averages that sharpen while particles arrive."""

from collections.abc import Sequence

import numpy as np
from scipy.fft import next_fast_len

from icestream.algorithms.classify2d.em import Assignment, Model, Setting, add_batch, anneal, assign, seed_averages
from icestream.algorithms.frc import resolution_at_threshold_ang
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.scoring.polar import PolarGrid
from icestream.errors import ItemError
from icestream.flow import Accumulator, Context, Exposure, Field, Params, Progress, Update, Verdict, keep, step, wait
from icestream.io.blocks import dtype_of, to_block
from icestream.io.image import write_mrc
from icestream.io.preview import write_mosaic
from icestream.records import Acquisition, ClassAssignments, ClassAverages, ClassInfo, Particles, Record
from icestream.steps.classify2d.state import (
    Classify2DState,
    HeldExposure,
    choose_held,
    hold_exposure,
    load_model,
    load_particles,
    load_table,
    save_model,
)
from icestream.units import Angstrom, Degree

_EDGE_PX = 3.0
_START_ANG = 40.0
_START_WAVES = 3.0
"""Waves across a particle with which a classification begins, unless that is finer than 40 Å."""
_WARM_ANG = 25.0
_BALANCED = 0.6


class Classify2DParams(Params):
    """How particles are sorted into 2D classes."""

    n_classes: int = Field(16, ge=1, le=200, description="Number of classes")
    diameter_ang: Angstrom | None = Field(
        None, gt=0, description="Diameter of the round mask on the classes; unset: 0.8 of the box"
    )
    limit_ang: Angstrom = Field(9.0, gt=0, description="Finest resolution used; sets the size of the working images and the time")
    psi_step_deg: Degree = Field(
        4.0, gt=0, le=30, description="Coarsest step of the final rotation search; made finer as the resolution asks"
    )
    max_shift_ang: Angstrom = Field(12.0, ge=0, description="Largest shift of a particle from the centre of its box")
    first_particles: int = Field(250, ge=1, description="Particles to wait for before the first classes")
    batch_particles: int = Field(200, ge=1, description="Particles to wait for before each later update")
    reservoir_particles: int = Field(
        5000, ge=100, description="Most particles kept for repeated passes, a random subset of the stream"
    )
    first_iterations: int = Field(20, ge=4, description="Passes of the first anneal and of the one at the end")
    anneal_iterations: int = Field(8, ge=4, description="Passes of an anneal whenever the number of particles has doubled")
    tau_fudge: float = Field(
        1.0, gt=0, description="Trust in the averages over the smoothness prior; more shows more detail and more noise"
    )
    forgetting: float = Field(
        0.8, gt=0.5, le=1, description="Exponent of the online step size: 1 remembers all equally, less forgets the past"
    )


@step.accumulate(
    "classify2d",
    version=2,
    assigns=ClassAssignments,
    reads=("pixel_size_ang", "voltage_kv", "cs_mm", "amplitude_contrast"),
    memory_gb=2,
)
class Classify2D(Accumulator[Classify2DState, ClassAverages]):
    """Sort particles into 2D classes as they arrive, and anneal again whenever their number has doubled.

    Class ids count from 0, are slices of the stack of averages, and stay with their class. An assignment says: the average
    turned by ``psi_deg`` (from x towards y) and then moved by ``(shift_y_px, shift_x_px)``, in pixels of the particle stack,
    looks like the particle. In RELION's words ``rlnAnglePsi = -psi_deg`` (it turns from y towards x) and
    ``rlnOriginX = -shift_x_px``. ``score`` is the log likelihood ratio against pure noise.
    """

    def when(self, progress: Progress, params: Classify2DParams) -> Verdict:
        """Start at ``first_particles``, go on by ``batch_particles``, and finish when the stream has closed."""
        target = params.batch_particles if progress.passed_weight else params.first_particles
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
        """Fold the particles of new exposures in; at a doubling or at the end repeat passes over all that are held.

        Raises
        ------
        ItemError
            If an acquisition value is unset, or the boxes of two exposures differ in size.
        """
        fresh: list[HeldExposure] = []
        for i, exposure in enumerate(exposures):
            if particles[i].count:
                state = _check_box(state, exposure, particles[i], acquisition[i])
                fresh.append(hold_exposure(exposure, particles[i], acquisition[i], state.n_exposures + i, ctx))
        state = state.model_copy(update={"n_exposures": state.n_exposures + len(exposures)})
        empty: dict[str, Record] = {
            exposures[i].id: _no_assignments(ctx) for i in range(len(exposures)) if not particles[i].count
        }
        if not fresh and (state.model is None or not ctx.closing):
            return Update(state, empty)
        state, assignments = _classify(state, fresh, params, ctx)
        return Update(state, {**empty, **assignments})

    def emit(self, state: Classify2DState, params: Classify2DParams, ctx: Context) -> ClassAverages:
        """Write the class averages as a stack and as a picture.

        The averages are corrected for the CTF, filtered to what their half sets agree on and masked; they are as large as the
        resolution limit asks, in pixels that ``bin`` relates to the raw movie.
        """
        size, pixel_ang, binned = 32, 1.0, 1.0
        images = np.zeros((params.n_classes, size, size), dtype=np.float32)
        correlation = np.zeros((params.n_classes, 1))
        if state.model is not None and state.box_px is not None and state.bin is not None and state.pixel_size_ang is not None:
            averages = load_model(state.model, ctx).averages
            images, correlation = averages.images, averages.correlation
            size = images.shape[-1]
            pixel_ang, binned = state.pixel_size_ang * state.box_px / size, state.bin * state.box_px / size
        counts = np.sum([state.settled, *(held.counts for held in state.held if held.counts)], axis=0)
        with ctx.publish("_classes.mrcs") as stack:
            write_mrc(stack.path, images, pixel_size_ang=pixel_ang)
        with ctx.publish("_classes.png") as picture:
            write_mosaic(picture.path, images, columns=int(np.ceil(np.sqrt(2 * params.n_classes))))
        classes = []
        for k, curve in enumerate(correlation):
            frequency = np.arange(len(curve) + 1) / size
            resolution = resolution_at_threshold_ang(frequency, np.r_[1.0, curve], threshold=0.143, pixel_size_ang=pixel_ang)
            classes.append(ClassInfo(id=k, count=int(counts[k]), resolution_ang=resolution if counts[k] else None))
        return ClassAverages(
            stack=stack.ref, picture=picture.ref, count=state.n_particles, box_px=size, bin=binned, classes=classes
        )


def plan_classification(params: Classify2DParams, *, box_px: int, pixel_size_ang: float) -> Setting:
    """Return the working size, rings, angles and radii for boxes of ``box_px``."""
    box_ang = box_px * pixel_size_ang
    largest = 2 * (box_px // 2)
    n_rings = max(3, min(int(box_ang / params.limit_ang), largest // 2 - 1))
    size = min(2 * next_fast_len(int(np.ceil(1.2 * n_rings)) + 1), largest)
    pixel_ang = box_ang / size
    radius_px = min((params.diameter_ang or 0.8 * box_ang) / 2 / pixel_ang, size / 2 - _EDGE_PX)
    extent = min(2 * (radius_px + params.max_shift_ang / pixel_ang + _EDGE_PX) / size, 1.0)
    n_angles = 24 * int(np.ceil(max(360 / params.psi_step_deg, 2 * np.pi * n_rings * extent) / 24))
    return Setting(
        grid=PolarGrid(size, n_rings, n_angles),
        n_classes=params.n_classes,
        mask_radius_px=radius_px,
        edge_px=_EDGE_PX,
        max_shift_px=params.max_shift_ang / pixel_ang,
        start_ring=min(n_rings, max(3, round(min(box_ang / _START_ANG, _START_WAVES * size / (2 * radius_px))))),
        warm_ring=min(n_rings, max(3, round(box_ang / _WARM_ANG))),
        tau_fudge=params.tau_fudge,
        forgetting=params.forgetting,
    )


def _check_box(state: Classify2DState, exposure: Exposure, particles: Particles, acquisition: Acquisition) -> Classify2DState:
    """Remember the box of the first particles; later ones must have the same."""
    pixel_size_ang = acquisition.need("pixel_size_ang") * particles.bin
    if state.box_px is None:
        return state.model_copy(update={"box_px": particles.box_px, "bin": particles.bin, "pixel_size_ang": pixel_size_ang})
    if state.box_px != particles.box_px or abs(pixel_size_ang / (state.pixel_size_ang or 1.0) - 1) > 0.005:
        raise ItemError(
            f"{exposure.name}: box of {particles.box_px} px at {pixel_size_ang:g} Å; "
            f"this classification began with {state.box_px} px at {state.pixel_size_ang:g} Å"
        )
    return state


def _classify(
    state: Classify2DState, fresh: list[HeldExposure], params: Classify2DParams, ctx: Context
) -> tuple[Classify2DState, dict[str, Record]]:
    """Update the model by a batch or by an anneal; return the new state and the assignments of what was touched."""
    box_px, pixel_ang = state.box_px or 0, state.pixel_size_ang or 0.0
    setting = plan_classification(params, box_px=box_px, pixel_size_ang=pixel_ang)
    n_particles = state.n_particles + _count(fresh)
    kept, dropped = choose_held([*state.held, *fresh], seed=state.seed, most=params.reservoir_particles)
    annealing = state.model is None or n_particles >= state.next_anneal or ctx.closing
    if annealing:
        touched, others = [*kept, *(exposure for exposure in dropped if exposure in fresh)], []
    else:
        touched, others = fresh, _choose_replay(state.held, _count(fresh), ctx)
    loaded = load_particles([*touched, *others], setting=setting, box_ang=box_px * pixel_ang, ctx=ctx)
    if annealing:
        model = _anneal(state, _first(loaded, _count(kept)), n_particles, setting=setting, params=params, ctx=ctx)
    else:
        model = add_batch(load_model(state.model or "", ctx), loaded, n_fresh=_count(fresh), setting=setting)
    found = assign(_first(loaded, _count(touched)), model, setting=setting)
    assignments, counts = _assignments(touched, found, box_px / setting.grid.box_px, params.n_classes, ctx)
    updated = [e.model_copy(update={"counts": counts.get(e.id, e.counts)}) for e in (*kept, *dropped)]
    settled = np.sum([state.settled, *(e.counts for e in updated[len(kept) :])], axis=0)
    changes = {
        "model": save_model(model, ctx),
        "n_particles": n_particles,
        "next_anneal": 2 * n_particles if annealing else state.next_anneal,
        "held": updated[: len(kept)],
        "settled": [int(count) for count in settled],
    }
    return state.model_copy(update=changes), assignments


def _anneal(
    state: Classify2DState,
    particles: PolarParticles,
    n_particles: int,
    *,
    setting: Setting,
    params: Classify2DParams,
    ctx: Context,
) -> Model:
    """Pass repeatedly over ``particles``, which stand for all ``n_particles``."""
    cold = state.model is None
    if state.model is None:
        averages = seed_averages(particles, setting=setting, seed=ctx.seed)
    else:
        averages = load_model(state.model, ctx).averages
    model = anneal(
        particles,
        averages,
        setting=setting,
        first_ring=setting.start_ring if cold else setting.warm_ring,
        iterations=params.first_iterations if cold or ctx.closing else params.anneal_iterations,
        balanced=_BALANCED if cold else 0.0,
        report=ctx.progress,
    )
    share = n_particles / len(particles)
    return Model(model.averages, model.sums.decayed(share, model.sums, 0.0), n_particles)


def _choose_replay(held: list[HeldExposure], count: int, ctx: Context) -> list[HeldExposure]:
    """Draw held exposures at random with about ``count`` particles, so that a batch mixes new and old."""
    chosen: list[HeldExposure] = []
    for i in np.random.default_rng(ctx.seed).permutation(len(held)):
        if _count(chosen) >= count:
            break
        chosen.append(held[int(i)])
    return chosen


def _count(exposures: Sequence[HeldExposure]) -> int:
    return sum(exposure.count for exposure in exposures)


def _first(particles: PolarParticles, count: int) -> PolarParticles:
    return particles if count == len(particles) else particles.take(np.arange(count))


def _assignments(
    exposures: list[HeldExposure], found: Assignment, scale: float, n_classes: int, ctx: Context
) -> tuple[dict[str, Record], dict[str, list[int]]]:
    """Cut assignments (shifts in working pixels, ``scale`` stack pixels each) into one record per exposure, with class counts."""
    records: dict[str, Record] = {}
    counts: dict[str, list[int]] = {}
    start = 0
    for exposure in exposures:
        rows = slice(start, start + exposure.count)
        pid = load_table(exposure, ctx)["pid"]
        table = np.empty(exposure.count, dtype=dtype_of(ClassAssignments.block_columns))
        table["pid"], table["class_id"], table["psi_deg"] = pid, found.class_id[rows], found.psi_deg[rows]
        table["shift_y_px"], table["shift_x_px"] = (found.shift_yx_px[rows] * scale).T
        table["score"] = found.score[rows]
        records[exposure.id] = ClassAssignments(count=exposure.count, version=ctx.version, block=to_block(table))
        counts[exposure.id] = [int(count) for count in np.bincount(found.class_id[rows], minlength=n_classes)]
        start += exposure.count
    return records, counts


def _no_assignments(ctx: Context) -> ClassAssignments:
    """Return the record of an exposure without particles."""
    table = np.empty(0, dtype=dtype_of(ClassAssignments.block_columns))
    return ClassAssignments(count=0, version=ctx.version, block=to_block(table))
