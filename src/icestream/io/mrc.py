"""MRC files: the 1024-byte header and the images behind it (MRC2014, with the IMOD and RELION extensions).

Cheng et al. (2015), J. Struct. Biol. 192:146; modes 6 (uint16), 12 (float16) and 101 (4-bit, low half first). Mode 0 is signed
unless an IMOD stamp, or its values, say otherwise. Old files without the ``MAP`` string are read when one byte order makes sense
of them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, TruncatedFile
from icestream.io.raw import BeyondEnd, RawFile, Source

HEADER_BYTES = 1024
MAX_SIDE_PX = 1 << 17
MAX_IMAGES = 1 << 24
MAX_IMAGE_BYTES = 1 << 32
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2", 101: "u1"}
_IMOD_STAMP = 1146047817
_IMOD_SIGNED, _IMOD_4BIT = 1, 16
_SAMPLE_BYTES = 1 << 18


@dataclass(frozen=True)
class MrcHeader:
    """What an MRC header says; ``dtype`` is as stored, with its byte order."""

    width_px: int
    height_px: int
    n_images: int
    dtype: np.dtype[Any]
    packed: bool
    data_offset: int
    pixel_size_ang: float | None
    extended_type: bytes
    sign_known: bool = True
    """The header says whether bytes are signed."""
    extremes: tuple[float, float] = (0.0, 0.0)
    """Lowest and highest value by the header; where it does not say them, the first is not below the second."""

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return (self.width_px + 1) // 2 if self.packed else self.width_px * self.dtype.itemsize

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.row_bytes * self.height_px

    @property
    def declared_bytes(self) -> int:
        """Bytes that the file must have."""
        return self.data_offset + self.n_images * self.image_bytes


def parse_mrc_header(block: bytes, path: Path) -> MrcHeader:
    """Read the first 1024 bytes of an MRC file.

    Raises
    ------
    FileFormatError
        Not an MRC header, or one that claims an absurd size.
    TruncatedFile
        Only zeros so far: some cameras write the header last.
    """
    if not any(block[:16]):
        raise TruncatedFile(path, "the MRC header has not been written yet")
    order = _byte_order(block, path)
    width, height, n_images, mode = struct.unpack(order + "4i", block[:16])
    extended = struct.unpack(order + "i", block[92:96])[0]
    stamp, flags = struct.unpack(order + "2i", block[152:160])
    imod = stamp == _IMOD_STAMP
    halves = (imod and bool(flags & _IMOD_4BIT)) or b"4 bits packed" in block[224:HEADER_BYTES]  # the second is SerialEM's label
    packed = mode == 101 or (mode == 0 and halves)
    if mode == 0 and packed:
        width *= 2  # two pixels in each stored byte
    code = "u1" if packed or (mode == 0 and imod and not flags & _IMOD_SIGNED) else _DTYPES[mode]
    if extended < 0 or n_images > MAX_IMAGES:
        raise FileFormatError(path, f"MRC header declares {n_images} images and an extended header of {extended} bytes")
    grid, cell = struct.unpack(order + "i", block[28:32])[0], struct.unpack(order + "f", block[40:44])[0]
    plausible = grid > 0 and np.isfinite(cell) and 0 < cell / grid < 1e6
    header = MrcHeader(
        width_px=width,
        height_px=height,
        n_images=n_images,
        dtype=np.dtype(order + code),
        packed=packed,
        data_offset=HEADER_BYTES + extended,
        pixel_size_ang=cell / grid if plausible else None,
        extended_type=bytes(block[104:108]),
        sign_known=mode != 0 or imod,
        extremes=struct.unpack(order + "2f", block[76:84]),
    )
    if header.image_bytes > MAX_IMAGE_BYTES:
        raise FileFormatError(
            path, f"MRC header declares images of {width} x {height} px, more than {MAX_IMAGE_BYTES} bytes each"
        )
    return header


def _byte_order(block: bytes, path: Path) -> str:
    fits = [order for order in "<>" if _makes_sense(block, order)]
    if not fits:
        width, height, n_images, mode = struct.unpack("<4i", block[:16])
        raise FileFormatError(
            path, f"not an MRC file: {width} x {height} x {n_images} px, mode {mode} (allowed {sorted(_DTYPES)})"
        )
    stamped = {b"\x44": "<", b"\x11": ">"}.get(block[212:213])
    return stamped if block[208:211] == b"MAP" and stamped in fits else fits[0]


def _makes_sense(block: bytes, order: str) -> bool:
    width, height, n_images, mode = struct.unpack(order + "4i", block[:16])
    return 0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX and n_images > 0 and mode in _DTYPES


def read_mrc_header(source: Source, *, complete: bool = True) -> MrcHeader:
    """Read the header of an open file (plain or compressed) and check a plain file's size against it.

    Parameters
    ----------
    complete
        The file must have all that the header declares.

    Raises
    ------
    TruncatedFile
        The file is shorter than its header declares; or it has room for another image: the header may not be final yet.
    """
    header = parse_mrc_header(source.read_at(0, HEADER_BYTES), source.path)
    if isinstance(source, RawFile):
        if complete and source.size_bytes < header.declared_bytes:
            raise BeyondEnd(source.path, header.declared_bytes, source.size_bytes)
        if source.size_bytes - header.declared_bytes >= header.image_bytes:
            declared = f"header declares {header.n_images} image{'s' * (header.n_images != 1)}, {header.declared_bytes} bytes"
            raise TruncatedFile(source.path, f"{declared}; the file has {source.size_bytes}, room for more")
    return _settle_sign(source, header)


def _settle_sign(source: Source, header: MrcHeader) -> MrcHeader:
    """Decide whether the bytes of mode 0 are signed where the header does not say so.

    They are, as the standard has it, unless the header's extremes fit only unsigned ones; where these are unset, unless the
    middle of the first image spreads less as unsigned ones, or would be negative throughout, as no camera counts.
    """
    if header.sign_known or header.dtype.kind != "i" or header.dtype.itemsize != 1:
        return header
    low, high = header.extremes
    if low < high and -128 <= low <= 127:
        unsigned = low >= 0 and high > 127
    else:
        row = header.data_offset + header.height_px // 2 * header.row_bytes
        count = min(header.row_bytes * max(1, _SAMPLE_BYTES // header.row_bytes), header.data_offset + header.image_bytes - row)
        try:
            sample = np.frombuffer(source.read_at(row, count), dtype=np.int8)
        except BeyondEnd:
            return header  # it is being written still
        unsigned = _spread_is_less_unsigned(sample)
    return replace(header, dtype=np.dtype(np.uint8)) if unsigned else header


def _spread_is_less_unsigned(sample: NDArray[np.int8]) -> bool:
    signed, unsigned = (float(values.std(dtype=np.float64)) for values in (sample, sample.view(np.uint8)))
    return bool((sample < 0).all()) or unsigned < signed


def read_mrc_image(source: Source, header: MrcHeader, index: int) -> NDArray[Any]:
    """Return image ``index`` ``(h, w)`` in its own type (4-bit as uint8), in the byte order of the machine.

    With the last image, a compressed file is read to its end: a missing end shows there only.
    """
    image = _read_image(source, header, index)
    if index == header.n_images - 1:
        source.check_end()
    return image


def _read_image(source: Source, header: MrcHeader, index: int) -> NDArray[Any]:
    offset = header.data_offset + index * header.image_bytes
    if header.packed:
        stored = np.empty((header.height_px, header.row_bytes), dtype=np.uint8)  # (h, ceil(w / 2))
        source.read_into(offset, stored.data.cast("B"))
        return unpack_pixels(stored, header.width_px)  # (h, w)
    plain = np.empty((header.height_px, header.width_px), dtype=header.dtype)  # (h, w)
    source.read_into(offset, plain.view(np.uint8).data.cast("B"))
    return plain if plain.dtype.isnative else plain.astype(plain.dtype.newbyteorder("="))


def unpack_pixels(stored: NDArray[np.uint8], width_px: int, *, low_first: bool = True) -> NDArray[np.uint8]:
    """Return an image ``(h, w)`` from bytes ``(h, ceil(w / 2))`` that hold two pixels of 4 bits each, the left one first."""
    image = np.empty((stored.shape[0], 2 * stored.shape[1]), dtype=np.uint8)  # (h, w or w + 1)
    low, high = (image[:, 0::2], image[:, 1::2]) if low_first else (image[:, 1::2], image[:, 0::2])
    np.bitwise_and(stored, 15, out=low)
    np.right_shift(stored, 4, out=high)
    return np.ascontiguousarray(image[:, :width_px])  # (h, w)


def read_mrc_images(source: Source, header: MrcHeader, start: int, stop: int) -> Iterator[NDArray[Any]]:
    """Yield the images ``start`` to ``stop - 1``, one in memory at a time."""
    for index in range(start, stop):
        yield read_mrc_image(source, header, index)


def make_mrc_header(
    shape: tuple[int, int, int], dtype: np.dtype[Any], pixel_size_ang: float | tuple[float, float], statistics: tuple[float, ...]
) -> bytes:
    """Return the 1024 bytes of a little-endian header of an image stack ``(n, h, w)``.

    A pixel that is not square has a height and a width. ``statistics`` are minimum, maximum, mean and standard deviation of the
    pixels. The label carries no time, so that equal content gives equal files.
    """
    n_images, height, width = shape
    mode = {value: key for key, value in _DTYPES.items() if key != 101}[dtype.str[1:]]
    minimum, maximum, mean, deviation = statistics
    block = bytearray(HEADER_BYTES)
    struct.pack_into("<10i", block, 0, width, height, n_images, mode, 0, 0, 0, width, height, n_images)
    y_ang, x_ang = pixel_size_ang if isinstance(pixel_size_ang, tuple) else (pixel_size_ang, pixel_size_ang)
    struct.pack_into("<6f", block, 40, width * x_ang, height * y_ang, n_images * x_ang, 90, 90, 90)
    struct.pack_into("<3i3f", block, 64, 1, 2, 3, minimum, maximum, mean)
    struct.pack_into("<i", block, 108, 20140)
    block[208:216] = b"MAP \x44\x44\x00\x00"
    struct.pack_into("<fi", block, 216, deviation, 1)
    block[224 : 224 + 9] = b"icestream"
    return bytes(block)
