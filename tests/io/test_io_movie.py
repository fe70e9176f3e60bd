import bz2
import gzip
import lzma
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
import tifffile
from mrc_bytes import mrc_bytes, ramp

from icestream.errors import FileFormatError, SourceGone, TruncatedFile
from icestream.io import ifd, raw, tiff
from icestream.io.image import image_header, read_stack
from icestream.io.movie import movie_header, open_movie
from icestream.io.ready import check_complete

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MODES = [(0, np.int8), (1, np.int16), (2, np.float32), (6, np.uint16), (12, np.float16)]


def frames_of(path, **options):
    with open_movie(path, **options) as movie:
        frames = list(movie.frames())
        assert len(frames) == movie.n_frames
        assert {f.shape for f in frames} == {(movie.height_px, movie.width_px)}
        assert {f.dtype for f in frames} == {movie.dtype}
        assert movie_header(path, **options) == movie.header
    return np.stack(frames)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("mode", "dtype"), MODES)
@pytest.mark.parametrize("with_map", [True, False])
def test_mrc_modes_and_byte_orders(tmp_path, mode, dtype, order, with_map):
    frames = ramp((3, 5, 7), dtype, *((-50, 50) if np.dtype(dtype).kind != "u" else (0, 60000)))
    path = tmp_path / "movie.mrc"
    path.write_bytes(mrc_bytes(frames, mode, order=order, with_map=with_map, extended=b"x" * 96))
    read = frames_of(path)
    np.testing.assert_array_equal(read, frames)
    assert read.dtype == np.dtype(np.float32 if dtype is np.float16 else dtype)  # nothing computes with half precision
    assert movie_header(path).dtype == np.dtype(dtype)
    assert movie_header(path).pixel_size_ang == pytest.approx(1.5)


@pytest.mark.parametrize(("flags", "dtype"), [(0, np.uint8), (1, np.int8), (None, np.int8)])
def test_mode_0_is_signed_unless_imod_says_otherwise(tmp_path, flags, dtype):
    stored = np.array([[[0, 127, 128, 255]]], dtype=np.uint8)
    path = tmp_path / "movie.mrc"
    path.write_bytes(mrc_bytes(stored, 0, imod_flags=flags))
    np.testing.assert_array_equal(frames_of(path), stored.view(dtype))


@pytest.mark.parametrize("width", [6, 7])
def test_four_bit_pixels_low_half_first(tmp_path, width):
    pixels = ramp((2, 3, width), np.uint8, 0, 16)
    padded = np.pad(pixels, ((0, 0), (0, 0), (0, width % 2)))
    stored = padded[..., 0::2] | padded[..., 1::2] << 4
    path = tmp_path / "movie.mrcs"
    path.write_bytes(mrc_bytes(stored, 101, width=width))
    np.testing.assert_array_equal(frames_of(path), pixels)


def test_four_bit_pixels_in_mode_0_of_half_width(tmp_path):
    pixels = ramp((2, 3, 8), np.uint8, 0, 16)
    path = tmp_path / "movie.mrc"
    path.write_bytes(mrc_bytes(pixels[..., 0::2] | pixels[..., 1::2] << 4, 0, imod_flags=16))
    np.testing.assert_array_equal(frames_of(path), pixels)


def test_mrcfile_agrees(tmp_path):
    frames = ramp((4, 6, 5), np.float32)
    path = tmp_path / "movie.mrc"
    with mrcfile.new(path, data=frames) as file:
        file.voxel_size = 0.83
    np.testing.assert_array_equal(frames_of(path), frames)
    assert movie_header(path).pixel_size_ang == pytest.approx(0.83)


COMPRESSORS = {
    ".bz2": [bz2.compress, lambda data: bz2.compress(data[:700]) + bz2.compress(data[700:])],
    ".xz": [lzma.compress, lambda data: lzma.compress(data[:700]) + bytes(8) + lzma.compress(data[700:])],
    ".gz": [gzip.compress, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:])],
    ".zst": [
        zstd.compress,
        lambda data: zstd.compress(data[:700]) + zstd.compress(data[700:]),
    ],
}


