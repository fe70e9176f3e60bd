"""Results of a step as plain columns, and as files that other programs read."""

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from paper_acquisition import write_acquisition
from typer.testing import CliRunner

from icestream.cli import app
from icestream.errors import SessionError
from icestream.flow.storage.session import DOCUMENT, dump_document
from icestream.io.columns import print_columns, write_columns
from icestream.observe.queries import open_view
from icestream.observe.tables import particle_columns, result_columns

COLUMNS: dict[str, list[Any]] = {
    "name": ["a", 'b,"c"'],
    "shift_px": [1.5, float("nan")],
    "yx_px": [[1.0, 2.0], None],
    "kept": [True, None],
    "n": [1, 2],
}


@pytest.fixture(scope="module")
def view(tmp_path_factory):
    written = write_acquisition(tmp_path_factory.mktemp("paper"))
    written.store.close("every stream closed")
    (written.session.folder / DOCUMENT).write_text(dump_document(written.session.document), encoding="utf-8")
    with open_view(written.session) as opened:
        yield opened


def test_a_row_for_each_result_has_every_value(view):
    columns = result_columns(view, "ctf_a")
    records = list(view.records("ctf_a"))
    assert columns["exposure"] == [record.name for record in records]
    assert columns["defocus_u_ang"] == [record.record["defocus_u_ang"] for record in records]
    assert {len(values) for values in columns.values()} == {len(records)}
    assert "block" not in columns


def test_fields_within_fields_have_dotted_names(view):
    columns = result_columns(view, "align")
    assert columns["motion.total_px"] == [record.record["motion"]["total_px"] for record in view.records("align")]


def test_a_row_for_each_particle_has_its_exposure(view):
    columns = particle_columns(view, "find")
    counts = {record.name: record.record["count"] for record in view.records("find")}
    names, found = np.unique(columns["exposure"], return_counts=True)
    assert dict(zip(names.tolist(), found.tolist(), strict=True)) == {name: count for name, count in counts.items() if count}
    assert {"pid", "y_px", "x_px", "score"} < set(columns)


def test_a_step_without_particles_says_so(view):
    with pytest.raises(SessionError, match="ctf_a: its results have no table of particles"):
        particle_columns(view, "ctf_a")
    with pytest.raises(SessionError, match="nothing"):
        result_columns(view, "nothing")


def test_csv_and_json_say_the_same():
    text, other = io.StringIO(), io.StringIO()
    print_columns(COLUMNS, text, form="csv")
    print_columns(COLUMNS, other, form="json")
    rows = list(csv.DictReader(io.StringIO(text.getvalue())))
    assert rows == [
        {"name": "a", "shift_px": "1.5", "yx_px": "[1.0, 2.0]", "kept": "true", "n": "1"},
        {"name": 'b,"c"', "shift_px": "", "yx_px": "", "kept": "", "n": "2"},
    ]
    assert json.loads(other.getvalue()) == [
        {"name": "a", "shift_px": 1.5, "yx_px": [1.0, 2.0], "kept": True, "n": 1},
        {"name": 'b,"c"', "shift_px": None, "yx_px": None, "kept": None, "n": 2},
    ]


def test_parquet_keeps_the_types(tmp_path):
    from pyarrow import parquet  # noqa: PLC0415 - an extra; only this test needs it

    write_columns({**COLUMNS, "mixed": [1, "a"]}, tmp_path / "a.parquet", form="parquet")
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["yx_px"] == [[1.0, 2.0], None] and table["n"] == [1, 2] and table["kept"] == [True, None]
    assert table["mixed"] == ["1", '"a"']


def test_parquet_without_its_library_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(SessionError, match="needs pyarrow, which is not installed"):
        write_columns(COLUMNS, tmp_path / "a.parquet", form="parquet")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_what_the_name_of_the_file_says(view, tmp_path):
    folder = str(view.session.folder)
    printed = CliRunner().invoke(app, ["table", folder, "find", "--particles"])
    assert printed.exit_code == 0 and printed.stdout.startswith("exposure,exposure_id,pid,y_px,x_px,score\n")
    written = CliRunner().invoke(app, ["table", folder, "good", "--stream", "rejected", "-o", str(tmp_path / "a.json")])
    assert written.exit_code == 0 and "a.json: 5 rows" in written.stderr
    assert len(json.loads((tmp_path / "a.json").read_text())) == 5
    for wrong, reason in ((["-o", "a.xlsx"], "must be csv, json, parquet"), (["--format", "parquet"], "is not text")):
        refused = CliRunner().invoke(app, ["table", folder, "ctf_a", *wrong])
        assert refused.exit_code == 1 and reason in " ".join(refused.stderr.split())
