"""Files of CTFs: what their columns mean, by known values, and files that are none."""

import math
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_io_particle_files import make_scipion

from icestream.errors import FileFormatError
from icestream.io.cryosparc import write_cs
from icestream.io.ctf_files import order_defocus, read_ctf_file
from icestream.io.star import Table, write_star

CTFFIND = """# Output from CTFFind version 4.1.14, run on 2024-05-01 10:00:00
# Input file: m1.mrc ; Number of micrographs: 1
# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; ...
1.000000 15000.5 14000.25 45.5 1.570796 0.215 3.4
"""
CTFFIND_5 = CTFFIND.replace("3.4\n", "inf 80.1 12.2 305.5\n")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def values_of(found, row: int = 0) -> dict[str, float]:
    return {name: float(column[row]) for name, column in found.numbers.items()}


def test_ctffind_gives_its_phase_shift_in_radians(tmp_path: Path) -> None:
    found = read_ctf_file(write(tmp_path, "m1.txt", CTFFIND))
    assert values_of(found) == pytest.approx(
        {
            "defocus_u_ang": 15000.5,
            "defocus_v_ang": 14000.25,
            "astigmatism_angle_deg": 45.5,
            "phase_shift_deg": 90,
            "score": 0.215,
            "resolution_ang": 3.4,
        },
        rel=1e-6,
    )
    assert found.rows is None


def test_a_resolution_that_ctffind_does_not_find_is_unset(tmp_path: Path) -> None:
    assert math.isnan(values_of(read_ctf_file(write(tmp_path, "m1.txt", CTFFIND_5)))["resolution_ang"])


STAR = """data_optics

loop_
_rlnOpticsGroup #1
1

data_micrographs

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnCtfFigureOfMerit #5
_rlnCtfMaxResolution #6
MotionCorr/job002/Movies/m1.mrc 10000 11000 10 0.1 4
MotionCorr/job002/Movies/m2.mrc 12000 11000 10 0.2 5
"""


def test_relion_names_each_micrograph(tmp_path: Path) -> None:
    found = read_ctf_file(write(tmp_path, "micrographs_ctf.star", STAR))
    assert {name: rows.tolist() for name, rows in (found.rows or {}).items()} == {"m1": [0], "m2": [1]}
    assert values_of(found)["astigmatism_angle_deg"] == -80
    assert values_of(found)["defocus_u_ang"] == 11000
    assert values_of(found, 1)["phase_shift_deg"] == 0


def test_cryosparc_gives_radians_and_names_with_a_number_before_them(tmp_path: Path) -> None:
    columns = [
        ("uid", np.array([5, 6], dtype=np.uint64)),
        ("micrograph_blob/path", np.array(["J2/motioncorrected/000123456789012345678_m1.mrc", ">J2/motioncorrected/m2.mrc"])),
        ("ctf/df1_A", np.array([15000, 16000], np.float32)),
        ("ctf/df2_A", np.array([14000, 15500], np.float32)),
        ("ctf/df_angle_rad", np.array([math.pi / 4, -math.pi / 6], np.float32)),
        ("ctf/phase_shift_rad", np.array([0, math.pi / 2], np.float32)),
        ("ctf_stats/ctf_fit_to_A", np.array([3.5, 4.5], np.float32)),
    ]
    write_cs(tmp_path / "exposures.cs", columns)
    found = read_ctf_file(tmp_path / "exposures.cs")
    assert sorted(found.rows or {}) == ["m1", "m2"]
    assert values_of(found, 1)["astigmatism_angle_deg"] == pytest.approx(-30, abs=1e-4)
    assert values_of(found, 1)["phase_shift_deg"] == pytest.approx(90, abs=1e-4)
    assert values_of(found)["resolution_ang"] == pytest.approx(3.5)
    assert math.isnan(values_of(found)["score"])


def test_scipion_names_the_micrograph_of_each_ctf(tmp_path: Path) -> None:
    columns = {
        "_defocusU": [15000.0, 1.0],
        "_defocusV": [14000.0, 1.0],
        "_defocusAngle": [30.0, 1.0],
        "_resolution": [3.3, 1.0],
        "_fitQuality": [0.2, 1.0],
        "_micObj._micName": ["m1.mrc", "m2.mrc"],
    }
    found = read_ctf_file(make_scipion(tmp_path / "ctfs.sqlite", columns))
    assert (list(found.rows or {}), values_of(found)["defocus_v_ang"]) == (["m1"], 14000)


