"""RELION's polynomials say the same as ours; the check against RELION itself is among the tests of services."""

import numpy as np
import pytest

from icestream.algorithms.motion.model import local_shift_px
from icestream.algorithms.motion.relion import conversion_error_px, convert_local_model, relion_shift_px


@pytest.mark.parametrize(("shape", "n_frames"), [((96, 128), 5), ((4092, 5760), 40), ((101, 64), 1000)])
def test_both_models_move_every_place_alike(shape, n_frames):
    coefficients = np.random.default_rng(1).normal(0, 3, (2, 18))
    words = convert_local_model(coefficients, shape=shape, n_frames=n_frames)
    y, x = np.array([0.0, 10.5, shape[0] - 1]), np.array([3.0, 40.25, shape[1] - 1])
    for frame in (0, 1, n_frames - 1):
        ours = local_shift_px(coefficients, frame=frame, y_px=y, x_px=x, shape=shape, n_frames=n_frames)
        np.testing.assert_allclose(relion_shift_px(words, z=frame, y_px=y, x_px=x, shape=shape), -ours, atol=1e-6)
    assert conversion_error_px(coefficients, words, shape=shape, n_frames=n_frames) < 1e-6


def test_the_error_of_other_coefficients_is_seen():
    coefficients = np.random.default_rng(1).normal(0, 3, (2, 18))
    words = convert_local_model(coefficients, shape=(96, 128), n_frames=5)
    words[0] += 0.5
    assert conversion_error_px(coefficients, words, shape=(96, 128), n_frames=5) == pytest.approx(2.0, abs=1e-6)
    with pytest.raises(ValueError, match="it must be"):
        conversion_error_px(coefficients[:1], words, shape=(96, 128), n_frames=5)
