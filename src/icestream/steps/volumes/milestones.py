"""A map at every milestone: refinement of a growing stream, each map in the frame of the one before."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.refine3d import Last, Maps, Portion, Refined, Setting, refine_again, refine_volume
from icestream.algorithms.refine3d import Progress as Iterations
from icestream.flow import Accumulator, Context, Exposure, Field, ItemError, Progress, Update, Verdict, keep, step, wait
from icestream.records import SCHERES_2012, Acquisition, FileRef, Method, Particles, Text, Volume
from icestream.steps.streams.batches import MilestoneNumbers, next_milestone
from icestream.steps.volumes.checkpoints import read_kept
from icestream.steps.volumes.gathered import Gathered, need_map, read_map
from icestream.steps.volumes.growing import GrowingState, give_portions, remember_box, whole_table, write_fresh
from icestream.steps.volumes.published import publish_volume
from icestream.steps.volumes.refine import READS, Refine3DParams, keep_progress, load_progress, plan_refinement


class MilestoneParams(Refine3DParams):
    """How particles are refined, and at which numbers of them."""

    at: MilestoneNumbers = Field(
        default=[25_000, 50_000, 100_000], min_length=1, description="Refine at each of these numbers of particles"
    )
    then: Literal["double", "end"] = Field(
        "double", description="After the last of them: at every doubling, or only at the end of the stream"
    )


class MilestoneState(GrowingState):
    """The particles so far, and what the last refinement has come to."""

    schema_version: ClassVar[int] = 1

    first: Volume | None = Field(None, description="The initial volume, whose frame, hand and symmetry all maps have")
    n_refined: int = Field(0, description="Particles of the newest map")
    progress: FileRef | None = Field(None, description="What the last refinement has come to, ``.npz`` without pickles")
    newest: Volume | None = None


@step.accumulate(
    "refine3d_milestones",
    version=1,
    reads=READS,
    memory_gb=4,
    method=Method(
        (
            Text(
                "Particles were refined in 3D at milestones of their number, from an initial volume at {initial_ang} Å and then "
                "from the half maps of the milestone before, in two half sets that shared nothing."
            ),
        ),
        (SCHERES_2012,),
    ),
)
class RefineMilestones(Accumulator[MilestoneState, Volume]):
    """Refine all particles so far whenever there are 25 000, 50 000, 100 000 … of them, and once more at the end.

    It begins with the first initial volume that is a map; later ones are not looked at. Every further map goes on from the half
    maps before, each half from its own: frame, hand and symmetry stay, and a particle that has a pose is looked for everywhere
    only once more. An attempt that was interrupted goes on after the last iteration that ended.
    """

    portion = 200

    def when(self, progress: Progress, params: MilestoneParams) -> Verdict:
        """Take particles in as they come, some exposures at a time, so that little is left to be read at a milestone."""
        target = next_milestone(progress.passed_weight, at=params.at, then=params.then)
        number = progress.passed_weight + progress.waiting_weight
        full = progress.waiting >= self.portion or (target is not None and number >= target)
        if progress.stream_closed or full:
            return keep()
        return wait(f"{number} of {target} particles" if target else f"{number} particles; the next map is made at the end")

    def start(self, params: MilestoneParams, ctx: Context) -> MilestoneState:
        """Return the state before the first particle."""
        return MilestoneState()

    def add(
        self,
        state: MilestoneState,
        exposures: Sequence[Exposure],
        particles: Sequence[Particles],
        volume: Sequence[Volume],
        *,
        acquisition: Sequence[Acquisition],
        params: MilestoneParams,
        ctx: Context,
    ) -> Update[MilestoneState]:
        """Take the particles of new exposures in; at a milestone or at the end refine all.

        Raises
        ------
        ItemError
            The initial volume is no map, an acquisition value is unset, or the boxes of two exposures differ in size.
        """
        state = remember_box(state, exposures, particles, acquisition)
        if state.first is None and volume:
            need_map(volume[0])
            state = state.model_copy(update={"first": volume[0]})
        if state.box_px is not None:
            size = _setting_of(state, params).grid.box_px
            fresh = write_fresh(exposures, particles, acquisition, size=size, ctx=ctx)
            state = state.model_copy(update={"segments": [*state.segments, *fresh]})
        target = next_milestone(state.n_refined, at=params.at, then=params.then)
        reached = target is not None and state.n_held >= target
        if state.n_held > state.n_refined and (reached or ctx.closing):
            state = _refine(state, params, ctx)
        return Update(state)

    def emit(self, state: MilestoneState, params: MilestoneParams, ctx: Context) -> Volume | Verdict:
        """Return the map that was made, if one was."""
        if state.newest is not None and state.newest.version == ctx.version:
            return state.newest
        target = next_milestone(state.n_refined, at=params.at, then=params.then)
        return wait(f"{state.n_held} of {target} particles" if target else f"{state.n_held} particles")


def _setting_of(state: MilestoneState, params: MilestoneParams) -> Setting:
    if state.first is None:
        raise ValueError("a refinement is planned when there is a volume")
    box_px, pixel_ang, _ = state.box
    return plan_refinement(params, state.first, box_px=box_px, pixel_size_ang=pixel_ang)


def _refine(state: MilestoneState, params: MilestoneParams, ctx: Context) -> MilestoneState:
    """Refine all particles and publish the map."""
    setting, (box_px, _, bin_) = _setting_of(state, params), state.box
    table = whole_table(state.segments, ctx)
    if min(np.bincount(table["half"], minlength=2)) == 0:
        raise ItemError(f"{len(table)} particles do not fill two half sets")
    ctx.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    path = ctx.checkpoint_dir / "milestone.npz"
    done = _run(state, setting, params, path, ctx)
    with ctx.publish("_progress.npz") as out:
        keep_progress(out.path, done.progress, done.maps)
    newest = publish_volume(
        Gathered(table, ()),
        done.progress,
        done.maps,
        done.verdict,
        setting=setting,
        box_px=box_px,
        bin_=bin_,
        ctx=ctx,
        version=ctx.version,
    )
    path.unlink(missing_ok=True)
    is_map = newest.verdict == "map"  # what is none is not gone on from
    changes = {"n_refined": len(table), "newest": newest, "progress": out.ref if is_map else state.progress}
    return state.model_copy(update=changes)


def _run(state: MilestoneState, setting: Setting, params: MilestoneParams, path: Path, ctx: Context) -> Refined:
    """Refine from what the milestone before has come to, or from the initial volume, and from where an attempt was stopped."""
    count, kept = state.n_held, read_kept(path, load_progress)

    def report(iteration: int, done: int) -> None:
        if ctx.cancelled():
            raise ItemError("was cancelled")
        fraction = (iteration + done / count) / params.max_iterations
        ctx.progress(min(fraction, 1.0), f"iteration {iteration + 1}, {done} of {count} particles")

    def portions() -> Iterator[Portion]:
        return give_portions(state.segments, setting, ctx)

    def keep_one(progress: Iterations, maps: Maps) -> None:
        keep_progress(path, progress, maps)

    if state.progress is None:
        return refine_volume(
            _read_first(state, setting, ctx),
            portions,
            setting=setting,
            count=count,
            most_iterations=params.max_iterations,
            seed=ctx.seed,
            kept=kept,
            keep=keep_one,
            report=report,
        )
    return refine_again(
        _read_last(state.progress, ctx),
        portions,
        setting=setting,
        count=count,
        most_iterations=params.max_iterations,
        seed=ctx.seed,
        kept=kept,
        keep=keep_one,
        report=report,
    )


def _read_first(state: MilestoneState, setting: Setting, ctx: Context) -> NDArray[np.float32]:
    if state.first is None:
        raise ValueError("a refinement begins with a volume")
    _, pixel_ang, bin_ = state.box
    size = setting.grid.box_px
    return read_map(state.first, ctx, size=size, pixel_size_ang=setting.pixel_size_ang, raw_pixel_ang=pixel_ang / bin_)


def _read_last(ref: FileRef, ctx: Context) -> Last:
    before, _ = load_progress(ctx.path(ref))
    if before.poses is None:
        raise ValueError(f"{ref}: has no poses")
    return Last(before.model, before.poses)
