"""EER movies: lists of electron events of each camera frame in a TIFF container, rendered on the grid one asks for.

A camera frame is a run-length code of the detector's pixels: a skip of 7 or 8 bits (all ones: skip that many and read on),
then for each electron the sub-pixel position, horizontal bits first, least significant bit first, the top bit of each inverted.
Compression 65000 has 8 + 2 + 2 bits, 65001 has 7 + 2 + 2, and 65002 names its widths in tags 65007 to 65009 (Guo et al. 2020,
IUCrJ 7:860, and the behaviour of RELION and of the public decoder of the maker). Rows are taken as stored.

Not verified on data of a camera: no file was at hand. It agrees with an independent decoder in the tests.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError
from icestream.io import ifd
from icestream.io.ifd import Directory
from icestream.io.raw import Source
from icestream.io.tiff import tiff_size_px

EER_COMPRESSIONS = (65000, 65001, 65002)
_UPSAMPLINGS = {1: 0, 2: 1, 4: 2}


@dataclass(frozen=True)
class EventCode:
    """How many bits code a skip and the horizontal and vertical sub-pixel position."""

    skip_bits: int
    h_bits: int
    v_bits: int


def eer_frames(pages: Iterable[Directory]) -> list[Directory]:
    """Return the camera frames among the images of a file (an image of the sum, if any, is left out)."""
    return [page for page in pages if page.first(ifd.COMPRESSION, 1) in EER_COMPRESSIONS]


def event_code(page: Directory) -> EventCode:
    """Return the bit widths of a camera frame."""
    compression = page.first(ifd.COMPRESSION)
    if compression != 65002:
        return EventCode(8 if compression == 65000 else 7, 2, 2)
    h_bits = page.first(ifd.EER_H_BITS, 2)
    code = EventCode(page.first(ifd.EER_SKIP_BITS, 7), h_bits, page.first(ifd.EER_V_BITS, h_bits))
    if not (1 <= code.skip_bits <= 16 and 0 <= code.h_bits <= 4 and 0 <= code.v_bits <= 4):
        raise FileFormatError(page.path, f"EER code with {code.skip_bits} + {code.h_bits} + {code.v_bits} bits")
    return code


@numba.njit(cache=True, nogil=True)
def _add_events(
    data: NDArray[np.uint8], grid: tuple[int, int], widths: tuple[int, int, int], upsampling_bits: int, image: NDArray[Any]
) -> int:
    """Add the electrons of one camera frame to ``image`` (its owner's buffer); return how many."""
    skip_bits, h_bits, v_bits = widths
    height, width = grid
    longest, symbol_bits = (1 << skip_bits) - 1, h_bits + v_bits
    n_pixels, n_bits = height * width, data.size * 8
    position, bit, n_held, used, n_events = 0, 0, 0, 0, 0
    held = np.int64(0)
    while bit + skip_bits <= n_bits:
        while n_held <= 32 and used < data.size:
            held |= np.int64(data[used]) << n_held
            n_held += 8
            used += 1
        skip = held & longest
        held >>= skip_bits
        n_held -= skip_bits
        bit += skip_bits
        position += int(skip)
        if position >= n_pixels:
            break
        if skip == longest:
            continue
        if bit + symbol_bits > n_bits:
            break
        h = (held & ((1 << h_bits) - 1)) ^ ((1 << h_bits) >> 1)
        v = ((held >> h_bits) & ((1 << v_bits) - 1)) ^ ((1 << v_bits) >> 1)
        held >>= symbol_bits
        n_held -= symbol_bits
        bit += symbol_bits
        y = ((position // width) << upsampling_bits) | (v >> (v_bits - upsampling_bits))
        x = ((position % width) << upsampling_bits) | (h >> (h_bits - upsampling_bits))
        image[y, x] += 1
        position += 1
        n_events += 1
    return n_events


def read_eer_group(source: Source, pages: list[Directory], *, upsampling: int) -> NDArray[Any]:
    """Return the sum ``(h * upsampling, w * upsampling)`` of some camera frames, as uint8 or (more than 255 frames) uint16.

    Raises
    ------
    FileFormatError
        The frames differ in size, are not bit streams, or do not store positions that finely.
    """
    height, width = tiff_size_px(pages[0])
    shift = _UPSAMPLINGS[upsampling]
    dtype = np.uint8 if len(pages) <= 255 else np.uint16
    image = np.zeros((height * upsampling, width * upsampling), dtype=dtype)  # (h * upsampling, w * upsampling)
    for page in pages:
        code = event_code(page)
        if tiff_size_px(page) != (height, width):
            raise FileFormatError(page.path, f"EER frames of {(height, width)} and {tiff_size_px(page)} px in one movie")
        if shift > min(code.h_bits, code.v_bits):
            raise FileFormatError(page.path, f"EER file stores {code.h_bits} sub-pixel bits, too few for upsampling {upsampling}")
        segments = page.segments()
        if sum(count for _, count in segments) > 4 * height * width + 1024:
            raise FileFormatError(
                page.path, f"EER frame of {width} x {height} px declares more bytes than pixels can have events"
            )
        data = b"".join(source.read_at(offset, count) for offset, count in segments)
        widths = (code.skip_bits, code.h_bits, code.v_bits)
        _add_events(np.frombuffer(data, dtype=np.uint8), (height, width), widths, shift, image)
    return image


def read_eer(source: Source, pages: list[Directory], *, upsampling: int, group: int) -> Iterator[NDArray[Any]]:
    """Yield sums of ``group`` camera frames; a remainder smaller than a group is left out, as in RELION."""
    for first in range(0, len(pages) - group + 1, group):
        yield read_eer_group(source, pages[first : first + group], upsampling=upsampling)


def check_upsampling(path: Path, upsampling: int, group: int) -> None:
    """Refuse an upsampling other than 1, 2 or 4, and a group outside 1 to 65535."""
    if upsampling not in _UPSAMPLINGS or not 1 <= group <= 65535:
        raise ValueError(f"{path}: EER upsampling {upsampling} (allowed 1, 2, 4), group {group} (allowed 1 to 65535)")
