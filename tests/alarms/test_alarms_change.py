"""Whether a series has changed: against identities, and by how often chance is taken for a change."""

import random
import statistics

import pytest

from icestream.alarms.change import compare_windows, find_change_point, fit_slope, scatter_of


def test_the_scatter_of_normal_values_is_their_standard_deviation():
    values = [random.Random(seed).gauss(5, 2) for seed in range(4000)]
    assert scatter_of(values) == pytest.approx(2, rel=0.06)
    assert scatter_of([*values, *[1e6] * 400]) == pytest.approx(2, rel=0.3)


def test_a_shift_is_measured_in_scatters_and_does_not_depend_on_unit_or_zero():
    values = [float(n % 7) for n in range(100)] + [float(n % 7) + 10 for n in range(20)]
    change = compare_windows(values, window=20, reference=100)
    scaled = compare_windows([3 - 2 * value for value in values], window=20, reference=100)
    assert change is not None
    assert scaled is not None
    assert (change.before, change.at) == (3.0, 100)
    assert change.shift == pytest.approx((change.after - 3) / scatter_of(values[:100]), rel=0.5)
    assert scaled.shift == pytest.approx(-change.shift)
    assert compare_windows(values[:60], window=20, reference=100) is None


@pytest.mark.parametrize("at", [15, 40, 60])
def test_a_change_point_is_found_in_noise(at):
    misses, found = [], 0
    for seed in range(100, 140):
        rng = random.Random(seed)
        values = [rng.gauss(0, 1) + (2.0 if n >= at else 0.0) for n in range(80)]
        change = find_change_point(values, least=10)
        assert change is not None
        found += change.chance < 0.001
        misses.append(abs(change.at - at))
    assert found >= 20  # of ranks, the test is weaker close to the ends
    assert statistics.median(misses) <= 1


def test_chance_is_told_as_often_as_it_says():
    chances = []
    for seed in range(400):
        rng = random.Random(seed)
        change = find_change_point([rng.lognormvariate(0, 1) for _ in range(60)], least=10)
        assert change is not None
        chances.append(change.chance)
    assert sum(chance <= 0.05 for chance in chances) <= 0.05 * len(chances)


def test_ties_and_constants():
    assert find_change_point([1.0] * 40, least=10).chance > 0.5
    assert find_change_point([1.0] * 19, least=10) is None
    step = find_change_point([1.0] * 20 + [2.0] * 20, least=10)
    assert (step.at, step.shift) == (20, float("inf"))


def test_a_slope():
    assert fit_slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert fit_slope([(1, 1), (1, 5)]) is None
    assert fit_slope([(1, 1)]) is None
