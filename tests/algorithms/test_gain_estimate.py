"""The gain learnt from movies is the true one, within the noise that it states."""

import numpy as np
import pytest

from icestream.algorithms.gain.estimate import (
    GainSums,
    add_movie_counts,
    block_means_2d,
    estimate_response_2d,
    invert_response_2d,
    measure_noise,
    measure_unevenness,
)
from icestream.microscope.camera import make_camera

SHAPE = (300, 260)


def learn(camera, n_movies, *, electrons=40, spoil=None):
    rng = np.random.default_rng(8)
    sums = GainSums.start(SHAPE)
    for number in range(n_movies):
        total = rng.poisson(electrons * camera.response).astype(np.float32)
        sums = add_movie_counts(sums, total if spoil is None else spoil(total, number))
    return sums


@pytest.fixture(scope="module")
def camera():
    return make_camera(SHAPE, gain=True, n_dead_pixels=15, n_hot_pixels=10, generator=np.random.default_rng(1))


def relative_error(sums, camera):
    found = invert_response_2d(estimate_response_2d(sums))
    usable = (camera.gain > 0) & (found > 0)
    return float(np.std(found[usable] / found[usable].mean() - camera.gain[usable] / camera.gain[usable].mean()))


def test_the_gain_converges_to_the_true_one_with_the_stated_noise(camera):
    few, many = learn(camera, 4), learn(camera, 36)
    errors = [relative_error(sums, camera) for sums in (few, many)]
    assert errors[1] == pytest.approx(errors[0] / 3, rel=0.1)
    assert errors[1] < 0.03
    for error, sums in zip(errors, (few, many), strict=True):
        assert measure_noise(sums) == pytest.approx(error, rel=0.15)


def test_defects_are_zero(camera):
    gain = invert_response_2d(estimate_response_2d(learn(camera, 20)))
    assert {tuple(place) for place in np.argwhere(gain == 0).tolist()} == {*camera.dead_yx, *camera.hot_yx}


def test_figures_are_those_of_the_camera_and_vanish_after_its_gain(camera):
    sums = learn(camera, 30)
    good = (camera.gain > 0) & (camera.response < 5)
    true = np.where(good, camera.response / camera.response[good].mean(), np.nan)
    raw = measure_unevenness(sums)
    assert raw.total == pytest.approx(np.nanstd(true), rel=0.05)
    assert raw.rows == pytest.approx(np.nanmean(true, axis=1).std(), rel=0.05)
    assert raw.columns == pytest.approx(np.nanmean(true, axis=0).std(), rel=0.05)
    left = measure_unevenness(sums, gain=camera.gain)
    assert left.total < 0.15 * raw.total
    assert left.rows < 0.15 * raw.rows
    assert left.columns < 0.15 * raw.columns
    wrong = measure_unevenness(sums, gain=np.ascontiguousarray(camera.gain[:, ::-1]))
    assert wrong.columns > raw.columns


def test_dark_corners_and_stray_counts_are_left_out(camera):
    def spoil(total, number):
        spoilt = total.copy()
        if number % 3 == 0:
            spoilt[:128, :128] *= 0.1  # a grid bar
        spoilt[200, 20 + number] += 3000  # an X-ray
        return spoilt

    clean, spoilt = learn(camera, 24), learn(camera, 24, spoil=spoil)
    assert relative_error(spoilt, camera) < 1.15 * relative_error(clean, camera)
    assert spoilt.n_outliers > 10


def test_sums_are_not_changed_in_place(camera):
    sums = learn(camera, 2)
    before = sums.counts.copy()
    add_movie_counts(sums, np.ones(SHAPE, dtype=np.float32))
    np.testing.assert_array_equal(sums.counts, before)
    with pytest.raises(ValueError, match="more than 0"):
        add_movie_counts(sums, np.zeros(SHAPE, dtype=np.float32))


def test_blocks_at_the_end_are_smaller():
    image = np.arange(300 * 130, dtype=float).reshape(300, 130)
    means = block_means_2d(image)
    assert means.shape == (3, 2)
    assert means[2, 1] == image[256:, 128:].mean()
