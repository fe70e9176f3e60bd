import bz2
import gzip
import os

import imagecodecs
import mrcfile
import numpy as np
import pytest
import tifffile
from dm4_bytes import dm_bytes
from mrc_bytes import mrc_bytes, ramp

from icestream.errors import FileFormatError, SourceGone, TruncatedFile
from icestream.files import publish
from icestream.io import memory
from icestream.io.eer_write import write_eer
from icestream.io.gain import read_gain
from icestream.io.image import image_header, read_image, read_stack, write_mrc
from icestream.io.memory import ImageMemory
from icestream.io.movie import open_movie


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch):
    """Each test reads from its files unless it says otherwise."""
    monkeypatch.setattr(memory, "image_memory", lambda: ImageMemory(0))


def write_any(path, image):
    """Write ``image`` (row 0 first in MRC) as a careful other program would."""
    suffix = path.suffix
    if suffix == ".mrc":
        path.write_bytes(mrc_bytes(image[None], {"u2": 6, "u1": 0, "f4": 2}[image.dtype.str[1:]], imod_flags=0))
    elif suffix in (".tif", ".gain"):
        tifffile.imwrite(path, image if suffix == ".gain" else image[::-1], compression="lzw")
    elif suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image[::-1])))
    elif suffix in (".dm4", ".dm3"):
        path.write_bytes(dm_bytes(image[::-1], version=int(suffix[-1])))
    else:
        raise ValueError(suffix)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.int16, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (1, 5, 7)])
def test_written_mrc_is_valid_and_comes_back(tmp_path, dtype, shape):
    array = ramp(shape, dtype)
    before = array.copy()
    path = tmp_path / "image.mrc"
    write_mrc(path, array, pixel_size_ang=1.25)
    np.testing.assert_array_equal(array, before)
    assert array.flags.writeable
    with mrcfile.open(path) as reference:  # strict: warns (an error here) about anything odd
        np.testing.assert_array_equal(reference.data.reshape(shape), array)
        assert reference.voxel_size.x == pytest.approx(1.25)
        assert float(reference.header.dmean) == pytest.approx(float(array.mean(dtype=np.float64)), rel=1e-5)
        assert float(reference.header.rms) == pytest.approx(float(array.astype(float).std()), rel=1e-3)
    stack = read_stack(path)
    assert stack.dtype == np.float32
    np.testing.assert_array_equal(stack, array.reshape(-1, 5, 7).astype(np.float32))
    header = image_header(path)
    assert (header.n_images, header.height_px, header.width_px, header.format) == (stack.shape[0], 5, 7, "mrc")
    assert header.pixel_size_ang == pytest.approx(1.25)
    if stack.shape[0] == 1:
        np.testing.assert_array_equal(read_image(path), stack[0])
    else:
        with pytest.raises(FileFormatError, match="holds 3 images"):
            read_image(path)


def test_equal_content_gives_equal_files(tmp_path):
    for name in "ab":
        write_mrc(tmp_path / name, np.arange(6.0).reshape(2, 3), pixel_size_ang=1)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_conversion_rounds_and_refuses_what_does_not_fit(tmp_path):
    path = tmp_path / "image.mrc"
    write_mrc(path, np.array([[0.4, 0.6], [-1.6, 127.4]]), pixel_size_ang=1, dtype=np.int8)
    np.testing.assert_array_equal(read_image(path), [[0, 1], [-2, 127]])
    for array, dtype, words in [
        (np.array([[200.0]]), np.int8, "do not fit int8"),
        (np.array([[np.nan]]), np.int16, "do not fit int16"),
        (np.array([[1e6]]), np.float16, "do not fit float16"),
        (np.zeros((2, 2, 2, 2)), None, "cannot write shape"),
        (np.zeros((2, 2), complex), None, "complex128"),
        (np.zeros((0, 2)), None, "cannot write shape"),
    ]:
        with pytest.raises(ValueError, match=words):
            write_mrc(path, array, pixel_size_ang=1, dtype=dtype)
    for size in (0, -1, np.nan):
        with pytest.raises(ValueError, match="must be positive"):
            write_mrc(path, np.zeros((2, 2)), pixel_size_ang=size)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".mrc", ".tif", ".png"])
