"""What motion correction reads: the frames that are asked for, and the gain and defects that belong on them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.gain.orientation import (
    GainChoice,
    Orientation,
    choose_gain,
    fit_gain_size_2d,
    measure_gain_slope,
    orient_gain_2d,
)
from icestream.algorithms.motion.crop import Area
from icestream.algorithms.motion.frames import Detector, check_counts, make_detector, sum_raw_frames
from icestream.algorithms.namespaces import CORES, Array, Place, to_numpy
from icestream.flow import Context, ItemError
from icestream.io.defects import read_defects, write_defects
from icestream.io.gain import read_gain
from icestream.io.movie import MovieReader
from icestream.records import FileRef, FrameUse, GainReference, Movie

_LARGEST_HELD_BYTES = 1_500_000_000
_MEMORY_BYTES = 3_200_000_000
_LARGEST_COUNT = 1e12
_WORKING_BYTES_PER_PX = 40
"""About what sums, buffers and transforms of a movie need for each pixel of a frame."""


class HeldFrames:
    """The frames of a movie, to be read more than once: kept as they are stored, where they are used, if they are small enough.

    A GPU gets each frame as it is stored (a byte or two a pixel), while the next one is being decoded on a core.
    """

    def __init__(self, reader: MovieReader, start: int, stop: int, *, place: Place = CORES, hold: bool = True) -> None:
        self._reader, self._start, self._stop, self._place = reader, start, stop, place
        self._largest_bytes = _LARGEST_HELD_BYTES if hold else 0
        self._held: list[Array] | None = None

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[Array]:
        if self._held is not None:
            yield from self._held
            return
        pixels = self._reader.height_px * self._reader.width_px
        size = len(self) * pixels * self._reader.dtype.itemsize
        limit = min(self._largest_bytes, _MEMORY_BYTES - _WORKING_BYTES_PER_PX * pixels)
        kept: list[Array] = []
        for stored in self._reader.frames(self._start, self._stop):
            frame = self._place.put(stored)
            if size <= limit:
                kept.append(frame)
            yield frame
        if len(kept) == len(self):
            self._held = kept


@dataclass(frozen=True)
class Reading:
    """How a movie is read: frames ``start`` to ``stop - 1``; EER: camera frames in one of them, and how much finer pixels are."""

    start: int
    stop: int
    group: int = 1
    finer: int = 1


def frame_range(reader: MovieReader, movie: Movie, *, first: int, last: int | None, expected: int | None) -> tuple[int, int]:
    """Return first and one-past-last frame to use.

    Raises
    ------
    ItemError
        The movie has no frame, another number of them than expected or than when it was imported, or not those asked for.
    """
    stop = reader.n_frames if last is None else last + 1
    name = reader.path.name
    if reader.n_frames < 1:
        raise ItemError(f"{name}: movie has no frames, at least 1 is needed")
    if movie.format != "eer" and reader.n_frames != movie.n_frames:
        raise ItemError(
            f"{name}: has {reader.n_frames} frames, but had {movie.n_frames} when it was imported; the file has changed"
        )
    if expected is not None and movie.n_frames != expected:
        raise ItemError(f"{name}: has {movie.n_frames} frames; expected are {expected}")
    if first >= reader.n_frames or stop > reader.n_frames:
        raise ItemError(f"{name}: frames {first} to {stop - 1} are asked for, the movie has frames 0 to {reader.n_frames - 1}")
    return first, stop


def cropped_area(
    reader: MovieReader, *, offset_yx_px: tuple[int, int], size_yx_px: tuple[int, int] | None, finer: int
) -> Area | None:
    """Return the part of the frames that is used, in pixels as they are read; None if that is all.

    Raises
    ------
    ItemError
        The part reaches beyond the frames, or nothing is left.
    """
    whole = reader.height_px, reader.width_px
    top, left = (first * finer for first in offset_yx_px)
    height, width = (whole[0] - top, whole[1] - left) if size_yx_px is None else (length * finer for length in size_yx_px)
    if min(height, width) < 1 or top + height > whole[0] or left + width > whole[1]:
        camera = f"{whole[0] // finer}×{whole[1] // finer}"
        asked = "to the border" if size_yx_px is None else f"of {size_yx_px[0]}×{size_yx_px[1]}"
        first = f"row {offset_yx_px[0]}, column {offset_yx_px[1]}"
        raise ItemError(f"{reader.path.name}: a crop {asked} from {first} reaches beyond its frames of {camera} (height × width)")
    area = Area(top, left, height, width)
    return None if area == Area(0, 0, *whole) else area


def look_at_frames(
    frames: HeldFrames,
    gain: GainReference | None,
    *,
    reader: MovieReader,
    reading: Reading,
    orientation: Orientation | Literal["auto"],
    defects: FileRef | None,
    movie: Movie,
    ctx: Context,
) -> tuple[Detector, FrameUse, NDArray[np.intp]]:
    """Look once at all frames: check them, find how the gain belongs on them and which pixels are defect; and say so.

    The detector is on the host. The last answer is where pixels are hot or dead that neither the gain nor a list declares,
    ``(n, 2)``.

    Raises
    ------
    ItemError
        The movie shows nothing, or the gain does not belong to it.
    FileFormatError, SourceGone
        The gain or the list of defects cannot be read, or is for frames of another size.
    """
    summed, whole = sum_raw_frames(frames, refuse_empty=True)
    total = _without_absurd_counts(to_numpy(summed))
    check_counts(total, n_frames=len(frames), whole=whole)
    values, choice = None, None
    if gain is not None:
        values, choice = _fit_gain(total, gain, reader=reader, orientation=orientation, ctx=ctx)
    known = None if defects is None else read_defects(ctx.path(defects), shape=(total.shape[0], total.shape[1]))
    detector = make_detector(total, values, operation="multiply" if choice is None else choice.operation, known=known)
    found = {} if gain is None or choice is None or values is None else _describe_gain(total, gain, values, choice, detector)
    use = FrameUse(
        movie=movie.file,
        movie_frames=reader.n_frames,
        first_frame=reading.start,
        height_px=total.shape[0],
        width_px=total.shape[1],
        eer_group=reading.group if movie.format == "eer" else None,
        eer_upsampling=reading.finer if movie.format == "eer" else None,
        n_known_defects=detector.n_declared,
        n_hot_px=len(detector.found),
        **found,
    )
    return detector, use, detector.found


def _without_absurd_counts(total: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of the frames with values that no camera counts as not a number: they make their pixels defect."""
    if not len(total) or max(total.max(), -total.min()) < _LARGEST_COUNT:  # false with a NaN too
        return total
    return np.where(np.abs(total) < _LARGEST_COUNT, total, np.float32(np.nan))


