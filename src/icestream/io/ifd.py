"""The directories of a TIFF file (classic and BigTIFF), read without touching a pixel.

TIFF revision 6.0 (Adobe 1992) and the BigTIFF extension. Only the tags that camera files use are kept. The walk is bounded: a
directory that is met twice, lies outside the file or claims absurd counts is refused.
"""

import itertools
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from icestream.errors import FileFormatError, TruncatedFile
from icestream.io.raw import TIFF_MAGIC, RawFile, Source

MAX_PAGES = 1 << 18
_MAX_VALUES = 1 << 21
_MAX_TAGS = 4096
_FORMATS = {1: "B", 2: "s", 3: "H", 4: "I", 5: "I", 7: "s", 11: "f", 12: "d", 13: "I", 16: "Q", 18: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
WIDTH, HEIGHT, BITS, COMPRESSION, FILL_ORDER, DESCRIPTION = 256, 257, 258, 259, 266, 270
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_COUNTS, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS, SAMPLE_FORMAT = 322, 323, 324, 325, 339
X_RESOLUTION, RESOLUTION_UNIT = 282, 296
EER_ACQUISITION, EER_SKIP_BITS, EER_H_BITS, EER_V_BITS = 65001, 65007, 65008, 65009
_IMAGE_TAGS = (WIDTH, HEIGHT, BITS, COMPRESSION, FILL_ORDER, DESCRIPTION, SAMPLES, PLANAR, PREDICTOR, SAMPLE_FORMAT)
_DATA_TAGS = (STRIP_OFFSETS, ROWS_PER_STRIP, STRIP_COUNTS, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS)
_KEPT = frozenset(
    (*_IMAGE_TAGS, *_DATA_TAGS, X_RESOLUTION, RESOLUTION_UNIT, EER_ACQUISITION, EER_SKIP_BITS, EER_H_BITS, EER_V_BITS)
)
Values = tuple[int, ...]


@dataclass(frozen=True)
class Directory:
    """One image of a TIFF file: its numeric tags (a fraction is two numbers), its texts, and where its directory ends."""

    path: Path
    order: str
    numbers: dict[int, Values]
    texts: dict[int, bytes]
    end: int

    def first(self, tag: int, default: int | None = None) -> int:
        """Return the first value of a numeric tag."""
        values = self.numbers.get(tag)
        if values:
            return values[0]
        if default is None:
            raise FileFormatError(self.path, f"TIFF image without tag {tag}")
        return default

    def segments(self) -> list[tuple[int, int]]:
        """Return offset and byte count of each strip or tile."""
        tiled = TILE_OFFSETS in self.numbers
        offsets = self.numbers.get(TILE_OFFSETS if tiled else STRIP_OFFSETS, ())
        counts = self.numbers.get(TILE_COUNTS if tiled else STRIP_COUNTS, ())
        if not offsets or len(offsets) != len(counts):
            raise FileFormatError(self.path, f"TIFF image with {len(offsets)} strip offsets and {len(counts)} strip sizes")
        return list(zip(offsets, counts, strict=True))

    def data_end(self) -> int:
        """Return the position after the last byte of this image and its directory."""
        return max(self.end, *(offset + count for offset, count in self.segments()))


def is_tiff(head: bytes) -> bool:
    """Tell whether ``head`` (8 bytes or more) begins a TIFF file."""
    return head[:4] in TIFF_MAGIC


def walk_directories(source: Source) -> Iterator[Directory]:
    """Yield the directories of a TIFF file in order.

    Raises
    ------
    TruncatedFile
        A directory lies beyond the end, or none was written yet.
    FileFormatError
        Not a TIFF file, or its directories make no sense.
    """
    head = source.read_at(0, 8)
    if not is_tiff(head):
        raise FileFormatError(source.path, f"not a TIFF file: it begins with {head[:4]!r}")
    order = "<" if head[:1] == b"I" else ">"
    big = b"+" in head[:4]
    position = struct.unpack(order + "Q", source.read_at(8, 8))[0] if big else struct.unpack(order + "I", head[4:8])[0]
    if position == 0:
        raise TruncatedFile(source.path, "no image directory has been written yet")
    seen: set[int] = set()
    while position:
        if position in seen:
            raise FileFormatError(source.path, f"TIFF directory {len(seen)} at {position} leads back to an earlier one")
        if len(seen) >= MAX_PAGES:
            raise FileFormatError(source.path, f"more than {MAX_PAGES} TIFF directories; that many images are not read")
        seen.add(position)
        directory, position = _read_directory(source, position, order, big=big)
        yield directory


def read_directories(source: Source) -> list[Directory]:
    """Return all images of a TIFF file, also those that have no directory of their own (ImageJ: one stands for all).

    Raises
    ------
    TruncatedFile
        A directory, or an image, lies beyond the end, or none was written yet; or the file has more than the directories say.
    FileFormatError
        Not a TIFF file, its directories make no sense, or the images without one cannot be found.
    """
    pages = list(walk_directories(source))
    if len(pages) == 1:
        pages = _undeclared(pages[0])
    if isinstance(source, RawFile):
        _check_size(source, pages)
    return pages


def _undeclared(page: Directory) -> list[Directory]:
    """Return a directory for each image that the only one stands for by its description: they lie one after the other."""
    count = _images_described(page.texts.get(DESCRIPTION, b""), page)
    if count <= 1:
        return [page]
    segments = page.segments()
    size = sum(length for _, length in segments)
    follow = all(one[0] + one[1] == two[0] for one, two in itertools.pairwise(segments))
    if page.first(COMPRESSION, 1) != 1 or not follow or size != _image_bytes(page):
        raise FileFormatError(page.path, f"declares {count} images under one TIFF directory that do not lie one after the other")
    tag = TILE_OFFSETS if TILE_OFFSETS in page.numbers else STRIP_OFFSETS
    moved = [tuple(offset + number * size for offset, _ in segments) for number in range(count)]
    return [replace(page, numbers={**page.numbers, tag: offsets}, end=page.end) for offsets in moved]


def _images_described(text: bytes, page: Directory) -> int:
    """Return how many images a description by ImageJ, or the shape that tifffile writes, counts; 1 without either."""
    if text.startswith(b"ImageJ="):
        found = re.search(rb"^images=(\d+)\s*$", text, re.MULTILINE)
        return min(int(found[1]), MAX_PAGES) if found else 1
    found = re.match(rb'\{"shape": \[([\d, ]+)\]', text)
    if found is None:
        return 1
    shape = [int(length) for length in found[1].split(b",")]
    whole, one = math.prod(shape), page.first(HEIGHT) * page.first(WIDTH)
    return min(whole // one, MAX_PAGES) if one and whole % one == 0 else 1


def _image_bytes(page: Directory) -> int:
    return page.first(HEIGHT) * -(-page.first(WIDTH) * page.first(BITS, 1) * page.first(SAMPLES, 1) // 8)


def _check_size(source: RawFile, pages: list[Directory]) -> None:
    """Refuse a file with room for another image after the last that its directories declare.

    It may still be written: a camera may add the directories last.
    """
    end, one = max(page.data_end() for page in pages), _image_bytes(pages[-1])
    if source.size_bytes - end >= max(one, 1):
        declared = f"its TIFF directories declare {len(pages)} image{'s' * (len(pages) != 1)}, {end} bytes"
        raise TruncatedFile(source.path, f"{declared}; the file has {source.size_bytes}, room for more")


def _read_directory(source: Source, position: int, order: str, *, big: bool) -> tuple[Directory, int]:
    count_format, entry_bytes, next_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    count_bytes, next_bytes = struct.calcsize("<" + count_format), struct.calcsize("<" + next_format)
    count = struct.unpack(order + count_format, source.read_at(position, count_bytes))[0]
    if not 0 < count <= _MAX_TAGS:
        raise FileFormatError(source.path, f"TIFF directory at {position} declares {count} tags")
    block = source.read_at(position + count_bytes, count * entry_bytes + next_bytes)
    numbers: dict[int, Values] = {}
    texts: dict[int, bytes] = {}
    end = position + count_bytes + len(block)
    for start in range(0, count * entry_bytes, entry_bytes):
        tag, kind = struct.unpack_from(order + "2H", block, start)
        if tag not in _KEPT or kind not in _FORMATS:
            continue
        raw, value_end = _tag_bytes(source, block, start, order, kind, big=big)
        end = max(end, value_end)
        if _FORMATS[kind] == "s":
            texts[tag] = raw
        elif _FORMATS[kind] not in "fd":
            numbers[tag] = struct.unpack(f"{order}{len(raw) // struct.calcsize(_FORMATS[kind])}{_FORMATS[kind]}", raw)
    following = struct.unpack(order + next_format, block[-next_bytes:])[0]
    return Directory(source.path, order, numbers, texts, end), following


def _tag_bytes(source: Source, block: bytes, start: int, order: str, kind: int, *, big: bool) -> tuple[bytes, int]:
    """Return the value bytes of one tag and where they end in the file (0 when inside the directory)."""
    count = struct.unpack_from(order + ("Q" if big else "I"), block, start + 4)[0]
    if count > _MAX_VALUES:
        raise FileFormatError(source.path, f"TIFF tag declares {count} values (at most {_MAX_VALUES})")
    size, inline, at = count * _SIZES[kind], 8 if big else 4, start + (12 if big else 8)
    if size <= inline:
        return block[at : at + size], 0
    offset = struct.unpack_from(order + ("Q" if big else "I"), block, at)[0]
    return source.read_at(offset, size), offset + size
