"""Placing exposures on the stage, and learning which holes are good: exact cases, recovery of known truth, and laws."""

import numpy as np
import pytest

from icestream.algorithms.grid.choosing import choose_holes
from icestream.algorithms.grid.placing import fit_frame, fit_placement, fit_shift, group_positions
from icestream.algorithms.grid.quality import Holes, measure_distance, predict_quality
from icestream.microscope.grid import GridSettings, beam_shift_yx, make_grid

RNG = np.random.default_rng(5)


def test_turn_scale_mirror_and_offset_come_out_of_known_places():
    yx = RNG.uniform(0, 500, (12, 2))
    matrix, offset = np.array([[-0.5, 0.1], [0.12, 0.52]]), np.array([30.0, -200.0])
    stage = offset + yx @ matrix.T
    found = fit_placement(yx, stage)
    assert found is not None
    np.testing.assert_allclose(found.matrix, matrix, atol=1e-9)
    np.testing.assert_allclose(found.place(yx), stage, atol=1e-6)
    assert (found.n_points, found.rms_um) == (12, pytest.approx(0, abs=1e-6))


def test_a_point_that_is_wrong_does_not_move_the_rest():
    yx = RNG.uniform(0, 500, (20, 2))
    stage = yx * 0.4 + RNG.normal(0, 0.1, (20, 2))
    stage[3] += 80.0
    found = fit_placement(yx, stage)
    assert found is not None
    assert found.n_points == 19
    assert found.rms_um < 0.2
    np.testing.assert_allclose(found.matrix, 0.4 * np.eye(2), atol=1e-3)


@pytest.mark.parametrize("points", [np.array([[0.0, 0.0], [1.0, 1.0]]), np.outer(np.arange(9.0), [1.0, 2.0])])
def test_too_few_points_and_a_line_of_points_place_nothing(points: np.ndarray):
    assert fit_placement(points, points * 2.0, least=3) is None


def test_the_shift_of_the_simulated_microscope_is_found_whatever_its_sign_and_turn():
    grid = make_grid(GridSettings(rows=3, columns=3), seed=4, key=6)
    exposed = [grid.expose(index) for index in range(60)]
    shift = np.array([beam_shift_yx(one) for one in exposed])
    stage = np.array([(one.stage_y_um, one.stage_x_um) for one in exposed])
    hole = np.array([(one.y_um, one.x_um) for one in exposed])
    found = fit_shift(shift, stage, hole)
    assert found is not None
    assert found.rms_um < 1e-3
    np.testing.assert_allclose(stage + found.place(shift), hole, atol=1e-3)
    assert fit_shift(np.zeros_like(shift), stage, hole) is None


def test_positions_in_reach_of_each_other_are_one_group_and_order_does_not_matter():
    yx = np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 0.4], [50.2, 0.1], [0.0, 0.8]])
    groups = group_positions(yx, gap_um=0.5)
    assert groups.tolist() == [0, 1, 0, 1, 0]
    order = RNG.permutation(5)
    again = group_positions(yx[order], gap_um=0.5)
    assert (again[:, None] == again[None, :]).tolist() == (groups[order][:, None] == groups[order][None, :]).tolist()
    assert group_positions(np.zeros((0, 2)), gap_um=1.0).tolist() == []


@pytest.mark.parametrize("turn_deg", [-30.0, 0.0, 12.0])
def test_the_turn_of_squares_is_found(turn_deg: float):
    grid = make_grid(GridSettings(rows=2, columns=2, turn_deg=turn_deg), seed=1, key=6)
    angle_deg, half_um = fit_frame(grid.yx_um - grid.centres_yx_um[grid.square])
    assert angle_deg == pytest.approx(turn_deg, abs=1.01)
    assert half_um == pytest.approx(18.0, abs=0.5)


