"""Power spectra averaged over groups of frames."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.motion.frames import Detector
from icestream.algorithms.motion.movie_spectra import average_group_spectra, group_sizes
from icestream.algorithms.motion.sum import sum_movie
from icestream.algorithms.spectra.periodogram import periodogram
from icestream.algorithms.spectra.spectrum import power_spectra

SHAPE = (160, 192)
TILES = {"tile_px": 64, "fine_px": 160}


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(3).poisson(4.0, (7, *SHAPE)).astype(np.uint8)


def detector(*, factor: float = 1.0, defects: tuple[tuple[int, int], ...] = ()) -> Detector:
    mask = np.zeros(SHAPE, np.bool_)
    for place in defects:
        mask[place] = True
    return Detector(np.full(SHAPE, factor, np.float32), mask, np.argwhere(mask))


def still(n_frames: int) -> NDArray[np.float64]:
    return np.zeros((n_frames, 2))


def test_one_group_of_all_frames_that_do_not_move_has_the_spectra_of_their_sum(frames: NDArray[np.uint8]) -> None:
    found = average_group_spectra(iter(frames), detector(factor=0.5), global_yx_px=still(7), group=100, **TILES)
    summed = 0.5 * frames.sum(axis=0, dtype=np.float32)
    np.testing.assert_allclose(found.spectra, power_spectra(summed, tile_px=64, n_sets=2), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.fine_spectrum, periodogram(summed, tile_px=160), rtol=1e-5, atol=1e-5)
    assert (found.spectra.dtype, found.fine_spectrum.dtype) == (np.float32, np.float32)


def test_groups_of_one_frame_have_the_mean_of_the_spectra_of_frames_wherever_they_lie(frames: NDArray[np.uint8]) -> None:
    """A whole group is not moved: nothing is interpolated, however far it is from the others."""
    far = np.random.default_rng(1).uniform(-30, 30, (7, 2))
    found = average_group_spectra(iter(frames), detector(), global_yx_px=far, group=1, **TILES)
    each = [power_spectra(frame.astype(np.float32), tile_px=64, n_sets=2) for frame in frames]
    np.testing.assert_allclose(found.spectra, np.mean(each, axis=0), rtol=1e-5)
    fine = [periodogram(frame, tile_px=160) for frame in frames]
    np.testing.assert_allclose(found.fine_spectrum, np.mean(fine, axis=0), rtol=1e-5)


def test_a_movie_is_the_mean_of_its_groups_one_by_one_and_nothing_is_changed(frames: NDArray[np.uint8]) -> None:
    camera = detector(factor=1.5, defects=((5, 7), (90, 100)))
    track = np.random.default_rng(2).normal(0, 2, (7, 2))
    before = frames.copy(), track.copy(), camera.factor.copy()
    whole = average_group_spectra(frames, camera, global_yx_px=track, group=3, bin=1.6, tile_px=64, fine_px=96)
    bounds = np.cumsum([0, *group_sizes(7, group=3)])
    alone = [
        average_group_spectra(frames[a:b], camera, global_yx_px=track[a:b], group=100, bin=1.6, tile_px=64, fine_px=96)
        for a, b in pairwise(bounds.tolist())
    ]
    np.testing.assert_allclose(whole.spectra, np.mean([one.spectra for one in alone], axis=0), rtol=1e-5)
    np.testing.assert_allclose(whole.fine_spectrum, np.mean([one.fine_spectrum for one in alone], axis=0), rtol=1e-5)
    for now, then in zip((frames, track, camera.factor), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_frames_of_a_group_are_moved_as_motion_correction_moves_them(frames: NDArray[np.uint8]) -> None:
    """About the middle of the group instead of frame 0, which no power spectrum shows."""
    track = np.array([[0.0, 0.0], [3.0, -2.0], [6.0, -4.0]])
    found = average_group_spectra(frames[:3], detector(), global_yx_px=track, group=3, **TILES)
    moved = sum_movie(frames[:3], detector(), global_yx_px=track - [3.0, -2.0], local_coefficients=None, dose=None).plain
    np.testing.assert_allclose(found.spectra, power_spectra(moved, tile_px=64, n_sets=2), rtol=1e-5, atol=1e-5)


def test_white_noise_has_its_variance_whatever_the_group() -> None:
    noise = np.random.default_rng(5).standard_normal((6, *SHAPE)).astype(np.float32)
    for group, size in ((1, 1), (2, 2), (3, 3), (6, 6)):
        found = average_group_spectra(noise, detector(), global_yx_px=still(6), group=group, **TILES)
        assert found.spectra[:, 4:-4, 4:-4].mean() == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize(
    ("n_frames", "group", "sizes"),
    [(40, 4, [4] * 10), (7, 3, [3, 4]), (11, 4, [3, 4, 4]), (3, 10, [3]), (5, 1, [1] * 5), (1, 4, [1])],
)
def test_groups_differ_by_one_frame_at_most(n_frames: int, group: int, sizes: list[int]) -> None:
    found = group_sizes(n_frames, group=group)
    assert sorted(found) == sizes
    assert max(found) - min(found) <= 1


def test_what_does_not_fit_is_refused(frames: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        group_sizes(5, group=0)
    with pytest.raises(ValueError, match="more frames than the 6"):
        average_group_spectra(frames, detector(), global_yx_px=still(6), group=2, **TILES)
    with pytest.raises(ValueError, match="fewer frames than displacements"):
        average_group_spectra(frames, detector(), global_yx_px=still(8), group=2, **TILES)
