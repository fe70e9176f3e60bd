"""Lists of particles: what is written is read again, and the traps between programs, one by one."""

import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from icestream.algorithms.volumes import rotations_about, rotations_from_angles
from icestream.errors import FileFormatError, SourceGone
from icestream.io.cryosparc import write_cs
from icestream.io.image import write_mrc
from icestream.io.particle_files import Optics, ParticleFile, angles_of_vectors, find_stack, read_particle_file, vectors_of_angles
from icestream.io.particle_lists import Boxes, cs_particle_columns, particle_star_tables, write_cs_group
from icestream.io.star import write_star

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "particle_stacks"


def real(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"missing file: {path}")
    return path


STAR_30 = """data_

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnCoordinateX #3
_rlnCoordinateY #4
_rlnDefocusU #5
_rlnDefocusV #6
_rlnDefocusAngle #7
_rlnVoltage #8
_rlnSphericalAberration #9
_rlnAmplitudeContrast #10
_rlnDetectorPixelSize #11
_rlnMagnification #12
_rlnOriginX #13
_rlnOriginY #14
_rlnRandomSubset #15
000003@Extract/job007/Movies/m1.mrcs m1.mrc 100 50 9000 10000 20 300 2.7 0.1 5 50000 2 -4 1
000001@Extract/job007/Movies/m1.mrcs m1.mrc 300 70 12000 11000 -80 300 2.7 0.1 5 50000 0 0 2
"""

