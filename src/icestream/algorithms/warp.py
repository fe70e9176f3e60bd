"""Resampling a frame along a smooth field of shifts without damping its high frequencies.

The kernel is the fractional delay of `N_TAPS` taps that is closest to a perfect one, in the weighted least-squares sense, at all
frequencies (Laakso et al. 1996, IEEE Signal Process. Mag. 13, 30, section on least squared error design). The field is smooth, so
it is taken as constant over small blocks and applied one axis after the other.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from icestream.algorithms.namespaces import Array, place_of
from icestream.algorithms.warp_arrays import add_warped_arrays

N_TAPS = 12
BLOCK_PX = 16
"""Side of the blocks over which a shift is constant."""
_STEPS = 512
_TOGETHER = 4
_BLOCKS = 32
"""Frames, and blocks along x, that are added to the sums in one go: it is memory that takes the time."""


@lru_cache(maxsize=1)
def interpolation_table() -> NDArray[np.float32]:
    """Return the taps for delays of 0 to 1 px: ``(513, N_TAPS)``, read-only; row ``i`` reads the image at ``i / 512`` px.

    Tap ``j`` belongs to the pixel at offset ``j - (N_TAPS // 2 - 1)``.
    """
    offsets = np.arange(N_TAPS) - (N_TAPS // 2 - 1)  # (taps,)
    delays = np.arange(_STEPS + 1) / _STEPS  # (513,)
    frequency = (np.arange(512) + 0.5) / 1024  # (512,) cycles per pixel
    weight = (0.5 - frequency) ** 2  # no even number of taps can pass Nyquist, so it must not spoil the rest
    waves = np.exp(2j * np.pi * frequency[:, None] * offsets)  # (512, taps)
    normal = np.real((waves.conj() * weight[:, None]).T @ waves)  # (taps, taps)
    wanted = np.real((waves.conj() * weight[:, None]).T @ np.exp(2j * np.pi * frequency[:, None] * delays))  # (taps, 513)
    table = np.linalg.solve(normal, wanted).T  # (513, taps)
    table[0] = offsets == 0
    table[-1] = offsets == 1
    taps: NDArray[np.float32] = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    taps.flags.writeable = False
    return taps


def block_centres(length: int) -> NDArray[np.float64]:
    """Return the middle pixel coordinate of each block along an axis of ``length``: ``(n_blocks,)``."""
    return np.arange(-(-length // BLOCK_PX), dtype=np.float64) * BLOCK_PX + 0.5 * (BLOCK_PX - 1)


@njit(cache=True, nogil=True)
def _mirror(index: int, length: int) -> int:
    period = 2 * length
    index %= period
    return index if index < length else period - 1 - index


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _weigh_rows(out: Any, tile: Any, count: int, w: Any) -> None:
    """Set ``out[i]`` to the weighted sum of ``tile[i]``, ``tile[i + 16]``, …: 12 rows of a block, one behind the other."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11]
    for i in range(count):
        first = w0 * tile[i] + w1 * tile[i + 16] + w2 * tile[i + 32] + w3 * tile[i + 48] + w4 * tile[i + 64] + w5 * tile[i + 80]
        second = w6 * tile[i + 96] + w7 * tile[i + 112] + w8 * tile[i + 128] + w9 * tile[i + 144]
        out[i] = first + second + w10 * tile[i + 160] + w11 * tile[i + 176]


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _weigh_columns(out: Any, line: Any, count: int, w: Any) -> None:
    """Set ``out[x]`` to the weighted sum of ``line[x : x + 12]``."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11]
    for x in range(count):
        first = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3] + w4 * line[x + 4] + w5 * line[x + 5]
        second = w6 * line[x + 6] + w7 * line[x + 7] + w8 * line[x + 8] + w9 * line[x + 9]
        out[x] = first + second + w10 * line[x + 10] + w11 * line[x + 11]


@njit(cache=True, nogil=True, inline="always")
def _copy(out: Any, line: Any, count: int) -> None:
    if count == BLOCK_PX:  # a loop of known length is a few instructions
        for x in range(BLOCK_PX):
            out[x] = line[x]
    else:
        for x in range(count):
            out[x] = line[x]


@njit(cache=True, nogil=True, fastmath=True)
def _interpolate_rows(image: Any, field_y: Any, table: Any, strip: Any, block: int, margin: int) -> None:
    """Fill ``strip`` (the rows of one block, with mirrored margins) with ``image`` read at ``y + field_y``."""
    height, width = image.shape
    y_start = block * BLOCK_PX
    n_rows = min(BLOCK_PX, height - y_start)
    tile = np.zeros((BLOCK_PX + N_TAPS - 1) * BLOCK_PX, dtype=np.float32)
    values = np.empty(BLOCK_PX * BLOCK_PX, dtype=np.float32)
    for block_x in range(field_y.shape[1]):
        start = block_x * BLOCK_PX
        n_columns = min(BLOCK_PX, width - start)
        whole = int(np.floor(field_y[block, block_x]))
        weights = table[round((field_y[block, block_x] - whole) * _STEPS)]
        first = y_start + whole - (N_TAPS // 2 - 1)
        for row in range(n_rows + N_TAPS - 1):
            y = first + row
            if y < 0 or y >= height:
                y = _mirror(y, height)
            _copy(tile[row * BLOCK_PX : row * BLOCK_PX + n_columns], image[y, start : start + n_columns], n_columns)
        _weigh_rows(values, tile, n_rows * BLOCK_PX, weights)
        for row in range(n_rows):
            target = strip[row, margin + start : margin + start + n_columns]
            _copy(target, values[row * BLOCK_PX : row * BLOCK_PX + n_columns], n_columns)
    for row in range(n_rows):
        for x in range(margin):
            strip[row, margin - 1 - x] = strip[row, margin + _mirror(x, width)]
            strip[row, margin + width + x] = strip[row, margin + _mirror(width + x, width)]


@njit(cache=True, nogil=True, fastmath=True)
def _interpolate_columns(  # noqa: PLR0917 - compiled
    values: Any, strip: Any, field_x: Any, table: Any, first: int, last: int, margin: int, width: int
) -> None:
    """Set ``values`` to the blocks ``first`` to ``last - 1`` of ``strip``, read at ``x + field_x``."""
    for block_x in range(first, last):
        start, into = block_x * BLOCK_PX, (block_x - first) * BLOCK_PX
        n_columns = min(BLOCK_PX, width - start)
        whole = int(np.floor(field_x[block_x]))
        weights = table[round((field_x[block_x] - whole) * _STEPS)]
        source = margin + start + whole - (N_TAPS // 2 - 1)
        for row in range(strip.shape[0]):
            line = strip[row, source : source + n_columns + N_TAPS - 1]
            _weigh_columns(values[row, into : into + n_columns], line, n_columns, weights)


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_four(target: Any, rows: Any, w: Any) -> None:
    """Add four rows to ``target``, each by its weight and one after the other."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    r0, r1, r2, r3 = rows[0], rows[1], rows[2], rows[3]
    for x in range(target.shape[0]):
        both = target[x] + w0 * r0[x] + w1 * r1[x]
        target[x] = both + w2 * r2[x] + w3 * r3[x]


@njit(cache=True, nogil=True)
def _add_warped(frames: Any, fields: Any, table: Any, sums: Any, weights: Any, margin: int) -> None:
    n_sums, height, width = sums.shape
    strips = np.zeros((_TOGETHER, BLOCK_PX, width + 2 * margin), dtype=np.float32)
    for start in range(0, frames.shape[0], _TOGETHER):
        count = min(_TOGETHER, frames.shape[0] - start)
        values = np.zeros((_TOGETHER, BLOCK_PX, _BLOCKS * BLOCK_PX), dtype=np.float32)  # what is not there weighs nothing
        parts = np.zeros((n_sums, _TOGETHER), dtype=np.float32)
        parts[:, :count] = weights[start : start + count].T
        for block in range(fields.shape[2]):
            y_start = block * BLOCK_PX
            for index in range(count):
                _interpolate_rows(frames[start + index], fields[start + index, 0], table, strips[index], block, margin)
            for first in range(0, fields.shape[3], _BLOCKS):
                last = min(first + _BLOCKS, fields.shape[3])
                x_start, x_stop = first * BLOCK_PX, min(last * BLOCK_PX, width)
                for index in range(count):
                    field_x = fields[start + index, 1, block]
                    _interpolate_columns(values[index], strips[index], field_x, table, first, last, margin, width)
                for number in range(n_sums):
                    for row in range(min(BLOCK_PX, height - y_start)):
                        target = sums[number, y_start + row, x_start:x_stop]
                        _add_four(target, values[:, row, : x_stop - x_start], parts[number])


def add_warped_frames(sums: Array, frames: Array, *, fields_yx_px: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    """Read each frame at ``p + field(p)`` and add it, weighted, to running sums.

    This is the one function here that changes an argument: ``sums`` is the caller's own accumulator.

    Parameters
    ----------
    sums
        ``(n_sums, h, w)``, added to; of any library.
    frames
        ``(n, h, w)``, where ``sums`` are.
    fields_yx_px
        ``(n, 2, blocks_y, blocks_x)``: displacement of the specimen at each block; beyond the border the frame is mirrored.
    weights
        ``(n, n_sums)``: what part of each frame goes to each sum.
    """
    if not place_of(frames).on_cores:
        add_warped_arrays(
            sums, frames, fields_yx_px=fields_yx_px, weights=weights, table=interpolation_table(), block_px=BLOCK_PX
        )
        return
    largest = float(np.max(np.abs(fields_yx_px[:, 1]), initial=0.0))
    margin = N_TAPS * 2 + int(np.ceil(largest))
    _add_warped(frames, fields_yx_px, interpolation_table(), sums, weights, margin)


def warp_image_2d(image: Array, *, field_yx_px: NDArray[Any]) -> Array:
    """Read ``image`` at ``p + field(p)``: a specimen displaced by ``field`` is moved back.

    Parameters
    ----------
    image
        ``(h, w)``, of any library.
    field_yx_px
        ``(2, blocks_y, blocks_x)``, one shift for each block of `BLOCK_PX` pixels.
    """
    place = place_of(image)
    frame = np.ascontiguousarray(image, dtype=np.float32) if place.on_cores else place.xp.astype(image, place.xp.float32)
    sums = place.zeros((1, *image.shape), "float32")
    fields = np.ascontiguousarray(field_yx_px, dtype=np.float32)[None]  # (1, 2, by, bx)
    add_warped_frames(sums, frame[None, :, :], fields_yx_px=fields, weights=np.ones((1, 1), dtype=np.float32))
    return sums[0, :, :]