@pytest.mark.parametrize("suffix", list(COMPRESSORS))
@pytest.mark.parametrize("members", [0, 1])
def test_compressed_mrc_streams(tmp_path, suffix, members, monkeypatch):
    monkeypatch.setattr(raw, "_CHUNK", 512)
    monkeypatch.setattr(raw, "_PORTION", 512)
    frames = ramp((6, 20, 30), np.uint16)
    packed = COMPRESSORS[suffix][members](mrc_bytes(frames, 6))
    path = tmp_path / f"movie.mrc{suffix}"
    path.write_bytes(packed)
    np.testing.assert_array_equal(frames_of(path), frames)
    with open_movie(path) as movie:
        assert movie.format == f"mrc{suffix}"
        np.testing.assert_array_equal(np.stack(list(movie.frames(4, 6))), frames[4:])
        np.testing.assert_array_equal(np.stack(list(movie.frames(1, 3))), frames[1:3])  # goes back to the beginning
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TruncatedFile), open_movie(path) as movie:
        list(movie.frames())
    path.write_bytes(b"no such compression" * 50)
    with pytest.raises(FileFormatError):
        open_movie(path)


@pytest.mark.parametrize("suffix", list(COMPRESSORS))
@pytest.mark.parametrize("members", [0, 1])
def test_a_compressed_movie_that_lacks_its_last_byte_is_truncated(tmp_path, suffix, members):
    frames = ramp((6, 20, 30), np.uint16)
    packed = COMPRESSORS[suffix][members](mrc_bytes(frames, 6))
    path = tmp_path / f"movie.mrc{suffix}"
    for missing in (1, 2, 3):
        path.write_bytes(packed[:-missing])
        with pytest.raises(TruncatedFile), open_movie(path) as movie:
            list(movie.frames())
        with pytest.raises(TruncatedFile):
            read_stack(path)
    path.write_bytes(packed)
    with open_movie(path) as movie:
        np.testing.assert_array_equal(np.stack(list(movie.frames())), frames)
        np.testing.assert_array_equal(np.stack(list(movie.frames(5, 6))), frames[5:])


def test_the_checksum_of_a_zstd_frame_is_read_and_checked(tmp_path):
    content = mrc_bytes(ramp((3, 20, 30), np.uint16), 6)
    packed = zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1})
    path = tmp_path / "movie.mrc.zst"
    path.write_bytes(packed[:-1])
    with pytest.raises(TruncatedFile, match="lack their end"), open_movie(path) as movie:
        list(movie.frames())
    path.write_bytes(packed[:-1] + bytes([packed[-1] ^ 1]))
    with pytest.raises(FileFormatError, match="cannot be decompressed"), open_movie(path) as movie:
        list(movie.frames())


def test_a_zstd_frame_that_asks_for_a_gigabyte_is_refused(tmp_path):
    frame, window_1_gib, empty_block = b"\x28\xb5\x2f\xfd\x00", bytes([20 << 3]), b"\x01\x00\x00"
    path = tmp_path / "movie.mrc.zst"
    path.write_bytes(frame + window_1_gib + empty_block)
    with pytest.raises(FileFormatError, match=r"cannot be decompressed.*too much memory"):
        open_movie(path)


def test_few_bytes_that_stand_for_many_come_in_pieces(tmp_path):
    path = tmp_path / "movie.mrc.zst"
    path.write_bytes(zstd.compress(bytes(50 << 20)))
    assert path.stat().st_size < 10_000
    with path.open("rb") as handle:
        sizes = [len(piece) for piece in raw._zst(handle)]  # noqa: SLF001 - what is held in memory at once
    assert sum(sizes) == 50 << 20
    assert max(sizes) <= 1 << 20


def test_compressed_file_with_too_few_frames(tmp_path):
    path = tmp_path / "movie.mrc.bz2"
    path.write_bytes(bz2.compress(mrc_bytes(ramp((3, 20, 30), np.uint16), 6)[:-10]))
    with pytest.raises(TruncatedFile, match=r"declares 4624 bytes, the file has 4614"), open_movie(path) as movie:
        list(movie.frames())


TIFF_LAYOUTS: list[dict[str, Any]] = [
    {},
    {"compression": "lzw"},
    {"compression": "lzw", "predictor": 2},
    {"compression": "zlib"},
    {"compression": "zstd"},
    {"compression": "zlib", "predictor": True},
    {"compression": "packbits"},
    {"rowsperstrip": 3},
    {"compression": "lzw", "rowsperstrip": 4},
    {"compression": "zlib", "tile": (16, 16)},
    {"tile": (16, 32)},
    {"bigtiff": True},
    {"byteorder": ">", "compression": "lzw", "predictor": 2},
    {"byteorder": ">"},
]


