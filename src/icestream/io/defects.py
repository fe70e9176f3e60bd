"""Pixels of a camera that cannot be trusted, from the files that list them.

Three kinds are read, known by their content:

* an image (MRC or TIFF) of the size of the frames: pixels that are not zero are defects;
* rectangles: a line ``x y width height`` each, in pixels counted from 0, row 0 being the first row of an MRC file (MotionCor2's
  defect file, which RELION takes too); ``#`` begins a comment;
* SerialEM's ``defects_….txt``: ``BadColumns``, ``BadRows``, ``PartialBadColumn``, ``PartialBadRow``, ``BadPixels`` and
  ``UsableArea``, with rows counted from the top. Only frames that were not turned (``RotationAndFlip 0``) are understood.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError, SourceGone
from icestream.io.image import read_image

_LARGEST_TEXT_BYTES = 32 << 20
_IMAGES = {".mrc", ".mrcs", ".map", ".tif", ".tiff"}


def read_defects(path: Path, *, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels are defect: ``shape``.

    A list or image for frames of half or a quarter of the size (of a super-resolution movie's physical pixels) is enlarged.

    Raises
    ------
    SourceGone
        There is no such file.
    FileFormatError
        The file is none of the three kinds, is for frames of another size, or names a pixel outside of them.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceGone(f"{path}: the file is not there")
    if path.suffix.lower() in _IMAGES:
        return _enlarge(path, read_image(path) != 0, shape)
    if path.stat().st_size > _LARGEST_TEXT_BYTES:
        raise FileFormatError(path, f"the list has {path.stat().st_size} bytes; at most {_LARGEST_TEXT_BYTES} are allowed")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [(number, line.split("#")[0].split()) for number, line in enumerate(text.splitlines(), start=1)]
    words = [(number, parts) for number, parts in lines if parts]
    if any(parts[0] == "CameraSizeX" for _, parts in words):
        return _enlarge(path, _read_serialem(path, words), shape)
    return _read_rectangles(path, words, shape)


def write_defects(path: Path, positions_yx: NDArray[np.integer]) -> None:
    """Write single pixels ``(n, 2)`` as a list of rectangles of one pixel."""
    rows = "".join(f"{x} {y} 1 1\n" for y, x in positions_yx.tolist())
    Path(path).write_text("# x y width height, from 0\n" + rows, encoding="utf-8")


def _enlarge(path: Path, mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    for factor in (1, 2, 4):
        if (mask.shape[0] * factor, mask.shape[1] * factor) == shape:
            return mask if factor == 1 else np.repeat(np.repeat(mask, factor, axis=0), factor, axis=1)
    raise FileFormatError(
        path, f"the defects are of {mask.shape[0]}×{mask.shape[1]} pixels, the frames have {shape[0]}×{shape[1]}"
    )


def _numbers(path: Path, number: int, parts: list[str]) -> list[int]:
    try:
        return [int(part) for part in parts]
    except ValueError:
        raise FileFormatError(path, f"line {number}: {' '.join(parts)[:80]!r} are not whole numbers") from None


def _mark(path: Path, mask: NDArray[np.bool_], box: tuple[int, int, int, int], *, number: int) -> None:
    """Mark ``(x, y, width, height)`` in the caller's own mask."""
    x, y, width, height = box
    if min(x, y) < 0 or min(width, height) < 1 or x + width > mask.shape[1] or y + height > mask.shape[0]:
        raise FileFormatError(
            path,
            f"line {number}: x {x}, y {y}, {width}×{height} is outside frames {mask.shape[1]} wide and {mask.shape[0]} high",
        )
    mask[y : y + height, x : x + width] = True


def _read_rectangles(path: Path, words: list[tuple[int, list[str]]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=np.bool_)
    for number, parts in words:
        values = _numbers(path, number, parts)
        if len(values) != 4:
            raise FileFormatError(path, f"line {number}: {len(values)} numbers; a rectangle is x y width height")
        _mark(path, mask, (values[0], values[1], values[2], values[3]), number=number)
    return mask


def _read_serialem(path: Path, words: list[tuple[int, list[str]]]) -> NDArray[np.bool_]:
    """Return the mask in our order of rows; the file counts them from the top."""
    settings = {
        parts[0]: _numbers(path, number, parts[1:]) for number, parts in words if parts[0] in ("CameraSizeX", "CameraSizeY")
    }
    sizes = [settings.get(name, []) for name in ("CameraSizeY", "CameraSizeX")]
    if any(len(size) != 1 or not 1 <= size[0] <= 32768 for size in sizes):
        raise FileFormatError(path, f"CameraSizeY and CameraSizeX are {sizes}; each must be one number of 1 to 32768")
    mask = np.zeros((sizes[0][0], sizes[1][0]), dtype=np.bool_)
    for number, (key, *rest) in words:
        if key not in ("CameraSizeX", "CameraSizeY"):
            _mark_serialem(path, mask, key, rest, number=number)
    return np.ascontiguousarray(mask[::-1])


def _mark_serialem(path: Path, mask: NDArray[np.bool_], key: str, rest: list[str], *, number: int) -> None:
    height, width = mask.shape
    if key not in ("RotationAndFlip", "UsableArea", "BadColumns", "BadRows", "PartialBadColumn", "PartialBadRow", "BadPixels"):
        return  # how the camera was scaled and the like
    values = _numbers(path, number, rest)
    wanted = {"UsableArea": 4, "PartialBadColumn": 4, "PartialBadRow": 4, "RotationAndFlip": 1}.get(key)
    if (wanted is not None and len(values) != wanted) or (key == "BadPixels" and len(values) % 2):
        raise FileFormatError(path, f"line {number}: {key} with {len(values)} numbers")
    if key == "RotationAndFlip" and values[0] != 0:
        raise FileFormatError(
            path, f"line {number}: RotationAndFlip is {values[0]}; only 0 is supported: give an image of the defects"
        )
    boxes: list[tuple[int, int, int, int]] = []
    if key == "UsableArea" and any(values):
        outside = np.ones_like(mask)
        outside[values[0] : values[2] + 1, values[1] : values[3] + 1] = False
        mask |= outside
    elif key == "BadColumns":
        boxes = [(column, 0, 1, height) for column in values]
    elif key == "BadRows":
        boxes = [(0, row, width, 1) for row in values]
    elif key == "PartialBadColumn":
        boxes = [(values[0], values[2], values[1], values[3] - values[2] + 1)]
    elif key == "PartialBadRow":
        boxes = [(values[2], values[0], values[3] - values[2] + 1, values[1])]
    elif key == "BadPixels":
        boxes = [(x, y, 1, 1) for x, y in zip(values[::2], values[1::2], strict=True)]
    for box in boxes:
        _mark(path, mask, box, number=number)
