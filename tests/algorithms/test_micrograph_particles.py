"""Telling particles from dirt among dark objects whose sizes are known."""

from collections.abc import Sequence

import numpy as np
import pytest

from icestream.algorithms.micrograph.features import measure_features_2d
from icestream.algorithms.micrograph.particles import find_alike_2d, find_candidates_2d
from icestream.algorithms.micrograph.triage import GOOD, judge_micrograph

SIDE_PX = 512
Y, X = np.indices((SIDE_PX, SIDE_PX))
PLACES = [(y, x) for y in range(40, 500, 72) for x in range(40, 500, 72)]  # 49


def _discs(radii_px: Sequence[float], places: Sequence[tuple[int, int]] = PLACES) -> np.ndarray:
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    for (y, x), radius in zip(places, radii_px, strict=False):
        mask |= np.hypot(Y - y, X - x) < radius
    return mask


def _alike(n: int, radius_px: float = 10.0) -> list[float]:
    return np.random.default_rng(1).normal(radius_px, 0.06 * radius_px, n).tolist()


def test_many_that_are_alike_are_particles_and_arguments_stay() -> None:
    mask = _discs(_alike(40))
    flat = -20.0 * mask
    kept = mask.copy(), flat.copy()
    assert np.array_equal(find_alike_2d(mask, flat, pixel_size_ang=8.0), mask)
    assert np.array_equal(find_alike_2d(mask, flat), mask)
    assert np.array_equal(mask, kept[0])
    assert np.array_equal(flat, kept[1])


@pytest.mark.parametrize(
    ("radii_px", "pixel_size_ang"),
    [
        ([], 5.0),
        (_alike(9), 5.0),
        (np.geomspace(5, 25, 40).tolist(), 5.0),
        (_alike(40), 25.0),
        (_alike(40, 16.0), None),
        ([8.0, 20.0] * 20, 5.0),
    ],
    ids=["nothing", "few", "of all sizes", "too large", "large for a field of unknown size", "two kinds"],
)
def test_others_are_not(radii_px: list[float], pixel_size_ang: float | None) -> None:
    mask = _discs(radii_px)
    assert not find_alike_2d(mask, -20.0 * mask, pixel_size_ang=pixel_size_ang).any()


def test_the_fewer_there_are_the_more_alike_they_must_be() -> None:
    spread = np.exp(np.random.default_rng(2).permutation(np.linspace(-0.19, 0.19, 48)))
    many, few = _discs((10 * spread).tolist()), _discs((10 * spread[:12]).tolist())
    assert find_alike_2d(many, -20.0 * many, pixel_size_ang=5.0).any()
    assert not find_alike_2d(few, -20.0 * few, pixel_size_ang=5.0).any()


@pytest.mark.parametrize(
    ("radii_px", "found"),
    [([10.0] * 6, True), ([8.0, 9.0, 10.0, 11.0, 12.0], True), ([10.0] * 3, False), (np.geomspace(4, 30, 9).tolist(), False)],
    ids=["few", "that differ a little", "too few", "of all sizes"],
)
def test_a_few_of_one_size_may_be_particles(radii_px: list[float], found: bool) -> None:
    mask = _discs(radii_px)
    assert np.array_equal(find_candidates_2d(mask, pixel_size_ang=8.0), mask & found)
    assert not find_candidates_2d(mask, pixel_size_ang=50.0).any()  # larger than 400 Å


def test_strands_of_one_length_are_no_particles() -> None:
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    for y, x in PLACES:
        mask[y - 3 : y + 3, x - 30 : x + 30] = True
    assert not find_alike_2d(mask, -20.0 * mask, pixel_size_ang=5.0).any()


def test_what_is_larger_or_darker_than_the_particles_stays_dirt() -> None:
    particles, ball, dark = _discs(_alike(40)), _discs([30.0], [(472, 400)]), _discs([10.0], [(472, 300)])
    found = find_alike_2d(particles | ball | dark, -20.0 * (particles | ball) - 50.0 * dark, pixel_size_ang=5.0)
    assert np.array_equal(found, particles)


def test_a_field_of_dark_particles_is_kept_and_one_of_balls_of_ice_is_not() -> None:
    beam, noise = 400.0, np.random.default_rng(3)
    ragged = np.random.default_rng(4).uniform(4, 22, 49).tolist()
    for radii_px, good in ((_alike(49, 12.0), True), (ragged, False)):
        image = noise.poisson(beam * (1 - 0.2 * _discs(radii_px))).astype(float)
        features, maps = measure_features_2d(image, pixel_size_ang=4.0, dose_e_per_ang2=25.0)
        assert (judge_micrograph(features).kind in GOOD) == good
        assert (features.particle_share > 0.05, features.dark_share > 0.05) == (good, not good)
        assert features.particle_share == maps.particles.mean()
