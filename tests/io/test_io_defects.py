"""Lists of defects, of every kind, and what is wrong with those that cannot be read."""

import numpy as np
import pytest

from icestream.errors import FileFormatError, SourceGone
from icestream.io.defects import read_defects, write_defects
from icestream.io.image import write_mrc

SHAPE = (12, 20)


def places(mask):
    return {(int(y), int(x)) for y, x in np.argwhere(mask)}


def read(tmp_path, text, name="defects.txt", shape=SHAPE):
    (tmp_path / name).write_text(text)
    return read_defects(tmp_path / name, shape=shape)


def test_rectangles_are_x_y_width_height(tmp_path):
    mask = read(tmp_path, "# a column\n3 0 1 12\n\n10 4 2 1  # two pixels\n")
    assert places(mask) == {(y, 3) for y in range(12)} | {(4, 10), (4, 11)}


def test_what_is_written_is_read_back(tmp_path):
    write_defects(tmp_path / "hot.txt", np.array([[1, 2], [11, 19]]))
    assert places(read_defects(tmp_path / "hot.txt", shape=SHAPE)) == {(1, 2), (11, 19)}


def test_an_image_marks_what_is_not_zero(tmp_path):
    image = np.zeros((6, 10), dtype=np.float32)
    image[1, 2] = 1
    write_mrc(tmp_path / "mask.mrc", image, pixel_size_ang=1.0, remember=False)
    assert places(read_defects(tmp_path / "mask.mrc", shape=SHAPE)) == {(2, 4), (2, 5), (3, 4), (3, 5)}  # super-resolution


def test_serialem_counts_rows_from_the_top(tmp_path):
    text = (
        "CameraSizeX 20\nCameraSizeY 12\nRotationAndFlip 0\nWasScaled 0\nUsableArea 0 0 11 18\nBadRows 1\n"
        "PartialBadColumn 5 2 3 4\nPartialBadRow 7 1 8 9\nBadPixels 10 0 12 11\n"
    )
    expected = {(y, 19) for y in range(12)} | {(10, x) for x in range(20)}
    expected |= {(11 - 3, 5), (11 - 3, 6), (11 - 4, 5), (11 - 4, 6), (11 - 7, 8), (11 - 7, 9), (11, 10), (0, 12)}
    assert places(read(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 2 3\n", "line 1: 3 numbers"),
        ("1 2 3 x\n", "line 1: .* not whole numbers"),
        ("\n19 0 2 1\n", "line 2: x 19, y 0, 2×1 is outside"),
        ("-1 0 1 1\n", "is outside"),
        ("CameraSizeX 20\nCameraSizeY 12\nRotationAndFlip 3\n", "RotationAndFlip is 3; only 0"),
        ("CameraSizeX 20\nCameraSizeY 13\n", "of 13×20 pixels, the frames have 12×20"),
        ("CameraSizeX 2000000000\nCameraSizeY 2000000000\n", "each must be one number"),
        ("CameraSizeX 20\nCameraSizeY 12\nBadPixels 1\n", "BadPixels with 1"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(tmp_path, text, reason):
    with pytest.raises(FileFormatError, match=reason):
        read(tmp_path, text)


def test_a_list_that_is_not_there_is_gone(tmp_path):
    with pytest.raises(SourceGone, match="is not there"):
        read_defects(tmp_path / "none.txt", shape=SHAPE)
