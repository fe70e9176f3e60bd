"""A learnt gain is nearer to the true one after shrinking, and movies show all of it."""

import numpy as np
import pytest

from icestream.algorithms.gain.estimate import (
    GainSums,
    add_movie_counts,
    estimate_response_2d,
    invert_response_2d,
    measure_noise,
    measure_unevenness,
)
from icestream.algorithms.gain.orientation import measure_gain_slope
from icestream.algorithms.gain.shrink import measure_reliability, shrink_gain_2d
from icestream.microscope.camera import make_camera

SHAPE = (384, 420)
ELECTRONS = 60


@pytest.fixture(scope="module")
def camera():
    return make_camera(SHAPE, gain=True, n_dead_pixels=15, n_hot_pixels=10, generator=np.random.default_rng(1))


def learn(response, n_movies):
    rng = np.random.default_rng(8)
    sums = GainSums.start(SHAPE)
    for _ in range(n_movies):
        sums = add_movie_counts(sums, rng.poisson(ELECTRONS * response).astype(np.float32))
    return sums


def shrink(sums):
    gain = invert_response_2d(estimate_response_2d(sums))
    reliability = measure_reliability(measure_unevenness(sums), noise=measure_noise(sums))
    return gain, shrink_gain_2d(gain, reliability=reliability), reliability


@pytest.mark.parametrize("n_movies", [2, 6, 20])
def test_it_is_nearer_to_the_true_gain(camera, n_movies):
    gain, shrunk, reliability = shrink(learn(camera.response, n_movies))
    usable = (camera.gain > 0) & (gain > 0)
    true = camera.gain[usable] / camera.gain[usable].mean()
    before, after = (float(np.std(values[usable] / values[usable].mean() - true)) for values in (gain, shrunk))
    assert after < before * (0.7 if n_movies < 10 else 0.95)
    assert after == pytest.approx(before * np.sqrt(reliability), rel=0.1)  # the error of the best linear guess
    assert np.array_equal(shrunk == 0, gain == 0)


def test_a_movie_that_was_not_learnt_from_shows_all_of_it(camera):
    gain, shrunk, _ = shrink(learn(camera.response, 6))
    total = np.random.default_rng(99).poisson(4 * ELECTRONS * camera.response)
    assert -measure_gain_slope(total, gain)[0] < 0.7
    assert -measure_gain_slope(total, shrunk)[0] == pytest.approx(1, abs=0.1)


def test_nothing_is_left_where_the_camera_is_perfect():
    gain, shrunk, reliability = shrink(learn(np.ones(SHAPE), 4))
    assert reliability < 0.05
    assert shrunk.std() < 0.15 * gain.std()


def test_rows_columns_and_blocks_stay():
    rng = np.random.default_rng(3)
    pattern = 1 + 0.05 * rng.standard_normal((SHAPE[0], 1)) + 0.04 * rng.standard_normal((1, SHAPE[1]))
    pattern[:128, :128] += 0.1
    gain = pattern.astype(np.float32)
    gain[7, 9] = 0
    kept = shrink_gain_2d(gain, reliability=0.0)
    assert kept[7, 9] == 0
    assert np.std((kept - gain)[gain > 0]) < 0.25 * gain.std()
    assert np.array_equal(shrink_gain_2d(gain, reliability=1.0), gain)


def test_without_a_known_noise_nothing_is_changed(camera):
    sums = learn(camera.response, 1)
    assert measure_reliability(measure_unevenness(sums), noise=measure_noise(sums)) == 1.0
