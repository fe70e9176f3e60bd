"""Single images and image stacks, and writing MRC files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from icestream.errors import FileFormatError
from icestream.io import ifd, memory
from icestream.io.mrc import make_mrc_header, read_mrc_header, read_mrc_image
from icestream.io.picture import JPEG_MAGIC, PNG_MAGIC, picture_size_px, read_picture
from icestream.io.raw import RawFile, Source, is_compressed, open_source
from icestream.io.tiff import read_tiff_page, tiff_dtype, tiff_pixel_size_ang, tiff_size_px

_SAVED = {"int8", "int16", "uint16", "float16", "float32"}


@dataclass(frozen=True)
class ImageHeader:
    """What an image file's header says; ``pixel_size_ang`` is unset where it does not, ``dtype`` where it is no MRC file."""

    path: Path
    n_images: int
    height_px: int
    width_px: int
    format: str
    pixel_size_ang: float | None
    dtype: np.dtype[Any] | None = None


def image_header(path: Path) -> ImageHeader:
    """Return size and pixel size of an MRC, TIFF, PNG or JPEG file, reading its header only.

    Raises
    ------
    FileFormatError, TruncatedFile, SourceGone
        The file is foreign or empty; shorter than declared; not there.
    """
    path = Path(path)
    source = open_source(path)
    try:
        kind = _kind(source)
        if kind in ("png", "jpeg"):
            return ImageHeader(path, 1, *picture_size_px(source), kind, None)
        if kind == "tiff":
            pages = ifd.read_directories(source)
            tiff_dtype(pages[0])
            return ImageHeader(path, len(pages), *tiff_size_px(pages[0]), kind, tiff_pixel_size_ang(pages[0]))
        header = read_mrc_header(source)
        return ImageHeader(path, header.n_images, header.height_px, header.width_px, kind, header.pixel_size_ang, header.dtype)
    finally:
        source.close()


def read_image(path: Path) -> NDArray[np.float32]:
    """Return one image ``(h, w)`` as float32, read-only: from memory if this process has just written it, else from the file.

    Raises
    ------
    FileFormatError, TruncatedFile, SourceGone
        The file is foreign, damaged, or holds several images; is shorter than its header declares; is not there.
    """
    stored = _read(Path(path))
    if stored.ndim == 3 and stored.shape[0] != 1:
        raise FileFormatError(path, f"holds {stored.shape[0]} images, one is expected")
    return _as_float32(stored[0] if stored.ndim == 3 else stored)


def read_stack(path: Path) -> NDArray[np.float32]:
    """Return all images ``(n, h, w)`` (a 3-D map: its sections) as float32, read-only.

    Raises
    ------
    FileFormatError, TruncatedFile, SourceGone
        As for `read_image`.
    """
    stored = _read(Path(path))
    return _as_float32(stored if stored.ndim == 3 else stored[np.newaxis])


def write_mrc(
    path: Path,
    array: NDArray[Any],
    *,
    pixel_size_ang: float | tuple[float, float],
    dtype: DTypeLike | None = None,
    remember: bool = True,
) -> None:
    """Write an image ``(h, w)`` or a stack ``(n, h, w)`` as MRC and remember it for `read_image` and `read_stack`.

    Parameters
    ----------
    path
        The file to write (a temporary name: publishing is the caller's business).
    array
        ``(h, w)`` or ``(n, h, w)``.
    pixel_size_ang
        Written as the cell size; of a pixel that is not square its height and width.
    dtype
        int8, int16, uint16, float16 or float32; the array's own (float64 becomes float32) if unset. Values are rounded for
        integers.
    remember
        Keep the pixels in the memory of this process; turn it off for what this process will not read again.

    Raises
    ------
    ValueError
        Another shape or type, a pixel size that is no positive number, or values that the type cannot hold.
    """
    path = Path(path)
    stored = _to_saved(path, np.asarray(array), dtype)
    lengths = np.atleast_1d(np.asarray(pixel_size_ang, dtype=np.float64))
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError(f"{path}: pixel size {pixel_size_ang} Å (must be positive)")
    stack = stored if stored.ndim == 3 else stored[np.newaxis]  # (n, h, w)
    statistics = measure_pixels(stack)
    shape = (stack.shape[0], stack.shape[1], stack.shape[2])
    little = stack.astype(stack.dtype.newbyteorder("<"), copy=False)
    with path.open("wb") as handle:
        handle.write(make_mrc_header(shape, little.dtype, pixel_size_ang, statistics))
        handle.write(little.view(np.uint8).data)
    if remember:
        if stored is not array:
            stored.flags.writeable = False  # ours alone: remembered without a copy
        memory.remember(path, stored)


