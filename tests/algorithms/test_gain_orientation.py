"""A gain finds its way onto the frames, and says so when it cannot."""

import numpy as np
import pytest

from icestream.algorithms.gain.orientation import (
    ORIENTATIONS,
    choose_gain,
    fit_gain_size_2d,
    measure_gain_slope,
    orient_gain_2d,
)
from icestream.errors import ItemError
from icestream.microscope.camera import make_camera

SHAPE = (192, 256)


@pytest.fixture(scope="module")
def camera():
    return make_camera(SHAPE, gain=True, n_dead_pixels=20, n_hot_pixels=10, generator=np.random.default_rng(1))


def count(camera, electrons, seed=2):
    return np.random.default_rng(seed).poisson(electrons * camera.response).astype(np.float32)


def choose(total, gain, *, operation=None, usual="multiply", orientation="auto"):
    return choose_gain(total, gain, operation=operation, usual=usual, orientation=orientation)


def stored_so_that(gain, orientation):
    """Return what has to lie in the file so that turning it by ``orientation`` gives ``gain``."""
    candidates = (orient_gain_2d(gain, orientation=name) for name in ORIENTATIONS)
    return next(one for one in candidates if np.array_equal(orient_gain_2d(one, orientation=orientation), gain))


@pytest.mark.parametrize("operation", ["multiply", "divide"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_and_kind_is_found(camera, orientation, operation):
    gain = camera.gain if operation == "multiply" else camera.inverse_gain
    choice = choose(count(camera, 20), stored_so_that(gain, orientation))
    assert (choice.orientation, choice.operation, choice.note) == (orientation, operation, None)
    assert choice.slope == pytest.approx(1, abs=5 * choice.slope_error)
    assert choice.runner_up < 0.5


def test_turns_are_those_of_the_documentation():
    image = np.arange(6).reshape(2, 3)
    assert orient_gain_2d(image, orientation="rot90").tolist() == [[2, 5], [1, 4], [0, 3]]
    assert orient_gain_2d(image, orientation="flip").tolist() == [[3, 4, 5], [0, 1, 2]]
    assert orient_gain_2d(image, orientation="flip rot180").tolist() == [[2, 1, 0], [5, 4, 3]]


def test_a_given_orientation_and_operation_are_obeyed_or_refused(camera):
    total = count(camera, 20)
    assert choose(total, camera.gain[::-1], operation="multiply", orientation="flip").orientation == "flip"
    with pytest.raises(ItemError, match="in any allowed orientation"):
        choose(total, camera.gain[::-1], orientation="as stored")
    with pytest.raises(ItemError, match=r"set to divide, but the movie follows it .* as one to multiply"):
        choose(total, camera.gain, operation="divide")


@pytest.mark.parametrize("what", ["corrected", "another camera"])
def test_a_gain_that_is_not_in_the_movie_is_refused(camera, what):
    other = make_camera(SHAPE, gain=True, n_dead_pixels=0, n_hot_pixels=0, generator=np.random.default_rng(9))
    total = count(camera, 20) * camera.gain if what == "corrected" else count(other, 20)
    with pytest.raises(ItemError, match="corrected already, or the gain belongs to another camera"):
        choose(total, camera.gain)


def test_an_old_gain_is_noticed(camera):
    rng = np.random.default_rng(4)
    drifted = np.where(camera.gain > 0, camera.gain ** rng.choice([0.4, 0.9], SHAPE), 0)
    old = make_camera(SHAPE, gain=True, n_dead_pixels=0, n_hot_pixels=0, generator=np.random.default_rng(7)).gain
    choice = choose(count(camera, 40), drifted * old**0.7)
    assert choice.slope < 0.8
    assert "it may be old" in choice.note


def test_what_the_data_cannot_tell_is_said(camera):
    faint = choose(count(camera, 0.02), camera.gain, usual="divide")
    assert (faint.orientation, faint.operation, faint.slope) == ("as stored", "divide", None)
    assert "too few counts" in faint.note
    flat = choose(count(camera, 20), np.ones(SHAPE))
    assert "flat" in flat.note


def test_a_gain_that_fits_in_two_ways_is_refused_unless_they_are_the_same():
    rng = np.random.default_rng(5)
    half = np.exp(rng.normal(0, 0.05, (128, 128)))
    mirrored = np.concatenate([half, half[:, ::-1]], axis=1)  # the same when turned left to right
    total = rng.poisson(20 / mirrored)
    assert choose(total, mirrored).orientation == "as stored"
    both = np.exp(np.log(mirrored) + rng.normal(0, 0.03, mirrored.shape))
    with pytest.raises(ItemError, match=r"more than one way: .*; set the orientation"):
        choose(total, both)


def test_gains_of_finer_and_coarser_pixels_are_fitted(camera):
    fine = make_camera((384, 512), gain=True, n_dead_pixels=0, n_hot_pixels=0, generator=np.random.default_rng(3))
    total = count(fine, 20).reshape(192, 2, 256, 2).sum(axis=(1, 3))
    choice = choose(total, fine.gain[:, ::-1])  # a gain of 8K for 4K frames
    assert (choice.orientation, choice.operation) == ("flip rot180", "multiply")
    fitted = fit_gain_size_2d(fine.gain, shape=SHAPE, operation="multiply")
    np.testing.assert_allclose(1 / fitted, fine.response.reshape(192, 2, 256, 2).mean(axis=(1, 3)), rtol=1e-5)
    enlarged = count(camera, 20).repeat(2, axis=0).repeat(2, axis=1) / 4  # a gain of 4K for 8K frames
    assert choose(enlarged, camera.gain).orientation == "as stored"
    with pytest.raises(ItemError, match="gain is 192×256, movie is 200×256"):
        choose(np.ones((200, 256)), camera.gain)
    with pytest.raises(ItemError, match="with orientation 'rot90'"):
        choose(count(camera, 20), camera.gain, orientation="rot90")


def test_nothing_is_left_after_the_right_correction(camera):
    total = count(camera, 40)
    before, error = measure_gain_slope(total, camera.gain)
    after, _ = measure_gain_slope(total * camera.gain, camera.gain)
    assert before == pytest.approx(-1, abs=5 * error)
    assert after == pytest.approx(0, abs=5 * error)
