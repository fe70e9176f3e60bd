"""The first half of a session in one run: bad movies of each kind, and every filter's books balance."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icestream.errors import WorkflowError
from icestream.flow.runner.supervisor import run_session
from icestream.flow.storage.session import create_session
from icestream.flow.workflow.building import build_graph
from icestream.io.movie import movie_header
from icestream.microscope.pace import Pace
from icestream.microscope.settings import Fault, Scene, SimulationSettings
from icestream.microscope.simulate import simulate
from icestream.microscope.truth import load_exposure_truth
from icestream.observe.answers import FailedItem, RejectedItem
from icestream.observe.queries import SessionView, open_view
from icestream.observe.report import gather, write_report
from icestream.records import Acquisition, Movie
from icestream.settings import Settings
from icestream.steps.motion.correction import MotionParams, correct_motion
from icestream.testing.context import StepBench
from icestream.workflows import fill_template, find_workflow, load_template, read_template

NAME = "movies_to_ctf_full"
FAULTS = {1: Fault.EMPTY, 2: Fault.WEAK_BEAM, 4: Fault.HUGE_DRIFT, 6: Fault.TRUNCATED}
N_MOVIES = 10
SCENES = {0: Scene.CRYSTALLINE_ICE, 3: Scene.CONTAMINATION}
FILTERS = ("right_dose", "steady", "same_motion", "agreed", "level", "good", "clean")
SIMULATED: dict[str, Any] = {
    "n_movies": N_MOVIES, "height_px": 320, "width_px": 320, "n_frames": 6, "n_particles": 8, "format": "mrc",
    "dose_per_frame_e_per_ang2": 6.0, "b_factor_ang2": 20.0, "seed": 3,
}  # fmt: skip
OPTICS = {"voltage": 300, "cs": 2.7, "amplitude_contrast": 0.07, "pixel_size": 1.5, "dose_per_frame": 6.0}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SessionView]:
    """A finished session whose filter by CTF keeps what is less than 1.5 µm under focus."""
    folder = tmp_path_factory.mktemp("full")
    simulate(folder / "scope", settings=SimulationSettings(faults=FAULTS, scenes=SCENES, **SIMULATED), pace=Pace())
    values = {**OPTICS, "movies": folder / "scope" / "movies", "gain": folder / "scope" / "gain.mrc"}
    # Of any seven of the nine readable movies, at most three have less than the usual dose: their median is right in any order.
    own = {"learn_gain": True, "check_motion": True, "first_movies": 7, "defocus": [0.3, 1.5], "worst_resolution": 25}
    waiting = {"movies": {"max_files": N_MOVIES, "give_up_s": 1.0, "stable_s": 0.3}}
    document = fill_template(load_template(NAME), {**values, **own}, name="first half", settings=waiting)
    session = create_session(folder / "session", document)
    run_session(session, Settings(cores=2, min_free_gb=0))
    write_report(session)
    with open_view(session) as opened:
        yield opened


def test_every_filter_decides_every_exposure_once(view: SessionView) -> None:
    counts = {step.name: step.counts for step in view.steps()}
    for name in FILTERS:
        one = counts[name]
        assert one.item + one.rejected + one.failed + one.skipped + one.absent == N_MOVIES, name
        assert one.waiting == one.running == 0, name
    reasons = Counter(item.step for item in view.rejected())
    assert {name: counts[name].rejected for name in FILTERS} == {name: reasons[name] for name in FILTERS}
    assert all(item.reason for item in view.rejected())
    above = {"steady": "right_dose", "same_motion": "steady", "agreed": "same_motion"}
    above |= {"level": "agreed", "good": "level", "clean": "good"}
    for name, before in above.items():  # nothing failed between two filters, so what one kept the next has decided
        assert counts[name].item + counts[name].rejected == counts[before].item, name


def test_bad_movies_are_set_aside_where_they_should_be_and_good_ones_kept(view: SessionView) -> None:
    set_aside: list[FailedItem | RejectedItem] = [*view.rejected(), *view.failed()]
    told = {item.exposure: (item.step, item.reason) for item in set_aside}
    assert [told[f"mic_{index + 1:04d}"][0] for index in FAULTS] == ["right_dose", "right_dose", "steady", "movies"]
    assert "-100.0%" in told["mic_0002"][1]
    assert re.search(r"-(29|30|31)\.\d%", told["mic_0003"][1])
    assert "from one frame to the next" in told["mic_0005"][1]
    kept = {stored.unit for stored in view.records("mean_ctf")}
    wide = {stored.unit: stored.record["defocus_u_ang"] > 15_000 for stored in view.records("mean_ctf")}
    out_of_range = {item.unit for item in view.rejected("good")}
    assert out_of_range == {unit for unit in kept if wide[unit]}
    assert 0 < len(out_of_range) < len(kept) <= N_MOVIES - len(FAULTS)


def test_an_ice_ball_is_set_aside_by_what_the_image_shows_and_crystals_by_some_filter(view: SessionView) -> None:
    told = {item.exposure: item.reason for item in view.rejected("clean")}
    assert set(told) == {"mic_0004"}
    assert re.fullmatch(r"contamination: dark objects cover \d+% of the image, allowed are 10%", told["mic_0004"])
    judged = {stored.name: stored.record for stored in view.records("quality")}
    assert {record["kind"] for name, record in judged.items() if name not in told} <= {"decent", "great"}
    assert len(judged) > len(told)
    assert "mic_0001" in {item.exposure for item in view.rejected()}  # crystals look tilted: each window has spots of its own


def test_the_learnt_gain_watches_the_given_one(view: SessionView) -> None:
    newest = view.snapshots("learnt_gain", limit=1)[0].record
    assert newest is not None
    assert newest["monitor"]["slope"] == pytest.approx(1.0, abs=0.1)
    assert newest["monitor"]["warning"] is None
    assert newest["monitor"]["residual"]["total"] < 0.5 * newest["monitor"]["raw"]["total"]
    (used,) = {stored.record["frames"]["gain"] for stored in view.records("aligned")}
    assert used.startswith("gain:")


def test_the_report_shows_every_step(view: SessionView) -> None:
    data = gather(view, refresh_s=0)
    shown = {one.title: one for one in data.panels}
    titles = [
        "Dose",
        "Gain",
        "Motion",
        "Motion",
        "Two motions",
        "CTF",
        "Intensity",
        "Ice by transmission",
        "Ice ring",
        "CTF",
        "CTF agreement",
        "CTF",
        "Tilt",
        "Quality",
        "Two CTFs",
    ]
    assert [one.title for one in data.panels] == titles
    agreement = {stored.unit: stored.record["rms_px"] * 1.5 for stored in view.records("two_motions")}
    assert shown["Two motions"].measures[0].n_shown == len(agreement)
    assert shown["Two motions"].measures[0].unit == "Å"
    assert shown["Two motions"].measures[0].median == pytest.approx(sorted(agreement.values())[len(agreement) // 2], abs=0.5)
    assert shown["Dose"].measures[0].median == pytest.approx(6.0 * 1.5**2, rel=0.05)
    assert shown["Dose"].plots[0].title == "Usual dose"
    assert [plot.picture.uri is not None for plot in shown["Gain"].plots if plot.picture] == [True, True]
    spectra = [one.newest.picture for one in data.panels if one.title == "CTF" and one.newest]
    assert all(picture is not None and picture.uri for picture in spectra)
    assert spectra[0] != spectra[1]
    first = {stored.unit: stored.record for stored in view.records("ctf")}
    second = {stored.unit: stored.record for stored in view.records("second_ctf")}
    apart = [sum(first[unit][name] - second[unit][name] for name in ("defocus_u_ang", "defocus_v_ang")) / 2 for unit in first]
    assert shown["Two CTFs"].measures[0].median == pytest.approx(sorted(apart)[len(apart) // 2], abs=max(map(abs, apart)))
    assert shown["Two CTFs"].measures[0].n_shown == len(first)
    agreed = {stored.unit: stored.record["agreement_ang"] for stored in view.records("two_ctfs")}
    assert set(agreed) == set(first)  # of kept micrographs and rejected ones
    assert shown["CTF agreement"].measures[0].median == pytest.approx(sorted(agreed.values())[len(agreed) // 2], rel=0.5)
    assert {stored.unit for stored in view.records("mean_ctf")} <= {unit for unit, value in agreed.items() if value <= 7.0}
    assert shown["Quality"].newest is not None
    assert shown["Quality"].newest.picture is not None
    assert shown["Quality"].newest.picture.uri is not None
    assert shown["Quality"].measures[0].n_shown == len(list(view.records("quality")))
    corrected = {stored.name: stored.record["motion"]["total_px"] * 1.5 for stored in view.records("aligned")}
    pictured = {one.name: {label: value for label, value, _ in one.numbers}["Motion"] for one in data.images}
    assert pictured == pytest.approx(corrected)  # not those of the second correction, which only checks
    doses = {one.reason.partition(":")[0]: one.count for one in data.rejected_reasons if one.step == "right_dose"}
    assert sorted(doses.values()) == [1, 1]  # no beam and a weak one are two reasons
    assert doses["no beam"] == 1
    page = (view.session.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "Left after the given gain" in page
    assert page.count("97.5 % over 2.5 % quantile") >= 2
    assert "ctf and second_ctf" in page


@pytest.mark.parametrize(
    ("given", "learnt", "used"),
    [(True, True, "gain"), (True, False, "gain"), (False, True, "learnt_gain"), (False, False, None)],
)
def test_the_gain_is_given_or_learnt(given: bool, learnt: bool, used: str | None, tmp_path: Path) -> None:
    values = {"movies": tmp_path, "learn_gain": learnt, **({"gain": tmp_path / "gain.mrc"} if given else {})}
    document = fill_template(load_template(NAME), values)
    assert document.steps["aligned"].inputs.get("gain") == used
    assert ("gain" in document.steps, "learnt_gain" in document.steps) == (given, learnt)
    if learnt:
        assert ("gain" in document.steps["learnt_gain"].inputs) is given


@pytest.mark.parametrize(("asked", "source"), [(False, "steady"), (True, "same_motion.micrograph")])
def test_motion_is_corrected_twice_only_if_asked(asked: bool, source: str, tmp_path: Path) -> None:
    document = fill_template(load_template(NAME), {"movies": tmp_path, "check_motion": asked})
    assert ("second_motion" in document.steps, "same_motion" in document.steps) == (asked, asked)
    assert {document.steps[name].inputs["micrograph"] for name in ("ctf", "second_ctf", "agreed")} == {source}


@pytest.mark.parametrize(("asked", "twice"), [(False, False), (True, False), (True, True)])
def test_the_first_ctf_is_fitted_to_groups_of_frames_only_if_asked(asked: bool, twice: bool, tmp_path: Path) -> None:
    document = fill_template(load_template(NAME), {"movies": tmp_path, "ctf_from_frames": asked, "check_motion": twice})
    source = "same_motion.micrograph" if twice else "steady"
    assert document.steps["ctf"].inputs == {"micrograph": source, **({"spectra": "spectra"} if asked else {})}
    assert document.steps["second_ctf"].inputs == {"micrograph": source}
    assert ("spectra" in document.steps) is asked
    if asked:
        assert document.steps["spectra"].inputs == {"movie": "right_dose", "micrograph": source}
    by_default = fill_template(load_template(NAME), {"movies": tmp_path})
    assert "spectra" not in by_default.steps


def test_a_session_fits_the_first_ctf_to_groups_of_frames(tmp_path: Path) -> None:
    simulate(tmp_path / "scope", settings=SimulationSettings(**{**SIMULATED, "n_movies": 2}), pace=Pace())
    values = {**OPTICS, "movies": tmp_path / "scope" / "movies", "gain": tmp_path / "scope" / "gain.mrc"}
    own = {"first_movies": 2, "ctf_from_frames": True, "sort_out": False}
    waiting = {"movies": {"max_files": 2, "give_up_s": 1.0, "stable_s": 0.3}}
    session = create_session(tmp_path / "session", fill_template(load_template(NAME), {**values, **own}, settings=waiting))
    run_session(session, Settings(cores=2, min_free_gb=0))
    with open_view(session) as opened:
        assert not list(opened.failed())
        spectra = {stored.unit: stored.record for stored in opened.records("spectra")}
        fits = {stored.unit: stored.record for stored in opened.records("ctf")}
    assert len(spectra) == len(fits) == 2
    assert {(one["n_groups"], one["group_e_per_ang2"]) for one in spectra.values()} == {(6, 6.0)}


@pytest.mark.parametrize(("n_frames", "seed"), [(4, 3), (5, 5), (6, 4)])  # coarse detail alone is off by 1.5 px there
def test_the_second_motion_is_right_for_a_movie_of_few_frames(n_frames: int, seed: int, tmp_path: Path) -> None:
    document = fill_template(load_template(NAME), {"movies": tmp_path, "check_motion": True})
    own = {"n_movies": 1, "n_frames": n_frames, "seed": seed, "gain": False, "drift_px": (8.0, 10.0)}
    settings = SimulationSettings(**{**SIMULATED, **own})
    simulate(tmp_path / "scope", settings=settings, pace=Pace())
    bench = StepBench(tmp_path / "scope" / "movies")
    header = movie_header(bench.folder / "mic_0001.mrc")
    values = {name: getattr(header, name) for name in ("n_frames", "height_px", "width_px", "format")}
    movie = Movie(file="session:mic_0001.mrc", size_bytes=1, **values)
    params = MotionParams(**document.steps["second_motion"].params)
    found = correct_motion(movie, None, params, Acquisition(pixel_size_ang=1.5), bench).motion
    assert found is not None
    error_px = np.array(found.global_yx_px) - load_exposure_truth(tmp_path / "scope", "mic_0001").global_yx_px
    assert np.linalg.norm(error_px - error_px.mean(axis=0), axis=1).max() < 0.3


def test_all_of_it_is_a_workflow_without_a_template() -> None:
    graph = build_graph(find_workflow(NAME))
    assert graph.inputs_of("aligned") == {"right_dose", "gain"}
    assert list(graph.nodes)[-1] == "clean"


def test_the_last_filter_can_be_turned_off_or_given_another_bound(tmp_path: Path) -> None:
    off = fill_template(load_template(NAME), {"movies": tmp_path, "sort_out": False})
    assert list(off.steps)[-1] == "good"
    assert not {"quality", "clean"} & set(off.steps)
    loose = fill_template(load_template(NAME), {"movies": tmp_path, "most_dark": 0.3})
    assert loose.steps["clean"].params == {"max_dark_share": 0.3}


def test_alternatives_are_steps_that_may_be_left_out(tmp_path: Path) -> None:
    text = """
placeholders: {movies: {label: Movies, type: folder}}
roots: {movies: {ask: movies}}
steps:
  movies: {use: import_movies}
  one: {use: import_gain}
  other: {use: import_gain}
  aligned: {use: motion, in: {movie: movies, gain: [one, other]}}
"""
    with pytest.raises(WorkflowError, match="gain"):
        fill_template(read_template(text, origin="two"), {"movies": tmp_path}, roots={"gain": str(tmp_path)})
