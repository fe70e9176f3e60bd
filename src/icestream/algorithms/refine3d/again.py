"""Refining again when there are more particles: from the half volumes of the last time, and in their frame.

The half sets still share nothing: which half a particle is in is for good, and each half goes on from its own volume. The hand
cannot change, and the frame is held: if the poses of the particles that were there before have turned or moved together, the
volumes are brought back, and one more iteration measures everything in the old frame, so that no map is interpolated.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from icestream.algorithms.refine3d.frame import Frame, find_frame, into_frame
from icestream.algorithms.refine3d.model import Maps, Model, Setting, agreed_frequency
from icestream.algorithms.refine3d.refine import Portion, PoseTable, Progress, Refined, iterate, judge
from icestream.algorithms.volumes import turn_volume_3d

_BEGIN = 2
"""The iteration to begin with: one more looks everywhere, for the particles that are new."""
_TURN_DEG, _MOVE_PX = 0.1, 0.1
"""By which the frame may have changed before it is brought back."""


@dataclass(frozen=True)
class Last:
    """What an earlier refinement has come to; ``poses`` are those of the first particles of today, in their order."""

    model: Model
    poses: PoseTable


def refine_again(
    last: Last,
    portions: Callable[[], Iterable[Portion]],
    *,
    setting: Setting,
    count: int,
    most_iterations: int = 15,
    seed: int = 0,
    kept: tuple[Progress, Maps] | None = None,
    keep: Callable[[Progress, Maps], None] | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Refined:
    """Refine all particles from what an earlier refinement of the first of them has come to, in its frame.

    Parameters are as of `refine_volume`.
    """
    seen = (agreed_frequency(last.model.correlation), 180.0)
    progress, maps = kept or (Progress(last.model, None, _BEGIN, (seen,) * _BEGIN), None)

    def once(progress: Progress) -> tuple[Progress, Maps]:
        done = progress.iteration

        def told(particles: int) -> None:
            if report is not None:
                report(done, particles)

        after, maps = iterate(progress, portions(), setting=setting, count=count, report=told)
        if keep is not None:
            keep(after, maps)
        return after, maps

    while maps is None or (progress.iteration < most_iterations and not progress.settled):
        progress, maps = once(progress)
    frame = frame_since(last.poses, progress, setting=setting)
    if frame.turn_deg > _TURN_DEG or float(np.linalg.norm(frame.move_xyz_px)) > _MOVE_PX:
        progress, maps = once(bring_back(progress, frame))
    return Refined(progress, maps, judge(progress, portions(), setting=setting, seed=seed))


def frame_since(before: PoseTable, progress: Progress, *, setting: Setting) -> Frame:
    """Return what takes the poses of today into the frame of those before, by the particles that both have."""
    if progress.poses is None:
        raise ValueError("frames are compared after an iteration")
    n = len(before.rotations)
    return find_frame(
        progress.poses.rotations[:n],
        progress.poses.shift_yx_px[:n],
        before=before.rotations,
        shift_before_yx_px=before.shift_yx_px,
        group=setting.group,
    )


def bring_back(progress: Progress, frame: Frame) -> Progress:
    """Return a refinement whose half volumes and poses are in the frame that `find_frame` found."""
    if progress.poses is None:
        raise ValueError("a frame is brought back after an iteration")
    rotations, shift = into_frame(progress.poses.rotations, progress.poses.shift_yx_px, frame)
    x, y, z = (-frame.rotation.T @ frame.move_xyz_px).tolist()
    references = np.stack([turn_volume_3d(one, frame.rotation.T, shift_zyx_px=(z, y, x)) for one in progress.model.references])
    return replace(
        progress,
        model=replace(progress.model, references=references),
        poses=replace(progress.poses, rotations=rotations, shift_yx_px=shift),
    )
