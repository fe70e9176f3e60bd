"""Gain correction and the pixels that cannot be trusted.

A pixel is a defect when its gain is zero, not finite or far from the others, or when the sum of the frames stands far above (hot)
or below (dead) its neighbours: counting noise is Poisson (variance = mean), so a step of many standard deviations in a single
pixel is no specimen. Defects get, in each frame, the value of a good neighbour drawn by a fixed rule, so that noise stays alike.
"""

from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.errors import ItemError

Operation = Literal["multiply", "divide"]
_EXTREME = 5.0
_HOT_SIGMA = 8.0
_LARGEST_HOT_SHARE = 0.01
_LARGEST_DEFECT_SHARE = 0.5


def prepare_gain_2d(
    gain: NDArray[Any] | None, *, operation: Operation, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the factor of each pixel and which pixels the gain declares defect: ``(h, w)`` each.

    A pixel is defect where the gain is not finite, not positive, or more than five times above or below the median.

    Raises
    ------
    ItemError
        The gain has another size than the movie, no usable pixel, or more defects than half of its pixels.
    """
    if gain is None:
        return np.ones(shape, dtype=np.float32), np.zeros(shape, dtype=np.bool_)
    if gain.shape != shape:
        raise ItemError(f"gain is {gain.shape[-2]}×{gain.shape[-1]}, movie is {shape[0]}×{shape[1]} (height × width)")
    usable = np.isfinite(gain) & (gain > 0)  # (h, w)
    if not usable.any():
        raise ItemError("gain has no pixel above zero")
    middle = float(np.median(gain[usable]))
    usable &= (gain > middle / _EXTREME) & (gain < middle * _EXTREME)
    if (share := 1 - np.count_nonzero(usable) / usable.size) > _LARGEST_DEFECT_SHARE:
        raise ItemError(f"gain declares {share:.0%} of the pixels defect; allowed is {_LARGEST_DEFECT_SHARE:.0%}")
    factor = np.ones(shape, dtype=np.float32)
    if operation == "multiply":
        factor[usable] = gain[usable]
    else:
        factor[usable] = 1.0 / gain[usable]
    return factor, ~usable


def apply_gain_2d(frame: NDArray[Any], gain: NDArray[Any], *, operation: Operation) -> NDArray[np.float32]:
    """Return ``frame`` multiplied with (or divided by) ``gain``, defects of the gain replaced: ``(h, w)``.

    Raises
    ------
    ItemError
        The gain has another size than the frame.
    """
    factor, defects = prepare_gain_2d(gain, operation=operation, shape=(frame.shape[-2], frame.shape[-1]))
    return correct_frame_2d(frame, factor, defects, positions=np.argwhere(defects), seed=0)


@njit(cache=True, nogil=True)
def _outliers(total: Any, known: Any, sigma: float) -> Any:
    height, width = total.shape
    found = known.copy()
    ring = np.empty(24, dtype=np.float64)
    for y in range(height):
        for x in range(width):
            value = total[y, x]
            if known[y, x]:
                continue
            if not np.isfinite(value):
                found[y, x] = True
                continue
            left, right = total[y, max(x - 1, 0)], total[y, min(x + 1, width - 1)]
            rough = 0.5 * (left + right)
            if abs(value - rough) < 0.5 * sigma * np.sqrt(max(rough, 1.0)):
                continue
            count = 0
            for row in range(max(y - 2, 0), min(y + 3, height)):
                for column in range(max(x - 2, 0), min(x + 3, width)):
                    near = total[row, column]
                    if (row != y or column != x) and not known[row, column] and np.isfinite(near):
                        ring[count] = near
                        count += 1
            if count < 3:
                continue
            middle = np.median(ring[:count])
            spread = 1.4826 * np.median(np.abs(ring[:count] - middle))
            if abs(value - middle) > sigma * max(spread, np.sqrt(max(middle, 1.0))):
                found[y, x] = True
    return found


def find_defects_2d(total: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pixels are defect: the ``known`` ones, and those of the frame sum far from their neighbours.

    Parameters
    ----------
    total
        ``(h, w)``: gain-corrected sum of all frames, in counts.
    known
        ``(h, w)``: defects told by the gain.

    Notes
    -----
    Should more than one pixel in a hundred stand out, the rule does not fit the detector and only ``known`` is used.
    """
    found: NDArray[np.bool_]
    found = _outliers(np.ascontiguousarray(total, dtype=np.float32), known, _HOT_SIGMA)
    not_finite = ~np.isfinite(total)
    if np.count_nonzero(found & ~known & ~not_finite) > _LARGEST_HOT_SHARE * found.size:
        found = known | not_finite
    return found


@njit(cache=True, nogil=True)
def _multiply(frame: Any, factor: Any, out: Any) -> None:
    for y in range(frame.shape[0]):
        for x in range(frame.shape[1]):
            out[y, x] = np.float32(frame[y, x]) * factor[y, x]


@njit(cache=True, nogil=True)
def _draw(defects: Any, positions: Any, seed: int) -> Any:
    height, width = defects.shape
    sources = np.full(positions.shape[0], -1, dtype=np.int64)
    for index in range(positions.shape[0]):
        y, x = positions[index]
        state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(y * width + x) + np.uint64(1)
        for attempt in range(512):
            state ^= state << np.uint64(13)
            state ^= state >> np.uint64(7)
            state ^= state << np.uint64(17)
            reach = 3 + attempt * attempt // 64
            row = y + int(state % np.uint64(2 * reach + 1)) - reach
            column = x + int((state >> np.uint64(32)) % np.uint64(2 * reach + 1)) - reach
            if 0 <= row < height and 0 <= column < width and not defects[row, column]:
                sources[index] = row * width + column
                break
    return sources


@njit(cache=True, nogil=True)
def _replace(out: Any, positions: Any, sources: Any) -> None:
    width = out.shape[1]
    for index in range(positions.shape[0]):
        y, x = positions[index]
        source = sources[index]
        out[y, x] = out[source // width, source % width] if source >= 0 else np.float32(0.0)


def draw_good_pixels(defects: NDArray[np.bool_], positions: NDArray[np.intp], *, seed: int) -> NDArray[np.int64]:
    """Return for each defect the flat index of a good pixel near it, drawn by a fixed rule, or -1 if none was found: ``(n,)``.

    Parameters
    ----------
    positions
        ``(n, 2)``: where ``defects`` ``(h, w)`` is true.
    seed
        Number of the frame: which pixel is drawn depends on it.
    """
    sources: NDArray[np.int64] = _draw(defects, positions, seed)
    return sources


def correct_frame_2d(
    frame: NDArray[Any],
    factor: NDArray[np.float32],
    defects: NDArray[np.bool_],
    *,
    positions: NDArray[np.intp],
    seed: int,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return one frame times ``factor``, defects replaced by good neighbours: ``(h, w)``.

    Parameters
    ----------
    positions
        ``(n, 2)``: where ``defects`` is true (looking them up takes longer than the rest, so it is done once a movie).
    seed
        Number of the frame: which neighbour is drawn depends on it, so that replacements differ from frame to frame.
    out
        Where to write the result, ``(h, w)``; a new array if unset (fresh memory costs as much as the correction).
    """
    corrected = np.empty(frame.shape, dtype=np.float32) if out is None else out
    _multiply(np.ascontiguousarray(frame), factor, corrected)
    if len(positions):
        _replace(corrected, positions, _draw(defects, positions, seed))
    return corrected
