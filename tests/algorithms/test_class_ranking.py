"""How good classes are, and which of their members are not what they show."""

import numpy as np
import pytest
from numpy.typing import NDArray
from test_classify2d import BOX, SETTING, draw

from icestream.algorithms.classes.outliers import find_outliers, measure_match, spread_of_members
from icestream.algorithms.classes.ranking import GENEROUS, STRICT, Measures, measure_classes, rank_classes
from icestream.algorithms.classify2d.em import Assignment, prepare_particles_2d

SIZE, RADIUS = 48, 20.0
GRID = np.arange(SIZE) - SIZE // 2
Y, X = GRID[:, None], GRID[None, :]
DISTANCE = np.hypot(Y, X)


def particle(seed: int, *, scale: float = 1.0, shift_yx_px: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """Draw a lump of blobs, 24 px wide."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(24, 2)) * 4.0 * scale + np.array(shift_yx_px)
    image = sum(np.exp(-((Y - a) ** 2 + (X - b) ** 2) / 3.0) for a, b in places)
    return np.asarray(image, np.float32)


def masked(image: NDArray[np.float32], *, noise: float = 0.03) -> NDArray[np.float32]:
    rough = image + np.random.default_rng(int(image.sum() * 100) % 1000).normal(scale=noise, size=image.shape)
    return np.asarray(rough * (DISTANCE < RADIUS), np.float32)


GOOD = [particle(seed) for seed in range(6)]
EDGE = np.asarray(2.0 * (X > 4), np.float32)
ICE = np.asarray(6.0 * np.sqrt(np.maximum(1 - (np.hypot(Y - 6, X) / 14) ** 2, 0)), np.float32)
ASIDE = particle(7, shift_yx_px=(12.0, 6.0))
EMPTY = np.zeros((SIZE, SIZE), np.float32)


def measure(*images: NDArray[np.float32], counts: list[int] | None = None) -> Measures:
    stack = np.stack([masked(image) for image in images])
    given = np.array(counts or [100] * len(images))
    return measure_classes(stack, given, resolution_px=np.full(len(images), 5.0), mask_radius_px=RADIUS)


def rank(
    *images: NDArray[np.float32], residual: list[float] | None = None, fit: list[float] | None = None
) -> NDArray[np.float64]:
    n = len(images)
    return rank_classes(measure(*images), fit=np.array(fit or [0.5] * n), residual=np.array(residual or [1.0] * n))


def test_particles_rank_above_junk() -> None:
    scores = rank(*GOOD, EDGE, ICE, ASIDE, EMPTY, residual=[1.0] * 6 + [1.1, 1.4, 1.2, 1.0])
    assert scores[:6].min() > 0.9
    assert scores[6:].max() < STRICT


def test_looks_alone_tell_edges_and_ice() -> None:
    scores = rank(*GOOD, EDGE, ICE, ASIDE, EMPTY)
    assert scores[[6, 7, 9]].max() < GENEROUS
    assert scores[8] < scores[:6].min()
    assert np.isfinite(scores).all()


def test_what_members_have_beside_their_class_lowers_its_score() -> None:
    residual = [1.0] * 5 + [1.5]
    assert rank(*GOOD, residual=residual)[5] < rank(*GOOD)[5]
    assert rank(*GOOD, residual=residual, fit=[0.5] * 5 + [0.02])[5] < rank(*GOOD, residual=residual)[5]


def test_a_smaller_particle_alone_is_still_good() -> None:
    scores = rank(*GOOD, particle(8, scale=0.7))
    assert scores[6] > STRICT > GENEROUS


def test_a_class_without_particles_has_no_score() -> None:
    found = rank_classes(measure(*GOOD[:2], counts=[50, 0]), fit=np.ones(2), residual=np.ones(2))
    assert found[1] == 0
    nothing = rank_classes(measure(*GOOD[:2], counts=[0, 0]), fit=np.zeros(2), residual=np.zeros(2))
    assert nothing.tolist() == [0, 0]


def test_measures_are_those_of_the_image() -> None:
    found = measure(GOOD[0], EDGE, ASIDE)
    assert found.off_centre[0] < 0.2
    assert found.off_centre[2] > 0.4
    assert found.at_rim[1] > 0.3 > found.at_rim[0]
    assert found.population.tolist() == [1, 1, 1]
    assert found.longest[1] > found.longest[0]
    assert found.resolution_radii.tolist() == pytest.approx([0.25] * 3)


def test_measures_do_not_depend_on_the_grey_scale() -> None:
    stack = np.stack([masked(image) for image in GOOD])
    once, again = (
        measure_classes(stack * scale, np.ones(6), resolution_px=np.full(6, 5.0), mask_radius_px=RADIUS) for scale in (1.0, 50.0)
    )
    np.testing.assert_allclose(once.contrast, again.contrast, rtol=1e-3)
    np.testing.assert_allclose(once.detail, again.detail, rtol=1e-3)
    np.testing.assert_array_equal(once.area, again.area)


def match(images: NDArray[np.float32], shape: str, psi_deg: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return amplitude and residual of images that show one shape in one pose."""
    ctf = np.ones((len(images), SETTING.grid.n_rings, SETTING.grid.half), np.float32)
    half = np.zeros(len(images), np.int8)
    particles = prepare_particles_2d(images, ctf, setting=SETTING, half_set=half)
    noise = prepare_particles_2d(
        np.random.default_rng(9).normal(size=(200, BOX, BOX)).astype(np.float32),
        np.ones((200, *ctf.shape[1:]), np.float32), setting=SETTING, half_set=np.zeros(200, np.int8),
    ).power.mean(axis=0)  # fmt: skip
    n = len(images)
    found = Assignment(
        np.zeros(n, np.int32), np.full(n, psi_deg, np.float32), np.zeros((n, 2), np.float32), np.ones(n, np.float32),
        np.zeros(n, np.float32),
    )  # fmt: skip
    average = draw(shape)[None]
    return measure_match(particles, average, found, noise_power=noise.astype(np.float32), grid=SETTING.grid, n_rings=10)


@pytest.mark.parametrize("psi_deg", [0.0, 90.0, 213.0])
def test_noise_alone_is_left_of_a_particle_that_is_what_its_class_shows(psi_deg: float) -> None:
    rng = np.random.default_rng(2)
    clean = draw("hook", psi_deg)
    noisy = (clean + rng.normal(size=(40, BOX, BOX))).astype(np.float32)
    amplitude, residual = match(noisy, "hook", psi_deg)
    assert residual.mean() == pytest.approx(1.0, abs=0.08)
    assert amplitude.mean() == pytest.approx(1.0, abs=0.08)
    half, _ = match((0.5 * clean + rng.normal(size=(40, BOX, BOX))).astype(np.float32), "hook", psi_deg)
    assert half.mean() == pytest.approx(0.5, abs=0.08)


def test_a_neighbour_in_the_box_is_left() -> None:
    rng = np.random.default_rng(3)
    two = draw("hook") + draw("cross", shift_yx_px=(9.0, -8.0))
    _, alone = match((draw("hook") + rng.normal(size=(40, BOX, BOX))).astype(np.float32), "hook", 0.0)
    _, beside = match((two + rng.normal(size=(40, BOX, BOX))).astype(np.float32), "hook", 0.0)
    assert np.median(beside) > np.percentile(alone, 90)


def test_outliers_lie_beyond_the_spread_of_their_class() -> None:
    rng = np.random.default_rng(4)
    class_id = np.repeat([0, 1], 1000)
    values = np.concatenate([rng.normal(10, 1, 1000), rng.normal(50, 5, 1000)])
    values[:100] += 30  # junk does not widen the spread
    spread = spread_of_members(class_id, values, n_classes=3)
    assert spread[0] == pytest.approx([10.1, 1.0], abs=0.2)
    assert spread[1] == pytest.approx([50, 5], abs=0.6)
    assert np.isnan(spread[2]).all()
    members = {k: (float(spread[k, 0]), float(spread[k, 1])) for k in (0, 1)}
    high = find_outliers(class_id, values, members, limit=3.0, above=True)
    low = find_outliers(class_id, values, members, limit=3.0, above=False)
    assert high[:100].all()
    assert high[100:].mean() < 0.01
    assert low.mean() < 0.01
    assert not find_outliers(np.array([7]), np.array([1e9]), members, limit=1.0, above=True).any()