def test_row_0_is_the_same_in_every_format(tmp_path, suffix, dtype):
    image = ramp((6, 9), dtype, 0, 250)
    path = write_any(tmp_path / f"image{suffix}", image)
    np.testing.assert_array_equal(read_image(path), image)
    np.testing.assert_array_equal(read_stack(path), image[None])
    header = image_header(path)
    assert (header.n_images, header.height_px, header.width_px) == (1, 6, 9)


def test_jpeg_and_colour_png(tmp_path):
    image = np.add.outer(np.arange(32) * 7, np.arange(48)).astype(np.uint8)
    path = tmp_path / "image.jpg"
    path.write_bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(image[::-1]), level=100))
    assert np.abs(read_image(path) - image).max() <= 3
    assert image_header(path).format == "jpeg"
    path = tmp_path / "image.png"
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(np.repeat(image[::-1, :, None], 3, axis=2))))
    np.testing.assert_allclose(read_image(path), image, atol=1e-3)


@pytest.mark.parametrize("movie_suffix", [".mrc", ".tif", ".eer"])
@pytest.mark.parametrize("gain_suffix", [".mrc", ".tif", ".gain", ".dm4", ".dm3"])
def test_gain_and_movie_meet_in_the_same_pixels(tmp_path, movie_suffix, gain_suffix):
    """One hot pixel row, known in the MRC convention, is found by every pair of formats."""
    sensitivity = np.linspace(0.5, 2, 6 * 9, dtype=np.float32).reshape(6, 9)
    sensitivity[1, 7] = 4
    gain, operation = read_gain(write_any(tmp_path / f"gain{gain_suffix}", sensitivity), movie_format=movie_suffix[1:])
    assert operation == ("divide" if movie_suffix == ".eer" and gain_suffix != ".gain" else "multiply")
    scale = sensitivity.mean() if operation == "divide" else 1
    np.testing.assert_allclose(gain, sensitivity / scale, rtol=1e-6)
    assert gain.dtype == np.float32
    assert not gain.flags.writeable
    hot = np.zeros((6, 9), np.uint16)
    hot[1, 7] = 9
    movie_path = tmp_path / f"movie{movie_suffix}"
    if movie_suffix == ".eer":
        write_eer(movie_path, [np.array([[4 * 1 + 2, 4 * 7 + 1]])], height_px=6, width_px=9)
    else:
        write_any(movie_path, hot)
    with open_movie(movie_path) as movie:
        frame = next(movie.frames())
    assert np.argmax(frame) == np.argmax(hot) == np.argmax(gain)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1])
def test_senseless_gains_are_refused(tmp_path, value):
    gain = np.ones((4, 4), np.float32)
    gain[2, 1] = value
    with pytest.raises(FileFormatError, match="the gain has"):
        read_gain(write_any(tmp_path / "gain.mrc", gain))
    with pytest.raises(FileFormatError, match="the gain has"):
        read_gain(write_any(tmp_path / "gain.tif", np.zeros((4, 4), np.float32)))


def test_dead_pixels_are_allowed_and_stacks_are_not(tmp_path):
    gain = np.ones((4, 4), np.float32)
    gain[0, 0] = 0
    path = write_any(tmp_path / "gain.mrc", gain)
    np.testing.assert_array_equal(read_gain(path)[0], gain)
    write_any(path, 7 * gain)
    np.testing.assert_array_equal(read_gain(path, movie_format="eer")[0], gain)
    np.testing.assert_array_equal(read_gain(path, operation="divide")[0], gain)  # divided by, so scaled, for any movie
    np.testing.assert_array_equal(read_gain(path, movie_format="eer", operation="multiply")[0], 7 * gain)
    write_mrc(tmp_path / "two.mrc", np.ones((2, 4, 4)), pixel_size_ang=1)
    with pytest.raises(FileFormatError, match="holds 2 images"):
        read_gain(tmp_path / "two.mrc")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int32])
@pytest.mark.parametrize("version", [3, 4])
def test_dm_types(tmp_path, dtype, version):
    image = ramp((5, 8), dtype)
    path = tmp_path / f"gain.dm{version}"
    path.write_bytes(dm_bytes(image[::-1], version, thumbnail=version == 4))
    np.testing.assert_array_equal(read_gain(path)[0], image.astype(np.float32))


def test_dm_without_an_image_or_cut_off(tmp_path):
    path = tmp_path / "gain.dm4"
    path.write_bytes(dm_bytes(np.zeros((1, 1), np.float32), thumbnail=False).replace(b"ImageData", b"OtherData"))
    with pytest.raises(FileFormatError, match="no numeric"):
        read_gain(path)
    whole = dm_bytes(ramp((5, 8), np.float32))
    for size in range(1, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError):
            read_gain(path)


