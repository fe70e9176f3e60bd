"""What several classifications say together: by votes, by Scipion's rule, and against chance."""

from itertools import permutations
from math import comb, factorial

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.classes.consensus import align_groups, pairwise_information, vote_on_classes
from icestream.algorithms.classes.independence import (
    adjusted_mutual_information,
    chance_of_intersection,
    correct_for_many,
    count_together,
)
from icestream.algorithms.classes.intersections import (
    cut_merging,
    find_elbow,
    intersect_classes,
    merge_intersections,
    most_similar_class,
    size_percentiles,
)

TRUTH = np.repeat([0, 1], [1200, 800])


def _votes(*, errors: tuple[float, ...], splits: tuple[int, ...] | None = None, seed: int = 3) -> NDArray[np.int64]:
    """Return classifications of `TRUTH` with independent errors; run r splits the first group into ``splits[r]`` classes."""
    rng = np.random.default_rng(seed)
    columns = []
    for error, split in zip(errors, splits or (1,) * len(errors), strict=True):
        vote = np.where(rng.random(len(TRUTH)) < error, 1 - TRUTH, TRUTH)
        columns.append(np.where(vote == 0, rng.integers(0, split, len(TRUTH)), split + 2))
    return np.stack(columns, axis=1)


def _right(group: NDArray[np.int64]) -> float:
    return float(np.mean(group == TRUTH))


def test_a_vote_is_better_than_the_best_classification() -> None:
    classes = _votes(errors=(0.10, 0.12, 0.14))
    found = vote_on_classes(classes)
    assert found.n_groups == 2
    assert _right(found.group) > max(_right(np.where(column == 3, 1, 0)) for column in classes.T) + 0.04
    assert found.reliability == pytest.approx([0.90, 0.88, 0.86], abs=0.025)
    assert np.bincount(found.group).tolist() == sorted(np.bincount(found.group).tolist(), reverse=True)


def test_undecided_particles_are_the_uncertain_ones() -> None:
    found = vote_on_classes(_votes(errors=(0.15, 0.2, 0.2)), least_probability=0.9)
    wrong = found.group != TRUTH
    assert 0.02 < np.mean(~found.decided) < 0.5
    assert wrong[~found.decided].mean() > 3 * wrong[found.decided].mean()
    assert found.entropy[~found.decided].min() > found.entropy[found.decided].max()
    assert wrong.mean() == pytest.approx(1 - found.probability.mean(), abs=0.02)


def test_classifications_may_split_what_belongs_together_and_miss_particles() -> None:
    classes = _votes(errors=(0.1, 0.1, 0.1), splits=(1, 2, 3))
    rng = np.random.default_rng(0)
    classes[rng.random(classes.shape) < 0.3] = -1
    classes[:5] = -1
    found = vote_on_classes(classes)
    assert found.n_groups == 2
    assert [one.shape[1] for one in found.confusion] == [2, 3, 4]
    assert (found.group[:5] == -1).all()
    assert (found.entropy[:5] == 1).all()
    assert not found.decided[:5].any()
    assert np.mean(found.group[5:] == TRUTH[5:]) > 0.89


def test_a_classification_that_says_nothing_does_not_vote() -> None:
    noise = np.random.default_rng(1).integers(0, 3, len(TRUTH))
    classes = np.column_stack([_votes(errors=(0.1, 0.1, 0.1)), noise])
    found = vote_on_classes(classes)
    assert found.counted.tolist() == [True, True, True, False]
    assert np.isnan(found.reliability[3])
    assert abs(found.information[3, :3]).max() < 0.02
    assert (found.group == vote_on_classes(classes[:, :3]).group).all()


def test_independent_classifications_have_no_consensus() -> None:
    found = vote_on_classes(np.random.default_rng(0).integers(0, 3, (2000, 3)))
    assert found.n_groups == 0
    assert (found.group == -1).all()
    assert not found.decided.any()


