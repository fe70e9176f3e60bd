"""What a worker has just written it does not read back, a movie is decoded once, and decoding overlaps computing."""

import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import SessionDocument, create_session, open_session
from icestream.flow.workflow.graph import StepSpec
from icestream.io import movie as movies
from icestream.io.image import write_mrc
from icestream.io.movie import MovieHeader, MovieReader, open_movie
from icestream.microscope import Pace, SimulationSettings, simulate
from icestream.observe.queries import open_view
from icestream.records import Acquisition, Movie
from icestream.settings import Settings
from icestream.steps.motion import reading
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.steps.motion.reading import HeldFrames
from icestream.testing.context import StepBench

N_MOVIES = 3
WATCHER = """
import os, sys

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)) and not (arguments[2] & 3):  # to read
        name = os.fspath(arguments[0])
        name = name.decode() if isinstance(name, bytes) else name
        if name.endswith(".mrc") and ".part~" not in name:
            handle = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, (name + "\\n").encode())
            os.close(handle)

sys.addaudithook(watch)
"""
STEPS = {
    "movies": {"use": "import_movies", "params": {"max_files": N_MOVIES, "stable_s": 0.2}},
    "gain": {"use": "import_gain", "params": {"root": "gain", "pattern": "gain.mrc"}},
    "aligned": {"use": "motion", "in": {"movie": "movies", "gain": "gain"}},
    "ctf": {"use": "ctf", "in": {"micrograph": "aligned"}},
    "second": {"use": "ctf_equiphase", "in": {"micrograph": "aligned"}},
    "picks": {"use": "pick_blob", "in": {"micrograph": "aligned"}, "params": {"diameter_ang": [130, 170]}},
    "particles": {"use": "extract", "in": {"micrograph": "aligned", "picks": "picks"}},
}


def test_a_worker_does_not_read_the_micrograph_that_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in the worker itself, by the interpreter's own audit of files that are opened."""
    settings = {"height_px": 320, "width_px": 320, "n_frames": 5, "n_particles": 4, "format": "mrc"}
    simulate(tmp_path / "scope", settings=SimulationSettings(n_movies=N_MOVIES, **settings), pace=Pace())
    log = tmp_path / "opened.txt"
    (tmp_path / "watcher").mkdir()
    (tmp_path / "watcher" / "sitecustomize.py").write_text(WATCHER.format(log=str(log)), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watcher"), prepend=os.pathsep)
    document = SessionDocument(
        name="once",
        acquisition=Acquisition(
            pixel_size_ang=1.5, voltage_kv=300, cs_mm=2.7, amplitude_contrast=0.07, dose_per_frame_e_per_ang2=2.5
        ),
        roots={"movies": str(tmp_path / "scope" / "movies"), "gain": str(tmp_path / "scope")},
        steps={name: StepSpec.model_validate(spec) for name, spec in STEPS.items()},
    )
    run_session(create_session(tmp_path / "session", document), Settings(cores=1, min_free_gb=0))
    with open_view(open_session(tmp_path / "session")) as view:
        counts = {step.name: step.counts.item for step in view.steps()}
    assert {counts[name] for name in ("aligned", "ctf", "second", "picks", "particles")} == {N_MOVIES}
    opened = Counter(Path(line).relative_to(tmp_path) for line in log.read_text(encoding="utf-8").splitlines())
    assert any(path.parts[0] == "scope" for path in opened)  # the watcher sees what is read
    assert {path: count for path, count in opened.items() if path.parts[:2] == ("session", "steps")} == {}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How often each frame is decoded."""
    counts: Counter[int] = Counter()
    read = vars(movies)["read_mrc_images"]

    def count(source, header, start, stop):
        for number, frame in enumerate(read(source, header, start, stop), start):
            counts[number] += 1
            yield frame

    monkeypatch.setattr(movies, "read_mrc_images", count)
    return counts


def _movie(bench: StepBench) -> Movie:
    frames = np.random.default_rng(1).poisson(5, (6, 128, 128)).astype(np.uint8)
    write_mrc(bench.folder / "m.mrc", frames, pixel_size_ang=1.0, dtype="int16", remember=False)
    size = {"n_frames": 6, "height_px": 128, "width_px": 128, "size_bytes": (bench.folder / "m.mrc").stat().st_size}
    return Movie(file="session:m.mrc", format="mrc", **size)


def test_each_frame_is_decoded_once(tmp_path: Path, decoded: Counter[int]) -> None:
    bench = StepBench(tmp_path)
    correct_motion(_movie(bench), None, MotionParams(), Acquisition(), bench)
    assert decoded == dict.fromkeys(range(6), 1)


def test_a_movie_that_is_too_large_to_hold_gives_the_same(
    tmp_path: Path, decoded: Counter[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = StepBench(tmp_path)
    held = correct_motion(_movie(bench), None, MotionParams(), Acquisition(), bench)
    content = bench.path(held.image).read_bytes()
    decoded.clear()
    monkeypatch.setattr(reading, "_LARGEST_HELD_BYTES", 0)
    streamed = correct_motion(_movie(bench), None, MotionParams(), Acquisition(), bench)
    assert decoded == dict.fromkeys(range(6), 3)  # to look, to align, to add up
    assert streamed == held
    assert bench.path(streamed.image).read_bytes() == content


def test_the_next_frame_is_decoded_while_one_is_used(tmp_path: Path) -> None:
    """A decoder that waited for the frame to be done with would never begin the next one here."""
    begun = [threading.Event() for _ in range(5)]

    def read(start: int, stop: int):
        for number in range(start, stop):
            begun[number].set()
            yield np.full((4, 4), number, np.uint8)

    write_mrc(tmp_path / "m.mrc", np.zeros((5, 4, 4), np.int16), pixel_size_ang=1.0, remember=False)
    with open_movie(tmp_path / "m.mrc") as opened:
        header: MovieHeader = opened.header
        with MovieReader(header, opened._source, read) as reader:  # noqa: SLF001 - the frames come from elsewhere
            for number, frame in enumerate(HeldFrames(reader, 0, 5)):
                assert frame[0, 0] == number
                assert number == 4 or begun[number + 1].wait(60)
