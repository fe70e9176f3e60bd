"""Bytes of a file by position, plain or compressed, with errors an operator understands."""

import bz2
import gzip
import lzma
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from icestream.errors import FileFormatError, SourceGone, TruncatedFile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK, _PORTION = 1 << 20, 1 << 16
_DECODER_MEMORY_BITS = 28
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
COMPRESSED_SUFFIXES = (".bz2", ".xz", ".zst", ".gz")


class BeyondEnd(TruncatedFile):
    """A read past the end of a file; ``needed_bytes`` is the size that the file should have at least."""

    def __init__(self, path: Path, needed_bytes: int, size_bytes: int) -> None:
        super().__init__(path, f"header declares {needed_bytes} bytes, the file has {size_bytes}")
        self.needed_bytes = needed_bytes


class Source(Protocol):
    """What the format readers need of a file."""

    path: Path

    def read_at(self, offset: int, count: int) -> bytes:
        """Return exactly ``count`` bytes from ``offset``."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (bytes) from ``offset``."""

    def check_end(self) -> None:
        """Check, after the last bytes that matter, that the file ends as it should."""

    def close(self) -> None:
        """Let go of the file."""


def open_plain(path: Path) -> BinaryIO:
    """Open ``path`` for reading; a missing file is `SourceGone`."""
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise SourceGone(f"{path}: the file is not there") from None
    except IsADirectoryError:
        raise FileFormatError(path, "is a folder") from None


class RawFile:
    """A plain file, read by position; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = open_plain(path)
        self.size_bytes = os.fstat(self._handle.fileno()).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def read_at(self, offset: int, count: int) -> bytes:
        """Return exactly ``count`` bytes from ``offset``."""
        if offset < 0 or count < 0 or offset + count > self.size_bytes:
            raise self._beyond(offset, count)
        data = os.pread(self._handle.fileno(), count, offset)
        if len(data) < count:
            buffer = bytearray(count)
            self.read_into(offset, memoryview(buffer))
            return bytes(buffer)
        return data

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (bytes) from ``offset``."""
        done, count = 0, len(buffer)
        if offset < 0 or offset + count > self.size_bytes:
            raise self._beyond(offset, count)
        while done < count:
            got = os.preadv(self._handle.fileno(), [buffer[done:]], offset + done)
            if got == 0:
                raise BeyondEnd(self.path, offset + count, offset + done)
            done += got

    def check_end(self) -> None:
        """Do nothing: that all declared bytes are there is all that a plain file can tell."""

    def _beyond(self, offset: int, count: int) -> FileFormatError:
        if offset < 0 or count < 0 or offset + count > 1 << 62:
            return FileFormatError(self.path, f"header points to {count} bytes at position {offset}")
        return BeyondEnd(self.path, offset + count, self.size_bytes)


class UnpackedFile(RawFile):
    """A compressed file that is read by position: its content is unpacked into a temporary file without a name."""

    def __init__(self, packed: "StreamFile") -> None:
        self.path = packed.path
        self._handle = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        try:
            for chunk in packed.all_chunks():
                self._handle.write(chunk)
            self.size_bytes = self._handle.tell()
            self._handle.flush()
        except BaseException:
            self._handle.close()
            raise