COMBINATIONS = [
    (layout, dtype)
    for layout in TIFF_LAYOUTS
    for dtype in (np.uint8, np.int16, np.uint16, np.float32, np.float16)
    if layout.get("predictor") != 2 or dtype not in (np.float32, np.float16)  # predictor 2 is for integers
]


@pytest.mark.parametrize(("layout", "dtype"), COMBINATIONS, ids=str)
def test_tiff_rows_are_flipped(tmp_path, layout, dtype):
    layout = dict(layout)
    frames = ramp((3, 19, 37), dtype)
    path = tmp_path / "movie.tif"
    container = {key: layout.pop(key) for key in ("bigtiff", "byteorder") if key in layout}
    with tifffile.TiffWriter(path, **container) as writer:
        for frame in frames:
            writer.write(frame, photometric="minisblack", contiguous=False, metadata=None, **layout)
    np.testing.assert_array_equal(frames_of(path), frames[:, ::-1])
    np.testing.assert_array_equal(tifffile.imread(path), frames)


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [(1e8 / 0.83, "CENTIMETER", 0.83), (2.54e8 / 1.2, "INCH", 1.2), (72, "INCH", None), (1e8, "NONE", None)],
)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_pixel_size_of_a_tiff(tmp_path, resolution, unit, expected, bigtiff):
    path = tmp_path / "movie.tif"
    frames = np.zeros((2, 4, 4), np.uint8)
    tifffile.imwrite(
        path, frames, resolution=(resolution, resolution), resolutionunit=unit, photometric="minisblack", bigtiff=bigtiff
    )
    size = movie_header(path).pixel_size_ang
    assert size == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_part_of_a_movie(tmp_path):
    frames = ramp((5, 4, 4), np.uint8)
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, frames, photometric="minisblack", compression="lzw")
    with open_movie(path) as movie:
        np.testing.assert_array_equal(np.stack(list(movie.frames(1, 3))), frames[1:3, ::-1])
        np.testing.assert_array_equal(np.stack(list(movie.frames(4))), frames[4:, ::-1])
        assert list(movie.frames(2, 2)) == []
        for start, stop in [(0, 6), (3, 2), (-1, 2)]:
            with pytest.raises(ValueError, match="of a movie of 5"):
                movie.frames(start, stop)


def test_frames_are_decoded_one_ahead_and_the_thread_ends(tmp_path):
    path = tmp_path / "movie.mrc"
    path.write_bytes(mrc_bytes(ramp((20, 8, 8), np.uint8), 0))
    before = threading.active_count()
    with open_movie(path) as movie:
        frames = movie.frames()
        assert isinstance(frames, Generator)
        next(frames)
        assert threading.active_count() == before + 1
        frames.close()
    assert threading.active_count() == before


def test_frames_of_different_size_are_refused(tmp_path):
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((4, 4), np.uint8))
        writer.write(np.zeros((4, 5), np.uint8))
    with pytest.raises(FileFormatError, match="frame 1 has another size"):
        open_movie(path)


@pytest.mark.parametrize("name", ["a.mrc", "a.tif", "a.eer", "a.mrc.bz2", "a.mrc.xz", "a.mrc.zst"])
def test_empty_foreign_and_missing_files(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(SourceGone, match="not there"):
        open_movie(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="empty"):
        open_movie(path)
    path.write_bytes(b"<html>quota exceeded</html>" * 100)
    with pytest.raises(FileFormatError) as caught:
        open_movie(path)
    assert str(path) in str(caught.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(FileFormatError, match="folder"):
        open_movie(path)


def test_absurd_sizes_are_refused_before_anything_is_allocated(tmp_path):
    path = tmp_path / "movie.mrc"
    data = bytearray(mrc_bytes(ramp((1, 4, 4), np.float32), 2))
    data[:12] = np.array([131072, 131072, 1 << 23], "<i4").tobytes()
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="131072 x 131072"):
        open_movie(path)
    data[:12] = np.array([30000, 30000, 1000], "<i4").tobytes()
    path.write_bytes(data)
    with pytest.raises(TruncatedFile, match=r"declares 3600000001024 bytes, the file has 1088"):
        open_movie(path)
    tifffile.imwrite(path, np.zeros((64, 64), np.uint16), rowsperstrip=64)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        for tag in (256, 257):
            at = file.pages[0].tags[tag].valueoffset
            data[at : at + 2] = (60000).to_bytes(2, "little")
    path.write_bytes(data)
    with pytest.raises(FileFormatError), open_movie(path) as movie:
        next(movie.frames())


def test_a_large_movie_is_never_held_whole(tmp_path):
    """60 frames of 1 MiB stream through less than 20 MiB of new memory."""
    path = tmp_path / "large.tif"
    frame = np.arange(1024 * 1024, dtype=np.uint32).astype(np.uint8).reshape(1024, 1024)
    with tifffile.TiffWriter(path) as writer:
        for _ in range(60):
            writer.write(frame, compression="lzw", contiguous=False, metadata=None)
    code = (
        "import sys, resource; from pathlib import Path; from icestream.io.movie import open_movie\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "movie = open_movie(Path(sys.argv[1])); next(movie.frames()); before = peak()\n"
        "assert sum(int(f[0, 0] >= 0) for f in movie.frames()) == 60\n"
        "print((peak() - before) // 1024)"
    )
    grown = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True).stdout
    assert int(grown) < 20


