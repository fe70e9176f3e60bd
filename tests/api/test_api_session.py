"""What people read of a session from Python: the values that were stored, in the library of their choice, and the files."""

import inspect
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import icestream.api
from icestream.api import API_VERSION, FrameKind, Result, Session, SessionError, Step
from icestream.api.frames import make_frame, to_arrays


def test_the_steps_are_told_in_the_order_of_the_workflow(folder: Path) -> None:
    steps = Session(folder).steps()
    assert [one.name for one in steps] == ["movies", "aligned", "ctf", "good", "picks", "classes"]
    good = steps[3]
    assert (good.use, good.results, good.rejected, good.failed, good.revision) == ("ctf_filter", 5, 1, 0, 1)
    assert (steps[2].record, dict(steps[2].params)) == ("CtfFit", {"a": 1})


def test_a_table_has_a_row_for_each_exposure(folder: Path) -> None:
    table = Session(folder).table("ctf", frame="numpy")
    assert table["exposure"].tolist() == [f"hole_{number}" for number in range(1, 7)]
    assert table["defocus_u_ang"].tolist() == [1e4 + 100 * number for number in range(1, 7)]
    assert np.isnan(table["confidence"]).tolist() == [False, True, False, False, False, False]
    assert table["ordinal"].dtype == np.int64
    assert table["profile"].dtype == object


def test_what_a_filter_set_aside_is_a_table_of_its_own(folder: Path) -> None:
    assert Session(folder).table("good", stream="rejected", frame="numpy")["exposure"].tolist() == ["hole_6"]


def test_particles_and_what_was_removed_are_rows(folder: Path) -> None:
    session = Session(folder)
    picks = session.table("picks", rows="particles", frame="numpy")
    assert picks["exposure"].tolist() == [f"hole_{number}" for number in range(1, 6) for k in range(number) if k != 3]
    assert picks["pid"].tolist() == [k for number in range(1, 6) for k in range(number) if k != 3]
    assert picks["y_px"].dtype == np.float32
    removed = session.table("picks", rows="removed", frame="numpy")
    assert (removed["exposure"].tolist(), removed["pid"].tolist()) == (["hole_4", "hole_5"], [3, 3])


def test_versions_are_told_with_their_images(folder: Path) -> None:
    first, second = Session(folder).versions("classes")
    assert (first.version, second.version, second.record) == (1, 2, "ClassAverages")
    assert np.allclose(second.read("stack"), 2 * first.read("stack"))
    assert first.read("stack").shape == (3, 16, 16)
    assert Session(folder).table("classes", frame="numpy")["version"].tolist() == [1, 2]


def test_the_image_behind_a_result_is_read(folder: Path) -> None:
    result = Session(folder).result("aligned", "hole_3")
    assert np.array_equal(result.read("image"), np.random.default_rng(3).normal(size=(24, 32)).astype(np.float32))
    assert result.path("image") == folder / "steps/aligned/3.mrc"
    with pytest.raises(SessionError, match="aligned: 'height_px' is 24, not a file"):
        result.path("height_px")


def test_reading_continues_after_what_was_read(folder: Path) -> None:
    session = Session(folder)
    results = list(session.results("picks"))
    assert [one.exposure for one in session.results("picks", after=results[2].sequence)] == ["hole_4", "hole_5"]
    assert results[3].tables()["rejected"]["pid"].tolist() == [3]


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda session: session.table("cft"), "'cft': is not a step of this session"),
        (lambda session: session.table("ctf", rows="particles"), "ctf: its results have no table of particles"),
        (lambda session: session.table("ctf", rows="pixels"), "rows is 'pixels'; it must be results, particles or removed"),
        (lambda session: session.table("ctf", frame="spark"), "frame is 'spark'; it must be pandas, polars or numpy"),
        (lambda session: session.result("ctf", "hole_9"), "'hole_9'"),
        (lambda session: session.result("picks", "hole_6"), "picks: has no result of hole_6 in 'out'"),
        (lambda session: Session(session.folder / "steps"), "steps"),
    ],
)
def test_what_cannot_be_read_is_told(folder: Path, ask, said: str) -> None:
    with pytest.raises(SessionError, match=said):
        ask(Session(folder))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(SessionError, match=r"polars is not installed: pip install 'icestream-em\[polars\]', or ask for numpy"):
        make_frame({}, "polars")