def test_a_table_of_ours_is_read_again(tmp_path: Path) -> None:
    text = "exposure,defocus_u_ang,defocus_v_ang,astigmatism_angle_deg,score,resolution_ang\nm1,2e4,1.9e4,5,0.3,\n"
    found = read_ctf_file(write(tmp_path, "ctf.csv", text))
    assert (list(found.rows or {}), values_of(found)["defocus_u_ang"]) == (["m1"], 2e4)
    assert math.isnan(values_of(found)["resolution_ang"])


NUMBERS = st.floats(1000, 60000)


@given(u=NUMBERS, v=NUMBERS, angle=st.floats(-400, 400))
def test_ordering_keeps_the_defocus_along_every_direction(u: float, v: float, angle: float) -> None:
    def along(numbers: dict, phi: np.ndarray) -> np.ndarray:
        mean, half = (
            (numbers["defocus_u_ang"] + numbers["defocus_v_ang"]) / 2,
            (numbers["defocus_u_ang"] - numbers["defocus_v_ang"]) / 2,
        )
        return mean + half * np.cos(2 * (phi - np.deg2rad(numbers["astigmatism_angle_deg"])))

    given_one = {"defocus_u_ang": np.array([u]), "defocus_v_ang": np.array([v]), "astigmatism_angle_deg": np.array([angle])}
    ordered = order_defocus(given_one)
    phi = np.linspace(0, np.pi, 7)
    assert np.allclose(along(ordered, phi), along(given_one, phi), atol=1e-4)
    assert ordered["defocus_u_ang"][0] >= ordered["defocus_v_ang"][0]
    assert -90 < ordered["astigmatism_angle_deg"][0] <= 90


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.floats(0, 900), st.floats(-89, 90), st.floats(2, 20)), min_size=1, max_size=5))
def test_a_star_file_that_was_written_is_read_as_the_same(tmp_path: Path, rows) -> None:
    u, less, angle, resolution = (np.array(column) for column in zip(*rows, strict=True))
    labels = {"rlnDefocusU": u, "rlnDefocusV": u - less, "rlnDefocusAngle": angle, "rlnCtfMaxResolution": resolution}
    columns = {label: [f"{value:.6f}" for value in values] for label, values in labels.items()}
    columns["rlnMicrographName"] = [f"Movies/mic_{number}.mrc" for number in range(len(rows))]
    path = tmp_path / f"{uuid4().hex}.star"  # what was read once is remembered by name, time and size
    write_star(path, {"micrographs": Table(columns)})
    found = read_ctf_file(path)
    assert np.allclose(found.numbers["defocus_u_ang"], u, atol=1e-5)
    assert np.allclose(found.numbers["defocus_v_ang"], u - less, atol=1e-5)
    assert np.allclose(found.numbers["resolution_ang"], resolution, atol=1e-5)


HOSTILE = {
    "failed.txt": (b"# Output from CTFFind\n", "has no line of numbers: CTFFIND has not finished it, or failed"),
    "avrot.txt": (b"0.1 0.2 0.3\n0.1 0.2 0.3\n", "not the text of CTFFIND"),
    "stack.txt": (b"1 2 3 4 5 6 7\n2 2 3 4 5 6 7\n", "a stack of 2 images"),
    "words.txt": (b"1 a b c d e f\n", "no file of CTFs: could not convert"),
    "other.star": (b"data_\n\nloop_\n_rlnMicrographName #1\nm.mrc\n", "no column|no table has a column rlnDefocusU"),
    "nan.star": (
        b"data_\n\nloop_\n_rlnDefocusU #1\n_rlnDefocusV #2\n_rlnDefocusAngle #3\nnan nan nan\n",
        "no defocus in it is a number",
    ),
    "picks.csv": (b"x,y\n1,2\n", "no column defocus_u_ang; it has x, y"),
    "empty.csv": (b"", "no column defocus_u_ang; it has no row"),
    "ctf.json": (b"{}", "CTFs are read from files with"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_has_its_own_reason(tmp_path: Path, name: str) -> None:
    content, reason = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=reason):
        read_ctf_file(tmp_path / name)


def test_movies_that_cryosparc_has_not_estimated_are_told(tmp_path: Path) -> None:
    write_cs(tmp_path / "imported_movies.cs", [("uid", np.array([1], np.uint64)), ("movie_blob/path", np.array(["a.tif"]))])
    with pytest.raises(FileFormatError, match="cryoSPARC has not estimated these CTFs"):
        read_ctf_file(tmp_path / "imported_movies.cs")
