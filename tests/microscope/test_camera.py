import numpy as np
import pytest

from icestream.microscope.camera import count_electrons, make_camera


@pytest.mark.parametrize("mean", [0.02, 0.7, 5.0, 15.9, 40.0])
def test_counts_are_poisson(mean):
    counts = count_electrons(np.full((400, 500), mean, np.float32), generator=np.random.default_rng(3))
    assert counts.mean() == pytest.approx(mean, abs=5 * np.sqrt(mean / counts.size))
    assert counts.var() / mean == pytest.approx(1.0, abs=5 * np.sqrt((2 + 1 / mean) / counts.size))


def test_third_moment_is_that_of_poisson():
    counts = count_electrons(np.full((1000, 1000), 1.3, np.float32), generator=np.random.default_rng(4))
    assert ((counts - counts.mean()) ** 3).mean() == pytest.approx(1.3, rel=0.02)


def test_negative_means_give_nothing():
    assert count_electrons(np.array([-1.0, 0.0], np.float32), generator=np.random.default_rng(1)).tolist() == [0, 0]


def camera(gain=True):
    return make_camera((96, 128), gain=gain, n_dead_pixels=5, n_hot_pixels=4, generator=np.random.default_rng(8))


def test_gain_undoes_the_response_except_at_defects():
    made = camera()
    product = made.gain * made.response
    bad = np.zeros((96, 128), bool)
    for y, x in (*made.dead_yx, *made.hot_yx):
        bad[y, x] = True
    assert bad.sum() == 9
    assert product[~bad] == pytest.approx(1.0, abs=1e-5)
    assert [float(made.response[p]) for p in made.dead_yx] == [0.0] * 5
    assert all(product[p] > 10 for p in made.hot_yx)


def test_gain_has_column_and_row_structure():
    reference = np.log(np.where(camera().gain > 0, camera().gain, 1))
    single = reference.std() / np.sqrt(96)
    assert reference.mean(0).std() > 3 * single
    assert reference.mean(1).std() > 3 * reference.std() / np.sqrt(128)


def test_camera_without_gain_is_perfect():
    assert np.all(camera(gain=False).gain == 1)
    assert camera(gain=False).hot_yx == ()


def test_cut_keeps_only_defects_that_are_left():
    cut = camera().cut((40, 50))
    assert cut.gain.shape == (40, 50)
    assert all(cut.gain[p] == 0 for p in cut.dead_yx)