def test_written_images_are_remembered_across_a_rename(tmp_path, monkeypatch):
    images = ImageMemory(10_000)
    monkeypatch.setattr(memory, "image_memory", lambda: images)
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    target = tmp_path / "image.mrc"
    with publish(target, durable=False) as temporary:
        write_mrc(temporary, image, pixel_size_ang=1)
    image[0, 0] = 99  # the caller's array is not the one that is kept
    kept = images.recall(target)
    assert kept is not None
    assert read_image(target) is kept
    assert kept[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 1
    write_mrc(target, image, pixel_size_ang=1, dtype=np.float16)
    assert read_image(target)[0, 0] == 99
    from_memory = read_stack(target)
    monkeypatch.setattr(memory, "image_memory", lambda: ImageMemory(0))
    np.testing.assert_array_equal(read_stack(target), from_memory)
    assert not read_stack(target).flags.writeable


def test_memory_forgets_changed_files_and_the_least_used(tmp_path):
    images = ImageMemory(1000)
    paths = [tmp_path / str(k) for k in range(4)]
    for k, path in enumerate(paths):
        path.write_bytes(b"x" * (k + 1))
        images.remember(path, np.full(300, k, np.uint8))
        images.recall(paths[0])
    assert [images.recall(path) is not None for path in paths] == [True, False, True, True]
    assert images.held_bytes == 900
    os.utime(paths[2], ns=(1, 1))
    assert images.recall(paths[2]) is None
    assert images.held_bytes == 600
    images.remember(paths[1], np.zeros(501, np.uint8))
    assert images.recall(paths[1]) is None
    paths[3].unlink()
    assert images.recall(paths[3]) is None
    images.remember(paths[0], np.zeros(200, np.uint8))
    assert images.held_bytes == 500


def test_truncated_images(tmp_path):
    image = ramp((20, 30), np.uint16)
    for suffix in (".mrc", ".tif", ".png"):
        path = write_any(tmp_path / f"image{suffix}", image)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(TruncatedFile, match="declares"):
            read_image(path)
        path.unlink()
        with pytest.raises(SourceGone):
            read_image(path)


def test_real_images(shared_data):
    micrograph = read_image(shared_data / "contaminated_micrograph" / "Ucsf_stack_1142_DW.mrc")
    assert micrograph.shape == (927, 959)
    assert np.isfinite(micrograph).all()
    for path, shape in [
        ("aspire_d4/sample.mrcs", (17, 200, 200)),
        ("cryodrgn_relion31/relion31.mrcs", (5, 256, 256)),
        ("cryodrgn_empiar10076/empiar_10076_7.mrc", (7, 320, 320)),
    ]:
        stack = read_stack(shared_data / "particle_stacks" / path)
        assert stack.shape == shape
        assert 0 < stack.std() < 1e4
    averages = sorted((shared_data / "empiar10146_apoferritin" / "averages").glob("*.png"))
    assert read_image(averages[0]).shape == (1200, 1240)
    assert read_image(averages[0]).max() > 255
    colour = shared_data / "empiar10146_apoferritin" / "ground_truth_image" / "May08_03.05.02.bin_avg.png"
    assert read_image(colour).shape == (1200, 1240)
    assert image_header(next((shared_data / "empiar10017_betagal" / "images").glob("*.jpg"))).width_px == 4096


def test_real_maps_compressed_or_not(shared_data):
    folder = shared_data / "phantom_maps" / "format_tests"
    plain = read_stack(folder / "EMD-3197.map")
    with mrcfile.open(folder / "EMD-3197.map", permissive=True) as reference:
        np.testing.assert_array_equal(plain, reference.data)
    np.testing.assert_array_equal(read_stack(folder / "EMD-3197.map.bz2"), plain)
    with mrcfile.open(folder / "emd_3001.map.gz", permissive=True) as reference:
        np.testing.assert_array_equal(read_stack(folder / "emd_3001.map.gz"), reference.data)


def test_compressed_images(tmp_path):
    data = mrc_bytes(ramp((2, 6, 7), np.float32), 2)
    for suffix, pack in ((".bz2", bz2.compress), (".gz", gzip.compress)):
        path = tmp_path / f"image.mrc{suffix}"
        path.write_bytes(pack(data))
        assert read_stack(path).shape == (2, 6, 7)
