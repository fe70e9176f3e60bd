"""Two motions of one movie: what differs by a constant agrees; everything else is told in numbers."""

import numpy as np
import pytest

from icestream.algorithms.motion.consensus import (
    MotionTrack,
    compare_motions,
    correlate_tracks,
    frame_times,
    measure_range,
)
from icestream.algorithms.motion.model import N_TERMS

WHOLE = ((0.0, 1.0), (0.0, 1.0))
TRACK = np.stack([np.linspace(0, 9, 10) ** 0.5 * 4, np.linspace(0, -5, 10)], axis=1)


def _motion(track, local=None, *, first=0, group=1):
    track = np.asarray(track, dtype=float)
    return MotionTrack(track, local, frame_times(len(track), first_frame=first, group=group))


def test_a_constant_offset_is_no_disagreement():
    found = compare_motions(_motion(TRACK), _motion(TRACK + np.array([3.0, -7.0])), area_yx=WHOLE)
    assert found.rms_px == pytest.approx(0, abs=1e-12) and found.field_largest_px == pytest.approx(0, abs=1e-12)
    assert found.correlation == pytest.approx(1)
    assert found.n_compared == 10
    assert found.path_px[0] == pytest.approx(np.linalg.norm(np.diff(TRACK, axis=0), axis=1).sum())


def test_distances_are_those_that_were_put_in():
    wrong = TRACK.copy()
    wrong[4] += [3.0, 4.0]
    found = compare_motions(_motion(TRACK), _motion(wrong), area_yx=WHOLE)
    apart = np.full(10, -0.5)
    apart[4] = 4.5  # 5 px less the mean of 0.5
    assert found.rms_px == pytest.approx(np.sqrt(np.mean(apart**2)))
    assert (found.largest_px, found.largest_time) == (pytest.approx(4.5), 4.0)
    assert found.field_rms_px == pytest.approx(found.rms_px)


def test_the_order_of_the_two_does_not_matter():
    other = TRACK * [[1.1, 0.8]]
    one, two = (
        compare_motions(*pair, area_yx=WHOLE) for pair in ((_motion(TRACK), _motion(other)), (_motion(other), _motion(TRACK)))
    )
    assert (one.rms_px, one.correlation, one.range_px) == (two.rms_px, two.correlation, two.range_px)
    assert one.path_px == two.path_px[::-1]


def test_an_axis_that_rests_does_not_decide_the_correlation():
    rng = np.random.default_rng(1)
    along_y = np.stack([np.linspace(0, 20, 30), np.zeros(30)], axis=1)
    noisy = [along_y + rng.normal(0, 0.1, (30, 2)) for _ in range(2)]
    assert abs(np.corrcoef(noisy[0][:, 1], noisy[1][:, 1])[0, 1]) < 0.5  # what the smaller of the two axes would say
    assert correlate_tracks(*noisy) > 0.99


def test_correlation_of_opposite_still_and_moving_tracks():
    assert correlate_tracks(TRACK, -TRACK) == pytest.approx(-1)
    assert correlate_tracks(TRACK, np.zeros((10, 2))) == 0.0
    assert correlate_tracks(np.ones((10, 2)), np.zeros((10, 2))) is None
    assert measure_range(TRACK) == pytest.approx(13.0)


def test_the_local_part_counts_over_the_field_only_and_only_where_it_was_used():
    local = np.zeros((2, N_TERMS))
    local[1, 3] = 8.0  # along x: 8 u t
    rigid, bent = _motion(TRACK), _motion(TRACK, local)
    found = compare_motions(rigid, bent, area_yx=WHOLE)
    assert found.rms_px == pytest.approx(0, abs=1e-12)
    t, u = np.linspace(0, 1, 10), np.linspace(-0.5, 0.5, 5)
    assert found.field_rms_px == pytest.approx(8 * np.sqrt(np.mean(u**2)) * t.std())
    assert found.field_largest_px == pytest.approx(8 * 0.5 * 0.5)
    middle = compare_motions(rigid, bent, area_yx=((0.0, 1.0), (0.45, 0.55)))
    assert middle.field_largest_px == pytest.approx(8 * 0.05 * 0.5)


def test_other_groups_and_ranges_of_frames_compare():
    fine = np.stack([np.arange(40) * 0.5, np.arange(40) * -0.25], axis=1)
    coarse = fine.reshape(10, 4, 2).mean(axis=1)
    found = compare_motions(_motion(fine), _motion(coarse, group=4), area_yx=WHOLE)
    assert found.n_compared == 40
    assert found.rms_px < 0.3  # beyond the middle of the first and last group the coarse track stands
    within = compare_motions(_motion(fine[4:36], first=4), _motion(coarse, group=4), area_yx=WHOLE)
    assert within.n_compared == 32
    assert within.rms_px == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("first", [9, 10, 50])
def test_less_than_two_common_frames_are_no_comparison(first):
    assert compare_motions(_motion(TRACK), _motion(TRACK, first=first), area_yx=WHOLE) is None


def test_arguments_are_left_alone():
    one, two = TRACK.copy(), TRACK[::-1].copy()
    compare_motions(_motion(one), _motion(two), area_yx=WHOLE)
    np.testing.assert_array_equal(one, TRACK)
    np.testing.assert_array_equal(two, TRACK[::-1])