class StreamFile:
    """A compressed file, decompressed as it is read; going back starts again from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._restart()

    def _restart(self) -> None:
        self._handle = open_plain(self.path)
        self._chunks = _CODECS[self.path.suffix.lower()](self._handle)
        self._rest = memoryview(b"")
        self._position = 0

    def close(self) -> None:
        """Let go of the file."""
        self._handle.close()

    def read_at(self, offset: int, count: int) -> bytes:
        """Return exactly ``count`` bytes from ``offset`` of the decompressed content."""
        parts = bytearray()
        self._seek(offset)
        while len(parts) < count:
            parts += self._take(count - len(parts), offset + count)
        return bytes(parts)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (bytes) from ``offset`` of the decompressed content."""
        self._seek(offset)
        done = 0
        while done < len(buffer):
            part = self._take(len(buffer) - done, offset + len(buffer))
            buffer[done : done + len(part)] = part
            done += len(part)

    def check_end(self) -> None:
        """Decompress what is left: checksums and the mark of the end come last.

        Raises
        ------
        TruncatedFile
            The compressed data are cut off.
        FileFormatError
            They are damaged.
        """
        while chunk := self._chunk(self._position):
            self._position += len(self._rest) + len(chunk)
            self._rest = memoryview(b"")

    def all_chunks(self) -> Iterator[bytes]:
        """Yield the whole decompressed content, from the beginning."""
        self._seek(0)
        if self._rest:
            yield bytes(self._rest)
            self._position += len(self._rest)
            self._rest = memoryview(b"")
        while chunk := self._chunk(self._position):
            self._position += len(chunk)
            yield chunk

    def _seek(self, offset: int) -> None:
        if offset < self._position:
            self.close()
            self._restart()
        while self._position < offset:
            self._take(offset - self._position, offset)

    def _take(self, count: int, needed: int) -> memoryview:
        if not self._rest:
            self._rest = memoryview(self._next_chunk(needed))
        part, self._rest = self._rest[:count], self._rest[count:]
        self._position += len(part)
        return part

    def _next_chunk(self, needed: int) -> bytes:
        chunk = self._chunk(needed)
        if not chunk:
            raise BeyondEnd(self.path, needed, self._position)
        return chunk

    def _chunk(self, needed: int) -> bytes:
        """Return what comes next, empty at the end."""
        try:
            return next((chunk for chunk in self._chunks if chunk), b"")
        except EOFError:
            short = f"end after {self._position} of {needed} bytes" if self._position < needed else "lack their end"
            raise TruncatedFile(self.path, f"the compressed data {short}") from None
        except (OSError, ValueError, lzma.LZMAError, zlib.error, zstd.ZstdError) as error:
            raise FileFormatError(self.path, f"cannot be decompressed: {error}") from error


class _Decompressor(Protocol):
    """The common face of the decompressors of `bz2`, `lzma` and `zstd`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _decompress(handle: BinaryIO, start: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Yield bounded pieces of all members of ``handle`` (parallel compressors write many)."""
    data = handle.read(_PORTION)
    while data:
        member = start()
        while not member.eof:
            if not data and member.needs_input:
                raise EOFError
            yield member.decompress(data, max_length=_CHUNK)
            data = handle.read(_PORTION) if member.needs_input and not member.eof else b""
        data = member.unused_data.lstrip(b"\0")
        while not data and (more := handle.read(_PORTION)):
            data = more.lstrip(b"\0")  # padding between members is allowed


def _bz2(handle: BinaryIO) -> Iterator[bytes]:
    return _decompress(handle, bz2.BZ2Decompressor)


def _xz(handle: BinaryIO) -> Iterator[bytes]:
    return _decompress(handle, lambda: lzma.LZMADecompressor(memlimit=1 << _DECODER_MEMORY_BITS))


def _gz(handle: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=handle) as reader:
        while chunk := reader.read(_CHUNK):
            yield chunk


def _zst(handle: BinaryIO) -> Iterator[bytes]:
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _DECODER_MEMORY_BITS}
    return _decompress(handle, lambda: zstd.ZstdDecompressor(options=options))


_CODECS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {".bz2": _bz2, ".xz": _xz, ".gz": _gz, ".zst": _zst}


def is_compressed(path: Path) -> bool:
    """Tell by its suffix whether ``path`` is a compressed file."""
    return path.suffix.lower() in COMPRESSED_SUFFIXES


def open_source(path: Path) -> RawFile | StreamFile:
    """Open ``path``, decompressing by its suffix; an empty file is refused.

    What is read by position, as TIFF and EER are, is unpacked into a temporary file first; it needs that much room there.

    Raises
    ------
    FileFormatError
        The file is empty or a folder.
    SourceGone
        There is no such file.
    """
    plain = RawFile(path)
    if plain.size_bytes == 0:
        plain.close()
        raise FileFormatError(path, "the file is empty")
    if not is_compressed(path):
        return plain
    plain.close()
    packed = StreamFile(path)
    try:
        if packed.read_at(0, 4) not in TIFF_MAGIC:
            return packed
        unpacked = UnpackedFile(packed)
    except BeyondEnd:
        return packed  # too short for any format, which its reader tells
    except BaseException:
        packed.close()
        raise
    packed.close()
    return unpacked
