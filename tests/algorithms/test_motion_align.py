"""Motion that is known is found, and none is invented."""

import numpy as np
import pytest
from motion_truth import field_errors, make_movie, make_track

from icestream.algorithms.motion.align import align_movie, choose_grid, choose_group
from icestream.algorithms.motion.frames import bin_frames, group_frames, inspect_frames
from icestream.algorithms.motion.model import N_TERMS
from icestream.errors import ItemError


def _align(frames, **options):
    return align_movie(frames, inspect_frames(frames, None, operation="multiply"), max_shift_px=60.0, **options)


def _coefficients(seed, *, size):
    rng = np.random.default_rng(seed)
    table = np.zeros((2, 6, 3))
    table[:, 1:, 0] = size * rng.normal(size=(2, 5))
    table[:, 1:, 1] = -0.4 * table[:, 1:, 0]
    return table.reshape(2, N_TERMS)


@pytest.mark.parametrize(("seed", "length"), [(1, 6.0), (2, 30.0)])
def test_global_track_of_a_rigid_movie(seed, length):
    track = make_track(seed, 12, length=length)
    estimate = _align(make_movie(seed, side=512, track=track))
    error = estimate.global_yx_px - track
    assert np.sqrt(np.mean(np.sum((error - error.mean(axis=0)) ** 2, axis=1))) < 0.15
    np.testing.assert_array_equal(estimate.global_yx_px[0], 0)


@pytest.mark.parametrize("seed", [3, 4])
def test_local_motion_is_found(seed):
    track, coefficients = make_track(seed, 12, length=8.0), _coefficients(seed, size=6.0)
    movie = make_movie(seed, side=512, track=track, coefficients=coefficients, dose=1.5)
    estimate = _align(movie)
    whole, alone = field_errors(estimate, track, coefficients, side=512)
    assert estimate.local_coefficients is not None
    assert whole < 0.3
    assert whole < 0.5 * alone
    assert estimate.local_rms_px is not None and estimate.local_rms_px < 2


def test_no_local_motion_is_invented():
    track = make_track(5, 10, length=5.0)
    estimate = _align(make_movie(5, side=512, track=track))
    whole, alone = field_errors(estimate, track, np.zeros((2, N_TERMS)), side=512)
    assert whole < alone + 0.03
    assert estimate.local_coefficients is not None or "global only" in estimate.note


def test_still_movie_of_pure_noise_stays_near_zero_and_says_so():
    frames = np.random.default_rng(6).poisson(1.0, (8, 256, 256)).astype(np.uint8)
    estimate = _align(frames)
    assert estimate.local_coefficients is None
    assert "global only" in estimate.note


def test_identical_frames_do_not_move():
    frame = make_movie(7, side=256, track=np.zeros((1, 2)), dose=20.0)[0]
    estimate = _align([frame] * 5)
    np.testing.assert_allclose(estimate.global_yx_px, 0, atol=1e-4)


def test_whole_pixel_shifts_of_one_image():
    frame = make_movie(8, side=256, track=np.zeros((1, 2)), dose=30.0)[0]
    shifts = np.array([[0, 0], [3, -2], [7, 4], [-5, 9]])
    estimate = _align([np.roll(frame, tuple(shift), axis=(0, 1)) for shift in shifts], local=False)
    np.testing.assert_allclose(estimate.global_yx_px, shifts, atol=0.05)
    assert estimate.local_coefficients is None


@pytest.mark.parametrize("n_frames", [1, 2, 3, 4])
def test_short_movies(n_frames):
    track = make_track(9, 6, length=4.0)[:n_frames]
    estimate = _align(make_movie(9, side=256, track=track, dose=5.0))
    np.testing.assert_allclose(estimate.global_yx_px, track, atol=0.3)
    if n_frames < 4:
        assert estimate.local_coefficients is None
        assert estimate.note


