"""The LZW compression of TIFF (Welch 1984, IEEE Computer 17, 8; TIFF 6.0, section 13), decoded fast.

Every string of the table is a piece of what has been decoded already, so the table holds places and lengths, no bytes. What is
not plain (the older order of bits, damaged data) is left to another decoder, which also says what is wrong.
"""

from typing import Any

import numba
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

_CLEAR, _END = 256, 257
_MOST_CODES = 4096
_SPARE = 16
"""Bytes that are copied in one go; the buffer is longer by as many."""


@numba.njit(cache=True, nogil=True)
def _decode(data: Any, room: Any, words: Any, table: Any, size: int) -> int:
    """Decode to ``room[256:]`` and return how many bytes are missing there, or -1 where the data are not plain.

    ``room`` begins with the 256 strings of one byte, ``words[i]`` is its eight bytes from ``i`` on, and ``table`` holds for each
    string its place in ``room`` times 4096, and its length.
    """
    last, n_bits = data.size - 1, 8 * data.size
    position, end = _CLEAR, _CLEAR + size
    bit, width, following, before = 0, 9, _END, 0
    while position < end:
        if bit + width > n_bits:
            return -1
        at = bit >> 3
        three = (np.int64(data[at]) << 16) | (np.int64(data[min(at + 1, last)]) << 8) | np.int64(data[min(at + 2, last)])
        code = (three >> (24 - width - (bit & 7))) & ((1 << width) - 1)
        bit += width
        if code == _CLEAR:
            width, following, before = 9, _END, 0
            continue
        if code == _END:
            break
        if before:  # the string before and the byte that follows it
            table[following] = before + 1
        if code > following or following == _MOST_CODES - 1:
            return -1
        place, length = table[code] >> 12, table[code] & 4095
        if position + length > end or length == 0:
            return -1
        if code == following:  # it overlaps what is being written
            for step in range(length):
                room[position + step] = room[place + step]
        else:
            words[position] = words[place]
            words[position + 8] = words[place + 8]
            for step in range(16, length, 8):
                words[position + step] = words[place + step]
        before = (position << 12) | length
        position += length
        following += 1
        if following + 2 > (1 << width) and width < 12:
            width += 1
    return end - position


def decode_lzw(data: bytes, *, size: int) -> NDArray[np.uint8] | None:
    """Return the first ``size`` bytes behind ``data``; None where they are fewer, or it is not plain TIFF-LZW."""
    if len(data) < 2 or size < 1:
        return None
    room = np.empty(_CLEAR + size + 2 * _SPARE, dtype=np.uint8)
    room[:_CLEAR] = np.arange(_CLEAR)
    words = as_strided(room[: 8 * (room.size // 8)].view(np.uint64)[:1], shape=(room.size - 7,), strides=(1,))
    table = np.zeros(_MOST_CODES, dtype=np.int64)
    table[:_CLEAR] = (np.arange(_CLEAR) << 12) + 1
    missing = _decode(np.frombuffer(data, dtype=np.uint8), room, words, table, size)
    return None if missing else room[_CLEAR : _CLEAR + size]
