from pathlib import Path

import mrcfile
import numpy as np
import pytest

from icestream.errors import SourceGone
from icestream.external.staging import stage_file, stage_image
from icestream.io.image import read_image

HOSTILE = ["$(touch pwned).mrc", "; rm -rf .mrc", "-i.mrc", "a\nb.mrc", "ü ' \".mrc"]


def _write(path: Path, dtype: str = "float32") -> np.ndarray:
    image = np.arange(12, dtype=dtype).reshape(3, 4)  # (h, w)
    with mrcfile.new(path) as handle:
        handle.set_data(image)
    return image.astype(np.float32)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_name_of_a_file_never_reaches_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    image = _write(tmp_path / name)
    staged = stage_image(tmp_path / name, folder, "micrograph.mrc", pixel_size_ang=1.0)
    assert [path.name for path in folder.iterdir()] == ["micrograph.mrc"]
    assert staged.is_symlink()
    np.testing.assert_array_equal(read_image(staged), image)


def test_pixels_that_programs_do_not_understand_are_converted(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    image = _write(tmp_path / "half.mrc", "float16")
    staged = stage_image(tmp_path / "half.mrc", folder, "micrograph.mrc", pixel_size_ang=1.5)
    assert not staged.is_symlink()
    with mrcfile.open(staged) as handle:
        assert (handle.data.dtype, float(handle.voxel_size.x)) == (np.float32, 1.5)
        np.testing.assert_array_equal(handle.data, image)


def test_a_copy_may_be_changed_without_harm(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "raw.txt").write_text("raw")
    stage_file(tmp_path / "raw.txt", tmp_path / "work", "input.txt", how="copy").write_text("changed")
    assert (tmp_path / "raw.txt").read_text() == "raw"


def test_what_is_not_there_and_names_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceGone, match="gone"):
        stage_file(tmp_path / "gone.mrc", tmp_path, "input.mrc")
    (tmp_path / "raw.txt").touch()
    for name in ("../input.txt", "-i.txt", "a b.txt", "noending"):
        with pytest.raises(ValueError, match="plain names"):
            stage_file(tmp_path / "raw.txt", tmp_path, name)