def test_without_either_library_a_table_is_arrays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icestream.api.frames.find_spec", lambda _: None)
    assert isinstance(Session(folder).table("ctf"), dict)
    monkeypatch.setattr("icestream.api.frames.find_spec", lambda name: SimpleNamespace() if name == "polars" else None)
    monkeypatch.setitem(sys.modules, "polars", SimpleNamespace(DataFrame=lambda plain, strict: ("polars", sorted(plain), strict)))
    assert Session(folder).table("ctf")[0] == "polars"


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_frame_has_the_values_of_the_arrays(folder: Path, kind: FrameKind) -> None:
    pytest.importorskip(kind, reason=f"{kind} is not installed")
    session = Session(folder)
    frame, arrays = session.table("ctf", frame=kind), session.table("ctf", frame="numpy")
    assert list(frame.columns) == list(arrays)
    assert frame["exposure"].to_list() == arrays["exposure"].tolist()
    assert np.array_equal(frame["confidence"].to_numpy(), arrays["confidence"], equal_nan=True)
    particles = session.table("picks", rows="particles", frame=kind)
    assert particles["pid"].to_list() == session.table("picks", rows="particles", frame="numpy")["pid"].tolist()


def test_parquet_has_the_values_of_the_table(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    Session(folder).write_parquet("ctf", tmp_path / "ctf.parquet")
    read = parquet.read_table(tmp_path / "ctf.parquet").to_pydict()
    assert read["defocus_u_ang"] == [1e4 + 100 * number for number in range(1, 7)]
    assert read["confidence"] == [0.9, None, 0.9, 0.9, 0.9, 0.9]
    Session(folder).write_parquet("picks", tmp_path / "picks.parquet", rows="particles")
    assert len(parquet.read_table(tmp_path / "picks.parquet")) == 13


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.integers(2**63, 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=4),
    st.lists(st.integers(), max_size=3),
)


@given(st.one_of(st.lists(VALUES, max_size=6), st.lists(st.one_of(st.none(), st.integers(-9, 9)), max_size=6)))
def test_no_value_is_lost_on_the_way_to_an_array(values) -> None:
    (array,) = to_arrays({"one": values}).values()
    assert array.shape == (len(values),)
    back = [None if isinstance(value, float) and np.isnan(value) else value for value in array.tolist()]
    if array.dtype == np.float64:
        assert back == [None if value is None else float(value) for value in values]
    else:
        assert back == values


SURFACE = {
    "API_VERSION": "1.0",
    "Session": "(folder)",
    "Session.steps": "(self)",
    "Session.table": "(self, step, *, rows='results', stream='out', frame=None)",
    "Session.write_parquet": "(self, step, path, *, rows='results', stream='out')",
    "Session.results": "(self, step, *, stream='out', after=None)",
    "Session.result": "(self, step, exposure, *, stream='out')",
    "Session.versions": "(self, step)",
    "Result.path": "(self, name)",
    "Result.read": "(self, name='image')",
    "Result.tables": "(self)",
    "Result": ["step", "record", "key", "values", "exposure", "exposure_id", "version", "sequence"],
    "Step": ["name", "use", "params", "record", "revision", "results", "rejected", "failed"],
}
"""What is promised. To add to it raises the second number of API_VERSION; to change or remove, the first, after its time."""


def taken_by(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    plain = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


def test_what_is_promised_has_not_changed() -> None:
    found: dict[str, object] = {"API_VERSION": API_VERSION, "Session": taken_by(Session)}
    for owner in (Session, Result):
        for name, member in vars(owner).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                found[f"{owner.__name__}.{name}"] = taken_by(member)
    for kind in (Result, Step):
        found[kind.__name__] = [one.name for one in fields(kind) if not one.name.startswith("_")]
    assert found == SURFACE
    assert sorted(icestream.api.__all__) == ["API_VERSION", "FrameKind", "Result", "Session", "SessionError", "Step"]
