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
def _weigh_rows(out: Any, image: Any, rows: Any, start: int, stop: int, w: Any) -> None:
    """Set ``out`` to the weighted sum of 12 rows; written out, so that it runs at the speed of memory."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11]
    r0, r1, r2 = image[rows[0], start:stop], image[rows[1], start:stop], image[rows[2], start:stop]
    r3, r4, r5 = image[rows[3], start:stop], image[rows[4], start:stop], image[rows[5], start:stop]
    r6, r7, r8 = image[rows[6], start:stop], image[rows[7], start:stop], image[rows[8], start:stop]
    r9, r10, r11 = image[rows[9], start:stop], image[rows[10], start:stop], image[rows[11], start:stop]
    for x in range(stop - start):
        first = w0 * r0[x] + w1 * r1[x] + w2 * r2[x] + w3 * r3[x] + w4 * r4[x] + w5 * r5[x]
        out[x] = first + w6 * r6[x] + w7 * r7[x] + w8 * r8[x] + w9 * r9[x] + w10 * r10[x] + w11 * r11[x]


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def _weigh_columns(out: Any, line: Any, count: int, w: Any) -> None:
    """Set ``out[x]`` to the weighted sum of ``line[x : x + 12]``."""
    w0, w1, w2, w3, w4, w5, w6, w7, w8, w9, w10, w11 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8], w[9], w[10], w[11]
    for x in range(count):
        first = w0 * line[x] + w1 * line[x + 1] + w2 * line[x + 2] + w3 * line[x + 3] + w4 * line[x + 4] + w5 * line[x + 5]
        second = w6 * line[x + 6] + w7 * line[x + 7] + w8 * line[x + 8] + w9 * line[x + 9]
        out[x] = first + second + w10 * line[x + 10] + w11 * line[x + 11]


@njit(cache=True, nogil=True, fastmath=True)
def _interpolate_rows(image: Any, field_y: Any, table: Any, strip: Any, block: int, margin: int) -> None:
    """Fill ``strip`` (the rows of one block, with mirrored margins) with ``image`` read at ``y + field_y``."""
    height, width = image.shape
    y_start = block * BLOCK_PX
    n_rows = min(BLOCK_PX, height - y_start)
    rows = np.empty(N_TAPS, dtype=np.int64)
    for block_x in range(field_y.shape[1]):
        start = block_x * BLOCK_PX
        stop = min(start + BLOCK_PX, width)
        whole = int(np.floor(field_y[block, block_x]))
        weights = table[round((field_y[block, block_x] - whole) * _STEPS)]
        for row in range(n_rows):
            for tap in range(N_TAPS):
                rows[tap] = _mirror(y_start + row + whole + tap - (N_TAPS // 2 - 1), height)
            _weigh_rows(strip[row, margin + start : margin + stop], image, rows, start, stop, weights)
    for row in range(n_rows):
        for x in range(margin):
            strip[row, margin - 1 - x] = strip[row, margin + _mirror(x, width)]
            strip[row, margin + width + x] = strip[row, margin + _mirror(width + x, width)]


@njit(cache=True, nogil=True, fastmath=True)
def _interpolate_columns(  # noqa: PLR0917 - compiled
    strip: Any, field_x: Any, table: Any, sums: Any, weights_of_sums: Any, block: int, margin: int
) -> None:
    """Add ``strip`` read at ``x + field_x`` to every image of ``sums``, each with its weight."""
    n_sums, height, width = sums.shape
    y_start = block * BLOCK_PX
    n_rows = min(BLOCK_PX, height - y_start)
    values = np.empty(BLOCK_PX, dtype=np.float32)
    for block_x in range(field_x.shape[1]):
        x_start = block_x * BLOCK_PX
        n_columns = min(BLOCK_PX, width - x_start)
        whole = int(np.floor(field_x[block, block_x]))
        weights = table[round((field_x[block, block_x] - whole) * _STEPS)]
        source = margin + x_start + whole - (N_TAPS // 2 - 1)
        for row in range(n_rows):
            _weigh_columns(values, strip[row, source : source + n_columns + N_TAPS - 1], n_columns, weights)
            for index in range(n_sums):
                scale = weights_of_sums[index]
                target = sums[index, y_start + row, x_start : x_start + n_columns]
                for x in range(n_columns):
                    target[x] += scale * values[x]


@njit(cache=True, nogil=True)
def _add_warped(frames: Any, fields: Any, table: Any, sums: Any, weights: Any, margin: int) -> None:
    strip = np.zeros((BLOCK_PX, frames.shape[2] + 2 * margin), dtype=np.float32)
    for block in range(fields.shape[2]):
        for index in range(frames.shape[0]):
            _interpolate_rows(frames[index], fields[index, 0], table, strip, block, margin)
            _interpolate_columns(strip, fields[index, 1], table, sums, weights[index], block, margin)


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
