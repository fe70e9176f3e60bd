"""An image in full resolution as small tiles at several scales, in one file: who looks reads only the tiles that are seen.

A file begins with a mark, the length of an index, and the index itself (JSON); the tiles follow, each a JPEG. Level 0 is the full
resolution, each further one half of it. Rows and columns of tiles count from the top left of the picture, so row 0 of the image
is in the last row of tiles.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError
from icestream.io.preview import grey_limits, stretch_grey

TILE_PX = 512
_MARK = b"ICETILE1"
_PERCENTILES = (1.0, 99.0)
_SAMPLE_PX = 1 << 21
_LARGEST_INDEX_BYTES = 1 << 22
_QUALITY = 85


@dataclass(frozen=True)
class Level:
    """One scale: the size of the whole picture at it, and of the grid of its tiles."""

    height_px: int
    width_px: int
    rows: int
    columns: int


@dataclass(frozen=True)
class PyramidIndex:
    """What is in a file of tiles; a tile has at most ``tile_px`` a side."""

    height_px: int
    width_px: int
    tile_px: int
    levels: tuple[Level, ...]
    ends: tuple[int, ...]
    """Where each tile ends, from the first byte after the index: level by level, row by row."""

    def place(self, level: int, row: int, column: int) -> tuple[int, int] | None:
        """Return where a tile begins and ends after the index; None where there is none."""
        if not 0 <= level < len(self.levels):
            return None
        at = self.levels[level]
        if not (0 <= row < at.rows and 0 <= column < at.columns):
            return None
        number = sum(one.rows * one.columns for one in self.levels[:level]) + row * at.columns + column
        return (self.ends[number - 1] if number else 0), self.ends[number]


def write_pyramid(path: Path, image: NDArray[Any], *, tile_px: int = TILE_PX) -> None:
    """Write an image ``(h, w)`` as tiles, down to the level that is a single tile.

    Each level has a contrast of its own, from the 1st to the 99th percentile of its pixels: averaging takes noise away, so one
    contrast for all would leave small levels grey or large ones black and white. Pixels that are not finite become black.
    """
    scaled = np.ascontiguousarray(np.asarray(image)[::-1], dtype=np.float32)  # (h, w), the top row first
    height, width = scaled.shape
    levels: list[Level] = []
    tiles: list[bytes] = []
    while True:
        rows, columns = (-(-side // tile_px) for side in scaled.shape)
        levels.append(Level(scaled.shape[0], scaled.shape[1], rows, columns))
        tiles += _encode_tiles(scaled, tile_px)
        if levels[-1].rows == levels[-1].columns == 1:
            break
        scaled = _halve(scaled)
    ends = tuple(np.cumsum([len(tile) for tile in tiles]).tolist())
    index = json.dumps(asdict(PyramidIndex(height, width, tile_px, tuple(levels), ends))).encode()
    with path.open("wb") as handle:
        handle.write(_MARK + len(index).to_bytes(4, "little") + index)
        handle.writelines(tiles)


def read_pyramid_index(path: Path) -> PyramidIndex:
    """Return what is in a file of tiles.

    Raises
    ------
    FileFormatError
        It is none.
    """
    return _read_index(path)[0]


def read_tile(path: Path, level: int, row: int, column: int) -> bytes | None:
    """Return one tile as JPEG; None where there is none.

    Raises
    ------
    FileFormatError
        The file is none of tiles, is cut off, or is damaged there.
    """
    index, begin = _read_index(path)
    place = index.place(level, row, column)
    if place is None:
        return None
    first, end = place
    with path.open("rb") as handle:
        handle.seek(begin + first)
        tile = handle.read(end - first)
    if len(tile) != end - first:
        raise FileFormatError(path, "the tiles are cut off")
    if not is_whole_jpeg(tile):
        raise FileFormatError(path, "a tile is damaged")
    return tile


def is_whole_jpeg(content: bytes) -> bool:
    """Tell whether bytes begin and end as a JPEG does: not what a power cut leaves behind."""
    return content.startswith(b"\xff\xd8") and content.endswith(b"\xff\xd9")


def _read_index(path: Path) -> tuple[PyramidIndex, int]:
    """Return the index of a file, and where its first tile begins."""
    with path.open("rb") as handle:
        head = handle.read(len(_MARK) + 4)
        size = int.from_bytes(head[len(_MARK) :], "little")
        text = handle.read(size) if size <= _LARGEST_INDEX_BYTES else b""
    if not head.startswith(_MARK) or len(text) != size or not size:
        raise FileFormatError(path, "no file of tiles")
    try:
        found = json.loads(text)
        levels = tuple(Level(**one) for one in found.pop("levels"))
        return PyramidIndex(**{**found, "levels": levels, "ends": tuple(found["ends"])}), len(head) + size
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileFormatError(path, "the index of the tiles is damaged") from error


def _encode_tiles(scaled: NDArray[np.float32], tile_px: int) -> Iterator[bytes]:
    limits = grey_limits(_sample(scaled), _PERCENTILES)
    for top in range(0, scaled.shape[0], tile_px):
        for left in range(0, scaled.shape[1], tile_px):
            tile = stretch_grey(scaled[top : top + tile_px, left : left + tile_px], limits)
            yield bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=_QUALITY))


def _sample(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return whole rows, evenly spread, of an image with very many pixels: its percentiles are the same to the eye."""
    step = max(1, scaled.size // _SAMPLE_PX)
    return scaled[::step]


def _halve(scaled: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average boxes of two pixels a side; a last row or column that is alone counts for both."""
    even = np.pad(scaled, [(0, side % 2) for side in scaled.shape], mode="edge") if any(n % 2 for n in scaled.shape) else scaled
    height, width = even.shape
    boxes = even.reshape(height // 2, 2, width // 2, 2)  # (h', 2, w', 2)
    halved: NDArray[np.float32] = boxes.mean(axis=(1, 3), dtype=np.float32)  # (h', w')
    return halved
