"""Set aside movies that moved too much."""

from typing import Literal

import numpy as np

from icestream.flow import Angstrom, Field, Params, Verdict, keep, limits, reject, step
from icestream.records import Acquisition, Micrograph


class MaxShiftParams(Params):
    """How much the specimen may move."""

    rule: Literal["frame", "movie", "frame and movie", "frame or movie"] = Field(
        "frame or movie",
        description="Limit that must be exceeded to set the movie aside: between frames, of the whole movie, both, or either",
    )
    max_frame_shift_ang: Angstrom = Field(10.0, gt=0, description="Largest shift from one frame to the next")
    max_movie_shift_ang: Angstrom = Field(
        45.0,
        gt=0,
        description="Largest length of the whole path, the sum of all steps",
        json_schema_extra=limits("motion_total_angstroms", "most"),
    )


@step.filter("max_shift", version=1, reads=("pixel_size_ang",))
def check_max_shift(micrograph: Micrograph, params: MaxShiftParams, acquisition: Acquisition) -> Verdict:
    """Reject a movie whose specimen jumped between frames or moved too far in total; an image without motion passes."""
    if micrograph.motion is None:
        return keep()
    steps_px = np.linalg.norm(np.diff(np.asarray(micrograph.motion.global_yx_px).reshape(-1, 2), axis=0), axis=1)  # (n - 1,)
    if not steps_px.any():
        return keep()
    if acquisition.pixel_size_ang is None:
        return reject("the pixel size is not known, so the motion cannot be compared with limits in Å")
    largest_ang = float(steps_px.max()) * acquisition.pixel_size_ang
    path_ang = float(steps_px.sum()) * acquisition.pixel_size_ang
    reasons = []
    if largest_ang > params.max_frame_shift_ang:
        reasons.append(
            f"moved {largest_ang:.1f} Å from one frame to the next, above the limit of {params.max_frame_shift_ang:g} Å"
        )
    frame_fails = bool(reasons)
    movie_fails = path_ang > params.max_movie_shift_ang
    if movie_fails:
        reasons.append(f"moved {path_ang:.1f} Å in total, above the limit of {params.max_movie_shift_ang:g} Å")
    rejected = {
        "frame": frame_fails,
        "movie": movie_fails,
        "frame and movie": frame_fails and movie_fails,
        "frame or movie": frame_fails or movie_fails,
    }[params.rule]
    if not rejected:
        return keep()
    shown = {"frame": reasons[:1], "movie": reasons[-1:]}.get(params.rule, reasons)
    return reject("; ".join(shown))
