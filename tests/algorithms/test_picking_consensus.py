"""Matching picks of several pickers, and learning how good the pickers are."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from icestream.algorithms.particles.consensus import match_picks, rank_scores, thin_out
from icestream.algorithms.particles.consensus_model import (
    ABSENT,
    UNKNOWN,
    best_threshold,
    expected_precision,
    general_model,
    learn_model,
    weigh_candidates,
)


def draw_pickers(seed: int, *, n: int = 150) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0, 2000, (n, 2))
    found = []
    for recall, n_false in ((0.9, 10), (0.7, 20), (0.8, 60)):
        seen = truth[rng.random(n) < recall]
        seen = seen + rng.normal(0, 4, seen.shape)
        found.append(np.concatenate([seen, rng.uniform(0, 2000, (n_false, 2))]))
    return found


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_matching_depends_on_no_order(order: tuple[int, ...]) -> None:
    found = draw_pickers(1)
    whole = match_picks(found, radius_px=20)
    rng = np.random.default_rng(2)
    shuffles = [rng.permutation(len(one)) for one in found]
    other = match_picks([found[picker][shuffles[picker]] for picker in order], radius_px=20)
    assert np.array_equal(other.yx_px, whole.yx_px)
    for column, picker in enumerate(order):
        pick = other.pick[:, column]
        assert np.array_equal(np.where(pick < 0, -1, shuffles[picker][pick]), whole.pick[:, picker])


def test_positions_on_a_grid_with_ties_depend_on_no_order() -> None:
    grid = np.stack(np.meshgrid(np.arange(0, 100, 10.0), np.arange(0, 100, 10.0)), axis=-1).reshape(-1, 2)
    pickers = [grid, grid + np.array([5, 0]), grid + np.array([0, 5])]
    results = [match_picks([pickers[one] for one in order], radius_px=8).yx_px for order in itertools.permutations(range(3))]
    assert all(np.array_equal(one, results[0]) for one in results)


def test_every_pick_is_at_one_place_and_no_picker_is_there_twice() -> None:
    found = draw_pickers(3)
    places = match_picks(found, radius_px=20)
    for picker, one in enumerate(found):
        pick = places.pick[:, picker]
        assert sorted(pick[pick >= 0]) == list(range(len(one)))
    row = int(np.argmax(places.votes))
    assert np.allclose(places.yx_px[row], np.mean([found[k][places.pick[row, k]] for k in range(3)], axis=0))


def test_two_particles_that_one_picker_sees_apart_stay_apart() -> None:
    places = match_picks([np.array([[0.0, 0.0], [0.0, 12.0]]), np.array([[0.0, 5.0]])], radius_px=10)
    assert places.votes.tolist() == [2, 1]
    assert places.yx_px.tolist() == [[0.0, 2.5], [0.0, 12.0]]
    assert places.jaccard == 0.5


@pytest.mark.parametrize("positions", [[], [np.zeros((0, 2))], [np.zeros((0, 2)), np.zeros((0, 2))]])
def test_nothing_matches_nothing(positions: list) -> None:
    places = match_picks(positions, radius_px=10)
    assert (len(places.yx_px), places.jaccard) == (0, 1.0)


def test_ranks_do_not_depend_on_the_scale_and_ties_share_theirs() -> None:
    assert rank_scores(np.array([3.0, 1.0, 2.0])).tolist() == pytest.approx([5 / 6, 1 / 6, 0.5])
    assert rank_scores(np.array([-999.0, -999.0])).tolist() == [0.5, 0.5]
    assert rank_scores(np.array([np.nan, 1.0])).tolist() == [0.25, 0.75]


def test_the_better_of_two_near_points_is_kept() -> None:
    yx = np.array([[0.0, 0.0], [0.0, 9.0], [0.0, 18.0]])
    assert thin_out(yx, np.array([1.0, 2.0, 1.0]), min_distance_px=10).tolist() == [False, True, False]
    assert thin_out(yx, np.array([2.0, 1.0, 2.0]), min_distance_px=10).tolist() == [True, False, True]
    assert thin_out(yx, np.ones(3), min_distance_px=9).all()


def draw_classes(seed: int, recall: np.ndarray, false_rate: np.ndarray, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """What pickers see of as many particles as false places, their scores in two classes; what none sees is left out."""
    rng = np.random.default_rng(seed)
    particle = np.arange(2 * n) < n
    seen = rng.random((2 * n, len(recall))) < np.where(particle[:, None], recall, false_rate)
    high = rng.random(seen.shape) < np.where(particle[:, None], 0.7, 0.3)
    classes = np.where(seen, high.astype(int), ABSENT)
    return classes[seen.any(axis=1)], particle[seen.any(axis=1)]


def test_recall_and_precision_are_learnt_without_being_told() -> None:
    recall = np.array([0.9, 0.8, 0.7, 0.85])
    classes, particle = draw_classes(4, recall, np.array([0.02, 0.05, 0.08, 0.03]))
    model = learn_model(classes, general_model(4, n_classes=2))
    assert model.recall == pytest.approx(recall, abs=0.02)
    assert model.particles == pytest.approx(4000, rel=0.03)
    probability = weigh_candidates(classes, model)
    seen = classes != ABSENT
    true = np.array([particle[seen[:, k]].mean() for k in range(4)])
    assert expected_precision(classes, probability) == pytest.approx(true, abs=0.02)
    assert (model.score_ratio[:, 1] / model.score_ratio[:, 0] > 2).all()


def test_a_particle_that_one_good_picker_saw_is_kept_and_what_a_bad_one_saw_is_not() -> None:
    classes, _ = draw_classes(5, np.array([0.9, 0.6, 0.6]), np.array([0.01, 0.02, 0.12]))
    model = learn_model(np.where(classes == ABSENT, ABSENT, 0), general_model(3, n_classes=1))
    alone = np.array([[0, ABSENT, ABSENT], [ABSENT, ABSENT, 0]])
    good, bad = weigh_candidates(alone, model)
    assert good > 0.8
    assert bad < 0.5


def test_equal_rows_may_be_given_once_and_pickers_in_any_order() -> None:
    classes, _ = draw_classes(6, np.array([0.9, 0.8, 0.7]), np.array([0.02, 0.05, 0.1]), n=500)
    rows, count = np.unique(classes, axis=0, return_counts=True)
    whole = learn_model(classes, general_model(3, n_classes=2))
    short = learn_model(rows, general_model(3, n_classes=2), count=count.astype(float))
    assert np.allclose(weigh_candidates(rows, whole), weigh_candidates(rows, short), atol=1e-4)
    turned = learn_model(classes[:, [2, 0, 1]], general_model(3, n_classes=2))
    assert np.allclose(turned.recall, whole.recall[[2, 0, 1]], atol=1e-6)


def test_a_missing_picker_says_nothing() -> None:
    classes, _ = draw_classes(7, np.array([0.9, 0.8, 0.7]), np.array([0.02, 0.05, 0.1]), n=1000)
    model = learn_model(classes, general_model(3, n_classes=2))
    missing = classes.copy()
    missing[:, 1] = UNKNOWN
    two = [0, 2]
    of_two = replace(model, recall=model.recall[two], false_rate=model.false_rate[two], score_ratio=model.score_ratio[two])
    assert np.allclose(weigh_candidates(missing, model), weigh_candidates(classes[:, two], of_two))
    half = np.concatenate([classes, missing[(missing >= 0).any(axis=1)]])
    assert learn_model(half, general_model(3, n_classes=2)).recall == pytest.approx(model.recall, abs=0.02)


def test_the_threshold_is_that_of_the_largest_expected_f1() -> None:
    nobody_misses = learn_model(draw_classes(8, np.full(4, 0.95), np.full(4, 0.01))[0], general_model(4, n_classes=2))
    assert best_threshold(np.array([0.01, 0.9, 0.6, 0.2, 0.99]), nobody_misses) == 0.6
    assert best_threshold(np.array([]), nobody_misses) == 0.5


def test_nothing_is_learnt_from_nothing() -> None:
    known = general_model(2, n_classes=2)
    assert learn_model(np.zeros((0, 2), dtype=int), known) is known
