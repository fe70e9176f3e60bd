"""The frames of a movie, streamed: checks, their raw sum, defects, and binned copies for alignment."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.gain.correction import Operation, correct_frame_2d, draw_good_pixels, find_defects_2d, prepare_gain_2d
from icestream.algorithms.motion.arrays import bin_array, correct_array
from icestream.algorithms.motion.bin import add_corrected_binned
from icestream.algorithms.namespaces import Array, Place, place_of, to_numpy
from icestream.errors import ItemError

_LARGEST_BINNED_SIDE = 2048
_SATURATED_SHARE = 0.5
_LEAST_COUNTS = 0.1
_MOST_ZEROS = 0.905
"""Share of pixels that count nothing where 0.1 electrons came to each: exp(-0.1)."""


class Frames(Protocol):
    """A movie that can be read more than once, frame by frame: a list of arrays, an ``(n, h, w)`` array, or a reader.

    The arrays may be of any library, all on one device.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Array]: ...


@dataclass(frozen=True)
class Detector:
    """What one look at all frames tells of the camera: factor and defects ``(h, w)``, and where the defects are ``(n, 2)``.

    ``n_declared`` of the defects were known or declared by the gain; which others `make_detector` found is in ``found``,
    ``(m, 2)``. ``factor`` lives where the frames are; on a device, ``is_defect`` ``(h, w)`` and the number of defects before each
    pixel, ``ranks`` ``(h * w,)``, are there too.
    """

    factor: Array
    defects: NDArray[np.bool_]
    positions: NDArray[np.intp]
    n_declared: int = 0
    found: NDArray[np.intp] = field(default_factory=lambda: np.zeros((0, 2), np.intp))
    is_defect: Array | None = None
    ranks: Array | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.factor.shape[0], self.factor.shape[1]

    @property
    def place(self) -> Place:
        """Where frames are corrected."""
        return place_of(self.factor)

    def on(self, place: Place) -> "Detector":
        """Return the same detector for frames that are at ``place``."""
        factor = to_numpy(self.factor)
        if place.on_cores:
            return replace(self, factor=factor, is_defect=None, ranks=None)
        if not len(self.positions):
            return replace(self, factor=place.put(factor), is_defect=None, ranks=None)
        flat = self.defects.ravel()
        ranks = np.cumsum(flat, dtype=np.int32) - flat
        found = place.put(self.defects), place.put(np.minimum(ranks, len(self.positions) - 1))
        return replace(self, factor=place.put(factor), is_defect=found[0], ranks=found[1])

    def check(self, frame: Array, number: int) -> None:
        """Refuse a frame of another size."""
        if frame.shape != self.shape:
            raise ItemError(f"frame {number} is {frame.shape[0]}×{frame.shape[1]}, frame 0 is {self.shape[0]}×{self.shape[1]}")

    def correct(self, frame: Array, *, number: int, out: NDArray[np.float32] | None = None) -> Array:
        """Return a frame with gain and defects corrected; on cores it is written to ``out`` if that is given."""
        self.check(frame, number)
        if self.place.on_cores:
            return correct_frame_2d(frame, self.factor, self.defects, positions=self.positions, seed=number, out=out)
        sources = draw_good_pixels(self.defects, self.positions, seed=number)
        return correct_array(frame, self.factor, ranks=self.ranks, sources=sources, is_defect=self.is_defect)

    def add_binned(self, total: Array, frame: Array, *, number: int, bin: int, scale: float) -> None:
        """Add a frame to ``total``, corrected as by `correct`, then binned and multiplied with ``scale``."""
        if not self.place.on_cores:
            total[:, :] += bin_array(self.correct(frame, number=number), bin=bin) * scale
            return
        self.check(frame, number)
        sources = draw_good_pixels(self.defects, self.positions, seed=number)
        add_corrected_binned(total, frame, self.factor, positions=self.positions, sources=sources, bin=bin, scale=scale)


@njit(cache=True, nogil=True)
def _add(total: Any, frame: Any) -> None:
    for y in range(total.shape[0]):
        for x in range(total.shape[1]):
            total[y, x] += np.float32(frame[y, x])


