"""Pictures for people: 8-bit, contrast-stretched, reduced by averaging, row 0 at the bottom."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icestream.io.picture import encode_picture

_GAP_PX = 2


def write_preview(path: Path, image: NDArray[Any], *, max_px: int = 512, percentiles: tuple[float, float] = (1, 99)) -> None:
    """Write an image ``(h, w)`` as an 8-bit PNG or JPEG (by suffix) of at most ``max_px`` a side.

    Grey runs from the lower to the upper percentile of the reduced image; values that are not finite become black. Row 0 is
    drawn at the bottom, as viewers of MRC files do.
    """
    encode_picture(Path(path), _to_grey(_reduce(np.asarray(image), max_px), percentiles))


def write_mosaic(
    path: Path,
    images: NDArray[Any],
    *,
    columns: int,
    max_px: int = 128,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> None:
    """Write images ``(n, h, w)`` side by side, the first at the top left, each with its own contrast.

    Parameters
    ----------
    path
        A name ending in ``.png``, ``.jpg`` or ``.jpeg``.
    images
        ``(n, h, w)``.
    columns
        Images in a row.
    max_px
        Largest side of one image.
    percentiles
        Black and white, of the pixels of each image.

    Raises
    ------
    ValueError
        No image or no column.
    """
    if images.ndim != 3 or images.shape[0] == 0 or columns < 1:
        raise ValueError(f"{path}: a mosaic of shape {images.shape} in {columns} columns")
    tiles = [_to_grey(_reduce(image, max_px), percentiles) for image in images]
    height, width = tiles[0].shape
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * (height + _GAP_PX) - _GAP_PX, columns * (width + _GAP_PX) - _GAP_PX), dtype=np.uint8)
    for index, tile in enumerate(tiles):
        row, column = rows - 1 - index // columns, index % columns  # row 0 of the sheet is its bottom
        top, left = row * (height + _GAP_PX), column * (width + _GAP_PX)
        sheet[top : top + height, left : left + width] = tile
    encode_picture(Path(path), sheet)


def write_rgb(path: Path, array: NDArray[Any]) -> None:
    """Write colours ``(h, w, 3)``, uint8 or floats from 0 to 1, as they are; row 0 at the bottom.

    Raises
    ------
    ValueError
        Another shape.
    """
    if array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"{path}: a colour picture has shape (h, w, 3), not {array.shape}")
    if array.dtype != np.uint8:
        array = np.rint(np.clip(np.nan_to_num(array), 0, 1) * 255).astype(np.uint8)
    encode_picture(Path(path), array)


def _reduce(image: NDArray[Any], max_px: int) -> NDArray[np.float32]:
    """Average boxes of whole pixels until no side is longer than ``max_px``; a remainder at the edge is left out."""
    height, width = image.shape
    box = -(-max(height, width) // max_px)
    box = min(box, height, width)
    kept = image[: height // box * box, : width // box * box]
    if box == 1:
        return kept.astype(np.float32)
    boxes = kept.reshape(height // box, box, width // box, box)  # (h', box, w', box)
    reduced: NDArray[np.float32] = boxes.mean(axis=(1, 3), dtype=np.float32)  # (h', w')
    return reduced


def _to_grey(image: NDArray[np.float32], percentiles: tuple[float, float]) -> NDArray[np.uint8]:
    return stretch_grey(image, grey_limits(image, percentiles))


def grey_limits(image: NDArray[np.float32], percentiles: tuple[float, float]) -> tuple[float, float] | None:
    """Return what is black and what is white of an image, by percentiles of its finite pixels; None where it has none."""
    finite = image[np.isfinite(image)]
    if finite.size == 0:
        return None
    low, high = np.percentile(finite, percentiles)
    return float(low), float(high)


def stretch_grey(image: NDArray[np.float32], limits: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Return 8-bit grey between limits; without any it is black, and where they are one it is an even grey."""
    if limits is None:
        return np.zeros(image.shape, dtype=np.uint8)
    low, high = limits
    if high <= low:
        return np.full(image.shape, 128, dtype=np.uint8)
    scaled = np.clip((np.where(np.isfinite(image), image, low) - low) / (high - low), 0, 1)
    grey: NDArray[np.uint8] = np.rint(scaled * 255).astype(np.uint8)
    return grey
