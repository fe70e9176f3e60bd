import numpy as np
import pytest

from icestream.errors import FileFormatError, SourceGone
from icestream.io.star import Table, append_star_rows, read_star, write_star


def test_real_files_of_relion_3_0_3_1_and_5(shared_data):
    folder = shared_data / "particle_stacks"
    particles = read_star(folder / "aspire_d4" / "sample_particles_relion31.star")
    assert set(particles) == {"optics", "particles"}
    assert len(particles["particles"]) == 17
    assert particles["optics"].floats("rlnVoltage").tolist() == [300.0, 200.0]
    old = read_star(folder / "aspire_d4" / "sample_particles_relion30.star")
    (table,) = old.values()
    assert len(table) == 17
    assert table.floats("rlnDefocusU")[0] == pytest.approx(21186.8, abs=0.1)
    assert len(read_star(folder / "metadata_only" / "relion31.6opticsgroups.star")["optics"]) == 6
    assert "particles" in read_star(folder / "metadata_only" / "relion5.star")
    count = 0
    for path in sorted(shared_data.glob("**/*.star")):
        tables = read_star(path)
        assert tables
        assert sum(map(len, tables.values())) > 0
        count += 1
    assert count > 20


def test_real_files_survive_a_round_trip(shared_data, tmp_path):
    for path in sorted((shared_data / "particle_stacks").glob("**/*.star")):
        tables = read_star(path)
        write_star(tmp_path / "copy.star", tables)
        assert read_star(tmp_path / "copy.star") == tables


AWKWARD = [
    "plain",
    "",
    "with blank",
    "it's",
    'say "x"',
    "#hash",
    "_tag",
    "data_1",
    "loop_",
    "$x",
    "[1,2]",
    ";x",
    "1@a/b.mrcs",
    "µ",
    "-1.5e-3",
]


def test_awkward_values_survive(tmp_path):
    path = tmp_path / "a.star"
    tables = {
        "general": Table({"rlnA": [""], "rlnB": ["two words"]}, is_list=True),
        "rows": Table({"rlnName": AWKWARD, "rlnNumber": [str(k) for k in range(len(AWKWARD))]}),
        "": Table({"rlnX": ["1"]}),
    }
    write_star(path, tables)
    assert read_star(path) == tables
    for bad in ("line\nbreak", "both ' and \""):
        with pytest.raises(ValueError, match="cannot be written"):
            write_star(path, {"x": Table({"a": [bad]})})


def test_paths_with_an_umlaut_as_relion_writes_them(tmp_path):
    path = tmp_path / "a.star"
    path.write_text("# für\ndata_\nloop_\n_rlnA #1\n_rlnB #2\nMüller/µ.mrc 'é a'\n1 2\n", encoding="utf-8")
    assert read_star(path) == {"": Table({"rlnA": ["Müller/µ.mrc", "1"], "rlnB": ["é a", "2"]})}


@pytest.mark.parametrize("name", ["Movies/0 é 0.mrc", "é", "a é", "é a", "a 'é b", 'a "é b', "ü é ö", "it's é"])
def test_a_name_with_foreign_letters_and_blanks_comes_back(name, tmp_path):
    tables = {"x": Table({"a": [name, "b"], "c": ["é", name]})}
    write_star(tmp_path / "a.star", tables)
    assert read_star(tmp_path / "a.star") == tables


def test_numbers_and_missing_columns():
    table = Table({"a": ["1.000000", "2"], "b": ["x", "y"]})
    np.testing.assert_array_equal(table.ints("a"), [1, 2])
    assert table.floats("a").dtype == np.float64
    assert "a" in table
    assert "c" not in table
    with pytest.raises(KeyError, match=r"no column 'c' \(there are a, b\)"):
        table.texts("c")
    with pytest.raises(ValueError, match="different lengths"):
        Table({"a": ["1"], "b": []})


OPTICS = {"optics": Table({"rlnOpticsGroup": ["1"], "rlnVoltage": ["300"]})}


def rows(*names):
    return Table({"rlnMicrographName": list(names), "rlnOpticsGroup": ["1"] * len(names)})


def test_appending_equals_writing_at_once(tmp_path):
    path, whole = tmp_path / "grown.star", tmp_path / "whole.star"
    append_star_rows(path, "micrographs", rows("a.mrc", "b c.mrc"), before=OPTICS)
    append_star_rows(path, "micrographs", rows(), before=OPTICS)
    size = append_star_rows(path, "micrographs", rows("d.mrc"), before=OPTICS)
    assert size == path.stat().st_size
    write_star(whole, {**OPTICS, "micrographs": rows("a.mrc", "b c.mrc", "d.mrc")})
    assert path.read_bytes() == whole.read_bytes()


def test_appending_after_a_crash_at_any_byte(tmp_path):
    path = tmp_path / "grown.star"
    append_star_rows(path, "micrographs", rows("a.mrc", "b.mrc"), before=OPTICS)
    whole = path.read_bytes()
    first = whole.index(b"a.mrc")
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        append_star_rows(path, "micrographs", rows("z.mrc"), before=OPTICS)
        tables = read_star(path)
        assert tables["optics"] == OPTICS["optics"]
        complete = whole[first:size].count(b"\n")
        assert tables["micrographs"].texts("rlnMicrographName") == [*["a.mrc", "b.mrc"][:complete], "z.mrc"]


def test_appending_to_another_table_is_refused(tmp_path):
    path = tmp_path / "grown.star"
    append_star_rows(path, "micrographs", rows("a.mrc"), before=OPTICS)
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match="does not end in a table 'movies'"):
        append_star_rows(path, "movies", rows("b.mrc"), before=OPTICS)
    with pytest.raises(FileFormatError, match="rlnOther"):
        append_star_rows(path, "micrographs", Table({"rlnOther": ["1"]}), before=OPTICS)
    with pytest.raises(ValueError, match="need columns"):
        append_star_rows(path, "micrographs", Table({}))
    assert path.read_bytes() == before


def test_no_star_file(tmp_path):
    path = tmp_path / "x.star"
    with pytest.raises(SourceGone):
        read_star(path)
    for content in (
        b"",
        b"\x89PNG\r\n\x1a\n\0\0",
        b"hello world",
        b"data_x\nloop_\n_a\n_b\n1 2 3\n",
        b"\xff\xfe\x00data_x\n_a \xff\n",
    ):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="not a STAR file"):
            read_star(path)
