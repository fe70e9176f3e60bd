"""Images as tiles: every pixel is where it belongs at every scale, and only tiles that there are are given."""

import imagecodecs
import numpy as np
import pytest

from icestream.errors import FileFormatError
from icestream.io.pyramid import read_pyramid_index, read_tile, write_pyramid


def assemble(path, level: int) -> np.ndarray:
    index = read_pyramid_index(path)
    at = index.levels[level]
    rows = [
        np.concatenate(
            [imagecodecs.jpeg8_decode(read_tile(path, level, row, column) or b"") for column in range(at.columns)], axis=1
        )
        for row in range(at.rows)
    ]
    return np.concatenate(rows)


@pytest.mark.parametrize("shape", [(128, 128), (301, 517), (40, 900), (1, 1)])
def test_tiles_put_together_are_the_picture_at_every_scale(tmp_path, shape):
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    image = (y + 2 * x).astype(np.float32)
    write_pyramid(tmp_path / "a", image, tile_px=128)
    index = read_pyramid_index(tmp_path / "a")
    assert (index.height_px, index.width_px) == shape
    assert index.levels[-1].rows == index.levels[-1].columns == 1
    for number, level in enumerate(index.levels):
        found = assemble(tmp_path / "a", number).astype(float)
        assert found.shape == (level.height_px, level.width_px) == tuple(-(-side // 2**number) for side in shape)
        if min(found.shape) > 8:
            top, left = np.mgrid[0 : found.shape[0], 0 : found.shape[1]] * 2**number
            expected = (shape[0] - 1 - top) + 2 * left  # row 0 is at the bottom
            inside = (found > 5) & (found < 250)
            slope = np.polyfit(expected[inside], found[inside], 1)
            assert np.abs(np.polyval(slope, expected[inside]) - found[inside]).max() < 6


def test_each_scale_has_a_contrast_of_its_own(tmp_path):
    write_pyramid(tmp_path / "a", np.random.default_rng(1).normal(size=(512, 512)).astype(np.float32), tile_px=128)
    for level in range(3):
        grey = assemble(tmp_path / "a", level)
        assert 45 < grey.std() < 65
        assert 118 < grey.mean() < 138


def test_pixels_that_are_not_finite_are_black(tmp_path):
    image = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    image[:16] = np.nan
    write_pyramid(tmp_path / "a", image)
    assert assemble(tmp_path / "a", 0)[-12:].max() < 40
    write_pyramid(tmp_path / "b", np.full((64, 64), np.inf, np.float32))
    assert assemble(tmp_path / "b", 0).max() == 0


def test_there_are_no_other_tiles(tmp_path):
    write_pyramid(tmp_path / "a", np.zeros((300, 200), np.float32), tile_px=128)
    for place in ((0, 3, 0), (0, 0, 2), (3, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, -1)):
        assert read_tile(tmp_path / "a", *place) is None
    for content in (b"", b"ICETILE1", b"x" * 100, b"ICETILE1" + b"\xff" * 4):
        (tmp_path / "b").write_bytes(content)
        with pytest.raises(FileFormatError, match="no file of tiles"):
            read_pyramid_index(tmp_path / "b")
    whole = (tmp_path / "a").read_bytes()
    (tmp_path / "b").write_bytes(whole[:-1])
    with pytest.raises(FileFormatError, match="cut off"):
        read_tile(tmp_path / "b", len(read_pyramid_index(tmp_path / "b").levels) - 1, 0, 0)
    begin = whole.find(b"\xff\xd8")
    for kept, why in ((begin, "a tile is damaged"), (12, "the index of the tiles is damaged")):
        (tmp_path / "b").write_bytes(whole[:kept].ljust(len(whole), b"\0"))
        with pytest.raises(FileFormatError, match=why):
            read_tile(tmp_path / "b", 0, 0, 0)