def measure_pixels(stack: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return minimum, maximum, mean and standard deviation of a stack ``(n, h, w)``."""
    total, squares = 0.0, 0.0
    for image in stack:
        whole = np.ascontiguousarray(image, dtype=np.float32 if image.dtype == np.float16 else image.dtype)
        sums = _sum_pixels(whole)
        total, squares = total + sums[0], squares + sums[1]
    mean = total / stack.size
    return float(stack.min()), float(stack.max()), mean, max(squares / stack.size - mean**2, 0.0) ** 0.5


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _sum_pixels(image: Any) -> tuple[float, float]:
    """Return the sums of pixels and of their squares, in double precision row by row."""
    total, squares = 0.0, 0.0
    for y in range(image.shape[0]):
        of_row, of_squares = 0.0, 0.0
        for x in range(image.shape[1]):
            value = np.float64(image[y, x])
            of_row += value
            of_squares += value * value
        total += of_row
        squares += of_squares
    return total, squares


def _to_saved(path: Path, array: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    wanted = np.dtype(dtype) if dtype is not None else array.dtype.newbyteorder("=")
    if wanted == np.float64:
        wanted = np.dtype(np.float32)
    if array.ndim not in (2, 3) or array.size == 0 or wanted.name not in _SAVED:
        raise ValueError(f"{path}: cannot write shape {array.shape} as {wanted} (2-D or 3-D; {sorted(_SAVED)})")
    if wanted.kind in "iu" and (array.dtype != wanted):
        limits = np.iinfo(wanted)
        low, high = float(array.min()), float(array.max())
        if not (limits.min - 0.5 < low and high < limits.max + 0.5):
            raise ValueError(f"{path}: values {low:g} to {high:g} do not fit {wanted} ({limits.min} to {limits.max})")
        array = np.rint(array)
    elif wanted == np.float16 and float(np.abs(array).max()) > float(np.finfo(np.float16).max):
        raise ValueError(f"{path}: values up to {float(np.abs(array).max()):g} do not fit float16")
    return np.ascontiguousarray(array, dtype=wanted)


def _kind(source: Source) -> str:
    head = source.read_at(0, 8)
    if is_compressed(source.path) and (head == PNG_MAGIC or head[:3] == JPEG_MAGIC):
        raise FileFormatError(source.path, "a compressed PNG or JPEG is not read; decompress it")
    if head == PNG_MAGIC:
        return "png"
    if head[:3] == JPEG_MAGIC:
        return "jpeg"
    return "tiff" if ifd.is_tiff(head) else "mrc"


def _read(path: Path) -> NDArray[Any]:
    known = memory.recall(path)
    if known is not None:
        return known
    source = open_source(path)
    try:
        kind = _kind(source)
        if kind == "tiff":
            pages = ifd.read_directories(source)
            if len(pages) == 1:
                return read_tiff_page(source, pages[0])
            return _stacked(path, [read_tiff_page(source, page) for page in pages])
        if kind == "mrc":
            header = read_mrc_header(source)
            if isinstance(source, RawFile) and not header.packed:
                whole = np.empty((header.n_images, header.height_px, header.width_px), dtype=header.dtype)  # (n, h, w)
                source.read_into(header.data_offset, whole.view(np.uint8).data.cast("B"))
                return whole
            return _stacked(path, [read_mrc_image(source, header, index) for index in range(header.n_images)])
    finally:
        source.close()
    return read_picture(path)


def _stacked(path: Path, images: list[NDArray[Any]]) -> NDArray[Any]:
    if len({image.shape for image in images}) != 1:
        raise FileFormatError(path, "holds images of different sizes")
    return np.stack(images)  # (n, h, w)


def _as_float32(stored: NDArray[Any]) -> NDArray[np.float32]:
    image = stored.astype(np.float32, copy=False)
    if image.flags.writeable:
        image.flags.writeable = False
    return image
