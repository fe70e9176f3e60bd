"""Telling whether a file that may still be growing is complete."""

from pathlib import Path

from icestream.errors import FileFormatError
from icestream.io import ifd
from icestream.io.mrc import read_mrc_header
from icestream.io.picture import JPEG_MAGIC, PNG_MAGIC, check_picture, png_end
from icestream.io.raw import BeyondEnd, RawFile, is_compressed


def declared_size_bytes(path: Path) -> int | None:
    """Return the size that the file's own header says it must have at least, or None if it cannot be known.

    MRC: header plus images. TIFF and EER: the end of the last strip or directory reached so far (a multi-page file that is still
    growing may look complete between two pages: only time tells). PNG: the end of its chunks. Compressed files and JPEG: None.

    Raises
    ------
    FileFormatError
        The file is empty or foreign.
    TruncatedFile
        The header or first directory is yet to be written, so that the size is unknown.
    """
    path = Path(path)
    if is_compressed(path):
        return None
    with RawFile(path) as source:
        if source.size_bytes == 0:
            raise FileFormatError(path, "the file is empty")
        try:
            return _declared(source)
        except BeyondEnd as beyond:
            return beyond.needed_bytes


def _declared(source: RawFile) -> int | None:
    head = source.read_at(0, min(source.size_bytes, 8))
    if head[:3] == JPEG_MAGIC:
        return None
    if head == PNG_MAGIC:
        return png_end(source)
    if ifd.is_tiff(head):
        return max(page.data_end() for page in ifd.read_directories(source))
    return read_mrc_header(source, complete=False).declared_bytes


def check_complete(path: Path) -> None:
    """Check that a file has all the bytes its header declares; pixels are not decoded.

    Of a compressed file only emptiness is known: whether its end is there shows when it is read.

    Raises
    ------
    TruncatedFile
        It is shorter.
    FileFormatError
        It is empty or foreign.
    SourceGone
        It is not there.
    """
    path = Path(path)
    declared = declared_size_bytes(path)
    with RawFile(path) as source:
        if declared is not None and source.size_bytes < declared:
            raise BeyondEnd(path, declared, source.size_bytes)
        if source.size_bytes == 0:
            raise FileFormatError(path, "the file is empty")
        if declared is None and source.size_bytes >= 8 and not is_compressed(path):
            check_picture(source, source.size_bytes)
