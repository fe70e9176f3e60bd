"""Raw movies of any camera, frame by frame."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from icestream.errors import FileFormatError
from icestream.io import eer, ifd
from icestream.io.fei import read_eer_metadata, read_fei_metadata
from icestream.io.mrc import read_mrc_header, read_mrc_images
from icestream.io.raw import Source, is_compressed, open_source
from icestream.io.tiff import read_tiff_pages, tiff_dtype, tiff_pixel_size_ang, tiff_size_px
from icestream.records import Acquisition, ExposureMetadata

FrameReader = Callable[[int, int], Iterator[NDArray[Any]]]


@dataclass(frozen=True)
class MovieHeader:
    """What a movie's header says.

    ``height_px`` and ``width_px`` are those of the frames that `MovieReader.frames` yields (EER: after upsampling), ``n_frames``
    counts those frames (EER: after grouping). ``pixel_size_ang`` is theirs too, unset where the header does not say it.
    ``metadata`` and ``acquisition`` hold what a FEI extended header or an EER file says about the exposure.
    """

    path: Path
    n_frames: int
    height_px: int
    width_px: int
    format: str
    dtype: np.dtype[Any]
    pixel_size_ang: float | None
    metadata: ExposureMetadata | None = None
    acquisition: Acquisition | None = None


class MovieReader:
    """An open movie; use it in a ``with`` block."""

    def __init__(self, header: MovieHeader, source: Source, read: FrameReader) -> None:
        self.header = header
        self.path = header.path
        self.n_frames = header.n_frames
        self.height_px = header.height_px
        self.width_px = header.width_px
        self.format = header.format
        self.dtype = header.dtype
        self.pixel_size_ang = header.pixel_size_ang
        self.metadata = header.metadata
        self.acquisition = header.acquisition
        self._source = source
        self._read = read

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[NDArray[Any]]:
        """Yield the frames ``start`` to ``stop - 1``, each ``(h, w)`` in its own type, decoding one ahead in a thread.

        Raises
        ------
        ValueError
            The range lies outside the movie.
        FileFormatError
            A frame is damaged.
        """
        end = self.n_frames if stop is None else stop
        if not 0 <= start <= end <= self.n_frames:
            raise ValueError(f"{self.path}: frames {start} to {end} of a movie of {self.n_frames}")
        return _decode_ahead(self._read(start, end))


def open_movie(path: Path, *, eer_upsampling: int = 1, eer_group: int = 1) -> MovieReader:
    """Open a movie: MRC (also ``.bz2 .xz .zst .gz``), TIFF or EER, known by its content.

    Parameters
    ----------
    path
        The movie.
    eer_upsampling
        EER only: 1, 2 or 4 pixels a side for each pixel of the detector.
    eer_group
        EER only: camera frames summed into one frame; a remainder is left out.

    Raises
    ------
    TruncatedFile, FileFormatError
        The file is shorter than its header declares; empty; or no movie.
    SourceGone
        There is no such file.
    """
    path = Path(path)
    with ExitStack() as on_error:
        source = open_source(path)
        on_error.callback(source.close)
        reader = _open_source(source, eer_upsampling=eer_upsampling, eer_group=eer_group)
        on_error.pop_all()  # from here on the reader closes its source
        return reader


def _open_source(source: Source, *, eer_upsampling: int, eer_group: int) -> MovieReader:
    if not is_compressed(source.path) and ifd.is_tiff(source.read_at(0, 4)):
        pages = list(ifd.walk_directories(source))
        events = eer.eer_frames(pages)
        if events:
            return _open_eer(source, events, pages[0], upsampling=eer_upsampling, group=eer_group)
        return _open_tiff(source, pages)
    return _open_mrc(source)


def movie_header(path: Path, *, eer_upsampling: int = 1, eer_group: int = 1) -> MovieHeader:
    """Return what the header says, without decoding a frame (of a compressed file, only its beginning is read)."""
    with open_movie(path, eer_upsampling=eer_upsampling, eer_group=eer_group) as movie:
        return movie.header


def _open_mrc(source: Source) -> MovieReader:
    stored = read_mrc_header(source)
    metadata, acquisition = read_fei_metadata(source, stored) or (None, None)
    header = MovieHeader(
        path=source.path,
        n_frames=stored.n_images,
        height_px=stored.height_px,
        width_px=stored.width_px,
        format="mrc" + (source.path.suffix.lower() if is_compressed(source.path) else ""),
        dtype=stored.dtype.newbyteorder("="),
        pixel_size_ang=stored.pixel_size_ang,
        metadata=metadata,
        acquisition=acquisition,
    )
    return MovieReader(header, source, lambda start, stop: read_mrc_images(source, stored, start, stop))


def _open_tiff(source: Source, pages: list[ifd.Directory]) -> MovieReader:
    size, dtype = tiff_size_px(pages[0]), tiff_dtype(pages[0]).newbyteorder("=")
    for index, page in enumerate(pages):
        if tiff_size_px(page) != size or tiff_dtype(page).newbyteorder("=") != dtype:
            raise FileFormatError(source.path, f"TIFF frame {index} has another size or type than frame 0")
        source.read_at(page.data_end(), 0)
    header = MovieHeader(source.path, len(pages), size[0], size[1], "tiff", dtype, tiff_pixel_size_ang(pages[0]))
    return MovieReader(header, source, lambda start, stop: read_tiff_pages(source, pages[start:stop]))


def _open_eer(source: Source, events: list[ifd.Directory], first: ifd.Directory, *, upsampling: int, group: int) -> MovieReader:
    eer.check_upsampling(source.path, upsampling, group)
    n_frames = len(events) // group
    if n_frames == 0:
        raise FileFormatError(source.path, f"EER movie of {len(events)} camera frames, fewer than a group of {group}")
    for page in events:
        source.read_at(page.data_end(), 0)
    height, width = tiff_size_px(events[0])
    acquisition_page = next((page for page in (first, *events) if ifd.EER_ACQUISITION in page.texts), None)
    metadata, acquisition = (None, None)
    if acquisition_page is not None:
        metadata, acquisition = read_eer_metadata(source.path, acquisition_page.texts[ifd.EER_ACQUISITION])
    physical = acquisition.pixel_size_ang if acquisition else None
    header = MovieHeader(
        path=source.path,
        n_frames=n_frames,
        height_px=height * upsampling,
        width_px=width * upsampling,
        format="eer",
        dtype=np.dtype(np.uint8 if group <= 255 else np.uint16),
        pixel_size_ang=physical / upsampling if physical else None,
        metadata=metadata,
        acquisition=acquisition,
    )

    def read(start: int, stop: int) -> Iterator[NDArray[Any]]:
        return eer.read_eer(source, events[start * group : stop * group], upsampling=upsampling, group=group)

    return MovieReader(header, source, read)


def _decode_ahead(frames: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield ``frames`` in order, decoding the next one in a thread while the last is used; never more than two are held."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="decode") as pool:
        pending = pool.submit(next, frames, None)
        while (frame := pending.result()) is not None:
            pending = pool.submit(next, frames, None)
            yield frame