STAR_31 = """data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnMicrographOriginalPixelSize #7
_rlnCtfDataAreCtfPremultiplied #8
7 east 300 2.7 0.1 3.2 0.8 0
3 west 200 1.4 0.1 3.2 0.8 1

data_particles

loop_
_rlnImageName #1
_rlnMicrographName #2
_rlnOpticsGroup #3
_rlnOriginXAngst #4
_rlnOriginYAngst #5
1@a.mrcs MotionCorr/job002/a.mrc 3 6.4 -3.2
2@a.mrcs MotionCorr/job002/a.mrc 7 0 0
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_relion_3_0_gives_pixels_of_the_detector_and_shifts_in_pixels(tmp_path: Path) -> None:
    found = read_particle_file(write(tmp_path, "particles.star", STAR_30))
    (optics,) = found.optics
    assert (optics.voltage_kv, optics.cs_mm, optics.amplitude_contrast, optics.pixel_size_ang) == (300, 2.7, 0.1, 1.0)
    assert found.slices.tolist() == [2, 0]
    assert found.numbers["shift_x_ang"].tolist() == [-2, 0]
    assert found.numbers["shift_y_ang"].tolist() == [4, 0]
    assert found.numbers["half"].tolist() == [0, 1]


def test_the_larger_defocus_comes_first_with_its_own_angle(tmp_path: Path) -> None:
    numbers = read_particle_file(write(tmp_path, "particles.star", STAR_30)).numbers
    assert numbers["defocus_u_ang"].tolist() == [10000, 12000]
    assert numbers["defocus_v_ang"].tolist() == [9000, 11000]
    assert numbers["astigmatism_angle_deg"].tolist() == [-70, -80]


def test_optics_groups_with_gaps_are_numbered_anew(tmp_path: Path) -> None:
    found = read_particle_file(write(tmp_path, "particles.star", STAR_31))
    assert [one.name for one in found.optics] == ["east", "west"]
    assert found.groups.tolist() == [1, 0]
    assert [one.premultiplied for one in found.optics] == [False, True]
    assert (found.optics[1].pixel_size_ang, found.optics[1].raw_pixel_ang) == (3.2, 0.8)
    assert found.numbers["shift_x_ang"].tolist() == [-6.4, 0]


def test_an_optics_group_that_is_not_listed_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, "particles.star", STAR_31.replace("a.mrc 3 6.4", "a.mrc 4 6.4"))
    with pytest.raises(FileFormatError, match=r"optics group 4, which is not among \[7, 3\]"):
        read_particle_file(path)


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3), min_size=1, max_size=5))
@example([(0.0, -5e-8, 0.0), (0.0, 0.0, 0.0), (1e-9, 1e-9, 1.0), (0.0, np.pi, 0.0), (3e-8, np.pi, 0.0)])
def test_rotation_vectors_of_cryosparc_are_relion_s_matrices_transposed(vectors) -> None:
    expected = rotations_about(np.array(vectors)).transpose(0, 2, 1)
    assert np.allclose(rotations_from_angles(angles_of_vectors(np.array(vectors))), expected, atol=1e-7)


@given(st.lists(st.tuples(*[st.floats(-180, 180)] * 3), min_size=1, max_size=5))
def test_angles_come_back_from_vectors(angles) -> None:
    back = angles_of_vectors(vectors_of_angles(np.array(angles)))
    assert np.allclose(rotations_from_angles(back), rotations_from_angles(np.array(angles)), atol=1e-7)


def finite(low: float, high: float):
    return st.floats(low, high, width=32)


@st.composite
def particle_files(draw) -> ParticleFile:
    n = draw(st.integers(1, 6))
    optics = tuple(
        Optics(f"group{k}", draw(st.sampled_from([200.0, 300.0])), 2.7, 0.1, 0.5 * (k + 1), 0.25 * (k + 1))
        for k in range(draw(st.integers(1, 3)))
    )
    used = draw(st.lists(st.integers(0, len(optics) - 1), min_size=n, max_size=n))
    kinds = sorted(set(used), key=used.index)

    def column(low: float, high: float) -> np.ndarray:
        return np.array(draw(st.lists(finite(low, high), min_size=n, max_size=n)), dtype=np.float64)

    u = column(5000, 40000)
    name = st.text("abcXYZ019_-. é", min_size=1, max_size=9).map(str.strip).filter(bool)
    return ParticleFile(
        stacks=[f"Extract/{draw(name)}.mrcs" for _ in range(n)],
        slices=np.array(draw(st.lists(st.integers(0, 10**5), min_size=n, max_size=n, unique=True)), dtype=np.int64),
        micrographs=[f"Movies/{draw(name)}.mrc" for _ in range(n)],
        groups=np.array([kinds.index(one) for one in used], dtype=np.int64),
        optics=tuple(optics[one] for one in kinds),
        numbers={
            "y_px": column(0, 2000),
            "x_px": column(0, 3000),
            "defocus_u_ang": u,
            "defocus_v_ang": u - column(0, 900),
            "astigmatism_angle_deg": column(-89, 90),
            "phase_shift_deg": column(0, 170),
            "rot_deg": column(-170, 170),
            "tilt_deg": column(1, 179),
            "psi_deg": column(-170, 170),
            "shift_y_ang": column(-20, 20),
            "shift_x_ang": column(-20, 20),
            "half": np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), dtype=np.float64),
            "class_id": np.array(draw(st.lists(st.integers(1, 50), min_size=n, max_size=n)), dtype=np.float64),
        },
        bright=True,
    )


def check_same(read: ParticleFile, wrote: ParticleFile, *, atol: float) -> None:
    assert (read.stacks, read.micrographs) == (wrote.stacks, wrote.micrographs)
    assert np.array_equal(read.slices, wrote.slices)
    assert np.array_equal(read.groups, wrote.groups)
    for name, values in wrote.numbers.items():
        apart = np.abs(read.numbers[name] - values)
        if name == "astigmatism_angle_deg":  # an axis: 90° and -90° are the same
            apart = np.minimum(apart, np.abs(180 - apart))
        assert (apart <= atol + 1e-5 * np.abs(values)).all(), name
    for one, other in zip(read.optics, wrote.optics, strict=True):
        assert one.voltage_kv == other.voltage_kv
        assert one.cs_mm == pytest.approx(other.cs_mm)
        assert one.amplitude_contrast == pytest.approx(other.amplitude_contrast)
        assert (one.pixel_size_ang, one.raw_pixel_ang) == (other.pixel_size_ang, other.raw_pixel_ang)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(wrote=particle_files())
def test_a_star_file_that_was_written_is_read_as_the_same(tmp_path: Path, wrote: ParticleFile) -> None:
    write_star(tmp_path / "particles.star", particle_star_tables(wrote, boxes=Boxes(64)))
    check_same(read_particle_file(tmp_path / "particles.star"), wrote, atol=2e-6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(wrote=particle_files())
def test_a_cs_file_that_was_written_is_read_as_the_same(tmp_path: Path, wrote: ParticleFile) -> None:
    shapes = np.tile(np.array([[2048, 4096]]), (len(wrote.stacks), 1))
    group = write_cs_group(tmp_path, "J1_particles", "particle", cs_particle_columns(wrote, boxes=Boxes(64, shapes)))
    for path in (tmp_path / "J1_particles.cs", group):
        read = read_particle_file(path)
        check_same(read, wrote, atol=2e-3)  # it has single precision
        assert read.bright is True


def cs_columns(n: int = 4, **further: np.ndarray) -> list[tuple[str, np.ndarray]]:
    columns = {
        "uid": np.arange(10, 10 + n, dtype=np.uint64),
        "blob/path": np.array([">J5/extract/000000000000000000123_mic_1_particles.mrc"] * n),
        "blob/idx": np.arange(n, dtype=np.uint32),
        "blob/psize_A": np.full(n, 2.0, np.float32),
        "blob/sign": np.full(n, -1.0, np.float32),
    }
    return list((columns | {name.replace("__", "/"): values for name, values in further.items()}).items())


def test_shifts_of_cryosparc_are_in_pixels_of_a_scale_of_their_own(tmp_path: Path) -> None:
    shift = np.array([[3, -5]] * 4, dtype=np.float32)
    columns = cs_columns(
        alignments2D__pose=np.full(4, math.pi / 2, np.float32),
        alignments2D__shift=shift,
        alignments2D__psize_A=np.full(4, 4.0, np.float32),
        alignments2D__class=np.arange(4, dtype=np.uint32),
    )
    write_cs(tmp_path / "a.cs", columns)
    found = read_particle_file(tmp_path / "a.cs")
    assert found.numbers["shift_x_ang"].tolist() == [-12] * 4
    assert found.numbers["shift_y_ang"].tolist() == [20] * 4
    assert found.numbers["psi_deg"] == pytest.approx([90] * 4)
    assert found.numbers["class_id"].tolist() == [1, 2, 3, 4]
    assert found.bright is False


def test_a_passthrough_file_completes_the_rows_whatever_its_order(tmp_path: Path) -> None:
    write_cs(tmp_path / "J24_006_particles.cs", cs_columns())
    order = np.array([3, 1, 0, 2])
    location = [
        ("uid", np.array([13, 11, 10, 12, 99], dtype=np.uint64)),
        ("location/micrograph_path", np.array(["S1/m3.mrc", "S1/m1.mrc", "S1/m0.mrc", "S1/m2.mrc", "S1/other.mrc"])),
        ("location/micrograph_shape", np.full((5, 2), (100, 200), dtype=np.uint32)),
        ("location/center_x_frac", np.append(order, 0).astype(np.float32) / 10),
        ("location/center_y_frac", np.full(5, 0.5, np.float32)),
        ("blob/psize_A", np.full(5, 77.0, np.float32)),
    ]
    write_cs(tmp_path / "J24_passthrough_particles.cs", location)
    write_cs(tmp_path / "J25_passthrough_particles.cs", location[:2])
    found = read_particle_file(tmp_path / "J24_006_particles.cs")
    assert found.micrographs == [f"S1/m{k}.mrc" for k in range(4)]
    assert found.numbers["x_px"] == pytest.approx([200 * k / 10 - 0.5 for k in range(4)])
    assert found.optics[0].pixel_size_ang == 2.0


def test_a_passthrough_file_of_another_job_is_told(tmp_path: Path) -> None:
    write_cs(tmp_path / "particles.cs", cs_columns())
    write_cs(tmp_path / "J2_passthrough_particles.cs", [("uid", np.array([1, 2], dtype=np.uint64)), ("ctf/df1_A", np.zeros(2))])
    with pytest.raises(FileFormatError, match=r"lacks 4 of the 4 rows of particles\.cs: it is of another job"):
        read_particle_file(tmp_path / "particles.cs")
    write_cs(tmp_path / "J3_passthrough_particles.cs", [("uid", np.array([1, 2], dtype=np.uint64))])
    with pytest.raises(FileFormatError, match="several passthrough files may be meant"):
        read_particle_file(tmp_path / "particles.cs")


def test_bright_and_dark_particles_are_not_mixed(tmp_path: Path) -> None:
    write_cs(tmp_path / "a.cs", cs_columns(blob__sign=np.array([1, 1, -1, 1], np.float32)))
    with pytest.raises(FileFormatError, match="some particles are bright and some are dark"):
        read_particle_file(tmp_path / "a.cs")


def test_stacks_are_found_by_the_end_of_their_path_and_under_either_ending(tmp_path: Path) -> None:
    (tmp_path / "extract").mkdir()
    path = tmp_path / "extract" / "a.mrcs"
    write_mrc(path, np.zeros((1, 4, 4), np.float32), pixel_size_ang=1)
    assert find_stack(tmp_path, ">J5/extract/a.mrc") == path
    assert find_stack(tmp_path, "/data/project/J5/extract/a.mrcs") == path
    assert find_stack(tmp_path, "C:\\data\\extract\\a.mrcs") == path
    assert find_stack(tmp_path / "extract", "J5/extract/a.mrcs") == path
    assert find_stack(tmp_path, "b.mrcs") is None
    assert find_stack(tmp_path / "extract", "../extract/a.mrcs") is None


def make_scipion(path: Path, columns: Mapping[str, Any], *, prefix: str = "") -> Path:
    """Write a set as Scipion does."""
    names = [f"c{number:02d}" for number in range(1, len(columns) + 1)]
    n = len(next(iter(columns.values())))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {prefix}Classes (id INTEGER, label_property TEXT, column_name TEXT, class_name TEXT)")
        connection.execute(f"CREATE TABLE {prefix}Objects (id INTEGER, enabled INTEGER, label TEXT, {', '.join(names)})")
        rows = [(number, label, name, "Float") for number, (label, name) in enumerate(zip(columns, names, strict=True))]
        connection.executemany(f"INSERT INTO {prefix}Classes VALUES (?, ?, ?, ?)", rows)  # noqa: S608
        marks = ", ".join("?" * (3 + len(names)))
        for row in range(n):
            values = [column[row] for column in columns.values()]
            connection.execute(f"INSERT INTO {prefix}Objects VALUES ({marks})", (row + 1, int(row != n - 1), "", *values))  # noqa: S608
        connection.commit()
    return path


def test_a_set_of_scipion_gives_its_enabled_particles(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "_index": [1, 2, 3],
        "_filename": ["Runs/000123_Extract/extra/m1.mrcs"] * 3,
        "_samplingRate": [1.5] * 3,
        "_acquisition._voltage": [300.0] * 3,
        "_coordinate._x": [10, 20, 30],
        "_coordinate._y": [11, 21, 31],
        "_coordinate._micName": ["m1.mrc"] * 3,
        "_ctfModel._defocusU": [9000.0, None, 1.0],
        "_ctfModel._defocusV": [9500.0, None, 1.0],
        "_ctfModel._defocusAngle": [10.0, None, 1.0],
    }
    found = read_particle_file(make_scipion(tmp_path / "particles.sqlite", columns))
    assert found.slices.tolist() == [0, 1]
    assert found.numbers["x_px"].tolist() == [10, 20]
    assert found.numbers["defocus_u_ang"][0] == 9500
    assert np.isnan(found.numbers["defocus_u_ang"][1])
    assert (found.optics[0].voltage_kv, found.optics[0].cs_mm, found.optics[0].pixel_size_ang) == (300, None, 1.5)


HOSTILE = {
    "empty.star": (b"", "not a STAR file"),
    "binary.star": (bytes(range(256)), "STAR file"),
    "no_images.star": (b"data_\n\nloop_\n_rlnDefocusU #1\n1\n", "names no images of particles"),
    "bare.star": (b"data_\n\nloop_\n_rlnImageName #1\na.mrcs\n", "not named as number@stack"),
    "word.star": (b"data_\n\nloop_\n_rlnImageName #1\none@a.mrcs\n", "invalid literal"),
    "zero.star": (b"data_\n\nloop_\n_rlnImageName #1\n0@a.mrcs\n", "from below 1"),
    "cut.star": (b"data_\n\nloop_\n_rlnImageName #1\n_rlnDefocusU #2\n1@a.mrcs\n", "not a STAR file"),
    "empty.cs": (b"", "not a .cs file"),
    "new.cs": (b"\x94CSDAT\x01\x00rest", "compressed form of cryosparc-tools"),
    "archive.cs": (b"PK\x03\x04rest", "is an archive"),
    "text.cs": (b"uid,blob/path\n", "not a .cs file"),
    "pickle.cs": (b"\x80\x04\x95rest", "not a .cs file"),
    "empty.sqlite": (b"", "is empty"),
    "text.sqlite": (b"SQLite format 2" * 100, "not a set of Scipion"),
    "list.csg": (b"- a\n", "lists no results"),
    "outside.csg": (b"results: {blob: {metafile: '>../../etc/passwd'}}\n", "not a result group that was exported"),
    "text.csg": (b"a: [", "it is no YAML"),
    "particles.doc": (b"x", "particles are read from files with"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_has_its_own_reason(tmp_path: Path, name: str) -> None:
    content, reason = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=reason):
        read_particle_file(tmp_path / name)


def test_a_cs_file_with_python_objects_is_never_unpickled(tmp_path: Path) -> None:
    rows = np.array([(1, "x")], dtype=[("uid", "<u8"), ("blob/path", "O")])
    np.save(tmp_path / "a.npy", rows, allow_pickle=True)
    (tmp_path / "a.npy").rename(tmp_path / "a.cs")
    with pytest.raises(FileFormatError, match=r"not a \.cs file: a block is a one-dimensional structured array"):
        read_particle_file(tmp_path / "a.cs")


@given(cut=st.integers(1, 400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
def test_a_cs_file_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    write_cs(tmp_path / "whole.cs", cs_columns())
    whole = (tmp_path / "whole.cs").read_bytes()
    (tmp_path / "cut.cs").write_bytes(whole[: max(0, len(whole) - cut)])
    with pytest.raises(FileFormatError, match=r"not a \.cs file"):
        read_particle_file(tmp_path / "cut.cs")


def test_a_set_without_its_tables_is_told(tmp_path: Path) -> None:
    make_scipion(tmp_path / "a.sqlite", {"_index": [1]}, prefix="Class001_")
    with pytest.raises(FileFormatError, match="it has no table Classes and Objects, but Class001_Classes, Class001_Objects"):
        read_particle_file(tmp_path / "a.sqlite")


def test_a_file_that_is_not_there_is_gone(tmp_path: Path) -> None:
    for name in ("a.star", "a.cs", "a.csg", "a.sqlite"):
        with pytest.raises(SourceGone):
            read_particle_file(tmp_path / name)


def test_real_particles_of_cryosparc_and_relion_are_the_same() -> None:
    cs = read_particle_file(real("cryodrgn_empiar10076/empiar_10076_7.cs"))
    star = read_particle_file(real("cryodrgn_empiar10076/empiar_10076_7.star"))
    assert len(cs.slices) == len(star.slices) == 7
    assert np.array_equal(np.sort(cs.slices), star.slices)
    order = np.argsort(cs.slices)
    for name in ("defocus_u_ang", "defocus_v_ang", "astigmatism_angle_deg"):
        assert np.allclose(cs.numbers[name][order], star.numbers[name], atol=0.06), name
    assert cs.optics[0].pixel_size_ang == pytest.approx(star.optics[0].pixel_size_ang, rel=1e-3)


def test_real_lists_are_read_with_all_their_groups() -> None:
    cs = read_particle_file(real("metadata_only/cryosparc_P12_J24_001_particles.cs"))
    assert (len(cs.slices), cs.optics[0].voltage_kv, round(cs.optics[0].pixel_size_ang or 0, 2)) == (2019, 200, 2.95)
    assert {0.0, 1.0} == set(cs.numbers["half"].tolist())
    six = read_particle_file(real("metadata_only/relion31.6opticsgroups.star"))
    assert len(six.optics) == 6
    five = read_particle_file(real("metadata_only/relion5.star"))
    assert five.optics[0].pixel_size_ang == pytest.approx(0.89)
    old = read_particle_file(real("metadata_only/FinalRefinement-OriginalParticles-PfCRT.star"))
    assert old.optics[0].pixel_size_ang == pytest.approx(1.035)
    assert (old.numbers["defocus_u_ang"] >= old.numbers["defocus_v_ang"]).all()
