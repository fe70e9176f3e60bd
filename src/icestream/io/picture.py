"""PNG and JPEG: single images in, previews out; the size is read from the header before anything is decoded."""

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, TruncatedFile
from icestream.io.mrc import MAX_SIDE_PX
from icestream.io.raw import BeyondEnd, Source, open_source

MAX_PICTURE_PX = 1 << 30
PNG_MAGIC, JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def picture_size_px(source: Source) -> tuple[int, int]:
    """Return height and width of a PNG or JPEG file."""
    head = source.read_at(0, 8)
    if head == PNG_MAGIC:
        if source.read_at(12, 4) != b"IHDR":
            raise FileFormatError(source.path, "PNG file without its header chunk")
        width, height = struct.unpack(">2I", source.read_at(16, 8))
    elif head[:3] == JPEG_MAGIC:
        height, width = _jpeg_size_px(source)
    else:
        raise FileFormatError(source.path, f"neither PNG nor JPEG: it begins with {head!r}")
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX and height * width <= MAX_PICTURE_PX):
        raise FileFormatError(source.path, f"picture of {width} x {height} px (at most {MAX_PICTURE_PX} px)")
    return height, width


def _jpeg_size_px(source: Source) -> tuple[int, int]:
    position = 2
    while True:
        mark, kind, length = struct.unpack(">2BH", source.read_at(position, 4))
        if mark != 0xFF:
            raise FileFormatError(source.path, f"damaged JPEG header at {position}")
        if kind == 0xFF:
            position += 1
        elif kind in _JPEG_SIZES:
            height, width = struct.unpack(">2H", source.read_at(position + 5, 4))
            return int(height), int(width)
        else:
            position += 2 + max(length, 2)


def png_end(source: Source) -> int:
    """Return the position after the last chunk of a PNG file, following the chunks' lengths.

    Raises
    ------
    TruncatedFile
        A chunk lies beyond the end.
    """
    position = 8
    while True:
        length, kind = struct.unpack(">I4s", source.read_at(position, 8))
        position += 12 + int(length)
        source.read_at(position, 0)
        if kind == b"IEND":
            return position


def check_picture(source: Source, size_bytes: int) -> None:
    """Check that a PNG or JPEG file has its end.

    Raises
    ------
    TruncatedFile
        The end mark is missing.
    """
    picture_size_px(source)
    if source.read_at(0, 8) == PNG_MAGIC:
        png_end(source)
        return
    tail = min(size_bytes, 4096)
    if b"\xff\xd9" not in source.read_at(size_bytes - tail, tail):
        raise TruncatedFile(source.path, "the end mark of the JPEG is missing")


def read_picture(path: Path) -> NDArray[Any]:
    """Return a PNG or JPEG image ``(h, w)`` in its own type (colour as luminance, float32); its last stored row is row 0.

    Raises
    ------
    FileFormatError, TruncatedFile
        The file is damaged, truncated, or of an absurd size.
    """
    source = open_source(path)
    try:
        size = picture_size_px(source)
        size_bytes = path.stat().st_size
        check_picture(source, size_bytes)
        data = source.read_at(0, size_bytes)
    finally:
        source.close()
    decode = imagecodecs.png_decode if data[:8] == PNG_MAGIC else imagecodecs.jpeg8_decode
    try:
        image: NDArray[Any] = decode(data)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise FileFormatError(path, f"damaged picture: {error}") from error
    if image.ndim == 3:
        colour = image.shape[2] >= 3
        image = image[:, :, :3].astype(np.float32) @ _LUMINANCE if colour else image[:, :, 0]  # (h, w)
    if image.shape != size:
        raise BeyondEnd(path, size[0] * size[1], image.size)
    return np.ascontiguousarray(image[::-1])  # (h, w)


def encode_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8 pixels ``(h, w)`` or ``(h, w, 3)`` as PNG or JPEG by suffix, row 0 at the bottom."""
    flipped = np.ascontiguousarray(pixels[::-1])
    suffix = path.suffix.lower()
    if suffix == ".png":
        data = imagecodecs.png_encode(flipped, level=4)
    elif suffix in (".jpg", ".jpeg"):
        data = imagecodecs.jpeg8_encode(flipped, level=88)
    else:
        raise ValueError(f"{path}: a picture ends in .png, .jpg or .jpeg, not {suffix!r}")
    path.write_bytes(data)
