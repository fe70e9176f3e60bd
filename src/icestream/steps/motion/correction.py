"""Motion correction: from a raw movie to a micrograph."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.algorithms.gain.orientation import Orientation
from icestream.algorithms.motion.align import MotionEstimate, align_movie
from icestream.algorithms.motion.crop import Area, CroppedFrames, crop_detector, move_local_model
from icestream.algorithms.motion.frames import Detector, Frames
from icestream.algorithms.motion.sum import DoseModel, MovieSums, reference_terms, sum_movie
from icestream.flow import Context, Field, Params, Pixel, before, step
from icestream.io.image import write_mrc
from icestream.io.movie import open_movie
from icestream.io.preview import write_preview
from icestream.records import (
    GRANT_2015,
    ZHENG_2017,
    Acquisition,
    FileRef,
    FrameUse,
    GainReference,
    Method,
    Micrograph,
    Motion,
    Movie,
    Text,
)
from icestream.steps.gpu import granted_place
from icestream.steps.motion.reading import HeldFrames, Reading, cropped_area, frame_range, look_at_frames, publish_hot_pixels

_EER_FRACTIONS = 40
_EER_DOSE_E_PER_ANG2 = 1.0
_LEAST_EER_FRACTIONS = 10
_MOST_EER_FRACTIONS = 100
_LEAST_CROP_PX = 64
_DOSE_VALUES = ("voltage_kv", "pixel_size_ang", "dose_per_frame_e_per_ang2")


class MotionParams(Params):
    """How the motion of the specimen is found and undone."""

    local: bool = Field(
        True, description="Also correct motion that differs over the field; dropped where the data do not show it"
    )
    local_reference: Literal["mean", "first frame"] = Field(
        "mean",
        description="From where local motion is counted: the mean over the frames leaves the rings of the CTF where they are",
        json_schema_extra=before(6, "first frame"),
    )
    patches: tuple[int, int] | None = Field(None, description="Patches along y and x; chosen by the frame size if unset")
    max_shift_px: Pixel = Field(100.0, gt=0, description="How far a frame may be from the mean position")
    b_factor_px2: float = Field(
        150.0,
        ge=0,
        description="Damping exp(-B k²) of high frequencies, until their signal has been measured (px², k in cycles per pixel)",
    )
    bin: float = Field(1.0, ge=1, le=8, description="Pixel size of the micrograph relative to the movie (2 for super-resolution)")
    first_frame: int = Field(0, ge=0, description="First frame to use, counted from 0")
    last_frame: int | None = Field(None, ge=0, description="Last frame to use, counted from 0; the last of the movie if unset")
    crop_offset_yx_px: tuple[int, int] = Field(
        (0, 0), description="First row and column of the movie to use (EER: of the camera); what is cut off is ignored"
    )
    crop_size_yx_px: tuple[int, int] | None = Field(
        None, description="Height and width of the part to use; to the border if unset. The micrograph has only that part"
    )
    expected_frames: int | None = Field(
        None, ge=1, description="Frames that a movie must have (EER: camera frames); others are refused. Any number if unset"
    )
    group: int | None = Field(
        None, ge=1, description="Frames added up before alignment; chosen by number and dose of the frames if unset"
    )
    dose_weighting: Literal["where known", "required", "off"] = Field(
        "where known",
        description="Weight by dose where voltage, pixel size and dose are known, refuse movies without them, or never",
    )
    write_unweighted: bool = Field(True, description="Also write the sum without dose weighting, which the CTF is fitted to")
    write_halves: bool = Field(False, description="Also write the sums of even and of odd frames, for denoising")

    gain_orientation: Literal["auto"] | Orientation = Field(
        "auto",
        description="How the gain is turned to fit the frames: found from the data, or named (flip is upside down and comes "
        "before quarter turns, which are counter-clockwise where row 0 is drawn at the top)",
    )
    defects: FileRef | None = Field(
        None,
        description="Pixels that cannot be trusted, as root:path of an image, a list of rectangles or a SerialEM defects file; "
        "it is identified by its content",
    )

    eer_group: int | None = Field(
        None,
        ge=1,
        description="EER only: camera frames added up to one frame; if unset about 1 e/Å² in each, or 40 frames without a dose",
    )
    eer_upsampling: Literal[1, 2, 4] = Field(1, description="EER only: finer pixels than the camera's, along each axis")

    @model_validator(mode="after")
    def _check(self) -> "MotionParams":
        if self.patches is not None and not all(2 <= count <= 16 for count in self.patches):
            raise ValueError(f"patches is {self.patches}; it must be 2 to 16 along each axis")
        if self.last_frame is not None and self.last_frame < self.first_frame:
            raise ValueError(f"last_frame is {self.last_frame}, before first_frame {self.first_frame}")
        if min(self.crop_offset_yx_px) < 0:
            raise ValueError(f"crop_offset_yx_px is {self.crop_offset_yx_px}; it must be 0 or more")
        if self.crop_size_yx_px is not None and min(self.crop_size_yx_px) < _LEAST_CROP_PX:
            raise ValueError(f"crop_size_yx_px is {self.crop_size_yx_px}; it must be {_LEAST_CROP_PX} or more along each axis")
        return self


@step.map(
    "motion",
    version=6,
    reads=("pixel_size_ang", "voltage_kv", "dose_per_frame_e_per_ang2", "pre_exposure_e_per_ang2"),
    memory_gb=4.0,
    method=Method(
        (Text("Movies were aligned with a B-factor of {b_factor_px2} px², and summed, weighted by dose where it is known."),),
        (
            ZHENG_2017,
            GRANT_2015,
        ),
    ),
)
def correct_motion(
    movie: Movie, gain: GainReference | None, params: MotionParams, acquisition: Acquisition, ctx: Context
) -> Micrograph:
    """Undo the motion of the specimen during one movie and add up its frames, weighted by dose where it is known."""
    group, finer = _eer_reading(movie, params, acquisition)
    _check_dose(acquisition, params)
    with granted_place(ctx) as place, open_movie(ctx.path(movie.file), eer_group=group, eer_upsampling=finer) as reader:
        start, stop = frame_range(
            reader, movie, first=params.first_frame, last=params.last_frame, expected=params.expected_frames
        )
        frames = HeldFrames(reader, start, stop, place=place, hold=place.on_cores or not ctx.reduced)
        detector, use, hot_yx = look_at_frames(
            frames,
            gain,
            reader=reader,
            reading=Reading(start, stop, group, finer),
            orientation=params.gain_orientation,
            defects=params.defects,
            movie=movie,
            ctx=ctx,
        )
        area = cropped_area(reader, offset_yx_px=params.crop_offset_yx_px, size_yx_px=params.crop_size_yx_px, finer=finer)
        used: Frames = frames if area is None else CroppedFrames(frames, area)
        detector = (detector if area is None else crop_detector(detector, area)).on(place)
        ctx.progress(0.2, "aligning" if place.on_cores else f"aligning on GPU {ctx.gpu}")
        motion = _align(used, detector, params, electrons_per_px=_electrons_per_px(acquisition, group=group, finer=finer))
        ctx.progress(0.6, "adding up")
        dose = _dose_model(acquisition, params, group=group, finer=finer)
        sums = _add_up(used, detector, motion, params, dose=dose, first_frame=start)
        del frames, used, detector  # so that their memory on a GPU can be handed back
    since = reference_terms(dose, n_frames=len(motion.global_yx_px), bin=params.bin) if params.local_reference == "mean" else None
    record = describe_motion(motion, since=since, finer=finer, area=area, shape=(use.height_px, use.width_px))
    use = use.model_copy(update={"hot_pixels": publish_hot_pixels(hot_yx, ctx), "crop_px": _as_tuple(area)})
    micrograph = _publish(sums, record, use, params=params, movie=movie, pixel_size_ang=acquisition.pixel_size_ang, ctx=ctx)
    return micrograph.model_copy(update={"dose_note": _why_unweighted(acquisition, params)})


def _as_tuple(area: Area | None) -> tuple[int, int, int, int] | None:
    return None if area is None else (area.top, area.left, area.height, area.width)


def _align(frames: Frames, detector: Detector, params: MotionParams, *, electrons_per_px: float | None) -> MotionEstimate:
    return align_movie(
        frames,
        detector,
        max_shift_px=params.max_shift_px,
        b_factor_px2=params.b_factor_px2,
        local=params.local,
        grid=params.patches,
        group=params.group,
        electrons_per_px=electrons_per_px,
    )


def _add_up(
    frames: Frames,
    detector: Detector,
    motion: MotionEstimate,
    params: MotionParams,
    *,
    dose: DoseModel | None,
    first_frame: int,
) -> MovieSums:
    """Return the sums of the frames, on the host."""
    return sum_movie(
        frames,
        detector,
        global_yx_px=motion.global_yx_px,
        local_coefficients=motion.local_coefficients,
        dose=dose,
        bin=params.bin,
        first_frame=first_frame,
        halves=params.write_halves,
        from_frame_0=params.local_reference == "first frame",
    ).to_numpy()


def _eer_reading(movie: Movie, params: MotionParams, acquisition: Acquisition) -> tuple[int, int]:
    """Return how many camera frames make one frame and how much finer its pixels are: 1 and 1 for all but EER.

    One frame gets about one electron per Å² where the dose is known, else there are about 40 frames. Of groups nearly as good
    the one is taken that leaves the fewest camera frames over, which are not used.
    """
    if movie.format != "eer":
        return 1, 1
    if params.eer_group is not None:
        return params.eer_group, params.eer_upsampling
    dose = acquisition.dose_per_frame_e_per_ang2
    wanted = movie.n_frames / _EER_FRACTIONS if dose is None else _EER_DOSE_E_PER_ANG2 / dose
    wanted = min(max(wanted, movie.n_frames / _MOST_EER_FRACTIONS, 1.0), max(movie.n_frames / _LEAST_EER_FRACTIONS, 1.0))
    candidates = range(max(1, math.ceil(0.85 * wanted)), max(1, math.floor(1.15 * wanted)) + 1)
    best = min(candidates or [max(1, round(wanted))], key=lambda group: (movie.n_frames % group, abs(group - wanted)))
    return best, params.eer_upsampling


def _electrons_per_px(acquisition: Acquisition, *, group: int, finer: int) -> float | None:
    """Return the dose of one frame as it is aligned; the session's dose is that of one stored frame."""
    dose = acquisition.dose_of(group)
    return None if dose is None or acquisition.pixel_size_ang is None else dose * (acquisition.pixel_size_ang / finer) ** 2