def test_groups_are_interpolated_to_frames():
    track = make_track(10, 30, length=10.0)
    movie = make_movie(10, side=256, track=track, dose=1.0)
    estimate = _align(movie, group=3, local=False)
    assert estimate.global_yx_px.shape == (30, 2)
    error = estimate.global_yx_px - track
    assert np.sqrt(np.mean((error - error.mean(axis=0)) ** 2)) < 0.3


def test_a_blank_frame_among_others_does_no_harm():
    track = make_track(11, 8, length=4.0)
    movie = make_movie(11, side=256, track=track, dose=4.0)
    movie[3] = 0
    estimate = _align(movie, local=False)
    kept = np.delete(np.arange(8), 3)
    np.testing.assert_allclose(estimate.global_yx_px[kept], track[kept], atol=0.3)


def test_transposed_movie_gives_transposed_motion_and_repeats_exactly():
    track = make_track(12, 6, length=5.0)
    movie = make_movie(12, side=256, track=track, dose=3.0)
    before = movie.copy()
    first, again, turned = _align(movie), _align(movie), _align(np.ascontiguousarray(movie.transpose(0, 2, 1)))
    np.testing.assert_array_equal(movie, before)
    np.testing.assert_array_equal(first.global_yx_px, again.global_yx_px)
    np.testing.assert_allclose(turned.global_yx_px, first.global_yx_px[:, ::-1], atol=0.05)


def test_group_and_grid_follow_dose_and_size():
    assert choose_group(40, electrons_per_px=1.0) == 1
    assert choose_group(1000, electrons_per_px=None) == 10
    assert choose_group(1000, electrons_per_px=0.02) == 25
    assert choose_group(10, electrons_per_px=0.01) == 1
    assert choose_grid((4096, 4096)) == (6, 6)
    assert choose_grid((512, 512)) == (3, 3)
    assert choose_grid((100, 4096))[0] == 1


def test_groups_hold_every_frame_once():
    frames = np.arange(11 * 12, dtype=np.uint8).reshape(11, 3, 4)
    groups = list(group_frames(frames, group=3))
    assert [(time, size) for time, size, _ in groups] == [(1.0, 3), (4.0, 3), (8.0, 5)]
    np.testing.assert_allclose(sum(total for *_, total in groups), frames.sum(axis=0, dtype=float))
    detector = inspect_frames(frames, None, operation="multiply")
    images, times = bin_frames(frames, detector, bin=1, group=11)
    np.testing.assert_allclose(images[0], frames.mean(axis=0), rtol=1e-6)
    assert times.tolist() == [5.0]


def _one_frame_at(value, dtype):
    frames = np.random.default_rng(1).poisson(3, (3, 8, 8)).astype(dtype)
    frames[1] = value
    return frames


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.zeros((3, 8, 8), dtype=np.uint8), "no beam: all 3 frames are zero"),
        (np.eye(64, dtype=np.uint8)[None] * 0 + (np.arange(4096).reshape(1, 64, 64) == 5), "no beam: .* counts per pixel"),
        (np.full((3, 8, 8), np.nan, dtype=np.float32), "holds no number"),
        (np.full((3, 8, 8), 255, dtype=np.uint8), "frame 0 is saturated"),
        (np.full((3, 8, 8), 7, dtype=np.uint8), "no contrast"),
        (_one_frame_at(4095, np.uint16), "frame 1 is saturated: .* its largest value, 4095"),
        (_one_frame_at(2.0**24, np.float32), "frame 1 is saturated"),
        ((np.arange(3 * 4096).reshape(3, 64, 64) % 97 == 5).astype(np.float32), "no beam: 9.* of the pixels counted nothing"),
        ([], "no frames"),
        ([np.ones((8, 8), dtype=np.uint8), np.ones((8, 9), dtype=np.uint8)], "frame 1 has shape"),
    ],
)
def test_movies_that_show_nothing_are_refused(frames, words):
    frames = frames.astype(np.uint8) if getattr(frames, "dtype", None) == np.int64 else frames
    with pytest.raises(ItemError, match=words):
        inspect_frames(frames, None, operation="multiply")
