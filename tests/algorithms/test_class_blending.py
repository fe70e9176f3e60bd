"""Sums that follow a stream without bias."""

from dataclasses import replace

import numpy as np
import pytest

from icestream.algorithms.classes.blending import add_sums, blend_sums, keep_supported, reorder_classes, scale_sums
from icestream.algorithms.classify2d.em import Model
from icestream.algorithms.classify2d.model import Averages, Sums


def sums(*weights: float, seed: int = 0) -> Sums:
    rng = np.random.default_rng(seed)
    k = len(weights)
    weight = np.array([weights, weights]) / 2
    signal = rng.normal(size=(2, k, 3, 4)) + 1j * rng.normal(size=(2, k, 3, 4))
    return Sums(signal.astype(np.complex64), rng.uniform(size=(2, k, 3, 4)).astype(np.float32), weight, np.ones(3) * sum(weights))


def averages(seed: int, k: int = 2) -> Averages:
    rng = np.random.default_rng(seed)
    images, halves = rng.normal(size=(k, 8, 8)).astype(np.float32), rng.normal(size=(2, k, 8, 8)).astype(np.float32)
    return Averages(images, halves, rng.uniform(size=(k, 3)), np.ones(3, dtype=np.float32))


def test_if_all_were_looked_at_again_nothing_old_is_left() -> None:
    old, again = sums(30, 10, seed=1), sums(25, 15, seed=2)
    found = blend_sums(old, again, n_before=[30, 10], n_replayed=[30, 10], forgetting=0.8)
    np.testing.assert_allclose(found.signal, again.signal, atol=1e-5)
    np.testing.assert_allclose(found.weight, again.weight)
    np.testing.assert_allclose(found.power, again.power)


def test_if_none_were_looked_at_again_nothing_changes() -> None:
    old, none = sums(30, 10, seed=1), scale_sums(sums(1, 1), np.zeros(2), of_power=0.0)
    found = blend_sums(old, none, n_before=[30, 10], n_replayed=[0, 0], forgetting=0.8)
    np.testing.assert_allclose(found.signal, old.signal)
    np.testing.assert_allclose(found.power, old.power)


@pytest.mark.parametrize("forgetting", [0.6, 0.8, 1.0])
def test_the_mass_of_all_particles_is_kept(forgetting: float) -> None:
    found = blend_sums(sums(300, 100), sums(30, 5), n_before=[300, 100], n_replayed=[30, 5], forgetting=forgetting)
    np.testing.assert_allclose(found.weight.sum(axis=0), [300, 100])


def test_each_class_gives_up_the_share_of_it_that_was_looked_at() -> None:
    found = blend_sums(sums(100, 100), sums(0, 40), n_before=[100, 100], n_replayed=[40, 0], forgetting=1.0)
    np.testing.assert_allclose(found.weight.sum(axis=0), [60, 140])  # forty went over


def test_less_memory_lets_what_is_new_count_for_more_but_at_most_twice() -> None:
    old, again = sums(1000, 1000, seed=1), sums(10, 10, seed=2)
    before, replayed = [1000, 1000], [10, 10]
    found = blend_sums(old, again, n_before=before, n_replayed=replayed, forgetting=0.6)
    np.testing.assert_allclose(found.signal, 0.98 * old.signal + 2 * again.signal, rtol=1e-4, atol=1e-4)


def test_sums_of_two_are_added() -> None:
    one, other = sums(3, 4, seed=1), sums(5, 6, seed=2)
    np.testing.assert_allclose(add_sums(one, other).weight.sum(axis=0), [8, 10])


def test_a_class_that_nobody_supports_keeps_its_average() -> None:
    old, new = averages(1), averages(2)
    found = keep_supported(old, new, [1.0, 50.0])
    np.testing.assert_array_equal(found.images[0], old.images[0])
    np.testing.assert_array_equal(found.halves[:, 0], old.halves[:, 0])
    np.testing.assert_array_equal(found.images[1], new.images[1])
    assert keep_supported(old, new, [2.0, 2.0]) is new


def test_reordering_moves_everything_of_a_class_and_back() -> None:
    model = Model(averages(1, 3), sums(1, 2, 3), 6)
    order = np.array([2, 0, 1])
    moved = reorder_classes(model, order)
    assert moved.sums.weight.sum(axis=0).tolist() == [3, 1, 2]
    np.testing.assert_array_equal(moved.averages.images[0], model.averages.images[2])
    back = reorder_classes(moved, np.argsort(order))
    np.testing.assert_array_equal(back.sums.signal, model.sums.signal)
    assert replace(moved, n_seen=1).n_seen == 1