def test_two_classifications_do_not_show_which_of_them_errs() -> None:
    classes = _votes(errors=(0.1, 0.1))
    found = vote_on_classes(classes, least_probability=0.8)
    agree = (classes[:, 0] == 0) == (classes[:, 1] == 0)
    assert found.decided[agree].all()
    assert not found.decided[~agree].any()
    assert found.reliability[0] == pytest.approx(found.reliability[1], abs=1e-6)


def test_three_groups_are_found_among_three_and_four_classes() -> None:
    rng = np.random.default_rng(5)
    truth = rng.choice(3, size=3000, p=[0.5, 0.3, 0.2])
    columns = [np.where(rng.random(3000) < 0.12, rng.integers(0, 3, 3000), truth) for _ in range(3)]
    columns[2] = np.where((columns[2] == 0) & (rng.random(3000) < 0.5), 3, columns[2])
    found = vote_on_classes(np.stack(columns, axis=1))
    assert found.n_groups == 3
    assert np.mean(found.group == truth) > 0.97
    assert (found.stability > 0.9).all()


def test_sure_votes_count_more() -> None:
    rng = np.random.default_rng(2)
    evidence = (1.2 * (1 - 2 * TRUTH))[:, None] + rng.normal(size=(len(TRUTH), 3))  # (n, runs)
    classes, sureness = (evidence < 0).astype(int), np.abs(evidence)
    plain, weighed = vote_on_classes(classes), vote_on_classes(classes, sureness=sureness)
    assert _right(weighed.group) > _right(plain.group) + 0.005


def test_a_consensus_is_reproducible_and_leaves_its_input_alone() -> None:
    classes = _votes(errors=(0.1, 0.1, 0.1), splits=(1, 1, 2))
    before = classes.copy()
    one, other = vote_on_classes(classes, seed=7), vote_on_classes(classes, seed=7)
    assert (classes == before).all()
    assert (one.probability == other.probability).all()
    renamed = vote_on_classes(10 - classes + 5, seed=7)  # other numbers, in the opposite order
    assert (renamed.group == one.group).all()


def test_a_consensus_is_of_two_at_least() -> None:
    with pytest.raises(ValueError, match="at least two"):
        vote_on_classes(np.zeros((3, 1), int))


def test_labels_are_aligned_by_the_particles_they_share() -> None:
    labels = np.array([7, 7, 7, 2, 2, -1, 4])
    reference = np.array([0, 0, 1, 1, 1, 0, -1])
    assert align_groups(reference, labels).tolist() == [0, 0, 0, 1, 1, -1, 2]


