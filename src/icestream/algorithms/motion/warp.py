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

from icestream.algorithms.motion.warp_arrays import add_warped_arrays
from icestream.algorithms.namespaces import Array, place_of

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


@njit(cache=True, nogil=True)
def _rows_needed(field_y: Any, block: int) -> tuple[int, int]:
    """Return first and one-past-last row, maybe beyond the border, that the rows of one block are interpolated from."""
    low, high = np.min(field_y[block]), np.max(field_y[block])
    first = block * BLOCK_PX + int(np.floor(low)) - (N_TAPS // 2 - 1)
    return first, block * BLOCK_PX + BLOCK_PX + int(np.floor(high)) + N_TAPS // 2


@njit(cache=True, nogil=True)
def _most_rows(fields: Any) -> int:
    most = 0
    for index in range(fields.shape[0]):
        for block in range(fields.shape[2]):
            first, stop = _rows_needed(fields[index, 0], block)
            most = max(most, stop - first)
    return most


@njit(cache=True, nogil=True)
def _fill_tiles(tiles: Any, frame: Any, factor: Any, rows: tuple[int, int], defects: Any, sources: Any) -> None:
    """Fill ``tiles`` ``(blocks_x, n * 16)``, one row of a block behind the other, with a frame times ``factor``, mended."""
    (height, width), (starts, columns) = frame.shape, defects
    line = np.zeros(tiles.shape[0] * BLOCK_PX, dtype=np.float32)
    for row in range(rows[0], rows[1]):
        y = row if 0 <= row < height else _mirror(row, height)
        raw, gain, at = frame[y], factor[y], (row - rows[0]) * BLOCK_PX
        for x in range(width):
            line[x] = np.float32(raw[x]) * gain[x]
        for index in range(starts[y], starts[y + 1]):
            from_y, from_x = sources[index] // width, sources[index] % width
            value = np.float32(frame[from_y, from_x]) * factor[from_y, from_x] if sources[index] >= 0 else np.float32(0)
            line[columns[index]] = value
        for block in range(tiles.shape[0]):
            target, source = tiles[block, at : at + BLOCK_PX], line[block * BLOCK_PX : block * BLOCK_PX + BLOCK_PX]
            for x in range(BLOCK_PX):  # a loop of known length is a few instructions
                target[x] = source[x]


@njit(cache=True, nogil=True, fastmath=True)
def _interpolate_rows(  # noqa: PLR0917 - compiled
    strip: Any, tiles: Any, shifts: Any, table: Any, first: int, margin: int, width: int
) -> None:
    """Fill ``strip`` (the rows of one block, with mirrored margins) with tiles read at ``y + shift``.

    ``first`` says where the first row of ``tiles`` is, counted from that of the strip.
    """
    flat, length = strip.reshape(-1), strip.shape[1]
    values = np.empty(BLOCK_PX * BLOCK_PX, dtype=np.float32)
    for block_x in range(shifts.shape[0]):
        whole = int(np.floor(shifts[block_x]))
        weights = table[round((shifts[block_x] - whole) * _STEPS)]
        start = (whole - (N_TAPS // 2 - 1) - first) * BLOCK_PX
        _weigh_rows(values, tiles[block_x, start : start + (BLOCK_PX + N_TAPS - 1) * BLOCK_PX], BLOCK_PX * BLOCK_PX, weights)
        at = margin + block_x * BLOCK_PX
        for row in range(BLOCK_PX):
            for x in range(BLOCK_PX):
                flat[row * length + at + x] = values[row * BLOCK_PX + x]
    for row in range(BLOCK_PX):
        for x in range(margin):
            strip[row, margin - 1 - x] = strip[row, margin + _mirror(x, width)]
            strip[row, margin + width + x] = strip[row, margin + _mirror(width + x, width)]


@njit(cache=True, nogil=True, fastmath=True)
def _interpolate_columns(  # noqa: PLR0917 - compiled
    values: Any, strip: Any, field_x: Any, table: Any, first: int, last: int, margin: int
) -> None:
    """Set ``values`` ``(16 * 512,)`` to the blocks ``first`` to ``last - 1`` of ``strip``, read at ``x + field_x``."""
    for block_x in range(first, last):
        start, into = block_x * BLOCK_PX, (block_x - first) * BLOCK_PX
        whole = int(np.floor(field_x[block_x]))
        weights = table[round((field_x[block_x] - whole) * _STEPS)]
        source = margin + start + whole - (N_TAPS // 2 - 1)
        for row in range(BLOCK_PX):
            line = strip[row, source : source + BLOCK_PX + N_TAPS - 1]
            _weigh_columns(values[into : into + BLOCK_PX], line, BLOCK_PX, weights)
            into += _BLOCKS * BLOCK_PX


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_four(target: Any, r0: Any, r1: Any, r2: Any, r3: Any, w: Any) -> None:
    """Add four rows to ``target``, each by its weight and one after the other."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    for x in range(target.shape[0]):
        both = target[x] + w0 * r0[x] + w1 * r1[x]
        target[x] = both + w2 * r2[x] + w3 * r3[x]


@njit(cache=True, nogil=True)
def _add_blocks(sums: Any, values: Any, parts: Any, rows: tuple[int, int], columns: tuple[int, int]) -> None:
    """Add ``values`` ``(4, 16 * 512)`` to rows and columns (first, one past last) of ``sums``, by its parts ``(n_sums, 4)``."""
    for number in range(sums.shape[0]):
        for y in range(rows[0], rows[1]):
            start = (y - rows[0]) * _BLOCKS * BLOCK_PX
            stop = start + columns[1] - columns[0]
            target = sums[number, y, columns[0] : columns[1]]
            v0, v1, v2, v3 = values[0, start:stop], values[1, start:stop], values[2, start:stop], values[3, start:stop]
            _add_four(target, v0, v1, v2, v3, parts[number])


@njit(cache=True, nogil=True)
def _add_warped(  # noqa: PLR0917 - compiled
    frames: Any, factor: Any, defects: Any, sources: Any, fields: Any, table: Any, sums: Any, weights: Any, margin: int
) -> None:
    """Go through the frame block row by block row, so that sums and factors stay in the cache while all frames pass."""
    (n_sums, height, width), blocks_x = sums.shape, fields.shape[3]
    tiles = np.zeros((blocks_x, _most_rows(fields) * BLOCK_PX), dtype=np.float32)
    strips = np.zeros((_TOGETHER, BLOCK_PX, blocks_x * BLOCK_PX + 2 * margin), dtype=np.float32)
    values = np.zeros((_TOGETHER, BLOCK_PX * _BLOCKS * BLOCK_PX), dtype=np.float32)
    parts = np.zeros((n_sums, _TOGETHER), dtype=np.float32)
    for block in range(fields.shape[2]):
        top = block * BLOCK_PX
        for start in range(0, frames.shape[0], _TOGETHER):
            count = min(_TOGETHER, frames.shape[0] - start)
            parts[:, :count] = weights[start : start + count].T
            parts[:, count:] = 0  # what is not there weighs nothing
            for index in range(start, start + count):
                field_y, strip = fields[index, 0], strips[index - start]
                rows = _rows_needed(field_y, block)
                _fill_tiles(tiles, frames[index], factor, rows, defects, sources[index])
                _interpolate_rows(strip, tiles, field_y[block], table, rows[0] - top, margin, width)
            for first in range(0, blocks_x, _BLOCKS):
                last = min(first + _BLOCKS, blocks_x)
                for index in range(count):
                    field_x = fields[start + index, 1, block]
                    _interpolate_columns(values[index], strips[index], field_x, table, first, last, margin)
                _add_blocks(
                    sums, values, parts, (top, min(top + BLOCK_PX, height)), (first * BLOCK_PX, min(last * BLOCK_PX, width))
                )


def _margin(fields_yx_px: NDArray[np.float32]) -> int:
    return N_TAPS * 2 + int(np.ceil(float(np.max(np.abs(fields_yx_px[:, 1]), initial=0.0))))


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
    factor = np.ones(frames.shape[1:], dtype=np.float32)
    none = np.zeros((frames.shape[0], 0), dtype=np.int64)
    defects = np.zeros(frames.shape[1] + 1, dtype=np.int64), none[0]
    _add_warped(frames, factor, defects, none, fields_yx_px, interpolation_table(), sums, weights, _margin(fields_yx_px))


def add_corrected_warped(
    sums: NDArray[np.float32],
    frames: NDArray[Any],
    factor: NDArray[np.float32],
    *,
    positions: NDArray[np.intp],
    sources: NDArray[np.int64],
    fields_yx_px: NDArray[np.float32],
    weights: NDArray[np.float32],
) -> None:
    """Do what `add_warped_frames` does for frames times ``factor``, their defects replaced, without a corrected copy of them.

    Parameters
    ----------
    sums
        ``(n_sums, h, w)``, the caller's own accumulator, on cores.
    frames, factor
        ``(n, h, w)`` and ``(h, w)``.
    positions, sources
        Defects ``(m, 2)`` from top to bottom, and the flat index of the pixel whose value each gets in each frame, -1 for zero,
        ``(n, m)``.
    """
    starts = np.searchsorted(positions[:, 0], np.arange(factor.shape[0] + 1))  # (h + 1,)
    defects = starts.astype(np.int64), positions[:, 1].astype(np.int64)
    table = interpolation_table()
    _add_warped(frames, factor, defects, sources, fields_yx_px, table, sums, weights, _margin(fields_yx_px))


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
