"""Digital Micrograph files (versions 3 and 4): the largest numeric two-dimensional image, for gain references.

The format is a tree of tags, big-endian in its structure and little-endian in its data (public descriptions by Chris Boothroyd
and Greg Jefferis). The first stored row is the top one, so rows are flipped; not verified on camera data.
"""

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError
from icestream.io.mrc import MAX_IMAGE_BYTES, MAX_SIDE_PX
from icestream.io.raw import Source, open_source

_SIMPLE = {2: "i2", 3: "i4", 4: "u2", 5: "u4", 6: "f4", 7: "f8", 8: "u1", 9: "i1", 10: "u1", 11: "i8", 12: "u8"}
_PIXELS = {1: "i2", 2: "f4", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8"}
_MAX_DEPTH = 32
_MAX_TAGS = 1_000_000


@dataclass
class _Reader:
    source: Source
    wide: bool
    data_order: str
    position: int
    tags_left: int = _MAX_TAGS
    numbers: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    def take(self, form: str) -> int:
        """Read one big-endian value of the structure."""
        size = struct.calcsize(">" + form)
        value: int = struct.unpack(">" + form, self.source.read_at(self.position, size))[0]
        self.position += size
        return value

    def length(self) -> int:
        """Read a count: 64 bits in version 4, 32 in version 3."""
        return self.take("q" if self.wide else "i")


def read_dm_image(path: Path) -> NDArray[Any]:
    """Return the largest image ``(h, w)`` of a Digital Micrograph file, in the byte order of the machine.

    Raises
    ------
    FileFormatError, TruncatedFile
        Not such a file, without a numeric two-dimensional image, or cut off.
    """
    source = open_source(path)
    try:
        version = struct.unpack(">i", source.read_at(0, 4))[0]
        if version not in (3, 4):
            raise FileFormatError(path, f"not a Digital Micrograph file: version {version} (3 or 4)")
        wide = version == 4
        order = struct.unpack(">i", source.read_at(12 if wide else 8, 4))[0]
        reader = _Reader(source, wide, "<" if order == 1 else ">", 16 if wide else 12)
        _read_folder(reader, "", 0)
        return _largest_image(reader)
    finally:
        source.close()


def _read_folder(reader: _Reader, name: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise FileFormatError(reader.source.path, f"tags nested deeper than {_MAX_DEPTH}")
    reader.position += 2  # sorted and open flags
    for index in range(_checked(reader, reader.length())):
        reader.tags_left -= 1
        if reader.tags_left < 0:
            raise FileFormatError(reader.source.path, f"more than {_MAX_TAGS} tags")
        kind, label_bytes = reader.take("B"), reader.take("H")
        label = reader.source.read_at(reader.position, label_bytes).decode("latin-1") or str(index)
        reader.position += label_bytes
        if reader.wide:
            reader.position += 8  # the size of the tag, which its content tells as well
        if kind == 20:
            _read_folder(reader, f"{name}/{label}", depth + 1)
        elif kind == 21:
            _read_value(reader, f"{name}/{label}")
        else:
            raise FileFormatError(reader.source.path, f"unknown tag kind {kind} at {reader.position}")


def _checked(reader: _Reader, count: int) -> int:
    if not 0 <= count <= _MAX_TAGS:
        raise FileFormatError(reader.source.path, f"a count of {count} tags (at most {_MAX_TAGS})")
    return count


def _read_value(reader: _Reader, name: str) -> None:
    if reader.source.read_at(reader.position, 4) != b"%%%%":
        raise FileFormatError(reader.source.path, f"damaged tag {name!r}")
    reader.position += 4
    info = [reader.length() for _ in range(_checked(reader, reader.length()))]
    if len(info) == 1 and info[0] in _SIMPLE:
        code = reader.data_order + _SIMPLE[info[0]]
        raw = reader.source.read_at(reader.position, np.dtype(code).itemsize)
        reader.numbers[name] = float(np.frombuffer(raw, dtype=code)[0])
        reader.position += len(raw)
    elif len(info) == 3 and info[0] == 20 and info[1] in _SIMPLE:
        code = reader.data_order + _SIMPLE[info[1]]
        reader.arrays[name] = (reader.position, info[2], code)
        _skip(reader, info[2] * np.dtype(code).itemsize)
    elif len(info) == 2 and info[0] == 18:
        _skip(reader, 2 * info[1])
    elif len(info) > 1 and info[0] == 15:
        _skip(reader, _structure_bytes(reader, info))
    elif len(info) > 3 and info[0] == 20 and info[1] == 15:
        _skip(reader, info[-1] * _structure_bytes(reader, info[1:-1]))
    else:
        raise FileFormatError(reader.source.path, f"tag {name!r} has an unknown type {info[:4]}")


def _structure_bytes(reader: _Reader, info: list[int]) -> int:
    """Return the size of a structure from ``15, name bytes, fields, (name bytes, type) …``."""
    kinds = info[4::2]
    if not all(kind in _SIMPLE for kind in kinds):
        raise FileFormatError(reader.source.path, f"a structure of unknown types {kinds[:4]}")
    return sum(np.dtype(_SIMPLE[kind]).itemsize for kind in kinds)


def _skip(reader: _Reader, count: int) -> None:
    if count < 0:
        raise FileFormatError(reader.source.path, f"a tag of {count} bytes")
    reader.position += count
    reader.source.read_at(reader.position, 0)


def _largest_image(reader: _Reader) -> NDArray[Any]:
    best: tuple[int, int, str, int] | None = None
    for name, (offset, count, _) in reader.arrays.items():
        folder = name.removesuffix("/Data")
        if folder == name or not folder.endswith("/ImageData"):
            continue
        sides = [int(reader.numbers.get(f"{folder}/Dimensions/{axis}", 1)) for axis in range(3)]
        code = _PIXELS.get(int(reader.numbers.get(f"{folder}/DataType", -1)))
        flat = sides[2] == 1 and all(0 < side <= MAX_SIDE_PX for side in sides)
        if code and flat and sides[0] * sides[1] <= count and (best is None or sides[0] * sides[1] > best[0] * best[1]):
            best = (sides[1], sides[0], reader.data_order + code, offset)
    if best is None:
        raise FileFormatError(reader.source.path, "no numeric two-dimensional image in the file")
    height, width, code, offset = best
    size = height * width * np.dtype(code).itemsize
    if size > MAX_IMAGE_BYTES:
        raise FileFormatError(reader.source.path, f"image of {width} x {height} px needs more than {MAX_IMAGE_BYTES} bytes")
    stored = np.frombuffer(reader.source.read_at(offset, size), dtype=code).reshape(height, width)  # (h, w)
    return np.ascontiguousarray(stored[::-1]).astype(stored.dtype.newbyteorder("="))
