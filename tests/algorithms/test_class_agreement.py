"""What several classifications agree on."""

import numpy as np
import pytest

from icestream.algorithms.classes.agreement import agree_on_classes, rand_index


def test_the_same_classes_under_other_numbers_agree_wholly() -> None:
    first = np.repeat([0, 1, 2], [50, 30, 20])
    found = agree_on_classes(np.stack([first, (first + 1) % 3 + 7], axis=1), least_share=0.9, least_size=5)
    assert found.rand_index == 1.0
    assert found.classes.tolist() == [[0, 8], [1, 9], [2, 7]]
    assert (found.agreement == 1).all()
    assert found.set_of.tolist() == first.tolist()


def test_independent_classes_agree_by_chance_alone() -> None:
    rng = np.random.default_rng(0)
    found = agree_on_classes(rng.integers(0, 5, (5000, 2)), least_share=0.5, least_size=5)
    assert abs(found.rand_index) < 0.01
    assert (found.set_of == -1).all()
    assert found.agreement.mean() == pytest.approx(0.2, abs=0.02)


def test_particles_that_one_classification_lacks_are_in_no_set() -> None:
    classes = np.array([[0, 0]] * 10 + [[0, -1], [-1, 0]])
    found = agree_on_classes(classes, least_share=0.5, least_size=5)
    assert found.set_of.tolist() == [0] * 10 + [-1, -1]
    assert found.agreement[-2:].tolist() == [0, 0]


def test_a_class_that_another_run_split_is_stable_in_its_larger_part() -> None:
    first, second = np.zeros(100, int), np.repeat([0, 1], [80, 20])
    found = agree_on_classes(np.stack([first, second], axis=1), least_share=0.75, least_size=5)
    assert found.agreement[0] == pytest.approx((0.8 + 1.0) / 2)
    assert found.agreement[-1] == pytest.approx((0.2 + 1.0) / 2)
    assert (found.set_of == 0).sum() == 80


def test_three_runs_are_compared_by_pairs() -> None:
    same = np.repeat([0, 1], 50)
    other = np.tile([0, 1], 50)
    found = agree_on_classes(np.stack([same, same, other], axis=1), least_share=0.5, least_size=5)
    assert found.rand_index == pytest.approx((1 + 2 * rand_index(same, other)) / 3)


def test_one_classification_is_none_to_agree_with() -> None:
    with pytest.raises(ValueError, match="at least two"):
        agree_on_classes(np.zeros((3, 1), int), least_share=0.5, least_size=1)


def test_few_particles_have_no_index() -> None:
    assert rand_index(np.array([1]), np.array([2])) == 0.0
    assert rand_index(np.array([1, 1]), np.array([2, 2])) == 1.0