def _check_dose(acquisition: Acquisition, params: MotionParams) -> None:
    """Refuse, before any work, a movie without the values that dose weighting needs, where it is required."""
    if params.dose_weighting == "required":
        for name in _DOSE_VALUES:
            acquisition.need(name)


def _why_unweighted(acquisition: Acquisition, params: MotionParams) -> str | None:
    unset = [name for name in _DOSE_VALUES if getattr(acquisition, name) is None]
    if params.dose_weighting == "off" or not unset:
        return None
    return f"not weighted by dose: unset are {', '.join(unset)}"


def _dose_model(acquisition: Acquisition, params: MotionParams, *, group: int, finer: int) -> DoseModel | None:
    """Return what dose weighting needs, or None if voltage, pixel size or dose is unset; an unset pre-exposure is none."""
    if params.dose_weighting == "off":
        return None
    values = (acquisition.voltage_kv, acquisition.pixel_size_ang, acquisition.dose_of(group))
    if values[0] is None or values[1] is None or values[2] is None:
        return None
    return DoseModel(values[0], values[1] / finer, values[2], acquisition.pre_exposure_e_per_ang2 or 0.0)


def describe_motion(
    estimate: MotionEstimate,
    *,
    since: NDArray[np.float64] | None = None,
    finer: int = 1,
    area: Area | None = None,
    shape: tuple[int, int] = (1, 1),
) -> Motion:
    """Return the record of a motion in raw pixels: the track, the local model, and how long the way was.

    The sum counts the local model from the time terms ``since``; from those of frame 0 if unset.
    Where only an ``area`` of frames of ``shape`` was used, the local model is turned into one of whole frames.
    """
    track = estimate.global_yx_px / finer  # (n, 2)
    lengths = np.linalg.norm(np.diff(track, axis=0), axis=1)  # (n - 1,)
    local = estimate.local_coefficients
    if area is not None and local is not None:
        local = move_local_model(local, area=area, shape=shape)
    return Motion(
        global_yx_px=[(float(y), float(x)) for y, x in track],
        local_coefficients=None if local is None else (local / finer).tolist(),
        local_reference=None if local is None or since is None else since.tolist(),
        local_rms_px=None if estimate.local_rms_px is None else estimate.local_rms_px / finer,
        total_px=float(lengths.sum()),
        early_px=float(lengths[: -(-len(track) // 4)].sum()),
        note=estimate.note,
    )


def _publish(
    sums: MovieSums,
    motion: Motion,
    use: FrameUse,
    *,
    params: MotionParams,
    movie: Movie,
    pixel_size_ang: float | None,
    ctx: Context,
) -> Micrograph:
    """Write the images; without a known pixel size the headers say 1 Å per movie pixel."""
    finer = use.eer_upsampling or 1
    used = (movie.height_px, movie.width_px) if use.crop_px is None else (use.crop_px[2] / finer, use.crop_px[3] / finer)
    bin_y, bin_x = used[0] / sums.plain.shape[0], used[1] / sums.plain.shape[1]
    raw_ang = pixel_size_ang or 1.0
    pixel = raw_ang * bin_y, raw_ang * bin_x  # sides of the sum are even: they may differ a little
    image = sums.plain if sums.weighted is None else sums.weighted

    def write(data: NDArray[np.float32] | None, suffix: str) -> FileRef | None:
        return None if data is None else _write(data, suffix, pixel_size_ang=pixel, ctx=ctx)

    return Micrograph(
        image=_write(image, "_mic.mrc", pixel_size_ang=pixel, ctx=ctx),
        unweighted=write(sums.plain, "_unweighted.mrc") if sums.weighted is not None and params.write_unweighted else None,
        even=write(sums.even, "_even.mrc"),
        odd=write(sums.odd, "_odd.mrc"),
        height_px=image.shape[0],
        width_px=image.shape[1],
        bin=bin_x,
        dose_weighted=sums.weighted is not None,
        n_frames=len(motion.global_yx_px),
        motion=motion,
        frames=use,
        thumbnail=_write_thumbnail(image, ctx),
        metadata=movie.metadata,
    )


def _write(image: NDArray[np.float32], suffix: str, *, pixel_size_ang: tuple[float, float], ctx: Context) -> FileRef:
    with ctx.publish(suffix) as out:
        write_mrc(out.path, image, pixel_size_ang=pixel_size_ang)
    return out.ref


def _write_thumbnail(image: NDArray[np.float32], ctx: Context) -> FileRef:
    with ctx.publish("_mic.png") as out:
        write_preview(out.path, image)
    return out.ref
