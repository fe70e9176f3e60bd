"""Movies and references as files, in the formats that cameras write.

Row 0 of a frame is the first row of an MRC file; TIFF stores the top row first, so rows are flipped there (`icestream.io`).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from icestream.io.eer_write import write_eer
from icestream.io.mrc import make_mrc_header
from icestream.microscope.settings import SimulationSettings

_LARGEST_COUNT = {"int8": 127, "int16": 32767, "uint16": 65535, "float32": 2**24}

Frames = Iterator[NDArray[np.int32]]


def write_movie(
    path: Path, frames: Frames, *, shape: tuple[int, int], settings: SimulationSettings, generator: np.random.Generator
) -> None:
    """Write raw counts as a movie in the format of the settings.

    Counts that the pixel type cannot hold are cut off at its largest value, as cameras do. The same content gives the same bytes.

    Parameters
    ----------
    path
        The new file.
    frames
        Counts ``shape``, as many as the settings say.
    shape
        Of a frame.
    settings
        Format, pixel type and pixel size.
    generator
        For EER only: where in its pixel and when within its frame an electron arrives.
    """
    if settings.format == "tiff":
        _write_tiff(path, frames, pixel_size_ang=settings.pixel_size_ang, big=settings.n_frames * shape[0] * shape[1] > 2**31)
    elif settings.format == "mrc":
        header_shape = (settings.n_frames, *shape)
        _write_mrc(path, frames, np.dtype(settings.mrc_type), shape=header_shape, pixel_size_ang=settings.pixel_size_ang)
    else:
        events = split_events(frames, settings.eer_frames_per_frame, generator=generator)
        write_eer(path, events, height_px=shape[0], width_px=shape[1], pixel_size_ang=settings.pixel_size_ang)


def _write_tiff(path: Path, frames: Frames, *, pixel_size_ang: float, big: bool) -> None:
    per_cm = 1e8 / pixel_size_ang
    with tifffile.TiffWriter(path, bigtiff=big) as writer:
        for frame in frames:
            pixels = np.minimum(frame, 255).astype(np.uint8)[::-1]
            writer.write(
                pixels,
                compression="lzw",
                photometric="minisblack",
                contiguous=False,
                metadata=None,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                software="icestream",
            )


def _write_mrc(path: Path, frames: Frames, dtype: np.dtype[Any], *, shape: tuple[int, int, int], pixel_size_ang: float) -> None:
    largest = _LARGEST_COUNT[dtype.name]
    total = square = 0.0
    low, high = np.inf, -np.inf
    with path.open("wb") as handle:
        handle.write(bytes(1024))
        for frame in frames:
            pixels = np.minimum(frame, largest)
            low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
            total += float(pixels.mean(dtype=np.float64))
            square += float(np.square(pixels, dtype=np.float64).mean())
            handle.write(np.ascontiguousarray(pixels.astype(dtype)).tobytes())
        mean = total / shape[0]
        handle.seek(0)
        handle.write(
            make_mrc_header(shape, dtype, pixel_size_ang, (low, high, mean, float(np.sqrt(max(square / shape[0] - mean**2, 0)))))
        )


def write_mrc_array(path: Path, array: NDArray[np.float32], *, pixel_size_ang: float, volume: bool) -> None:
    """Write one image ``(h, w)``, or a volume ``(n, n, n)``, as float32 MRC."""
    stack = np.ascontiguousarray(array, np.float32).reshape(-1, *array.shape[-2:])  # (n, h, w)
    statistics = (float(stack.min()), float(stack.max()), float(stack.mean()), float(stack.std()))
    header = bytearray(make_mrc_header((len(stack), *stack.shape[1:]), stack.dtype, pixel_size_ang, statistics))
    if volume:
        # Space group 1 tells a volume from a stack of images (MRC2014).
        struct.pack_into("<i", header, 88, 1)
    with path.open("wb") as handle:
        handle.write(header)
        handle.write(stack.tobytes())


def split_events(frames: Frames, parts: int, *, generator: np.random.Generator) -> Iterator[NDArray[np.int32]]:
    """Spread the electrons of each frame over ``parts`` camera frames, as positions in quarter pixels ``(n, 2)``, yx.

    Two electrons on one pixel in one camera frame are counted once by the format: coincidence loss, as in the real camera.
    """
    for frame in frames:
        y, x = np.nonzero(frame)
        repeats = frame[y, x]
        events = np.repeat(np.stack([y, x], axis=1), repeats, axis=0)  # (electrons, 2)
        quarter = 4 * events + generator.integers(0, 4, events.shape)
        moment = generator.integers(0, parts, len(events))
        for part in range(parts):
            yield quarter[moment == part].astype(np.int32)
