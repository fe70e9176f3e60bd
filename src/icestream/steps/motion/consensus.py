"""Comparing two motion corrections of a movie, and setting aside movies on which they disagree."""

import numpy as np

from icestream.algorithms.motion.consensus import MotionTrack, compare_motions, frame_times
from icestream.flow import Angstrom, Field, ItemError, Params, Pixel, Verdict, keep, limits, reject, step
from icestream.records import Acquisition, FrameUse, Micrograph, MotionAgreement


class MotionConsensusParams(Params):
    """How far two motions must agree; a criterion that is unset is not applied."""

    min_correlation: float | None = Field(
        0.75,
        ge=-1,
        le=1,
        description="Smallest correlation of the two tracks, where the specimen moved at all",
        json_schema_extra=limits("motion_agreement_correlation", "least"),
    )
    min_range_px: Pixel = Field(
        3.0,
        ge=0,
        description="The correlation counts only where positions are at least this far apart; below that, distances decide",
    )
    max_rms_ang: Angstrom | None = Field(
        2.0,
        gt=0,
        description="Largest rms distance of the two tracks, their common offset taken out; 2 Å blur like B = 80 Å²",
        json_schema_extra=limits("motion_agreement_angstroms", "most"),
    )
    max_distance_ang: Angstrom | None = Field(None, gt=0, description="Largest distance of the two tracks in any one frame")
    max_field_rms_ang: Angstrom | None = Field(
        None,
        gt=0,
        description="Largest rms distance over the field of view, local motion and all",
        json_schema_extra=limits("motion_field_agreement_angstroms", "most"),
    )
    max_rms_px: Pixel | None = Field(None, gt=0, description="Largest rms distance of the two tracks in raw pixels")
    max_distance_px: Pixel | None = Field(None, gt=0, description="Largest distance in any one frame in raw pixels")


@step.map("compare_motion", version=1, memory_gb=0.2)
def compare_motion(micrograph: Micrograph, second: Micrograph) -> MotionAgreement:
    """Compare the motions that two corrections of one movie found, over the frames that both used.

    Frames added up to other groups and other ranges of frames compare too. The constant by which two tracks differ is taken out:
    it moves the image and does not blur it.

    Raises
    ------
    ItemError
        If one of the two has no motion, they were made of different movies, or have less than two frames in common.
    """
    for one in (micrograph, second):
        if one.motion is None:
            raise ItemError(f"{one.image}: has no motion to compare; both micrographs must come from motion correction")
    if micrograph.frames and second.frames and micrograph.frames.movie != second.frames.movie:
        raise ItemError(f"the motions are of two movies, {micrograph.frames.movie} and {second.frames.movie}")
    tracks = _track_of(micrograph), _track_of(second)
    if max(len(track.times) for track in tracks) == 1:
        return MotionAgreement(n_frames=1, rms_px=0, largest_px=0, field_rms_px=0, field_largest_px=0, range_px=0)
    found = compare_motions(*tracks, area_yx=_common_area(micrograph.frames, second.frames))
    if found is None:
        spans = " and ".join(f"{track.times[0]:g} to {track.times[-1]:g}" for track in tracks)
        raise ItemError(f"the motions have fewer than 2 frames in common: they are of frames {spans}")
    return MotionAgreement(
        n_frames=found.n_compared,
        rms_px=round(found.rms_px, 4),
        largest_px=round(found.largest_px, 4),
        largest_frame=round(found.largest_time, 2),
        field_rms_px=round(found.field_rms_px, 4),
        field_largest_px=round(found.field_largest_px, 4),
        correlation=None if found.correlation is None else round(found.correlation, 5),
        range_px=round(found.range_px, 3),
        path_px=round(found.path_px[0], 3),
        second_path_px=round(found.path_px[1], 3),
    )


def _common_area(*uses: FrameUse | None) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return first and last place along y and x that all used, as fractions of the frame; all of it if there is none."""
    spans = [((0.0, 1.0), (0.0, 1.0))]
    for use in uses:
        if use is not None and use.crop_px is not None:
            top, left, height, width = use.crop_px
            spans.append(
                (
                    (top / use.height_px, (top + height) / use.height_px),
                    (left / use.width_px, (left + width) / use.width_px),
                )
            )
    y, x = ((max(span[axis][0] for span in spans), min(span[axis][1] for span in spans)) for axis in range(2))
    return (y, x) if y[0] < y[1] and x[0] < x[1] else spans[0]


def _track_of(micrograph: Micrograph) -> MotionTrack:
    motion, use = micrograph.motion, micrograph.frames
    if motion is None or not motion.global_yx_px:
        raise ItemError(f"{micrograph.image}: its motion has no frame")
    track = np.asarray(motion.global_yx_px, dtype=np.float64).reshape(-1, 2)
    local = None if motion.local_coefficients is None else np.asarray(motion.local_coefficients, dtype=np.float64)
    group = (use.eer_group if use else None) or 1
    return MotionTrack(track, local, frame_times(len(track), first_frame=use.first_frame if use else 0, group=group))


@step.filter("motion_consensus", version=1, reads=("pixel_size_ang",))
def check_motion_consensus(
    micrograph: Micrograph,  # noqa: ARG001 - it is passed on
    agreement: MotionAgreement,
    params: MotionConsensusParams,
    acquisition: Acquisition,
) -> Verdict:
    """Keep micrographs on whose motion two corrections agree; a rejection names every criterion that failed."""
    failures = _correlation_failures(agreement, params)
    failures += _distance_failures(agreement, params)
    limits_ang = (
        ("rms distance of the two tracks", agreement.rms_px, params.max_rms_ang),
        (_in_one_frame(agreement), agreement.largest_px, params.max_distance_ang),
        ("rms distance over the field", agreement.field_rms_px, params.max_field_rms_ang),
    )
    if any(value > 0 and limit is not None for _, value, limit in limits_ang) and acquisition.pixel_size_ang is None:
        failures.append("the pixel size is not known, so the distance of the two tracks cannot be compared with limits in Å")
    elif acquisition.pixel_size_ang is not None:
        pixel = acquisition.pixel_size_ang
        failures += [
            f"{what} is {value * pixel:.2f} Å ({value:.2f} px), above the limit of {limit:g} Å"
            for what, value, limit in limits_ang
            if limit is not None and value * pixel > limit
        ]
    return reject("; ".join(failures)) if failures else keep()


def _correlation_failures(agreement: MotionAgreement, params: MotionConsensusParams) -> list[str]:
    found = agreement.correlation
    if found is None or params.min_correlation is None or agreement.range_px < params.min_range_px:
        return []
    if found >= params.min_correlation:
        return []
    paths = f"paths of {agreement.path_px:.1f} and {agreement.second_path_px:.1f} px"
    return [f"correlation of the two tracks is {found:.3f}, at least {params.min_correlation:g} is needed ({paths})"]


def _distance_failures(agreement: MotionAgreement, params: MotionConsensusParams) -> list[str]:
    limits = (
        ("rms distance of the two tracks", agreement.rms_px, params.max_rms_px),
        (_in_one_frame(agreement), agreement.largest_px, params.max_distance_px),
    )
    return [
        f"{what} is {value:.2f} px, above the limit of {limit:g} px"
        for what, value, limit in limits
        if limit is not None and value > limit
    ]


def _in_one_frame(agreement: MotionAgreement) -> str:
    return f"distance of the two tracks in frame {agreement.largest_frame or 0:g}"