def _fit_gain(
    total: NDArray[np.float32],
    gain: GainReference,
    *,
    reader: MovieReader,
    orientation: Orientation | Literal["auto"],
    ctx: Context,
) -> tuple[NDArray[np.float32], GainChoice]:
    """Return the gain in the pixels of the frames, and what is to be done with it."""
    path = ctx.path(gain.file)
    stored, usual = read_gain(path, movie_format=reader.format, operation=gain.operation)
    choice = choose_gain(total, stored, operation=gain.operation, usual=usual, orientation=orientation)
    if choice.operation != usual:
        stored, _ = read_gain(path, operation=choice.operation)  # what divides is scaled, what multiplies is not
    turned = orient_gain_2d(stored, orientation=choice.orientation)
    shape = (total.shape[0], total.shape[1])
    values = fit_gain_size_2d(turned, shape=shape, operation=choice.operation)
    if values is None:
        raise ItemError(f"gain is {stored.shape[0]}×{stored.shape[1]}, movie is {shape[0]}×{shape[1]} (height × width)")
    return values, choice


def _describe_gain(
    total: NDArray[np.float32], gain: GainReference, values: NDArray[np.float32], choice: GainChoice, detector: Detector
) -> dict[str, Any]:
    left, error = measure_gain_slope(np.where(detector.defects, np.nan, total * detector.factor), values)
    return {
        "gain": gain.file,
        "gain_operation": choice.operation,
        "gain_orientation": choice.orientation,
        "gain_slope": choice.slope,
        "gain_residual": left if np.isfinite(left) and np.isfinite(error) else None,
        "gain_note": choice.note,
    }


def publish_hot_pixels(positions_yx: NDArray[np.intp], ctx: Context) -> FileRef | None:
    """Write a list of pixels ``(n, 2)``; None if there are none."""
    if not len(positions_yx):
        return None
    with ctx.publish("_hot.txt") as out:
        write_defects(out.path, positions_yx)
    return out.ref