def test_real_micrographs_and_stacks(shared_data):
    header = movie_header(shared_data / "epu_falcon_titan" / "epu2.9_example.mrc")
    assert (header.n_frames, header.height_px, header.width_px, header.dtype) == (1, 4096, 4096, np.uint16)
    assert header.pixel_size_ang == pytest.approx(0.6665513, rel=1e-6)
    assert header.said is not None
    metadata, acquisition = header.said.metadata, header.said.acquisition
    assert acquisition.voltage_kv == 300
    assert acquisition.pixel_size_ang == pytest.approx(0.6665513, rel=1e-6)
    assert metadata.total_dose_e_per_ang2 == pytest.approx(41.17, abs=0.01)
    assert metadata.exposure_s == pytest.approx(12.207756)
    assert metadata.applied_defocus_um == pytest.approx(2.2)
    assert (metadata.microscope, metadata.camera) == ("TITAN52337720", "BM-Falcon")
    assert metadata.stage_x_um == pytest.approx(-640.79, abs=0.01)
    assert metadata.stage_y_um == pytest.approx(-722.60, abs=0.01)
    assert metadata.stage_z_um == pytest.approx(79.75, abs=0.01)
    assert metadata.acquired_at == "2020-11-03T17:36:04"
    with open_movie(shared_data / "epu_falcon_titan" / "epu2.9_example.mrc") as movie:
        (frame,) = movie.frames()
    with mrcfile.open(movie.path, permissive=True) as reference:
        np.testing.assert_array_equal(frame, reference.data)


@pytest.mark.parametrize(
    ("counts", "dtype"),
    [(lambda rng: rng.poisson(2, (2, 40, 40)), np.uint8), (lambda rng: 128 + rng.poisson(3, (2, 40, 40)), np.uint8)]
    + [(lambda rng, mean=mean: rng.poisson(mean, (2, 40, 40)), np.uint8) for mean in (100, 128, 150, 220)]
    + [(lambda rng: rng.normal(0, 20, (2, 40, 40)), np.int8), (lambda rng: rng.normal(-20, 20, (2, 40, 40)), np.int8)],
)
def test_the_sign_of_mode_0_without_a_stamp_is_told_by_the_values(tmp_path, counts, dtype):
    frames = np.clip(np.rint(counts(np.random.default_rng(1))), np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    path = tmp_path / "movie.mrc"
    path.write_bytes(mrc_bytes(frames.view(np.int8), 0))
    np.testing.assert_array_equal(frames_of(path).astype(int), frames.astype(int))


@pytest.mark.parametrize(("extremes", "dtype"), [((0, 200), np.uint8), ((-56, 20), np.int8), ((3, 90), np.int8)])
def test_the_extremes_of_a_header_tell_the_sign_first(tmp_path, extremes, dtype):
    content = bytearray(mrc_bytes(np.full((1, 4, 4), 200, np.uint8), 0))
    content[76:84] = np.array(extremes, "<f4").tobytes()
    (tmp_path / "movie.mrc").write_bytes(content)
    assert movie_header(tmp_path / "movie.mrc").dtype == np.dtype(dtype)


def test_an_mrc_file_with_room_for_more_images_than_declared_is_refused(tmp_path):
    frames = ramp((12, 8, 8), np.int16)
    content = bytearray(mrc_bytes(frames, 1))
    content[8:12] = (1).to_bytes(4, "little")
    path = tmp_path / "movie.mrc"
    path.write_bytes(content)
    for read in (movie_header, image_header, check_complete):
        with pytest.raises(TruncatedFile, match=r"header declares 1 image, 1152 bytes; the file has 2560, room for more"):
            read(path)
    path.write_bytes(mrc_bytes(frames, 1) + bytes(100))  # a few bytes more do no harm
    assert movie_header(path).n_frames == 12


@pytest.mark.parametrize("kind", ["imagej", "shaped"])
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_one_tiff_directory_for_many_images_is_read_fully(tmp_path, kind, packing):
    frames = ramp((12, 20, 30), np.uint16)
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path, imagej=kind == "imagej") as writer:
        writer.write(frames, photometric="minisblack", truncate=True)
    with tifffile.TiffFile(path) as written:
        assert len(written.pages) == 1
    if packing:
        path.with_name("movie.tif.gz").write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(frames_of(path.with_name("movie.tif" + packing)), frames[:, ::-1])
    if not packing:
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(TruncatedFile):
            movie_header(path)


