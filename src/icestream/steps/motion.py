"""Motion correction: from a raw movie to a micrograph."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from icestream.algorithms.motion_align import MotionEstimate, align_movie
from icestream.algorithms.motion_frames import inspect_frames
from icestream.algorithms.motion_sum import DoseModel, sum_frames_2d
from icestream.errors import ItemError
from icestream.flow import Context, Field, Params, step
from icestream.io.gain import Operation, read_gain
from icestream.io.image import write_mrc
from icestream.io.movie import MovieReader, open_movie
from icestream.io.preview import write_preview
from icestream.records import Acquisition, FileRef, GainReference, Micrograph, Motion, Movie
from icestream.units import Pixel

_LARGEST_HELD_BYTES = 1_500_000_000
_EER_FRACTIONS = 40


class MotionParams(Params):
    """How the motion of the specimen is found and undone."""

    local: bool = Field(
        True, description="Also correct motion that differs over the field; dropped where the data do not show it"
    )
    patches: tuple[int, int] | None = Field(None, description="Patches along y and x; chosen by the frame size if unset")
    max_shift_px: Pixel = Field(100.0, gt=0, description="How far a frame may lie from the mean position")
    b_factor_px2: float = Field(
        150.0,
        ge=0,
        description="Damping exp(-B k²) of high frequencies, until their signal has been measured (px², k in cycles per pixel)",
    )
    bin: float = Field(1.0, ge=1, le=8, description="Pixel size of the micrograph relative to the movie (2 for super-resolution)")
    first_frame: int = Field(0, ge=0, description="First frame to use, counted from 0")
    last_frame: int | None = Field(None, ge=0, description="Last frame to use, counted from 0; the last of the movie if unset")
    group: int | None = Field(
        None, ge=1, description="Frames added up before alignment; chosen by number and dose of the frames if unset"
    )

    eer_group: int | None = Field(
        None, ge=1, description="EER only: camera frames added up to one frame; about 40 frames in all if unset"
    )
    eer_upsampling: Literal[1, 2, 4] = Field(1, description="EER only: finer pixels than the camera's, along each axis")

    @model_validator(mode="after")
    def _check(self) -> "MotionParams":
        if self.patches is not None and not all(2 <= count <= 16 for count in self.patches):
            raise ValueError(f"patches is {self.patches}; allowed is 2 to 16 along each axis")
        if self.last_frame is not None and self.last_frame < self.first_frame:
            raise ValueError(f"last_frame is {self.last_frame}, before first_frame {self.first_frame}")
        return self


class _HeldFrames:
    """The frames of a movie, to be read more than once: kept in memory as they are stored if they are small enough."""

    def __init__(self, reader: MovieReader, start: int, stop: int) -> None:
        self._reader, self._start, self._stop = reader, start, stop
        self._held: list[NDArray[Any]] | None = None

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[NDArray[Any]]:
        if self._held is not None:
            yield from self._held
            return
        size = len(self) * self._reader.height_px * self._reader.width_px * self._reader.dtype.itemsize
        kept: list[NDArray[Any]] = []
        for frame in self._reader.frames(self._start, self._stop):
            if size <= _LARGEST_HELD_BYTES:
                kept.append(frame)
            yield frame
        if len(kept) == len(self):
            self._held = kept


@step.map(
    "motion",
    version=1,
    reads=("pixel_size_ang", "voltage_kv", "dose_per_frame_e_per_ang2", "pre_exposure_e_per_ang2"),
    memory_gb=4.0,
)
def correct_motion(
    movie: Movie, gain: GainReference | None, params: MotionParams, acquisition: Acquisition, ctx: Context
) -> Micrograph:
    """Undo the motion of the specimen during one movie and add up its frames, weighted by dose where it is known."""
    group, finer = _eer_reading(movie, params)
    with open_movie(ctx.path(movie.file), eer_group=group, eer_upsampling=finer) as reader:
        frames = _HeldFrames(reader, *_frame_range(reader, params))
        factor, operation = _read_gain(gain, reader, finer=finer, ctx=ctx)
        detector = inspect_frames(frames, factor, operation=operation)
        ctx.progress(0.2, "aligning")
        motion = align_movie(
            frames,
            detector,
            max_shift_px=params.max_shift_px,
            b_factor_px2=params.b_factor_px2,
            local=params.local,
            grid=params.patches,
            group=params.group,
            electrons_per_px=_electrons_per_px(acquisition, group=group, finer=finer),
        )
        ctx.progress(0.6, "adding up")
        plain, weighted = sum_frames_2d(
            frames,
            detector,
            global_yx_px=motion.global_yx_px,
            local_coefficients=motion.local_coefficients,
            dose=_dose_model(acquisition, group=group, finer=finer),
            bin=params.bin,
            first_frame=params.first_frame,
        )
    record = describe_motion(motion, finer=finer)
    return _publish(plain, weighted, record, movie=movie, pixel_size_ang=acquisition.pixel_size_ang, ctx=ctx)


def _read_gain(
    gain: GainReference | None, reader: MovieReader, *, finer: int, ctx: Context
) -> tuple[NDArray[np.float32] | None, Operation]:
    """Return the gain in the pixels of the frames, and what to do with it: as its record says, else by the kinds of file."""
    if gain is None:
        return None, "multiply"
    factor, operation = read_gain(ctx.path(gain.file), movie_format=reader.format, operation=gain.operation)
    if finer > 1:
        factor = np.repeat(np.repeat(factor, finer, axis=0), finer, axis=1)  # (finer h, finer w)
    return factor, operation


def _eer_reading(movie: Movie, params: MotionParams) -> tuple[int, int]:
    """Return how many camera frames make one frame and how much finer its pixels are: 1 and 1 for all but EER."""
    if movie.format != "eer":
        return 1, 1
    return params.eer_group or max(1, round(movie.n_frames / _EER_FRACTIONS)), params.eer_upsampling


def _frame_range(reader: MovieReader, params: MotionParams) -> tuple[int, int]:
    """Return first and one-past-last frame to use."""
    stop = reader.n_frames if params.last_frame is None else params.last_frame + 1
    if reader.n_frames < 1:
        raise ItemError(f"{reader.path.name}: movie has no frames, at least 1 is needed")
    if params.first_frame >= reader.n_frames or stop > reader.n_frames:
        raise ItemError(
            f"{reader.path.name}: frames {params.first_frame} to {stop - 1} are asked for, "
            f"the movie has frames 0 to {reader.n_frames - 1}"
        )
    return params.first_frame, stop


def _electrons_per_px(acquisition: Acquisition, *, group: int, finer: int) -> float | None:
    """Return the dose of one frame as it is aligned; the session's dose is that of one stored frame."""
    if acquisition.dose_per_frame_e_per_ang2 is None or acquisition.pixel_size_ang is None:
        return None
    return acquisition.dose_per_frame_e_per_ang2 * group * (acquisition.pixel_size_ang / finer) ** 2


