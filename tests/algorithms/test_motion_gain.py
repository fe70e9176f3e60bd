"""Gain correction and defects."""

import numpy as np
import pytest

from icestream.algorithms.gain.correction import apply_gain_2d, find_defects_2d, prepare_gain_2d
from icestream.errors import ItemError


def test_multiply_and_divide_are_inverse():
    rng = np.random.default_rng(1)
    gain = rng.uniform(0.8, 1.2, (20, 30)).astype(np.float32)
    frame = rng.poisson(5, (20, 30)).astype(np.uint8)
    np.testing.assert_allclose(apply_gain_2d(frame, gain, operation="multiply"), frame * gain, rtol=1e-6)
    np.testing.assert_allclose(apply_gain_2d(frame, gain, operation="divide"), frame / gain, rtol=1e-6)


def test_defects_of_the_gain_take_values_of_neighbours():
    rng = np.random.default_rng(1)
    gain = np.ones((64, 64), dtype=np.float32)
    gain[10, :] = 0
    gain[20:23, 30:33] = 50
    gain[5, 5] = np.nan
    frame = rng.poisson(20, gain.shape).astype(np.int16)
    frame[20:23, 30:33] = 3000
    before = frame.copy()
    corrected = apply_gain_2d(frame, gain, operation="multiply")
    np.testing.assert_array_equal(frame, before)
    defect = (gain != 1) | np.isnan(gain)
    np.testing.assert_array_equal(corrected[~defect], frame[~defect])
    assert corrected[defect].max() < 50
    assert abs(corrected[10].mean() - 20) < 4
    assert 1.5 < corrected[10].std() < 8  # noise, not a flat line


def test_no_hole_is_left_in_a_large_dead_area():
    gain = np.ones((400, 400), dtype=np.float32)
    gain[80:320, 80:320] = 0
    corrected = apply_gain_2d(np.random.default_rng(4).poisson(20, gain.shape), gain, operation="multiply")
    assert corrected.min() > 0
    assert abs(corrected[180:220, 180:220].mean() - 20) < 1


def test_hot_and_dead_pixels_are_found_and_specimen_is_not():
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:200, :200]
    truth = 30 * (1 + 0.3 * np.sin(y / 15) * np.cos(x / 9)) - 15 * (np.hypot(y - 90, x - 60) < 8)
    total = rng.poisson(truth * 10).astype(np.float32)
    total[50, 60] = 9000
    total[0, 0] = 0
    total[120:122, 80] = 4000
    total[7, 7] = np.nan
    found = find_defects_2d(total, np.zeros(total.shape, dtype=bool))
    assert {(50, 60), (0, 0), (120, 80), (121, 80), (7, 7)} <= set(map(tuple, np.argwhere(found).tolist()))
    assert found.sum() <= 7


def test_a_detector_that_breaks_the_rule_keeps_its_pixels():
    noisy = np.random.default_rng(3).choice([0.0, 1000.0], (64, 64)).astype(np.float32)
    assert not find_defects_2d(noisy, np.zeros(noisy.shape, dtype=bool)).any()


def test_gain_of_another_size_is_refused():
    with pytest.raises(ItemError, match=r"gain is 512×512, movie is 1024×1024"):
        prepare_gain_2d(np.ones((512, 512)), operation="multiply", shape=(1024, 1024))
    with pytest.raises(ItemError, match="no pixel above zero"):
        prepare_gain_2d(np.zeros((8, 8)), operation="divide", shape=(8, 8))
    with pytest.raises(ItemError, match="62% of the pixels defect; allowed is 50%"):
        prepare_gain_2d(np.arange(64).reshape(8, 8) // 40 * 1.0, operation="multiply", shape=(8, 8))
