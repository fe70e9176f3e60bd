import bz2

import imagecodecs
import numpy as np
import pytest
import tifffile
from dm4_bytes import dm_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mrc_bytes import mrc_bytes, ramp

from icestream.errors import FileFormatError, IcestreamError, SourceGone, TruncatedFile
from icestream.io.eer_write import write_eer
from icestream.io.gain import read_gain
from icestream.io.image import image_header, read_stack
from icestream.io.movie import open_movie
from icestream.io.ready import check_complete, declared_size_bytes


def make(path):
    """Write a small file of the kind that the name says; return its bytes."""
    frames = ramp((3, 16, 12), np.uint8)
    kind = path.name.split(".", 1)[1]
    if kind == "mrc":
        path.write_bytes(mrc_bytes(frames, 0, extended=bytes(64)))
    elif kind == "mrc.bz2":
        path.write_bytes(bz2.compress(mrc_bytes(frames, 0)))
    elif kind == "eer":
        write_eer(path, [np.array([[k, 2 * k], [20, 9]]) for k in range(3)], height_px=16, width_px=12, pixel_size_ang=1)
    elif kind == "png":
        path.write_bytes(imagecodecs.png_encode(frames[0]))
    elif kind == "jpg":
        path.write_bytes(imagecodecs.jpeg8_encode(frames[0]))
    elif kind == "dm4":
        path.write_bytes(dm_bytes(frames[0].astype(np.float32)))
    elif kind == "tile.tif":
        tifffile.imwrite(path, frames, tile=(16, 16), compression="zstd", photometric="minisblack")
    elif kind == "big.tif":
        tifffile.imwrite(path, frames, bigtiff=True, predictor=2, compression="zlib", photometric="minisblack")
    else:
        with tifffile.TiffWriter(path) as writer:
            for frame in frames:
                writer.write(
                    frame, contiguous=False, compression="lzw" if kind == "lzw.tif" else None, metadata=None, rowsperstrip=5
                )
    return path.read_bytes()


@pytest.mark.parametrize("name", ["a.mrc", "a.tif", "a.lzw.tif", "a.big.tif", "a.tile.tif", "a.eer", "a.png"])
def test_every_shorter_file_is_incomplete(tmp_path, name):
    path = tmp_path / name
    whole = make(path)
    check_complete(path)
    assert declared_size_bytes(path) <= len(whole)
    (tmp_path / "longer").write_bytes(whole + b"trailing")
    assert declared_size_bytes(path) == declared_size_bytes(tmp_path / "longer")
    step = max(1, declared_size_bytes(path) // 150)
    declared = declared_size_bytes(path)
    assert declared is not None
    for size in (*range(8, declared, step), declared - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(TruncatedFile, match=rf"header declares \d+ bytes, the file has {size}"):
            check_complete(path)
        assert declared_size_bytes(path) > size


def test_a_growing_mrc_declares_its_size_from_the_first_kilobyte(tmp_path):
    path = tmp_path / "a.mrc"
    whole = make(path)
    path.write_bytes(whole[:1024])
    assert declared_size_bytes(path) == len(whole)


def test_a_tiff_whose_directory_is_not_yet_written(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0\0\0\0\0" + bytes(1000))
    for judge in (check_complete, declared_size_bytes, open_movie):
        with pytest.raises(TruncatedFile, match="no image directory"):
            judge(path)


def test_an_mrc_whose_header_is_not_yet_written(tmp_path):
    path = tmp_path / "a.mrc"
    path.write_bytes(bytes(5000))
    for judge in (check_complete, declared_size_bytes, open_movie):
        with pytest.raises(TruncatedFile, match="not been written yet"):
            judge(path)


def test_what_cannot_be_known(tmp_path):
    for name in ("a.mrc.bz2", "a.jpg"):
        path = tmp_path / name
        whole = make(path)
        assert declared_size_bytes(path) is None
        check_complete(path)
    path.write_bytes(whole[:-30])
    with pytest.raises(TruncatedFile, match="end mark"):
        check_complete(path)


def test_empty_foreign_missing(tmp_path):
    for name in ("a.mrc", "a.tif", "a.mrc.bz2"):
        path = tmp_path / name
        with pytest.raises(SourceGone):
            check_complete(path)
        path.write_bytes(b"")
        with pytest.raises(FileFormatError, match="empty"):
            check_complete(path)
    path = tmp_path / "a.mrc"
    path.write_bytes(b"This is no image. " * 200)
    with pytest.raises(FileFormatError, match="not an MRC file"):
        check_complete(path)


NAMES = ["a.mrc", "a.mrc.bz2", "a.tif", "a.lzw.tif", "a.big.tif", "a.tile.tif", "a.eer", "a.png", "a.jpg", "a.dm4"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(data=st.data())
def test_only_our_errors_escape_from_damaged_files(tmp_path, name, data):
    path = tmp_path / name
    whole = bytearray(make(path))
    size = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, min(len(whole) - 1, 2000)), st.integers(0, 255)), max_size=6)):
        whole[at] = value
    path.write_bytes(whole[:size])
    readers = [check_complete, declared_size_bytes, image_header, read_stack, read_gain, drain]
    for read in readers:
        try:
            read(path)
        except IcestreamError as error:
            assert str(path) in str(error)  # any other outcome than a foreign exception is right


def drain(path):
    with open_movie(path) as movie:
        if movie.height_px * movie.width_px < 1e7:
            for _ in movie.frames(0, min(movie.n_frames, 5)):
                pass
