"""Writing EER movies, for simulated acquisitions: a BigTIFF with one list of electron events per camera frame."""

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numba
import numpy as np
from numpy.typing import NDArray

from icestream.io import ifd

_SKIP_BITS = {65000: 8, 65001: 7}


def write_eer(
    path: Path,
    frames: Iterable[NDArray[Any]],
    *,
    height_px: int,
    width_px: int,
    pixel_size_ang: float | None = None,
    exposure_s: float | None = None,
    compression: int = 65001,
) -> int:
    """Write an EER movie; return how many camera frames it has.

    Parameters
    ----------
    path
        The file to write.
    frames
        One ``(n, 2)`` integer array per camera frame: the electrons' positions ``yx`` in quarter pixels of the detector
        (0 to ``4 * height_px - 1``). Of two electrons on one detector pixel in one frame the first is kept: the format
        cannot say more.
    height_px, width_px
        Size of the detector.
    pixel_size_ang, exposure_s
        Written into the acquisition block where given.
    compression
        65000 (8-bit skips) or 65001 (7-bit skips).

    Raises
    ------
    ValueError
        A position outside the detector, another compression, or no frame.
    """
    if compression not in _SKIP_BITS:
        raise ValueError(f"EER compression {compression} (allowed {sorted(_SKIP_BITS)})")
    n_frames = 0
    with path.open("wb") as handle:
        handle.write(b"II+\0" + struct.pack("<HHQ", 8, 0, 0))
        link = 8
        for frame in frames:
            data = encode_events(frame, height_px=height_px, width_px=width_px, skip_bits=_SKIP_BITS[compression])
            xml = _acquisition_xml(pixel_size_ang, exposure_s) if n_frames == 0 else b""
            link = _append_frame(handle, link, data, xml, (height_px, width_px, compression))
            n_frames += 1
    if n_frames == 0:
        raise ValueError(f"{path}: an EER movie needs at least one camera frame")
    return n_frames


def encode_events(frame: NDArray[Any], *, height_px: int, width_px: int, skip_bits: int) -> bytes:
    """Return the bit stream of one camera frame from positions ``(n, 2)`` ``yx`` in quarter pixels."""
    events = np.asarray(frame, dtype=np.int64).reshape(-1, 2)  # (n, 2)
    limit = np.array([4 * height_px, 4 * width_px])
    if events.size and (events.min() < 0 or (events >= limit).any()):
        raise ValueError(f"an event is outside the detector of {4 * height_px} x {4 * width_px} quarter pixels")
    pixels = (events[:, 0] >> 2) * width_px + (events[:, 1] >> 2)  # (n,)
    pixels, first = np.unique(pixels, return_index=True)
    symbols = ((events[first, 1] & 3) ^ 2) | (((events[first, 0] & 3) ^ 2) << 2)  # (n,)
    longest = (1 << skip_bits) - 1
    n_skips = pixels.size + height_px * width_px // longest + 2
    room = np.zeros((n_skips * skip_bits + 4 * pixels.size) // 8 + 9, dtype=np.uint8)
    used = _pack(pixels, symbols, skip_bits, height_px * width_px, room)
    return room[:used].tobytes()


@numba.njit(cache=True, nogil=True)
def _pack(pixels: NDArray[Any], symbols: NDArray[Any], skip_bits: int, n_pixels: int, room: NDArray[Any]) -> int:
    """Fill ``room`` (the caller's buffer) with the code; return the bytes used."""
    longest = (1 << skip_bits) - 1
    position, bit = 0, 0
    for index in range(pixels.size + 1):
        last = index == pixels.size
        gap = (n_pixels if last else pixels[index]) - position
        while gap >= longest:
            bit = _put(room, bit, longest, skip_bits)
            gap -= longest
        bit = _put(room, bit, gap, skip_bits)
        if not last:
            bit = _put(room, bit, symbols[index], 4)
            position = pixels[index] + 1
    return (bit + 7) // 8 + 1  # a byte to spare: decoders fetch whole words


@numba.njit(cache=True, nogil=True)
def _put(room: NDArray[Any], bit: int, value: int, n_bits: int) -> int:
    """Write ``n_bits`` of ``value`` at position ``bit``, least significant first."""
    for k in range(n_bits):
        room[(bit + k) >> 3] |= ((value >> k) & 1) << ((bit + k) & 7)
    return bit + n_bits


def _acquisition_xml(pixel_size_ang: float | None, exposure_s: float | None) -> bytes:
    items = []
    if pixel_size_ang is not None:
        size_m = f"{pixel_size_ang * 1e-10:.6e}"
        items += [f'<item name="sensorPixelSize.{side}" unit="m">{size_m}</item>' for side in ("height", "width")]
    if exposure_s is not None:
        items.append(f'<item name="exposureTime" unit="s">{exposure_s:.6g}</item>')
    return f"<metadata>{''.join(items)}</metadata>".encode() if items else b""


def _append_frame(handle: BinaryIO, link: int, data: bytes, xml: bytes, kind: tuple[int, int, int]) -> int:
    """Write one frame and its directory, point the previous link to it, and return where the next link goes."""
    height, width, compression = kind
    data_at = handle.seek(0, 2)
    handle.write(data)
    xml_at = handle.tell()
    handle.write(xml)
    handle.write(b"\0" * (-handle.tell() % 8))
    tags = [
        (ifd.WIDTH, 4, 1, width),
        (ifd.HEIGHT, 4, 1, height),
        (ifd.BITS, 3, 1, 1),
        (ifd.COMPRESSION, 3, 1, compression),
        (262, 3, 1, 1),
        (ifd.STRIP_OFFSETS, 16, 1, data_at),
        (ifd.SAMPLES, 3, 1, 1),
        (ifd.ROWS_PER_STRIP, 4, 1, height),
        (ifd.STRIP_COUNTS, 16, 1, len(data)),
    ]
    if xml:
        tags.append((ifd.EER_ACQUISITION, 7, len(xml), xml_at))
    here = handle.tell()
    handle.write(struct.pack("<Q", len(tags)) + b"".join(struct.pack("<2H2Q", *tag) for tag in tags) + struct.pack("<Q", 0))
    handle.seek(link)
    handle.write(struct.pack("<Q", here))
    return here + 8 + 20 * len(tags)
