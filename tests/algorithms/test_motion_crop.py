"""A part of the frames: its pixels, its defects, and its motion said in whole frames."""

import numpy as np
import pytest

from icestream.algorithms.motion.crop import Area, CroppedFrames, crop_detector, move_local_model
from icestream.algorithms.motion.frames import Detector
from icestream.algorithms.motion.model import N_TERMS, local_shift_px

SHAPE = (311, 402)
AREA = Area(top=37, left=101, height=203, width=250)


def test_a_local_model_says_the_same_at_every_pixel():
    rng = np.random.default_rng(1)
    coefficients = rng.normal(0, 3, (2, N_TERMS))
    before = coefficients.copy()
    moved = move_local_model(coefficients, area=AREA, shape=SHAPE)
    y, x = rng.uniform(0, AREA.height - 1, 50), rng.uniform(0, AREA.width - 1, 50)
    frame = np.arange(12)[:, None]
    part = local_shift_px(coefficients, frame=frame, y_px=y, x_px=x, shape=(AREA.height, AREA.width), n_frames=12)
    whole = local_shift_px(moved, frame=frame, y_px=y + AREA.top, x_px=x + AREA.left, shape=SHAPE, n_frames=12)
    np.testing.assert_allclose(whole, part, atol=1e-9)
    np.testing.assert_array_equal(coefficients, before)


def test_the_whole_frame_is_a_part_that_changes_nothing():
    coefficients = np.random.default_rng(2).normal(0, 3, (2, N_TERMS))
    np.testing.assert_allclose(move_local_model(coefficients, area=Area(0, 0, *SHAPE), shape=SHAPE), coefficients, atol=1e-12)


def test_coefficients_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"it must be \(2, 18\)"):
        move_local_model(np.zeros((2, 12)), area=AREA, shape=SHAPE)


def test_frames_and_defects_are_cut_alike():
    frames = np.random.default_rng(3).poisson(5, (3, *SHAPE)).astype(np.uint8)
    cut = CroppedFrames(list(frames), AREA)
    assert len(cut) == 3
    for _ in range(2):  # it can be read again
        np.testing.assert_array_equal(np.stack(list(cut)), frames[:, 37:240, 101:351])
    defects = np.zeros(SHAPE, bool)
    defects[[5, 40], [5, 110]] = True
    factor = np.random.default_rng(4).uniform(0.9, 1.1, SHAPE).astype(np.float32)
    part = crop_detector(Detector(factor, defects, np.argwhere(defects), n_declared=2), AREA)
    assert part.shape == (203, 250)
    assert part.positions.tolist() == [[3, 9]]
    np.testing.assert_array_equal(part.factor, factor[37:240, 101:351])