def test_a_tiff_file_with_more_than_its_directories_declare_is_refused(tmp_path):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, ramp((4, 20, 30), np.uint8), photometric="minisblack", metadata=None)
    path.write_bytes(path.read_bytes() + bytes(700))
    with pytest.raises(TruncatedFile, match=r"declare 4 images, \d+ bytes; the file has \d+, room for more"):
        movie_header(path)


def test_too_many_directories_are_called_that(tmp_path, monkeypatch):
    path = tmp_path / "movie.tif"
    tifffile.imwrite(path, ramp((4, 8, 8), np.uint8), photometric="minisblack", metadata=None)
    monkeypatch.setattr(ifd, "MAX_PAGES", 3)
    with pytest.raises(FileFormatError, match="more than 3 TIFF directories"):
        movie_header(path)


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_frames_that_serialem_packs_are_unpacked(tmp_path, monkeypatch, compression):
    monkeypatch.setattr(tiff, "_SUPER_RESOLUTION_PX", ((60, 40),))
    pixels = ramp((3, 40, 60), np.uint8, 0, 16)
    path = tmp_path / "movie.tif"
    with tifffile.TiffWriter(path) as writer:
        for frame in pixels[..., 0::2] | pixels[..., 1::2] << 4:
            writer.write(frame, photometric="minisblack", compression=compression, contiguous=False, metadata=None)
    np.testing.assert_array_equal(frames_of(path), pixels[:, ::-1])
    monkeypatch.setattr(tiff, "_SUPER_RESOLUTION_PX", ((70, 40),))
    assert movie_header(path).width_px == 30


def test_frames_of_super_resolution_are_known_by_their_shape():
    def page(width, height, bits=8):
        return ifd.Directory(Path("a.tif"), "<", {ifd.WIDTH: (width,), ifd.HEIGHT: (height,), ifd.BITS: (bits,)}, {}, 0)

    for width, height in [(3838, 7420), (3710, 7676), (5760, 8184), (4092, 11520), (3840, 7424)]:
        assert tiff.is_packed(page(width, height))
        assert tiff.tiff_size_px(page(width, height)) == (height, 2 * width)
    for width, height in [(3838, 3710), (5760, 4092), (7676, 7420), (11520, 8184), (4096, 4096)]:
        assert not tiff.is_packed(page(width, height))
    assert tiff.tiff_size_px(page(31, 20, bits=4)) == (20, 31)


def test_a_label_tells_of_packed_bytes_in_mode_0(tmp_path):
    pixels = ramp((2, 3, 8), np.uint8, 0, 16)
    content = bytearray(mrc_bytes(pixels[..., 0::2] | pixels[..., 1::2] << 4, 0))
    content[224:241] = b"  4 bits packed  "
    (tmp_path / "movie.mrc").write_bytes(content)
    np.testing.assert_array_equal(frames_of(tmp_path / "movie.mrc"), pixels)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_tiff_and_eer_files_are_read(tmp_path, suffix):
    frames = ramp((5, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", frames, photometric="minisblack", compression="lzw", metadata=None)
    path = tmp_path / f"a.tiff{suffix}"
    path.write_bytes(COMPRESSORS[suffix][0]((tmp_path / "a.tif").read_bytes()))
    np.testing.assert_array_equal(frames_of(path), frames[:, ::-1])
    assert (movie_header(path).format, image_header(path).n_images) == ("tiff", 5)
