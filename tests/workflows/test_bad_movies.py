"""Everything a camera can do wrong, in sessions that go on: each movie has its own reason, and nothing of it is published."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import SessionDocument, create_session, open_session
from icestream.flow.workflow.graph import StepSpec
from icestream.microscope.pace import Pace
from icestream.microscope.settings import Fault, SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.microscope.truth import load_exposure_truth
from icestream.observe.answers import FailedItem, RejectedItem
from icestream.observe.queries import SessionView, open_view
from icestream.records import Acquisition
from icestream.settings import Settings

N_MOVIES = 14
FAULTS = {
    4: Fault.TRUNCATED,
    5: Fault.EMPTY,
    6: Fault.ZERO_FRAMES,
    7: Fault.SATURATED,
    8: Fault.NOT_FINITE,
    9: Fault.SHORT,
    10: Fault.WRONG_SIZE,
    11: Fault.OTHER_CAMERA,
}
GOOD = [f"mic_{index + 1:04d}" for index in range(N_MOVIES) if index not in FAULTS]
KNOWN = Acquisition(pixel_size_ang=1.5, voltage_kv=300, dose_per_frame_e_per_ang2=2.5)


@pytest.fixture(scope="module")
def scope(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microscope wrote: good movies, then one of each kind of bad ones, then good ones again."""
    folder = tmp_path_factory.mktemp("bad") / "scope"
    settings = SimulationSettings(
        n_movies=N_MOVIES, height_px=192, width_px=192, n_frames=6, n_particles=2, format="mrc", mrc_type="float32", faults=FAULTS
    )
    simulate(folder, settings=settings, pace=Pace())
    return folder


def run(folder: Path, scope: Path, steps: dict[str, Any], acquisition: Acquisition = KNOWN) -> Path:
    movies = {"use": "import_movies", "params": {"max_files": N_MOVIES, "give_up_s": 0.5, "stable_s": 0.2}}
    document = SessionDocument(
        name="bad",
        acquisition=acquisition,
        roots={"movies": str(scope / "movies"), "gain": str(scope)},
        steps={name: StepSpec.model_validate(spec) for name, spec in {"movies": movies, **steps}.items()},
    )
    run_session(create_session(folder, document), Settings(cores=2, min_free_gb=0))
    return folder


def told(view: SessionView) -> dict[str, tuple[str, str]]:
    set_aside: list[FailedItem | RejectedItem] = [*view.failed(), *view.rejected()]
    return {item.exposure: (item.step, item.reason or "") for item in set_aside}


@pytest.fixture(scope="module")
def aligned(scope: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionView]:
    """A session in which motion correction meets all of them."""
    steps = {
        "gain": {"use": "import_gain", "params": {"root": "gain", "pattern": "gain.mrc"}},
        "aligned": {"use": "motion", "in": {"movie": "movies", "gain": "gain"}, "params": {"expected_frames": 6}},
    }
    with open_view(open_session(run(tmp_path_factory.mktemp("aligned") / "s", scope, steps))) as view:
        yield view


@pytest.mark.parametrize(
    ("fault", "step", "words"),
    [
        (Fault.TRUNCATED, "movies", "header declares"),
        (Fault.EMPTY, "aligned", "beam"),
        (Fault.ZERO_FRAMES, "aligned", "2 frames are all zero (frames 2, 3)"),
        (Fault.SATURATED, "aligned", "frame 3 is saturated"),
        (Fault.NOT_FINITE, "aligned", "movie is damaged: 25% of the pixels are NaN or infinite"),
        (Fault.SHORT, "aligned", "has 3 frames; expected are 6"),
        (Fault.WRONG_SIZE, "aligned", "gain is 192×192, movie is 144×144"),
        (Fault.OTHER_CAMERA, "aligned", "gain is 192×192, movie is 144×168"),
    ],
)
def test_motion_correction_names_each_fault(aligned: SessionView, fault: Fault, step: str, words: str) -> None:
    (index,) = [index for index, one in FAULTS.items() if one is fault]
    found = told(aligned)[f"mic_{index + 1:04d}"]
    assert found[0] == step
    assert words in found[1], found


def test_only_good_movies_become_micrographs(aligned: SessionView) -> None:
    assert set(told(aligned)) == {f"mic_{index + 1:04d}" for index in FAULTS}
    assert sorted(stored.name for stored in aligned.records("aligned")) == GOOD
    published = {path.name.rsplit("_", 1)[0] for path in (aligned.session.folder / "steps" / "aligned").rglob("*.*")}
    assert len(published) == len(GOOD)
    assert all(any(name.startswith(good) for good in GOOD) for name in published), published
    reasons = [reason for _, reason in told(aligned).values()]
    assert len(set(reasons)) == len(FAULTS)


def test_the_dose_check_sets_other_cameras_and_short_movies_aside(scope: Path, tmp_path: Path) -> None:
    """By what most movies are like: here all of them, so that their order does not matter."""
    steps = {
        "dose": {"use": "measure_dose", "in": {"movie": "movies"}},
        "usual": {"use": "dose_reference", "in": {"dose": "dose"}, "params": {"n_samples": 500}},
        "right": {"use": "dose_check", "in": {"movie": "movies", "dose": "dose", "reference": "usual"}},
    }
    with open_view(open_session(run(tmp_path / "s", scope, steps))) as view:
        found = told(view)
        kept = sorted(stored.name for stored in view.records("right"))
    words = {
        4: "header declares",
        5: "no beam: 0.00",
        6: "2 of 6 frames are all zero, the others are not; ",
        7: "1 of 6 frames are saturated: most pixels have the largest value; ",
        8: "not finite",
        9: "it has 3 frames, those of this session have 6",
        10: "frames are 144×144, those of this session are 192×192 (height × width): another camera or read-out",
        11: "its header or sidecar gives pixels of 1.875 Å, those of this session 1.5 Å",
    }
    assert {name: words[int(name[-4:]) - 1] in reason for name, (_, reason) in found.items()} == {
        f"mic_{index + 1:04d}": True for index in FAULTS
    }
    assert kept == GOOD


def test_without_the_dose_that_is_required_nothing_is_published(scope: Path, tmp_path: Path) -> None:
    steps = {"aligned": {"use": "motion", "in": {"movie": "movies"}, "params": {"dose_weighting": "required"}}}
    acquisition = KNOWN.model_copy(update={"dose_per_frame_e_per_ang2": None})
    folder = run(tmp_path / "s", scope, steps, acquisition)
    with open_view(open_session(folder)) as view:
        found = told(view)
        assert {step for step, _ in found.values()} == {"movies", "aligned"}
        assert all("dose_per_frame_e_per_ang2 is unset" in reason for step, reason in found.values() if step == "aligned")
        assert len(found) == N_MOVIES
    assert not list((folder / "steps").rglob("*.mrc"))


def test_the_truth_says_what_was_done(scope: Path) -> None:
    for index, fault in FAULTS.items():
        truth = load_exposure_truth(scope, f"mic_{index + 1:04d}")
        assert truth.fault is fault
        assert truth.n_frames == (3 if fault is Fault.SHORT else 6)
        size = {Fault.WRONG_SIZE: (144, 144), Fault.OTHER_CAMERA: (144, 168)}.get(fault, (192, 192))
        assert (truth.height_px, truth.width_px) == size
        assert truth.pixel_size_ang == pytest.approx(1.875 if fault is Fault.OTHER_CAMERA else 1.5)