def test_mutual_information_is_adjusted_by_its_mean_over_all_permutations() -> None:
    first, second = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 1])

    def information(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
        joint = count_together(a, b) / len(a)
        outer = np.outer(joint.sum(axis=1), joint.sum(axis=0))
        return float((joint[joint > 0] * np.log(joint[joint > 0] / outer[joint > 0])).sum())

    expected = np.mean([information(first, second[list(order)]) for order in permutations(range(6))])
    shares = [np.bincount(one) / 6 for one in (first, second)]
    most = np.mean([-(share * np.log(share)).sum() for share in shares])
    adjusted = (information(first, second) - expected) / (most - expected)
    assert adjusted_mutual_information(count_together(first, second)) == pytest.approx(adjusted)
    assert adjusted_mutual_information(count_together(first, first + 5)) == pytest.approx(1.0)
    assert adjusted_mutual_information(count_together(np.zeros(4, int), np.zeros(4, int))) == 0.0


def test_information_is_of_the_particles_that_both_have() -> None:
    classes = np.column_stack([TRUTH, TRUTH])
    classes[:300, 1] = -1
    assert pairwise_information(classes) == pytest.approx(np.ones((2, 2)))


def test_the_chance_of_an_intersection_is_that_of_dealing_particles_out() -> None:
    two = sum(comb(6, k) * comb(14, 8 - k) for k in (5, 6)) / comb(20, 8)
    assert chance_of_intersection(5, [6, 8], n=20) == pytest.approx(two)
    deals = [(a, b) for a in _subsets(6, 3) for b in _subsets(6, 4)]
    fixed = {0, 1, 2}
    three = np.mean([len(fixed & a & b) >= 2 for a, b in deals])
    assert chance_of_intersection(2, [3, 3, 4], n=6) == pytest.approx(three)
    assert chance_of_intersection(0, [3, 3, 4], n=6) == 1.0
    assert chance_of_intersection(2, [4, 3, 3], n=6) == pytest.approx(three)
    with pytest.raises(ValueError, match="at most 6 particles"):
        chance_of_intersection(2, [7, 3], n=6)


def _subsets(n: int, size: int) -> list[set[int]]:
    found = {tuple(sorted(order[:size])) for order in permutations(range(n))}
    assert len(found) == factorial(n) // factorial(size) // factorial(n - size)
    return [set(one) for one in found]


def test_many_tests_are_corrected_one_by_one() -> None:
    assert correct_for_many(np.array([0.04, 0.01, 0.5])).tolist() == pytest.approx([0.08, 0.03, 0.5])
    assert correct_for_many(np.array([0.02, 0.02])).tolist() == pytest.approx([0.04, 0.04])
    assert len(correct_for_many(np.zeros(0))) == 0


def test_scipions_rule_on_a_case_worked_by_hand() -> None:
    classes = np.array([[0, 0]] * 6 + [[0, 1]] * 2 + [[1, 1]] * 4 + [[1, -1]])
    found = intersect_classes(classes)
    assert found.classes.tolist() == [[0, 0], [0, 1], [1, 1]]
    assert found.counts.tolist() == [6, 2, 4]
    assert found.of_particle[-1] == -1
    pairs, distance = merge_intersections(found, metric="euclidean")
    # Jaccard with classes of 8, 5, 6 and 6: (6/8, 0, 1, 0), (2/8, 0, 0, 2/6), (0, 4/5, 0, 4/6)
    assert pairs.tolist() == [[2, 1], [3, 0]]
    assert distance[0] == pytest.approx(np.sqrt(0.25**2 + 0.8**2 + (1 / 3) ** 2))
    # merged (2 + 4): (2/12, 4/7, 0, 1)
    assert distance[1] == pytest.approx(np.sqrt((0.75 - 1 / 6) ** 2 + (4 / 7) ** 2 + 2.0))
    members = cut_merging(pairs, 2)
    assert members.tolist() == [0, 1, 1]
    assert most_similar_class(found, members) == [(1, 0), (1, 1)]
    of_size, of_share = size_percentiles(found, members)
    # expected sizes 13 * (8/13, 5/13) x (1/2, 1/2): 4, 4, 2.5, 2.5; both groups have 6
    assert of_size.tolist() == [0.0, 0.0]
    assert of_share.tolist() == [0.0, 0.0]
    assert size_percentiles(found, np.arange(3))[0].tolist() == [0.0, 1.0, 0.5]


def test_scipions_rule_leaves_small_intersections_out() -> None:
    found = intersect_classes(np.array([[0, 0]] * 5 + [[0, 1]] + [[1, 1]] * 3), least_size=2)
    assert found.classes.tolist() == [[0, 0], [1, 1]]
    assert found.of_particle.tolist() == [0] * 5 + [-1] + [1] * 3


def test_four_elbows() -> None:
    distance = np.array([0.1, 0.12, 0.13, 0.15, 0.9, 1.0])
    assert find_elbow(distance, rule="profile_likelihood") == 2
    assert find_elbow(distance, rule="distance_line") == 3
    assert find_elbow(distance, rule="origin") == 3
    assert find_elbow(distance, rule="slope") == 1
    assert find_elbow(np.array([0.3]), rule="origin") == 2
    assert find_elbow(np.full(4, 0.3), rule="slope") == 2
