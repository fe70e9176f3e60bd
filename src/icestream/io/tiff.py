"""Grey-scale TIFF images, strip by strip or tile by tile, with the rows flipped to the MRC convention.

Compression: none, LZW, deflate, Zstandard, PackBits; predictors 1, 2 and 3; 8 to 64 bits, integer or float.
"""

from collections.abc import Callable, Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError
from icestream.io import ifd
from icestream.io.ifd import Directory
from icestream.io.lzw import decode_lzw
from icestream.io.mrc import MAX_IMAGE_BYTES, MAX_SIDE_PX, unpack_pixels
from icestream.io.raw import Source

_LZW = 5
_DECODERS: dict[int, Callable[..., Any]] = {
    _LZW: imagecodecs.lzw_decode,
    8: imagecodecs.zlib_decode,
    32946: imagecodecs.zlib_decode,
    32773: imagecodecs.packbits_decode,
    34926: imagecodecs.zstd_decode,
    50000: imagecodecs.zstd_decode,
}
_KINDS = {1: "u", 2: "i", 3: "f"}


_SUPER_RESOLUTION_PX = ((7676, 7420), (7680, 7424), (11520, 8184))
"""Frames that SerialEM packs: those of K2 and K3 cameras in super-resolution, in either orientation."""


def is_packed(page: Directory) -> bool:
    """Tell whether each byte holds two pixels of 4 bits, as SerialEM packs frames of super-resolution.

    Either the directory says so (4 bits a sample), or it declares bytes, and an image of half the width of such frames; no tag
    tells these from others, but no camera has frames of that shape.
    """
    if page.first(ifd.SAMPLES, 1) != 1 or page.first(ifd.SAMPLE_FORMAT, 1) != 1:
        return False
    bits, height, width = page.first(ifd.BITS, 1), page.first(ifd.HEIGHT), page.first(ifd.WIDTH)
    sizes = [size for long, short in _SUPER_RESOLUTION_PX for size in ((long, short), (short, long))]
    return bits == 4 or (bits == 8 and any(abs(2 * width - x) <= 4 and abs(height - y) <= 2 for x, y in sizes))