def _dose_model(acquisition: Acquisition, *, group: int, finer: int) -> DoseModel | None:
    """Return what dose weighting needs, or None if voltage, pixel size or dose is unset; an unset pre-exposure is none."""
    values = (acquisition.voltage_kv, acquisition.pixel_size_ang, acquisition.dose_per_frame_e_per_ang2)
    if values[0] is None or values[1] is None or values[2] is None:
        return None
    return DoseModel(values[0], values[1] / finer, values[2] * group, acquisition.pre_exposure_e_per_ang2 or 0.0)


def describe_motion(estimate: MotionEstimate, *, finer: int = 1) -> Motion:
    """Return the record of a motion in raw pixels: the track, the local model, and how long the way was."""
    track = estimate.global_yx_px / finer  # (n, 2)
    lengths = np.linalg.norm(np.diff(track, axis=0), axis=1)  # (n - 1,)
    local = estimate.local_coefficients
    return Motion(
        global_yx_px=[(float(y), float(x)) for y, x in track],
        local_coefficients=None if local is None else (local / finer).tolist(),
        local_rms_px=None if estimate.local_rms_px is None else estimate.local_rms_px / finer,
        total_px=float(lengths.sum()),
        early_px=float(lengths[: -(-len(track) // 4)].sum()),
        note=estimate.note,
    )


def _publish(
    plain: NDArray[np.float32],
    weighted: NDArray[np.float32] | None,
    motion: Motion,
    *,
    movie: Movie,
    pixel_size_ang: float | None,
    ctx: Context,
) -> Micrograph:
    """Write the images; without a known pixel size the headers say 1 Å per movie pixel."""
    pixel = (pixel_size_ang or 1.0) * movie.width_px / plain.shape[1]
    image = plain if weighted is None else weighted
    return Micrograph(
        image=_write(image, "_mic.mrc", pixel_size_ang=pixel, ctx=ctx),
        unweighted=None if weighted is None else _write(plain, "_unweighted.mrc", pixel_size_ang=pixel, ctx=ctx),
        height_px=image.shape[0],
        width_px=image.shape[1],
        bin=movie.width_px / plain.shape[1],
        dose_weighted=weighted is not None,
        n_frames=len(motion.global_yx_px),
        motion=motion,
        thumbnail=_write_thumbnail(image, ctx),
        metadata=movie.metadata,
    )


def _write(image: NDArray[np.float32], suffix: str, *, pixel_size_ang: float, ctx: Context) -> FileRef:
    with ctx.publish(suffix) as out:
        write_mrc(out.path, image, pixel_size_ang=pixel_size_ang)
    return out.ref


def _write_thumbnail(image: NDArray[np.float32], ctx: Context) -> FileRef:
    with ctx.publish("_mic.png") as out:
        write_preview(out.path, image)
    return out.ref
