"""The dose of a movie, the reference of a session, and the verdict; and a workflow of all three filters of quality."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.errors import ItemError
from icestream.flow import Exposure, Progress
from icestream.flow.declaration.step_type import Kind, step_type_of
from icestream.flow.workflow.building import build_graph
from icestream.flow.workflow.graph import Workflow
from icestream.io.eer_write import write_eer
from icestream.io.image import write_mrc
from icestream.records import Acquisition, DoseReference, Movie, MovieDose
from icestream.steps.movies.dose_check import (
    DoseCheckParams,
    DoseReferenceParams,
    DoseReferences,
    DoseReferenceState,
    check_dose,
    measure_dose,
)
from icestream.testing.context import StepBench

MOVIE = Movie(file="session:m.mrc", n_frames=6, height_px=64, width_px=96, format="mrc", size_bytes=1)


def _dose(counts: float, **values: float) -> MovieDose:
    return MovieDose(**({"counts_per_px_frame": counts, "zero_fraction": 0.0, "drift": 0.0, "n_frames": 6} | values))


def _learn(
    bench: StepBench, calls: Sequence[Sequence[float]], acquisition: Acquisition | None = None, **params: object
) -> DoseReference:
    """Feed counts call by call, with the state stored and read back between calls."""
    learner, rules = DoseReferences(), DoseReferenceParams(**params)
    state = learner.start(rules, bench)
    for counts in calls:
        exposures = [Exposure(f"{i:032d}", f"e{i}") for i in range(len(counts))]
        values = [acquisition or Acquisition()] * len(counts)
        state = learner.add(state, exposures, [_dose(c) for c in counts], values, rules, bench).state
        state = DoseReferenceState.restore(state.model_dump_json(), version=1, block=None)
    return learner.emit(state, rules, bench)


@pytest.fixture
def bench(tmp_path: Path) -> StepBench:
    return StepBench(tmp_path)


def test_a_movie_is_measured_frame_by_frame(bench: StepBench) -> None:
    frames = np.random.default_rng(1).poisson(2.0, (6, 64, 96)).astype(np.uint8)
    frames[:, :, :24] = 0
    write_mrc(bench.folder / "m.mrc", frames, pixel_size_ang=1.0, dtype="uint16")
    found = measure_dose(MOVIE, bench)
    assert found.counts_per_px_frame == pytest.approx(frames.mean())
    assert found.zero_fraction == pytest.approx(0.25, abs=0.001)
    assert found.n_frames == 6


def test_an_eer_movie_is_measured_per_camera_frame_though_frames_are_read_in_groups(bench: StepBench) -> None:
    rng = np.random.default_rng(4)
    hit = [rng.random((32, 48)) < 0.1 for _ in range(205)]  # read as 41 groups of 5
    write_eer(bench.folder / "m.eer", [4 * np.argwhere(frame) for frame in hit], height_px=32, width_px=48)
    movie = MOVIE.model_copy(update={"file": "session:m.eer", "format": "eer", "n_frames": 205})
    found = measure_dose(movie, bench)
    assert found.n_frames == 205
    assert found.counts_per_px_frame == pytest.approx(np.mean(hit))
    assert found.zero_fraction == 0.0


def test_the_median_of_the_first_movies_is_the_reference(bench: StepBench) -> None:
    found = _learn(bench, [[1.0, 9.0, 1.1, 0.9], [1.2, 5.0, 5.0]], n_samples=5)
    assert found.spread == pytest.approx(1.4826 * 0.1 / 1.1)  # deviations 0.1, 7.9, 0, 0.2, 0.1 from the median
    assert found == DoseReference(counts_per_px_frame=1.1, source="median", spread=found.spread, n_measured=7, n_samples=5)


def test_movies_with_thicker_ice_are_kept_where_the_ice_varies(bench: StepBench) -> None:
    """Ice of 200 to 700 Å behind an energy filter takes 5 to 16 % of the beam; a beam off centre takes 30 %."""
    rng = np.random.default_rng(7)
    counts = (8.0 * np.exp(-rng.uniform(200, 700, 60) / 3950)).tolist()
    found = _learn(bench, [counts], n_samples=20, window=40)
    assert found.spread == pytest.approx(0.045, abs=0.02)
    assert found.n_updates == 0
    assert all(check_dose(MOVIE, _dose(count), found, DoseCheckParams()).accepted for count in counts)
    dropped = [not check_dose(MOVIE, _dose(count), found, DoseCheckParams(max_deviation=0.05)).accepted for count in counts]
    assert sum(dropped) > 5  # as a fixed limit does
    weak = check_dose(MOVIE, _dose(0.7 * found.counts_per_px_frame), found, DoseCheckParams())
    assert not weak.accepted
    level = _learn(bench, [rng.normal(8.0, 0.02, 60).tolist()], n_samples=20, window=40)
    assert check_dose(MOVIE, _dose(0.94 * 8.0), level, DoseCheckParams()).reason == (
        f"7.52 counts in a pixel and frame are {7.52 / level.counts_per_px_frame - 1:+.1%} from the reference of "
        f"{level.counts_per_px_frame:.4g}, beyond the limit of ±5.0%"
    )


def test_the_spread_is_learned_again_after_a_lasting_change(bench: StepBench) -> None:
    rng = np.random.default_rng(8)
    before, after = rng.normal(8.0, 0.1, 30), rng.normal(5.0, 0.3, 40)
    found = _learn(bench, [[*before, *after]], n_samples=20, window=20)
    assert found.counts_per_px_frame == pytest.approx(5.0, rel=0.05)
    assert found.spread == pytest.approx(0.06, abs=0.03)
    frozen = _learn(bench, [[*before, *after]], n_samples=20, window=20, rule="frozen")
    assert frozen.spread == pytest.approx(0.0125, abs=0.006)


def test_how_the_stream_is_cut_into_calls_does_not_matter(bench: StepBench) -> None:
    counts = [*np.random.default_rng(2).normal(1.0, 0.04, 13), *np.random.default_rng(3).normal(1.4, 0.04, 30)]
    rules: dict[str, Any] = {"n_samples": 8, "window": 10}
    whole = _learn(bench, [counts], **rules)
    assert whole == _learn(bench, [[value] for value in counts], **rules) == _learn(bench, [counts[:11], counts[11:]], **rules)
    assert whole.n_updates > 0


@pytest.mark.parametrize(("dose", "source", "counts"), [(0.51, "acquisition", 2.04), (0.55, "median", 2.0)])
def test_the_dose_of_the_session_counts_if_the_movies_confirm_it(
    bench: StepBench, dose: float, source: str, counts: float
) -> None:
    acquisition = Acquisition(pixel_size_ang=2.0, dose_per_frame_e_per_ang2=dose)
    found = _learn(bench, [[2.0, 2.0, 2.0], [3.0] * 4], acquisition, n_samples=3, window=4)
    expected = 3.0 if source == "median" else counts  # the window of 3.0 is followed only where the session's dose is not trusted
    assert (found.source, found.n_updates) == (source, int(source == "median"))
    assert found.counts_per_px_frame == pytest.approx(expected)
    assert found.dose_per_frame_e_per_ang2 == pytest.approx(expected / 4)
    assert found.deviating_share == 1.0
    assert ("has followed" in (found.warning or "")) is (source == "median")


def test_a_lasting_change_is_followed_or_not_as_the_rule_says(bench: StepBench) -> None:
    few, many = [1.0, 1.0, 1.0, 2.0], [1.0, 1.0, 2.0, 2.0]
    rules: dict[str, Any] = {"n_samples": 2, "window": 4}
    assert _learn(bench, [[1.0, 1.0], few], **rules).n_updates == 0
    assert _learn(bench, [[1.0, 1.0], few], **rules).deviating_share == 0.25
    assert _learn(bench, [[1.0, 1.0], many], **rules).counts_per_px_frame == 1.5
    assert _learn(bench, [[1.0, 1.0], few], **rules).warning is None
    assert (_learn(bench, [[1.0, 1.0], many], **rules).warning or "").endswith("allowed are 30%; it has followed them")
    assert _learn(bench, [[1.0, 1.0], many, [1.5] * 4], **rules).warning is None  # all is well again
    frozen = _learn(bench, [[1.0, 1.0], many], rule="frozen", **rules)
    assert (frozen.warning or "").startswith("50% of the last 4 movies lay more than 5% from the reference")
    assert (frozen.warning or "").endswith("it stays, and dose_check sets such movies aside")
    assert (frozen.counts_per_px_frame, frozen.deviating_share) == (1.0, 0.5)


def test_it_waits_for_the_first_movies_then_for_windows_then_for_the_end() -> None:
    def asked(waiting: int, passed: int, *, closed: bool = False) -> bool:
        progress = Progress(waiting, waiting, passed, passed, closed)
        return DoseReferences().when(progress, DoseReferenceParams(n_samples=5, window=7)).accepted

    assert [asked(4, 0), asked(5, 0), asked(6, 5), asked(7, 5), asked(1, 5, closed=True), asked(2, 0, closed=True)] == [
        False,
        True,
        False,
        True,
        True,
        True,
    ]
    assert DoseReferences.portion >= 500  # the first call must hold all samples, else a reference of a part would be published


def test_without_a_movie_there_is_no_reference(bench: StepBench) -> None:
    with pytest.raises(ItemError, match="at least 1 is needed"):
        _learn(bench, [[]])


def _reference(counts: float) -> DoseReference:
    return DoseReference(counts_per_px_frame=counts, source="median", n_measured=20, n_samples=20)


@pytest.mark.parametrize(
    ("dose", "limits", "reason"),
    [
        (_dose(1.049), {}, None),
        (_dose(0.951), {}, None),
        (_dose(0.9), {}, "0.9 counts in a pixel and frame are -10.0% from the reference of 1, beyond the limit of ±5.0%"),
        (_dose(1.2), {}, "1.2 counts in a pixel and frame are +20.0% from the reference of 1, beyond the limit of ±5.0%"),
        (_dose(1.0, zero_fraction=0.3, drift=-0.5), {}, None),
        (_dose(1.0, zero_fraction=0.3), {"max_zero_fraction": 0.1}, "30.0% of the pixels counted nothing, more than 10.0%"),
        (_dose(1.0, n_empty=1), {}, "1 of 6 frames are all zero, the others are not"),
        (_dose(1.0, n_saturated=2), {}, "2 of 6 frames are saturated: most pixels have the largest value"),
        (
            _dose(0.0, n_empty=6),
            {},
            "no beam: 0 counts in a pixel and frame are -100.0% from the reference of 1, beyond the limit of ±5.0%",
        ),
        (_dose(1.0, drift=-0.5), {"max_drift": 0.2}, "counts changed by -50.0% during the movie, beyond the limit of 20.0%"),
    ],
)
def test_each_criterion_rejects_with_value_and_limit(dose: MovieDose, limits: dict[str, float], reason: str | None) -> None:
    verdict = check_dose(MOVIE, dose, _reference(1.0), DoseCheckParams(**limits))
    assert (verdict.accepted, verdict.reason) == (reason is None, reason)


def test_all_criteria_are_named_and_a_dark_reference_rejects() -> None:
    dark = _dose(0.0, zero_fraction=1.0, drift=1.0)
    verdict = check_dose(MOVIE, dark, _reference(1.0), DoseCheckParams(max_zero_fraction=0.5, max_drift=0.5))
    assert (verdict.reason or "").count(";") == 2
    assert "it must be above 0" in (check_dose(MOVIE, dark, _reference(0.0), DoseCheckParams()).reason or "")


def test_the_three_filters_of_quality_fit_into_one_workflow() -> None:
    steps = {
        "movies": {"use": "import_movies"},
        "counts": {"use": "measure_dose", "in": {"movie": "movies"}},
        "expected": {"use": "dose_reference", "in": {"dose": "counts"}},
        "dosed": {"use": "dose_check", "in": {"movie": "movies", "dose": "counts", "reference": "expected"}},
        "aligned": {"use": "motion", "in": {"movie": "dosed.movie"}},
        "slope": {"use": "measure_tilt", "in": {"micrograph": "aligned"}},
        "level": {"use": "tilt_check", "in": {"micrograph": "aligned", "tilt": "slope"}},
        "ctf": {"use": "ctf", "in": {"micrograph": "level"}},
        "wide": {"use": "ctf", "in": {"micrograph": "level"}, "params": {"resolution_ang": [40, 6]}},
        "good": {"use": "ctf_consensus", "in": {"micrograph": "level", "ctf": "ctf", "second": "wide"}},
        "mean": {"use": "ctf_average", "in": {"ctf": "good.ctf", "second": "good.second"}},
        "single": {"use": "ctf_consensus", "in": {"micrograph": "level", "ctf": "ctf"}},
    }
    graph = build_graph(Workflow.model_validate({"steps": steps}))
    assert graph.nodes["dosed"].bound == {"reference"}
    assert graph.nodes["dosed"].domain == "exposure"
    assert set(graph.nodes["good"].outputs) >= {"out", "rejected", "ctf", "second", "rejected.second"}
    assert "second" not in graph.nodes["single"].outputs
    assert {node.type.kind for node in graph.nodes.values() if node.name in ("dosed", "level", "good")} == {Kind.FILTER}
    assert step_type_of(DoseReferences).output is DoseReference