def lattice(n_squares: int, side: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions, squares and centres of squares in a row."""
    steps = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) * 4.0
    centres = np.column_stack([np.zeros(n_squares), 85.0 * np.arange(n_squares)])
    square = np.repeat(np.arange(n_squares), side * side)
    return np.tile(steps - steps.mean(0), (n_squares, 1)) + centres[square], square, centres


def holes(which: np.ndarray, yx: np.ndarray, square: np.ndarray, centres: np.ndarray) -> Holes:
    return Holes(yx[which], square[which], measure_distance(yx, square, centres)[which])


def test_a_square_that_was_seen_often_is_believed_more_than_one_seen_once():
    yx, square, centres = lattice(4)
    seen = np.concatenate([np.arange(20), 36 + np.arange(20), [72]])
    quality = np.concatenate([np.ones(20), np.zeros(20), [1.0]])
    wanted = np.array([30, 36 + 30, 72 + 30, 108 + 30])
    found = predict_quality(holes(seen, yx, square, centres), quality, holes(wanted, yx, square, centres), centres_yx_um=centres)
    good, bad, once, never = found.expected.tolist()
    assert good > 0.9
    assert bad < 0.1
    assert bad < once < good
    assert found.sd_square[3] > found.sd_square[2] > found.sd_square[0]
    assert found.n_seen.tolist() == [20, 20, 1, 0]
    assert 0.2 < never < 0.9


def test_without_anything_seen_all_holes_are_alike():
    yx, square, centres = lattice(2)
    none = holes(np.zeros(0, int), yx, square, centres)
    found = predict_quality(none, np.zeros(0), holes(np.arange(72), yx, square, centres), centres_yx_um=centres)
    assert set(found.expected.tolist()) == {0.5}
    assert set(found.n_seen.tolist()) == {0}


def test_a_covariate_tells_of_squares_whose_quality_was_not_seen_to_differ():
    """Quality is good only at medium ice; the ice changes from hole to hole along a square, the same way in all."""
    yx, square, centres = lattice(8)
    ice = (yx[:, 0] - yx[:, 0].min()) / np.ptp(yx[:, 0]) * 2 - 1
    good = (np.abs(ice) < 0.5).astype(float)
    rng = np.random.default_rng(3)
    seen = rng.permutation(len(yx))[:150]
    left = np.setdiff1d(np.arange(len(yx)), seen)
    parts = [holes(which, yx, square, centres) for which in (seen, left)]
    with_ice = predict_quality(parts[0], good[seen], parts[1], centres_yx_um=centres, covariate=ice[seen])
    assert np.corrcoef(with_ice.expected, good[left])[0, 1] > 0.7


def test_arguments_stay_and_the_order_of_what_was_seen_does_not_matter():
    grid = make_grid(GridSettings(rows=3, columns=3), seed=2, key=6)
    rng = np.random.default_rng(1)
    seen = rng.permutation(len(grid.square))[:80]
    left = np.setdiff1d(np.arange(len(grid.square)), seen)
    quality = (rng.random(80) < grid.good[seen]).astype(float)
    parts = [holes(which, grid.yx_um, grid.square, grid.centres_yx_um) for which in (seen, left)]
    kept = quality.copy(), parts[0].yx_um.copy()
    first = choose_holes(*(parts[0], quality, parts[1]), centres_yx_um=grid.centres_yx_um, explore=0.5, most=20)
    np.testing.assert_array_equal(quality, kept[0])
    np.testing.assert_array_equal(parts[0].yx_um, kept[1])
    again = rng.permutation(80)
    shuffled = holes(seen[again], grid.yx_um, grid.square, grid.centres_yx_um)
    second = choose_holes(shuffled, quality[again], parts[1], centres_yx_um=grid.centres_yx_um, explore=0.5, most=20)
    np.testing.assert_allclose(second.score, first.score, atol=1e-6)
    assert sorted(first.order.tolist()) == list(range(len(left)))


def test_a_list_does_not_spend_itself_on_one_unknown_square():
    yx, square, centres = lattice(6)
    seen = np.arange(10)
    parts = [holes(which, yx, square, centres) for which in (seen, np.arange(36, len(yx)))]
    found = choose_holes(parts[0], np.full(10, 0.4), parts[1], centres_yx_um=centres, explore=1.0, most=10)
    assert len(set(parts[1].square[found.order[:10]].tolist())) == 5
