"""Files of picks: what their positions mean, by known positions and by real files."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from icestream.errors import FileFormatError, SourceGone
from icestream.io.pick_files import is_of, place_picks, read_pick_file, stem_of

STAR = """data_

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnAutopickFigureOfMerit #3
120.5 30 0.9
7 300.25 0.2
"""
PARTICLES = """data_optics

loop_
_rlnOpticsGroup #1
1

data_particles

loop_
_rlnCoordinateX #1
_rlnCoordinateY #2
_rlnMicrographName #3
10 20 MotionCorr/job002/mic_1.mrc
30 40 MotionCorr/job002/mic_2.mrc
50 60 MotionCorr/job002/mic_1.mrc
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_star_files_give_centres(tmp_path: Path) -> None:
    found = read_pick_file(write(tmp_path, "mic.star", STAR))
    assert found.yx_px.tolist() == [[30, 120.5], [300.25, 7]]
    assert found.score.tolist() == [0.9, 0.2]
    assert found.rows is None


def test_a_star_file_of_all_particles_is_divided_by_micrograph(tmp_path: Path) -> None:
    found = read_pick_file(write(tmp_path, "particles.star", PARTICLES))
    assert {name: rows.tolist() for name, rows in (found.rows or {}).items()} == {"mic_1": [0, 2], "mic_2": [1]}
    assert np.isnan(found.score).all()


def test_two_micrographs_of_one_name_are_not_taken_for_one(tmp_path: Path) -> None:
    path = write(tmp_path, "particles.star", PARTICLES.replace("mic_2", "other/mic_1"))
    with pytest.raises(FileFormatError, match="two micrographs are called mic_1"):
        read_pick_file(path)


def test_box_files_give_corners_and_the_box(tmp_path: Path) -> None:
    found = read_pick_file(write(tmp_path, "mic.box", "100 200 180 160 0.7\n0\t10\t180\t160\t0.1\n"))
    assert found.yx_px.tolist() == [[280, 190], [90, 90]]
    assert found.score.tolist() == pytest.approx([0.7, 0.1])
    assert np.isnan(read_pick_file(write(tmp_path, "old.box", "1 2 4 4\n")).score).all()


@pytest.mark.parametrize(
    "text",
    [
        "X-Coordinate,Y-Coordinate,Diameter\n30,20,108\n",
        "image_name\tx_coord\ty_coord\tscore\nfolder/mic.mrc\t30\t20\t1.5\n",
        "y_px;x_px\n20;30\n",
        "30 20 0.5\n",
        "# picked\n30,20\n",
    ],
)
def test_texts_are_read_by_their_labels(tmp_path: Path, text: str) -> None:
    found = read_pick_file(write(tmp_path, "mic.txt", text))
    assert found.yx_px.tolist() == [[20, 30]]
    assert found.rows is None or list(found.rows) == ["mic"]


def test_corners_of_a_csv_are_moved_by_half_a_box(tmp_path: Path) -> None:
    path = write(tmp_path, "mic.csv", "x,y\n30,20\n")
    assert read_pick_file(path, corner_box_px=100).yx_px.tolist() == [[70, 80]]
    box = write(tmp_path, "mic.box", "30 20 10 10\n")
    assert read_pick_file(box, corner_box_px=100).yx_px.tolist() == [[25, 35]]


def test_cs_files_give_fractions_of_the_image(tmp_path: Path) -> None:
    columns = [
        ("location/micrograph_path", "S60"),
        ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"),
        ("location/center_y_frac", "<f4"),
        ("pick_stats/ncc_score", "<f4"),
    ]
    table = np.array(
        [(b"J2/motioncorrected/012345678901234567890_mic_1_patch_aligned.mrc", (200, 400), 0.25, 0.5, 0.6)], dtype=columns
    )
    with (tmp_path / "picked.cs").open("wb") as handle:
        np.save(handle, table)
    found = read_pick_file(tmp_path / "picked.cs")
    assert found.yx_px.tolist() == [[99.5, 99.5]]
    (name,) = found.rows or {}
    assert is_of(name, "mic_1")
    assert found.score == pytest.approx([0.6])


