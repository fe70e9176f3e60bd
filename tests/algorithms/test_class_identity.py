"""Who is who among classes, from version to version."""

import numpy as np
import pytest

from icestream.algorithms.classes.identity import (
    carry_counts,
    correlate_images_2d,
    count_shared,
    jaccard,
    match_classes,
    rename_classes,
)


def test_shared_particles_are_counted_and_strangers_are_not() -> None:
    old, new = np.array([0, 0, 1, -1, 2]), np.array([1, 1, 0, 0, -1])
    assert count_shared(old, new, n_old=3, n_new=2).tolist() == [[0, 2], [1, 0], [0, 0]]


def test_jaccard_of_the_same_is_one_and_of_nothing_zero() -> None:
    shared = np.array([[4, 0], [0, 0]])
    assert jaccard(shared).tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert jaccard(np.array([[2, 2]])).tolist() == [[0.5, 0.5]]


def shapes() -> np.ndarray:
    grid = np.arange(32) - 16
    y, x = grid[:, None], grid[None, :]
    spots = [[(0, 0, 3)], [(-6, 0, 2), (6, 3, 3)], [(5, -5, 2), (-5, -5, 2), (0, 7, 3)]]
    images = [sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * s * s)) for a, b, s in one) for one in spots]
    return np.stack(images).astype(np.float32)


def test_turned_and_moved_images_are_known_again() -> None:
    images = shapes()
    turned = np.roll(np.rot90(images, axes=(1, 2)), (2, -1), axis=(1, 2))
    frc = np.full((3, 10), 0.9)
    found = correlate_images_2d(images, turned, old_frc=frc, new_frc=frc)
    assert np.diag(found).min() > 0.97
    assert (found - np.eye(3)).max() < 0.95


def test_rings_without_agreement_do_not_count() -> None:
    images = shapes()
    noisy = images + np.random.default_rng(0).normal(scale=1.0, size=images.shape).astype(np.float32)
    few, all_rings = np.zeros((3, 15)), np.ones((3, 15))
    few[:, :3] = 1.0
    low = correlate_images_2d(images, noisy, old_frc=few, new_frc=few)
    high = correlate_images_2d(images, noisy, old_frc=all_rings, new_frc=all_rings)
    assert np.diag(low).mean() > np.diag(high).mean() + 0.1


def test_a_permutation_is_undone() -> None:
    rng = np.random.default_rng(1)
    order = rng.permutation(12)
    old = rng.integers(0, 12, 2000)
    new = np.argsort(order)[old]  # new class i is old class order[i]
    shared = count_shared(old, new, n_old=12, n_new=12)
    ids = tuple(range(30, 42))
    found = rename_classes(ids, shared, np.eye(12)[:, order], next_id=50)
    assert found.ids == ids
    assert order[found.order].tolist() == list(range(12))
    assert (found.changes, found.next_id) == ((), 50)


def test_half_of_the_weight_is_members_and_half_looks() -> None:
    nothing = np.zeros((2, 2), dtype=np.int64)
    assert match_classes(nothing, np.array([[0.0, 0.7], [0.55, 0.0]])).tolist() == [-1, 0]


def test_a_split_a_merger_and_a_death_are_told_with_where_particles_came_from_and_went() -> None:
    # old 0 lives on as 0 and gives half of itself to 3; old 1 stays; old 2 goes into 1; old 3 is scattered
    shared = np.array([[60, 0, 0, 40], [0, 80, 0, 0], [0, 30, 0, 0], [0, 4, 4, 3]])
    looks = np.zeros((4, 4))
    found = rename_classes((5, 6, 7, 8), shared, looks, next_id=9)
    assert found.ids[:2] == (5, 6)
    assert set(found.ids[2:]) == {9, 10}
    assert found.next_id == 11
    told = {(one.kind, one.class_id): one for one in found.changes}
    split = next(one for one in found.changes if one.kind == "split")
    assert (split.others[0], split.share) == (5, pytest.approx(40 / 43))
    merged = told["merged", 7]
    assert (merged.others, merged.share) == ((6,), 1.0)
    died = told["died", 8]
    assert (len(died.others), died.share) == (2, pytest.approx(4 / 11))


def test_ids_are_never_given_again() -> None:
    rng = np.random.default_rng(3)
    ids, next_id, given = tuple(range(6)), 6, set(range(6))
    for _ in range(30):
        shared = rng.multinomial(300, rng.dirichlet(np.full(36, 0.1))).reshape(6, 6)
        found = rename_classes(ids, shared, rng.uniform(0, 0.6, (6, 6)), next_id=next_id)
        fresh = set(found.ids) - set(ids)
        assert not fresh & given
        assert len(set(found.ids)) == 6
        assert sorted(found.order.tolist()) == list(range(6))
        assert found.next_id == next_id + len(fresh)
        given |= fresh
        ids, next_id = found.ids, found.next_id
    assert next_id > 10


def test_counts_of_particles_that_nobody_can_look_at_again_follow_their_class() -> None:
    ids = (5, 6, 7)
    shared = np.array([[0, 40, 0], [30, 2, 0], [0, 9, 1]])  # old 7 went into what old 5 is now; found class 2 is new
    looks = np.array([[0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.0, 0.2, 0.0]])
    renamed = rename_classes(ids, shared, looks, next_id=8)
    assert renamed.ids == (5, 6, 8)
    assert carry_counts([10, 20, 30], ids, renamed, shared, looks) == [40, 20, 0]
    unknown = shared.copy()
    unknown[2] = 0
    assert carry_counts([10, 20, 30], ids, renamed, unknown, looks) == [40, 20, 0]
