"""The warp of `warp`, in words of the array API standard: what runs on a GPU.

One axis after the other as there, but as a sum over whole-pixel offsets: the image moved by an offset is a slice of a longer one,
and the taps that a block has at that offset are small images (zero where the block does not reach so far).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.algorithms.namespaces import Array, Place, place_of


def add_warped_arrays(
    sums: Array, frames: Array, *, fields_yx_px: NDArray[Any], weights: NDArray[Any], table: NDArray[np.float32], block_px: int
) -> None:
    """Do what `warp.add_warped_frames` does; ``sums`` and ``frames`` live on a device, the small rest on the host."""
    place = place_of(frames)
    taps = place.put(np.ascontiguousarray(table).reshape(-1))  # ((steps + 1) * n_taps,)
    reach = (table.shape[1], table.shape[0] - 1)
    for index in range(frames.shape[0]):
        rows = _interpolate_rows(frames[index, :, :], fields_yx_px[index, 0], taps, reach, block_px=block_px, place=place)
        turned = place.xp.permute_dims(rows, (1, 0))  # (w, h)
        moved = _interpolate_rows(turned, fields_yx_px[index, 1].T, taps, reach, block_px=block_px, place=place)
        moved = place.xp.permute_dims(moved, (1, 0))  # (h, w)
        for number, weight in enumerate(weights[index].tolist()):
            if weight:
                sums[number, :, :] += weight * moved


def _interpolate_rows(
    image: Array, field_px: NDArray[Any], taps: Array, reach: tuple[int, int], *, block_px: int, place: Place
) -> Array:
    """Return ``image`` ``(h, w)`` read at ``y + field``, mirrored beyond its border; ``reach``: number of taps, and of delays."""
    xp, (height, width) = place.xp, image.shape
    n_blocks = field_px.shape[0]
    offsets, first = _dense_taps(field_px, taps, reach, place=place)  # (n_offsets, blocks_y, blocks_x)
    start = first - (reach[0] // 2 - 1)
    longer = np.arange(start, start + n_blocks * block_px + offsets.shape[0] - 1) % (2 * height)
    longer = np.where(longer < height, longer, 2 * height - 1 - longer)
    tall = xp.take(image, place.put(longer), axis=0)  # (blocks_y * block + n_offsets - 1, w)
    out = place.zeros((n_blocks, block_px, width), "float32")
    for number in range(offsets.shape[0]):
        part = xp.reshape(tall[number : number + n_blocks * block_px, :], (n_blocks, block_px, width))
        weight = xp.repeat(offsets[number, :, :], block_px, axis=1)[:, :width]  # (blocks_y, w)
        out += part * weight[:, None, :]
    return xp.reshape(out, (n_blocks * block_px, width))[:height, :]


def _dense_taps(field_px: NDArray[Any], taps: Array, reach: tuple[int, int], *, place: Place) -> tuple[Array, int]:
    """Return the weight of each block at each whole offset ``(n_offsets, blocks_y, blocks_x)``, and what the first one is."""
    xp, (n_taps, n_delays) = place.xp, reach
    field = np.asarray(field_px, dtype=np.float64)
    whole = np.floor(field).astype(np.int64)  # (blocks_y, blocks_x)
    first, last = int(whole.min()), int(whole.max())
    rows = np.rint((field - whole) * n_delays).astype(np.int64) * n_taps
    numbers = place.put(np.arange(last - first + n_taps))[:, None, None]
    tap = numbers - place.put(whole - first)[None, :, :]  # (n_offsets, blocks_y, blocks_x)
    inside = (tap >= 0) & (tap < n_taps)
    place_in_table = xp.where(inside, tap, xp.zeros_like(tap)) + place.put(rows)[None, :, :]
    found = xp.reshape(xp.take(taps, xp.reshape(place_in_table, (-1,)), axis=0), tap.shape)
    return xp.where(inside, found, xp.zeros_like(found)), first
