import imagecodecs
import numpy as np
import pytest

from icestream.io.blocks import from_block, to_block
from icestream.io.image import read_image
from icestream.io.preview import write_mosaic, write_preview, write_rgb


def decoded(path):
    data = path.read_bytes()
    return imagecodecs.png_decode(data) if path.suffix == ".png" else imagecodecs.jpeg8_decode(data)


def test_row_0_is_drawn_at_the_bottom(tmp_path):
    image = np.zeros((10, 16))
    image[0] = 5  # the first row of an MRC file
    for name in ("a.png", "a.jpg"):
        write_preview(tmp_path / name, image, percentiles=(0, 100))
        picture = decoded(tmp_path / name)
        assert picture.shape == (10, 16)
        assert picture[-1].min() > 240
        assert picture[:-2].max() < 30
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), image * 51)


def test_reduction_is_the_mean_of_boxes(tmp_path):
    rng = np.random.default_rng(1)
    image = rng.normal(size=(1030, 700)).astype(np.float32)
    before = image.copy()
    write_preview(tmp_path / "a.png", image, max_px=100, percentiles=(0, 100))
    np.testing.assert_array_equal(image, before)
    boxes = image[:1023, :693].reshape(93, 11, 63, 11).mean(axis=(1, 3))
    expected = (boxes - boxes.min()) / np.ptp(boxes) * 255
    np.testing.assert_allclose(decoded(tmp_path / "a.png")[::-1], expected, atol=0.51)


def test_percentiles_ignore_outliers_and_what_is_not_finite(tmp_path):
    image = np.linspace(0, 1, 10000).reshape(100, 100)
    image[3, 3], image[4, 4], image[5, 5] = 1e9, np.nan, np.inf
    write_preview(tmp_path / "a.png", image)
    picture = decoded(tmp_path / "a.png")[::-1]
    assert (picture[4, 4], picture[5, 5], picture[3, 3]) == (0, 0, 255)
    assert abs(float(picture[50, 0]) - 127) < 3
    for flat in (np.full((4, 4), 7.0), np.full((4, 4), np.nan)):
        write_preview(tmp_path / "flat.png", flat)
        assert len(np.unique(decoded(tmp_path / "flat.png"))) == 1


def test_mosaic_begins_at_the_top_left(tmp_path):
    images = np.zeros((5, 8, 10))
    images[:, 2, :] = 1  # low in each picture
    images[4, :, 9] = 3
    path = tmp_path / "classes.png"
    write_mosaic(path, images, columns=3, percentiles=(0, 100))
    picture = decoded(path)
    assert picture.shape == (2 * 8 + 2, 3 * 10 + 2 * 2)
    assert picture[8 - 1 - 2, 0] == 255
    assert (picture[10:, 12 + 9] == 255).sum() == 8  # the fifth: second row, second column
    assert picture[10:, 24:].max() == 0  # nothing there
    np.testing.assert_array_equal(read_image(path)[10:18, :10] > 0, images[0] > 0)
    for bad, columns in ((images, 0), (images[:0], 2), (images[0], 2)):
        with pytest.raises(ValueError, match="a mosaic of"):
            write_mosaic(path, bad, columns=columns)


def test_rgb(tmp_path):
    colours = np.zeros((4, 6, 3))
    colours[0, :, 0] = 1
    colours[3, :, 2] = 2
    write_rgb(tmp_path / "a.png", colours)
    picture = decoded(tmp_path / "a.png")
    assert picture[-1, 0].tolist() == [255, 0, 0]
    assert picture[0, 0].tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match="shape"):
        write_rgb(tmp_path / "a.png", np.zeros((4, 4)))
    with pytest.raises(ValueError, match="ends in"):
        write_rgb(tmp_path / "a.gif", colours)


TABLE = np.array([(1, 2.5, b"x"), (2, -1.0, b"y")], dtype=[("pid", "<i8"), ("y_px", "<f4"), ("name", "S3")])


def test_blocks_come_back():
    for table in (TABLE, TABLE[:0], TABLE[::-1]):
        again = from_block(to_block(table))
        np.testing.assert_array_equal(again, table)
        assert again.dtype == table.dtype
    assert to_block(TABLE) == to_block(TABLE.copy())
    assert not from_block(to_block(TABLE)).flags.writeable


def test_what_is_no_block_is_refused():
    for wrong in (np.zeros(3), TABLE.reshape(2, 1), np.array([(object(),)], dtype=[("a", object)])):
        with pytest.raises(ValueError, match=r"block|Object"):
            to_block(wrong)
    block = to_block(TABLE)
    for broken in (b"", b"hello", block[:-1], block + b"x", block.replace(b"(2,)", b"(9,)")):
        with pytest.raises(ValueError, match=r"."):
            from_block(broken)
    huge = block.replace(b"(2,), }         ", b"(222222222222,),")
    with pytest.raises(ValueError, match=r"."):
        from_block(huge)