@njit(cache=True, nogil=True)
def _add_four(total: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    """Add four frames one after the other while a pixel of the total is at hand."""
    for y in range(total.shape[0]):
        line, row_a, row_b, row_c, row_d = total[y], a[y], b[y], c[y], d[y]
        for x in range(total.shape[1]):
            both = (line[x] + np.float32(row_a[x])) + np.float32(row_b[x])
            line[x] = (both + np.float32(row_c[x])) + np.float32(row_d[x])


def _added_all(total: Array, frames: list[Array]) -> Array:
    """Return ``total`` and raw frames added up in their order; on cores ``total`` itself is changed."""
    whole = len(frames) // 4 * 4 if place_of(total).on_cores else 0
    for first in range(0, whole, 4):
        _add_four(total, *map(np.ascontiguousarray, frames[first : first + 4]))
    for frame in frames[whole:]:
        total = _added(total, frame)
    return total


def _added(total: Array, frame: Array) -> Array:
    """Return ``total`` and a raw frame added up; on cores ``total`` itself is changed."""
    place = place_of(total)
    if not place.on_cores:
        return total + place.xp.astype(frame, place.xp.float32)
    _add(total, np.ascontiguousarray(frame))
    return total


def sum_raw_frames(frames: Iterable[Array], *, refuse_empty: bool = False) -> tuple[Array, bool]:
    """Return the plain sum of all frames as they were read, ``(h, w)``, where they are, and whether they are whole numbers.

    Parameters
    ----------
    refuse_empty
        Raise if some frames are all zero and others are not: dose weights would count beam that never came.

    Raises
    ------
    ItemError
        There is no frame, frames differ in size, a frame is saturated, or some frames are empty and that is refused.
    """
    total: Array | None = None
    waiting: list[Array] = []
    whole = True
    empty: list[int] = []
    saturated: list[tuple[int, float]] = []
    for number, frame in enumerate(frames):
        place = place_of(frame)
        integral = bool(place.xp.isdtype(frame.dtype, "integral"))
        whole = whole and integral
        if total is None:
            total = place.zeros(frame.shape, "float32")
        if frame.ndim != 2 or frame.shape != total.shape:
            raise ItemError(
                f"frame {number} has shape {frame.shape}, the first frame has {total.shape}; allowed is one (height, width)"
            )
        if (largest := _saturated_at(frame)) is not None:
            saturated.append((number, largest))
            if integral and largest == np.iinfo(to_numpy(frame[:1, :1]).dtype).max:
                _refuse_saturated(saturated)
        if refuse_empty and not place.xp.any(frame[::16, ::16]) and not place.xp.any(frame):
            empty.append(number)
        waiting.append(frame)
        if len(waiting) == 4 or not place.on_cores:
            total, waiting = _added_all(total, waiting), []
    if total is None:
        raise ItemError("movie has no frames: at least 1 is needed")
    total = _added_all(total, waiting)
    xp = place_of(total).xp
    if saturated and float(xp.max(total)) > float(xp.min(total)):  # not a movie that is constant as a whole
        _refuse_saturated(saturated)
    if empty and xp.any(total):
        some = ", ".join(map(str, empty[:5])) + (" …" if len(empty) > 5 else "")
        raise ItemError(f"{len(empty)} frames are all zero (frames {some}) and others are not: leave them out, or the movie")
    return total, whole


def _refuse_saturated(found: list[tuple[int, float]]) -> None:
    number, largest = found[0]
    raise ItemError(f"frame {number} is saturated: more than half of its pixels are at its largest value, {largest:g}")


def _saturated_at(frame: Array) -> float | None:
    """Return the value that most pixels have and none exceeds, be it the largest of the type or of the camera; or None."""
    probe = to_numpy(frame[:: max(frame.shape[0] // 256, 1), :: max(frame.shape[1] // 256, 1)])
    largest = float(probe.max()) if probe.size else 0.0
    most = np.count_nonzero(probe == largest) > _SATURATED_SHARE * probe.size
    return largest if largest > 1 and most else None  # a sparse frame of single electrons has at most 1


def inspect_frames(frames: Frames, gain: NDArray[Any] | None, *, operation: Operation) -> Detector:
    """Look once at all frames: refuse a movie that shows nothing, and find the defects of the camera.

    Raises
    ------
    ItemError
        No frame; frames or gain of different sizes; no beam; not a number; saturated; no contrast at all.
    """
    summed, whole = sum_raw_frames(frames)
    total = to_numpy(summed)
    if gain is not None and gain.shape != total.shape:
        prepare_gain_2d(gain, operation=operation, shape=(total.shape[0], total.shape[1]))
    check_counts(total, n_frames=len(frames), whole=whole)
    return make_detector(total, gain, operation=operation).on(place_of(summed))


def check_counts(total: NDArray[np.float32], *, n_frames: int, whole: bool) -> None:
    """Refuse a movie that shows nothing, by the plain sum of its frames.

    Parameters
    ----------
    total
        ``(h, w)``, and ``whole`` as `sum_raw_frames` returns them.

    Raises
    ------
    ItemError
        No beam; not a number; no contrast at all.
    """
    finite = np.isfinite(total)
    if not finite.any():
        raise ItemError("movie holds no number: every pixel is NaN or infinite in some frame")
    if np.count_nonzero(~finite) > 0.1 * finite.size:
        raise ItemError(
            f"movie is damaged: {np.count_nonzero(~finite) / finite.size:.0%} of the pixels are NaN or infinite; allowed is 10 %"
        )
    values = total if finite.all() else total[finite]
    if not np.any(values):
        raise ItemError(f"no beam: all {n_frames} frames are zero")
    counts = float(values.mean(dtype=np.float64))
    if whole and counts < _LEAST_COUNTS:
        raise ItemError(
            f"no beam: {counts:.2g} counts per pixel in all {n_frames} frames together, at least {_LEAST_COUNTS} are needed"
        )
    if not whole and (zeros := np.count_nonzero(values == 0) / values.size) > _MOST_ZEROS:
        raise ItemError(
            f"no beam: {zeros:.1%} of the pixels counted nothing in all {n_frames} frames together, allowed are {_MOST_ZEROS:.1%}"
        )
    if np.ptp(values) == 0:
        raise ItemError(f"movie has no contrast: the sum of its {n_frames} frames is {values.flat[0]:g} in every pixel")


def make_detector(
    total: NDArray[np.float32], gain: NDArray[Any] | None, *, operation: Operation, known: NDArray[np.bool_] | None = None
) -> Detector:
    """Return the factor of each pixel, and the defects: those that are known, that the gain declares, and that the sum shows.

    Parameters
    ----------
    total
        ``(h, w)``: plain sum of all frames.
    known
        ``(h, w)``: defects that somebody listed.

    Raises
    ------
    ItemError
        The gain has another size or no usable pixel; or no pixel is left.
    """
    factor, declared = prepare_gain_2d(gain, operation=operation, shape=(total.shape[0], total.shape[1]))
    if known is not None:
        declared = declared | known
    defects = find_defects_2d(total * factor, declared)
    if defects.all():
        raise ItemError("no usable pixel: all are defect by gain or by their counts")
    positions = np.argwhere(defects)
    found = positions[~declared[positions[:, 0], positions[:, 1]]]
    return Detector(factor, defects, positions, n_declared=int(np.count_nonzero(declared)), found=found)


def choose_bin(shape: tuple[int, int]) -> int:
    """Return by how much frames are binned for alignment: sides stay at or below 2048."""
    return max(1, -(-max(shape) // _LARGEST_BINNED_SIDE))


def group_frames(frames: Frames, *, group: int) -> Iterator[tuple[float, int, Array]]:
    """Yield ``group`` raw frames at a time: their mean frame number, how many they are, and their sum.

    A short remainder joins the last group. A group of one is the frame itself, in its own type.
    """
    n_groups = max(1, len(frames) // group)
    total: Array | None = None
    start = 0
    for number, frame in enumerate(frames):
        if number == start:
            xp = place_of(frame).xp
            total = frame if group == 1 else xp.astype(frame, xp.float32)
        else:
            total = _added(total, frame)
        index = start // group
        stop = len(frames) if index == n_groups - 1 else start + group
        if number == stop - 1 and total is not None:
            yield (start + number) / 2, stop - start, total
            start = stop


def bin_frames(frames: Frames, detector: Detector, *, bin: int, group: int) -> tuple[Array, NDArray[np.float64]]:
    """Correct and bin the mean of ``group`` frames at a time.

    Returns
    -------
    images, times
        ``(n, h // bin, w // bin)``, where the frames are, and the mean frame number of each, ``(n,)``.
    """
    height, width = detector.shape
    place = detector.place
    images = place.zeros((max(1, len(frames) // group), height // bin, width // bin), "float32")
    times = np.zeros(images.shape[0])
    for index, (time, size, frame) in enumerate(group_frames(frames, group=group)):
        times[index] = time
        detector.add_binned(images[index, :, :], frame, number=index, bin=bin, scale=1.0 / (bin * bin * size))
    return images, times
