"""Sidecars that come after their movies, change, or are damaged: what depends on them is computed when they come."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from icestream.flow import Arrival
from icestream.flow.execution.watching import WorkerSourceContext
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage import schema
from icestream.flow.storage.session import Session, SessionDocument, create_session, open_session
from icestream.flow.workflow.graph import StepSpec
from icestream.io.image import write_mrc
from icestream.observe.queries import open_view
from icestream.records import Acquisition, Movie
from icestream.settings import Settings
from icestream.steps.movies.import_movies import ImportMoviesParams, import_movies
from toys.session import read_rows

MDOC = "Voltage = {kv}\n\n[FrameSet = 0]\nPixelSpacing = 1.5\nBinning = 1\nFrameDosesAndNumber = 2 3\n"
QUICK = {"idle_s": 0.6, "stable_s": 0.0, "give_up_s": 0.1, "rescan_s": 0.05}


def make_movie(path: Path, value: int = 1) -> Path:
    write_mrc(path, np.full((3, 16, 16), value, dtype=np.int16), pixel_size_ang=1.0)
    return path


def write_sidecar(movie: Path, kv: int = 300) -> None:
    movie.with_name(f"{movie.name}.mdoc").write_text(MDOC.format(kv=kv))


def watch(folder: Path, after: Callable[[list[Arrival]], None], **params: float) -> list[Arrival]:
    """Return what arrives; ``after`` is called after each arrival."""
    context = WorkerSourceContext({"movies": str(folder)}, set(), threading.Event())
    found: list[Arrival] = []
    for one in import_movies(params=ImportMoviesParams.model_validate(QUICK | params), ctx=context):
        if isinstance(one, Arrival):
            found.append(one)
            after(found)
    return found


def test_a_movie_arrives_again_with_what_its_late_sidecar_says(tmp_path: Path, at_once: None) -> None:
    movie = make_movie(tmp_path / "a.mrcs")

    def after(found: list[Arrival]) -> None:
        if len(found) == 1:
            write_sidecar(movie)

    first, second = watch(tmp_path, after)
    assert first.identity == second.identity
    assert (first.acquisition, first.beside) == (Acquisition(), ())
    assert second.acquisition == Acquisition(voltage_kv=300, pixel_size_ang=1.5, dose_per_frame_e_per_ang2=2)
    assert [file.ref for file in second.beside] == ["movies:a.mrcs.mdoc"]
    assert isinstance(second.record, Movie)
    assert second.record.told == second.acquisition


def test_where_sidecars_are_usual_a_movie_waits_for_its_own(tmp_path: Path, at_once: None) -> None:
    write_sidecar(make_movie(tmp_path / "a.mrcs"))

    def after(found: list[Arrival]) -> None:
        if len(found) == 1:
            make_movie(tmp_path / "b.mrcs")
            threading.Timer(0.3, write_sidecar, [tmp_path / "b.mrcs"]).start()

    found = watch(tmp_path, after, sidecar_s=30, idle_s=3)
    assert [(one.name, bool(one.beside)) for one in found] == [("a", True), ("b", True)]


def test_a_movie_whose_sidecar_does_not_come_is_taken_without(tmp_path: Path) -> None:
    write_sidecar(make_movie(tmp_path / "a.mrcs", 1))
    make_movie(tmp_path / "b.mrcs", 2)
    found = watch(tmp_path, lambda _found: None, sidecar_s=0.2)
    assert {one.name: len(one.beside) for one in found} == {"a": 1, "b": 0}


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sidecar count as whole as soon as it is there."""
    monkeypatch.setattr("icestream.steps.movies.sidecar_watch._SETTLED_S", 0.0)


def make_session(tmp_path: Path, n_movies: int, **others: StepSpec) -> tuple[Session, list[Path]]:
    folder = tmp_path / "movies"
    folder.mkdir()
    movies = [make_movie(folder / f"m{index}.mrcs", index + 1) for index in range(n_movies)]
    document = SessionDocument(
        name="s",
        roots={"movies": str(folder)},
        steps={
            "movies": StepSpec(
                use="import_movies", params={"max_files": n_movies, "stable_s": 0.1, "give_up_s": 0.5, "sidecar_s": 0.3}
            ),
            "dose": StepSpec(use="measure_dose", inputs={"movie": "movies"}),
            **others,
        },
    )
    return create_session(tmp_path / "session", document), movies


