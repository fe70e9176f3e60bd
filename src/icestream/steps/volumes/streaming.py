"""3D classification of a stream, whose classes keep their names while particles arrive."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from icestream.algorithms.classify3d import make_volumes
from icestream.algorithms.refine3d import Setting as Refining
from icestream.flow import Accumulator, Context, Exposure, Field, Progress, Update, Verdict, keep, step, wait
from icestream.records import SCHERES_2012, Acquisition, Method, Particles, Text, Volume, VolumeClasses
from icestream.steps.classify2d.segments import Segment, read_table
from icestream.steps.volumes.class_poses import KnownPoses, compare_frames
from icestream.steps.volumes.class_segments import Classify3DState, load_model, table_of
from icestream.steps.volumes.class_updates import Call, begin_classes, converge_classes, pose_segments, update_classes
from icestream.steps.volumes.classify import Classify3DParams
from icestream.steps.volumes.gathered import combine_seeds
from icestream.steps.volumes.growing import remember_box, whole_table, write_fresh
from icestream.steps.volumes.poses import read_poses, setting_of
from icestream.steps.volumes.published_classes import CLASSIFIED, NamedClass, publish_classes
from icestream.steps.volumes.refine import READS, Refine3DParams, plan_refinement


class Classify3DStreamParams(Classify3DParams):
    """How particles are sorted into 3D classes as they arrive."""

    first_particles: int = Field(5000, ge=1, description="Particles to wait for before the first classes")
    batch_particles: int = Field(1000, ge=1, description="Least number of particles to wait for before each later update")
    batch_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the particles so far to wait for before each later update, if that is more than `batch_particles`",
    )
    reservoir_particles: int = Field(
        5000, ge=100, description="Most particles that new starts pass over, a random sample of all so far"
    )


@step.accumulate(
    "classify3d_stream",
    version=1,
    reads=READS,
    memory_gb=4,
    method=Method(
        (Text("Particles were sorted into {n_classes} 3D classes as they arrived, with the poses of a refinement."),),
        (SCHERES_2012,),
    ),
)
class Classify3DStream(Accumulator[Classify3DState, VolumeClasses]):
    """Sort particles into 3D classes as they arrive, and start again beside them whenever their number has doubled.

    A class keeps its id and its place for good; an id is never given again. Poses are those of the newest volume; what is new
    since it was made is posed in all classes together. A later volume of another frame is turned into that of the first; one
    whose poses do not agree with those before in any frame, as one of the other hand, is not used.
    """

    portion = 200

    def when(self, progress: Progress, params: Classify3DStreamParams) -> Verdict:
        """Start at ``first_particles``, go on by a share of what there is, and finish when the stream has closed."""
        later = max(params.batch_particles, int(params.batch_share * progress.passed_weight))
        target = later if progress.passed_weight else params.first_particles
        if progress.stream_closed or progress.waiting_weight >= target:
            return keep()
        return wait(f"{progress.waiting_weight} of {target} particles")

    def start(self, params: Classify3DStreamParams, ctx: Context) -> Classify3DState:
        """Return the state before the first particle."""
        return Classify3DState()

    def add(
        self,
        state: Classify3DState,
        exposures: Sequence[Exposure],
        particles: Sequence[Particles],
        volume: Sequence[Volume],
        *,
        acquisition: Sequence[Acquisition],
        params: Classify3DStreamParams,
        ctx: Context,
    ) -> Update[Classify3DState]:
        """Add the particles of new exposures to the classes; at a doubling or at the end look at all that came so far.

        Raises
        ------
        ItemError
            If an acquisition value is unset, or the boxes of two exposures differ in size.
        """
        state = remember_box(state, exposures, particles, acquisition)
        fresh = list[Segment]()
        if state.box_px is not None and volume:
            size, dtype = _plan(state, params, volume[0]).grid.box_px, table_of(params.n_classes)
            fresh = write_fresh(exposures, particles, acquisition, size=size, ctx=ctx, dtype=dtype)
        written = {segment.table for segment in fresh}
        state = _adopt(state, volume, params, ctx)
        if state.volume is None:
            return Update(_hold(state, fresh))
        call = begin_call(state, params, ctx, written)
        if state.model is None:
            state = _hold(state, fresh)
            if state.segments and (state.n_held >= params.first_particles or ctx.closing):
                state = state.model_copy(update={"segments": pose_segments(state.segments, None, None, call)})
                state = begin_classes(state, call) if _all_posed(state, ctx) else state
            return Update(state)
        if fresh:
            model = load_model(state.model, ctx)
            state = update_classes(state, pose_segments(fresh, model.sums, model.noise, call), call)
        if ctx.closing or state.n_held >= state.next_anneal:
            state = converge_classes(state, call)
        return Update(state)

    def emit(self, state: Classify3DState, params: Classify3DStreamParams, ctx: Context) -> VolumeClasses | Verdict:
        """Write the volumes of the classes, and which particle is in which."""
        if state.model is None or state.volume is None:
            return wait(state.refused or f"{state.n_held} of {params.first_particles} particles with a pose")
        return _publish(state, params, ctx)


def _hold(state: Classify3DState, fresh: list[Segment]) -> Classify3DState:
    """Keep particles that are not looked at yet."""
    return state.model_copy(update={"segments": [*state.segments, *fresh]})


def _all_posed(state: Classify3DState, ctx: Context) -> bool:
    return all((read_table(one, ctx)["posed"] > 0).all() for one in state.segments)


def _plan(state: Classify3DState, params: Classify3DParams, volume: Volume) -> Refining:
    """Return the plan of the working images; ball and symmetry stay those of the first volume."""
    given = Refine3DParams(
        limit_ang=params.limit_ang, diameter_ang=params.diameter_ang or state.diameter_ang, initial_ang=params.start_ang
    )
    box_px, pixel_ang, _ = state.box
    return plan_refinement(given, volume, box_px=box_px, pixel_size_ang=pixel_ang)


def _adopt(state: Classify3DState, given: Sequence[Volume], params: Classify3DStreamParams, ctx: Context) -> Classify3DState:
    """Use the newest volume of those that exposures came with, if it is a map with poses, and these are of one frame."""
    newest = given[-1] if given else None
    if newest is None or state.box_px is None or (state.volume is not None and _is_older(newest, state.volume)):
        return state
    why = None if newest.verdict == "map" else f"the volume is no map: {newest.reason}"
    why = "the volume has no poses of particles; link a refinement" if why is None and not newest.tables else why
    changes: dict[str, Any] = {"refused": why}
    if why is None:
        plan, frame = _plan(state, params, newest), None
        if state.volume is None or state.volume.symmetry == newest.symmetry:
            known = whole_table(state.segments, ctx, dtype=table_of(params.n_classes))
            frame = compare_frames(known, read_poses(newest, ctx), plan=plan)
        changes = {"refused": "the poses of the newest volume do not agree with those before in any frame"}
        if frame is not None:
            moved = [*frame.rotation.ravel().tolist(), *frame.move_xyz_px.tolist()]
            ball_ang = state.diameter_ang or 2 * plan.mask_radius_px * plan.pixel_size_ang
            changes = {
                "volume": newest,
                "n_volumes": state.n_volumes + 1,
                "frame": moved,
                "diameter_ang": ball_ang,
                "refused": None,
            }
    return state.model_copy(update=changes)


def _is_older(volume: Volume, known: Volume) -> bool:
    """Tell whether a volume is the one that is known, or was made before it."""
    numbered = volume.version is not None and known.version is not None
    return volume.map == known.map or (numbered and (volume.version or 0) < (known.version or 0))


def begin_call(state: Classify3DState, params: Classify3DStreamParams, ctx: Context, written: set[str]) -> Call:
    """Return what stays the same during a call; the state has a volume."""
    volume = state.volume
    if volume is None:
        raise ValueError("classes are looked for when there is a volume")
    plan = _plan(state, params, volume)
    return Call(
        plan=plan,
        setting=setting_of(plan, n_classes=params.n_classes),
        stack_px=state.box[0] / plan.grid.box_px,
        known=KnownPoses.of(read_poses(volume, ctx), state.n_volumes, state.frame),
        passes=params.passes,
        starts=params.starts,
        reservoir=params.reservoir_particles,
        seed=combine_seeds(ctx.seed, params.seed),
        ctx=ctx,
        written=written,
    )


def _publish(state: Classify3DState, params: Classify3DStreamParams, ctx: Context) -> VolumeClasses:
    if state.model is None or state.volume is None:
        raise ValueError("classes are published when there are some")
    plan, model = _plan(state, params, state.volume), load_model(state.model, ctx)
    whole, (box_px, _, bin_) = whole_table(state.segments, ctx, dtype=table_of(params.n_classes)), state.box
    rows = np.zeros(len(whole), dtype=CLASSIFIED)
    for name in ("micrograph", "pid", "class_id", "score"):
        rows[name] = whole[name]
    rows["class_probability"] = whole["probability"]
    begun = {event.class_id: event.others for event in state.events if event.kind in ("born", "split")}
    named = [
        NamedClass(id_, born, tuple(begun.get(id_, [])), max(round(float(count), 1), 0.0))
        for id_, born, count in zip(state.ids, state.born, model.size, strict=True)
    ]
    volumes = make_volumes(model.sums, setting=setting_of(plan, n_classes=params.n_classes))
    classes = publish_classes(volumes, rows, named, plan=plan, bin_=bin_ * box_px / plan.grid.box_px, ctx=ctx)
    told = {"version": ctx.version, "events": state.events, "volume_version": state.volume.version, "note": state.refused}
    return classes.model_copy(update=told)