def test_files_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"a\.csv: no columns of x and y; it has a, b"):
        read_pick_file(write(tmp_path, "a.csv", "a,b\n1,2\n"))
    with pytest.raises(FileFormatError, match="fewer than four numbers"):
        read_pick_file(write(tmp_path, "a.box", "1 2 3\n"))
    with pytest.raises(FileFormatError, match="no file of picks: could not convert"):
        read_pick_file(write(tmp_path, "b.csv", "x,y\none,2\n"))
    with pytest.raises(FileFormatError, match="picks are read from files with"):
        read_pick_file(write(tmp_path, "a.json", "{}"))
    with pytest.raises(FileFormatError, match=r"not a \.cs file"):
        read_pick_file(write(tmp_path, "a.cs", "no numpy"))
    with pytest.raises(SourceGone, match="there is no such file"):
        read_pick_file(tmp_path / "none.star")
    assert read_pick_file(write(tmp_path, "empty.csv", "\n")).yx_px.shape == (0, 2)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, "mic.csv", "x,y\n30,20\n")
    assert len(read_pick_file(path).score) == 1
    write(tmp_path, "mic.csv", "x,y\n30,20\n50,60\n")
    assert len(read_pick_file(path).score) == 2


def test_positions_are_scaled_about_pixel_centres_and_turned_over() -> None:
    corners = np.array([[-0.5, -0.5], [99.5, 199.5]])  # the outer edges of an image of 100 x 200
    assert place_picks(corners, scale=2.0, shape=(200, 400), flip_y=False).tolist() == [[-0.5, -0.5], [199.5, 399.5]]
    first_row = np.array([[0.0, 3.0]])
    turned = place_picks(first_row, scale=1.0, shape=(100, 200), flip_y=True)
    assert turned.tolist() == [[99, 3]]
    assert place_picks(turned, scale=1.0, shape=(100, 200), flip_y=True).tolist() == first_row.tolist()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("MotionCorr/job002/mic_1.mrc", "mic_1"),
        ("J2/imported/012345678901234567890_mic_1.mrc", "mic_1"),
        ("raw/20240101_mic_1.mrc", "20240101_mic_1"),
        ("raw/20240101123000_mic_1.mrc", "20240101123000_mic_1"),
        ("000001@Extract/job3/mic_1.mrcs", "mic_1"),
        ("mic_1_autopick.star", "mic_1_autopick"),
    ],
)
def test_micrographs_are_known_by_their_stem(name: str, stem: str) -> None:
    assert stem_of(name) == stem


def test_a_longer_number_is_another_micrograph() -> None:
    assert is_of("mic_1_autopick", "mic_1")
    assert is_of("mic_1", "mic_1")
    assert not is_of("mic_12", "mic_1")
    assert not is_of("mic_1_2", "mic_1")
    assert not is_of("mic_2", "mic_1")


@pytest.mark.parametrize(
    ("folder", "suffix"), [("repic_topaz_box", ".box"), ("repic_cryolo_box", ".box"), ("gautomatch_star", ".star")]
)
def test_positions_of_real_files_are_on_real_particles(shared_data: Path, folder: str, suffix: str) -> None:
    home = shared_data / "empiar10017_betagal"
    name = "Falcon_2012_06_12-14_33_35_0"
    mask = imagecodecs.png_decode((home / "masks" / f"{name}_mask.png").read_bytes())
    particle = (mask if mask.ndim == 2 else mask[..., 0])[::-1] > 0  # the picture is read from the top
    found = read_pick_file(home / "picks" / folder / f"{name}{suffix}")
    turned = place_picks(found.yx_px, scale=1.0, shape=(particle.shape[0], particle.shape[1]), flip_y=True)

    def inside(yx_px: np.ndarray) -> float:
        rows, columns = np.clip(np.rint(yx_px).astype(int), 0, 4095).T
        return float(particle[rows, columns].mean())

    assert inside(found.yx_px) > 0.65
    assert inside(turned) < 0.45