def _stored_size_px(page: Directory) -> tuple[int, int]:
    """Return height and width in stored bytes where pixels are packed, else in pixels."""
    height, width = tiff_size_px(page)
    return (height, (width + 1) // 2) if is_packed(page) else (height, width)


def tiff_size_px(page: Directory) -> tuple[int, int]:
    """Return height and width of an image, refusing absurd values."""
    height, width = page.first(ifd.HEIGHT), page.first(ifd.WIDTH)
    width *= 2 if is_packed(page) and page.first(ifd.BITS, 1) == 8 else 1
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise FileFormatError(page.path, f"TIFF image of {width} x {height} px (allowed 1 to {MAX_SIDE_PX})")
    return height, width


def tiff_pixel_size_ang(page: Directory) -> float | None:
    """Return the pixel size that the resolution tags say, if it can be one at the specimen (0.05 to 50 Å)."""
    per_unit = page.numbers.get(ifd.X_RESOLUTION, ())
    unit_ang = {2: 2.54e8, 3: 1e8}.get(page.first(ifd.RESOLUTION_UNIT, 2))
    if len(per_unit) != 2 or 0 in per_unit or unit_ang is None:
        return None
    size = unit_ang * per_unit[1] / per_unit[0]
    return size if 0.05 < size < 50 else None


def tiff_dtype(page: Directory) -> np.dtype[Any]:
    """Return the pixel type as stored, refusing what no camera writes (colour, 12 bits, bit-reversed bytes)."""
    if is_packed(page):
        return np.dtype("u1")
    samples, bits = page.first(ifd.SAMPLES, 1), page.first(ifd.BITS, 1)
    kind = _KINDS.get(page.first(ifd.SAMPLE_FORMAT, 1))
    sizes = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
    if samples != 1 or kind is None or bits not in sizes[kind] or page.first(ifd.FILL_ORDER, 1) != 1:
        raise FileFormatError(page.path, f"TIFF image with {samples} samples of {bits} bits is not a grey-scale image we read")
    return np.dtype(f"{page.order}{kind}{bits // 8}")


def _segment_shape(page: Directory, height: int, width: int) -> tuple[int, int, int]:
    """Return rows and columns of a segment, and segments in a row."""
    if ifd.TILE_OFFSETS in page.numbers:
        rows, columns = page.first(ifd.TILE_HEIGHT), page.first(ifd.TILE_WIDTH)
        if not (0 < rows <= MAX_SIDE_PX and 0 < columns <= MAX_SIDE_PX):
            raise FileFormatError(page.path, f"TIFF tiles of {columns} x {rows} px (allowed 1 to {MAX_SIDE_PX})")
        return rows, columns, -(-width // columns)
    rows = min(page.first(ifd.ROWS_PER_STRIP, height), height)
    if rows < 1:
        raise FileFormatError(page.path, f"TIFF strips of {rows} rows")
    return rows, width, 1


def read_tiff_page(source: Source, page: Directory) -> NDArray[Any]:
    """Return one image ``(h, w)`` in its own type and the byte order of the machine; the last stored row becomes row 0.

    Packed pixels of 4 bits are returned as bytes.

    Raises
    ------
    FileFormatError
        Colour, an unknown compression, damaged data, or a header that contradicts itself.
    TruncatedFile
        A strip lies beyond the end of the file.
    """
    image = _read_stored(source, page)  # (h, stored columns)
    if not is_packed(page):
        return image
    low_first = page.first(ifd.BITS, 1) == 8  # SerialEM's; TIFF itself has the left pixel in the high bits
    return unpack_pixels(image, tiff_size_px(page)[1], low_first=low_first)  # (h, w)


def _read_stored(source: Source, page: Directory) -> NDArray[Any]:
    height, width = _stored_size_px(page)
    dtype = tiff_dtype(page)
    rows, columns, across = _segment_shape(page, height, width)
    segments = page.segments()
    needed = across * -(-height // rows)
    if len(segments) < needed:
        raise FileFormatError(page.path, f"TIFF image has {len(segments)} strips or tiles, its size needs {needed}")
    if max(height * width, rows * columns) * dtype.itemsize > MAX_IMAGE_BYTES:
        raise FileFormatError(page.path, f"TIFF image of {width} x {height} px needs more than {MAX_IMAGE_BYTES} bytes")
    end = max(offset + count for offset, count in segments[:needed])
    source.read_at(end, 0)  # refuses a truncated file before anything is allocated
    image = np.empty((height, width), dtype=dtype.newbyteorder("="))  # (h, w)
    for index, (offset, count) in enumerate(segments[:needed]):
        top, left = index // across * rows, index % across * columns
        kept = min(rows, height - top)
        full = rows if across > 1 or columns != width else kept
        part = _decode(page, source.read_at(offset, count), (full, columns), dtype)  # (rows, columns)
        right = min(left + columns, width)
        image[height - top - kept : height - top, left:right] = part[:kept, : right - left][::-1]
    return image


def _decode(page: Directory, data: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Decode one strip or tile; a decoder never gets room for more than the image needs."""
    compression = page.first(ifd.COMPRESSION, 1)
    size = shape[0] * shape[1] * dtype.itemsize
    pixels = data if compression == 1 else _decompress(page, data, compression, size)
    if len(pixels) < size:
        raise FileFormatError(page.path, f"TIFF strip or tile has {len(pixels)} bytes of pixels, {size} are needed")
    part = np.frombuffer(pixels, dtype=dtype, count=shape[0] * shape[1]).reshape(shape)
    predictor = page.first(ifd.PREDICTOR, 1)
    if predictor == 1:
        return part
    try:
        if predictor == 2:
            return np.asarray(imagecodecs.delta_decode(part, axis=-1))  # (rows, columns)
        if predictor == 3 and dtype.kind == "f":
            return np.asarray(imagecodecs.floatpred_decode(part))
    except (RuntimeError, ValueError) as error:
        raise FileFormatError(page.path, f"TIFF predictor {predictor} failed: {error}") from error
    raise FileFormatError(page.path, f"TIFF predictor {predictor} is not known (1, 2, or 3 for floats)")


def _decompress(page: Directory, data: bytes, compression: int, size: int) -> bytes | memoryview:
    decoder = _DECODERS.get(compression)
    if decoder is None:
        raise FileFormatError(page.path, f"TIFF compression {compression} is not known (1 or one of {sorted(_DECODERS)})")
    if compression == _LZW and (plain := decode_lzw(data, size=size)) is not None:
        return plain.data
    room = np.empty(size, dtype=np.uint8)
    try:
        done: bytes = decoder(data, out=room)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise FileFormatError(page.path, f"damaged TIFF strip or tile: {error}") from error
    return done


def read_tiff_pages(source: Source, pages: list[Directory]) -> Iterator[NDArray[Any]]:
    """Yield images, one in memory at a time."""
    for page in pages:
        yield read_tiff_page(source, page)
