"""When a refinement begins by itself: when 2D classes are sharp enough, and particles are seen from all sides."""

import numpy as np

from icestream.flow import Angstrom, Field, Params, Verdict, keep, reject, step
from icestream.records import ClassAverages, MapQuality, Volume


class ReadyParams(Params):
    """What particles have to show before they are refined in 3D."""

    max_resolution_ang: Angstrom = Field(11.0, gt=0, description="Resolution that 2D classes have to reach")
    class_share: float = Field(
        0.1, gt=0, le=1, description="Share of the particles that have to be in classes of this resolution"
    )
    min_efficiency: float = Field(
        0.65, ge=0, le=1, description="Least efficiency of the views of a map without symmetry, where `quality` is linked"
    )


@step.filter("ready_for_3d", version=1)
def pass_when_ready(volume: Volume, classes: ClassAverages | None, quality: MapQuality | None, params: ReadyParams) -> Verdict:
    """Pass an initial volume on when 2D classes are sharp enough and the views even enough; what is no map is not passed on.

    Whatever refines waits for the first volume that passes, and so begins by itself. Every new version of an input is asked
    again. Views are those of an earlier map, as of a first refinement of few particles; with a symmetry they are not asked.
    """
    if volume.verdict == "none":
        return reject(f"the volume is no map: {volume.reason or 'its verdict is none'}")
    if classes is not None:
        reached = resolution_of_share(classes, params.class_share)
        if reached is None or reached > params.max_resolution_ang:
            told = "no resolution" if reached is None else f"{reached:.1f} Å"
            return reject(
                f"the best 2D classes, with {params.class_share:.0%} of the particles, have {told}; "
                f"at most {params.max_resolution_ang:g} Å is asked for"
            )
    if quality is not None and volume.symmetry == "C1":
        efficiency = quality.efficiency
        if efficiency is None or efficiency < params.min_efficiency:
            told = "not known" if efficiency is None else f"{efficiency:.2f}"
            return reject(f"the efficiency of the views is {told}; at least {params.min_efficiency:g} is asked for")
    return keep()


def resolution_of_share(classes: ClassAverages, share: float) -> float | None:
    """Return the resolution that the best 2D classes reach which have a share of all particles; None if they do not."""
    known = sorted((one.resolution_ang, one.count) for one in classes.classes if one.resolution_ang is not None and one.count)
    reached = np.cumsum([count for _, count in known]) >= share * max(sum(one.count for one in classes.classes), 1)
    return known[int(reached.argmax())][0] if known and reached.any() else None