def run(session: Session) -> Session:
    run_session(open_session(session.folder), Settings(cores=1, min_free_gb=0))
    return open_session(session.folder)


def shapes_of(session: Session) -> dict[str, tuple[float | None, float | None]]:
    """Return exposure → voltage of its newest dose, and the dose of a frame that the exposure has."""
    names = {row["unit"]: row for row in read_rows(session, schema.exposure)}
    results = {row["key"]: json.loads(row["record"]) for row in read_rows(session, schema.result)}
    steps = {row["id"]: row["step"] for row in read_rows(session, schema.revision)}
    found = {}
    for row in read_rows(session, schema.outcome):
        if steps[row["revision"]] == "dose":
            exposure = names[row["unit"]]
            told = json.loads(exposure["acquisition"])
            shape = results[json.loads(row["keys"])["out"]]["shape"]
            found[exposure["name"]] = shape["voltage_kv"], told.get("dose_per_frame_e_per_ang2")
    return found


def test_what_depends_on_a_late_sidecar_is_computed_again_and_nothing_else(tmp_path: Path) -> None:
    session, movies = make_session(tmp_path, 2)
    run(session)
    assert shapes_of(session) == {"m0": (None, None), "m1": (None, None)}
    write_sidecar(movies[0])
    session = run(session)
    assert shapes_of(session) == {"m0": (300, 2), "m1": (None, None)}
    assert len(read_rows(session, schema.exposure)) == 2
    said = [row["message"] for row in read_rows(session, schema.notice)]
    assert any("m0: movies:m0.mrcs.mdoc came late or has changed" in text for text in said)
    n_results = len(read_rows(session, schema.result))
    session = run(session)  # the sidecar is known now
    assert len(read_rows(session, schema.result)) == n_results
    write_sidecar(movies[0], kv=200)
    assert shapes_of(run(session))["m0"] == (200, 2)
    write_sidecar(movies[0], kv=300)
    session = run(session)  # the results are still there
    assert shapes_of(session)["m0"] == (300, 2)
    assert len(read_rows(session, schema.result)) == n_results + 2


def test_a_damaged_sidecar_is_named_wherever_the_exposure_is(tmp_path: Path) -> None:
    required = {"dose_weighting": "required", "local": False}
    session, movies = make_session(tmp_path, 1, motion=StepSpec(use="motion", inputs={"movie": "movies"}, params=required))
    sidecar = movies[0].with_name("m0.xml")
    sidecar.write_text("<MicroscopeImage><core>")
    session = run(session)
    reason = "m0.xml was not read: not well-formed XML"
    assert any(reason in row["message"] and row["level"] == "warning" for row in read_rows(session, schema.notice))
    with open_view(session) as view:
        trace, (failed,) = view.trace("m0"), view.failed("motion")
    assert "is unset" in failed.reason
    assert reason in failed.notes[0]
    assert any(reason in note for step in trace.steps for result in step.results for note in result.notes)
    assert "movies:m0.xml" in trace.files
    sidecar.write_text("<MicroscopeImage/>")
    session = run(session)
    said = [row["message"] for row in read_rows(session, schema.notice)]
    assert any(text.startswith("m0: movies:m0.xml came late or has changed") for text in said)
    with open_view(session) as view:
        assert [item.notes for item in view.failed("motion")] == [()]


def test_a_movie_without_the_values_of_the_others_is_told(tmp_path: Path) -> None:
    session, movies = make_session(tmp_path, 2)
    write_sidecar(movies[0])
    session = run(session)
    said = [row["message"] for row in read_rows(session, schema.notice) if "unlike those of m0" in row["message"]]
    assert said == [
        "m1: its files give no voltage_kv, pixel_size_ang, dose_per_frame_e_per_ang2, unlike those of m0; it is processed without"
    ]
