"""What is unlike the movies of a session is told in words, with both values."""

import pytest

from icestream.flow import Exposure
from icestream.records import Acquisition, DoseReference, Movie, MovieDose, MovieShape
from icestream.steps.movies.dose_check import DoseCheckParams, DoseReferenceParams, DoseReferences, check_dose
from icestream.steps.movies.usual_movie import differences, most_usual
from icestream.testing.context import StepBench

USUAL = MovieShape(height_px=100, width_px=200, n_frames=40, format="tiff", pixel_size_ang=1.0, voltage_kv=300.0, cs_mm=2.7)


def _with(**values):
    return USUAL.model_copy(update=values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, []),
        ({"n_frames": 42}, []),  # EER movies differ by a few
        ({"n_frames": 43}, ["it has 43 frames, those of this session have 40"]),
        ({"pixel_size_ang": 1.005}, []),
        ({"pixel_size_ang": None}, []),
        ({"pixel_size_ang": 1.5}, ["its header or sidecar gives pixels of 1.5 Å, those of this session 1 Å"]),
        ({"voltage_kv": 200.0}, ["its header or sidecar gives an acceleration voltage of 200 kV, those of this session 300 kV"]),
        ({"voltage_kv": None}, []),
        ({"cs_mm": 0.01}, ["its header or sidecar gives a spherical aberration of 0.01 mm, those of this session 2.7 mm"]),
        ({"height_px": 200, "width_px": 100}, ["frames are 200×100, those of this session are 100×200"]),
        ({"format": "eer"}, ["the movie is EER, those of this session are TIFF"]),
        ({"format": "mrc.zst", "n_frames": 20}, ["the movie is MRC", "it has 20 frames"]),
    ],
)
def test_each_difference_has_its_words(values, words):
    found = differences(_with(**values), USUAL, max_deviation=0.05)
    assert len(found) == len(words)
    assert all(word in told for word, told in zip(words, found, strict=True)), found


def test_a_compressed_movie_is_of_the_same_camera():
    assert differences(_with(format="mrc.zst"), _with(format="mrc"), max_deviation=0.05) == []


def test_the_most_usual_is_the_commonest_and_of_equals_the_first():
    other = _with(height_px=7)
    assert most_usual([other, USUAL, USUAL]) == USUAL
    assert most_usual([other, USUAL]) == other
    assert most_usual([]) is None


def _learn(bench_folder, shapes, **params):
    learner, rules, bench = DoseReferences(), DoseReferenceParams(**params), StepBench(bench_folder)
    state = learner.start(rules, bench)
    doses = [MovieDose(counts_per_px_frame=1.0, zero_fraction=0, drift=0, n_frames=40, shape=shape) for shape in shapes]
    exposures = [Exposure(f"{i:032d}", f"e{i}") for i in range(len(doses))]
    state = learner.add(state, exposures, doses, [Acquisition()] * len(doses), rules, bench).state
    return state, learner.emit(state, rules, bench)


def test_the_reference_is_what_most_of_the_first_movies_are_like(tmp_path):
    state, found = _learn(tmp_path, [_with(height_px=7), USUAL, USUAL], n_samples=3)
    assert found.shape == USUAL
    assert state.shapes == []  # it does not grow with the session


@pytest.mark.parametrize(("rule", "followed"), [("follow", True), ("frozen", False)])
def test_a_lasting_change_of_camera_is_followed_if_wanted(tmp_path, rule, followed):
    other = _with(height_px=7)
    few, many = [USUAL, other, USUAL, USUAL], [other, other, other, USUAL]
    assert _learn(tmp_path, [USUAL, USUAL, *few], n_samples=2, window=4, rule=rule)[1].shape == USUAL
    state, found = _learn(tmp_path, [USUAL, USUAL, *many], n_samples=2, window=4, rule=rule)
    assert found.shape == (other if followed else USUAL)
    assert state.shapes == []


def test_the_check_sets_aside_what_differs_unless_told_not_to():
    movie = Movie(file="session:m.mrc", n_frames=40, height_px=100, width_px=200, format="tiff", size_bytes=1)
    dose = MovieDose(counts_per_px_frame=1.0, zero_fraction=0, drift=0, n_frames=40, shape=_with(height_px=7))
    reference = DoseReference(counts_per_px_frame=1.0, source="median", n_measured=3, n_samples=3, shape=USUAL)
    assert "another camera" in check_dose(movie, dose, reference, DoseCheckParams()).reason
    assert check_dose(movie, dose, reference, DoseCheckParams(same_shape=False)).accepted
    for unknown in (reference.model_copy(update={"shape": None}), reference):  # results of older versions
        assert check_dose(movie, dose.model_copy(update={"shape": None}), unknown, DoseCheckParams()).accepted
