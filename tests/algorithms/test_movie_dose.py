"""The counts of a movie with a known beam."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.motion.movie_dose import measure_counts
from icestream.errors import ItemError


def test_mean_and_drift_are_those_of_the_beam() -> None:
    rng = np.random.default_rng(3)
    dose = np.linspace(1.1, 0.9, 21)
    frames = [rng.poisson(level, (128, 160)).astype(np.uint8) for level in dose]
    found = measure_counts(frames)
    assert found.counts_per_px == pytest.approx(1.0, abs=0.005)
    assert found.drift == pytest.approx(-0.2, abs=0.01)
    assert found.zero_fraction < 0.001


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_shadow_is_the_share_of_pixels_that_never_counted(dtype: type) -> None:
    frames: NDArray[Any] = np.zeros((4, 10, 20), dtype)
    frames[2, :, 5:] = 3
    before = frames.copy()
    found = measure_counts(iter(frames))
    assert found.zero_fraction == pytest.approx(0.25)
    assert found.counts_per_px == pytest.approx(3 * 0.75 / 4)
    np.testing.assert_array_equal(frames, before)


def test_constant_dark_and_single_frames_do_not_drift() -> None:
    assert measure_counts(np.ones((5, 4, 4))).drift == pytest.approx(0.0, abs=1e-12)
    dark = measure_counts(np.zeros((3, 4, 4)))
    assert (dark.counts_per_px, dark.zero_fraction, dark.drift) == (0.0, 1.0, 0.0)
    assert measure_counts(np.ones((1, 4, 4))).drift == 0.0


def test_pixels_that_are_no_number_are_left_out_if_they_are_few() -> None:
    frames = np.full((3, 20, 20), 4.0, np.float32)
    frames[1, :2] = np.nan
    frames[2, 0, 0] = np.inf
    frames[:, 5, 5] = 3.0
    assert measure_counts(frames).counts_per_px == pytest.approx(4.0, abs=0.01)
    frames[1, 2, 0] = np.nan
    with pytest.raises(ItemError, match=r"frame 1 holds values that are not finite .*: 10% of its pixels"):
        measure_counts(frames)


def test_empty_and_saturated_frames_are_counted() -> None:
    frames = np.random.default_rng(5).poisson(3.0, (6, 300, 520)).astype(np.uint16)
    assert (measure_counts(frames).n_empty, measure_counts(frames).n_saturated) == (0, 0)
    frames[1:3] = 0
    frames[4, :200] = 4095
    found = measure_counts(frames)
    assert (found.n_empty, found.n_saturated) == (2, 1)
    sparse = np.random.default_rng(6).random((4, 64, 64)) < 0.7  # counted electrons: most pixels have one, none has more
    assert measure_counts(sparse.astype(np.uint8)).n_saturated == 0


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([], "no frames"),
        ([np.ones((4, 4)), np.ones((4, 5))], r"frame 1 has shape \(4, 5\)"),
        ([np.full((4, 4), np.nan)], "frame 0 holds values that are not finite"),
    ],
)
def test_what_is_no_movie_is_refused(frames: list[np.ndarray], said: str) -> None:
    with pytest.raises(ItemError, match=said):
        measure_counts(frames)
