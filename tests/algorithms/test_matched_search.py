import numpy as np
import pytest
from picking_truth import draw_micrograph
from scipy import ndimage

from icestream.algorithms.fourier import crop_fourier_2d
from icestream.algorithms.matched_picker.extent import measure_diameter
from icestream.algorithms.matched_picker.pick import pick_particles_2d
from icestream.algorithms.matched_picker.radial_template import blob_filter, learn_template
from icestream.algorithms.matched_picker.rings import Field
from icestream.algorithms.matched_picker.search import (
    Search,
    choose_exemplars,
    find_size,
    is_more_than_noise,
    noise_peaks_above,
    search_inverted,
    search_scrambled,
    search_size,
    sizes_between,
)
from icestream.algorithms.matched_picker.view import fill_empty_rings_2d, fit_local_planes_2d, reduce_micrograph_2d
from icestream.algorithms.particles.peaks import find_peaks_2d


def _field(image: np.ndarray) -> Field:
    return Field.of(image.astype(np.float32), np.ones(image.shape, bool))


def _lattice(spacing_px: float, side_px: int) -> np.ndarray:
    steps = np.arange(spacing_px, side_px - spacing_px / 2, spacing_px)
    jitter = np.random.default_rng(3).uniform(-2, 2, (len(steps) ** 2, 2))
    return np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2) + jitter


def _draw(places: np.ndarray, side_px: int, *, radii_px: tuple[float, float], noise: float) -> np.ndarray:
    """Ellipses of either semi-axis, each turned at random."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:side_px, :side_px]
    image = noise * rng.normal(size=(side_px, side_px))
    for row, column in places:
        turn = rng.uniform(0, np.pi)
        along = (y - row) * np.cos(turn) + (x - column) * np.sin(turn)
        across = (x - column) * np.cos(turn) - (y - row) * np.sin(turn)
        distance = np.hypot(along / radii_px[0], across / radii_px[1])
        image += np.clip((1 - distance) * min(radii_px) + 0.5, 0, 1)
    return image - image.mean()


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_the_number_of_peaks_of_noise_is_that_of_gaussian_noise(noise: float) -> None:
    counted = np.zeros(3)
    expected = np.zeros(3)
    level = np.array([2.5, 3.0, 3.5])
    for seed in range(6):
        field = _field(noise * np.random.default_rng(seed).normal(size=(256, 320)))
        transfer = blob_filter(field, diameter_px=10.0)
        _, height = find_peaks_2d(field.filter(transfer), min_distance_px=0, above=2.0)
        counted += (height[:, None] >= level).sum(axis=0)
        expected += noise_peaks_above(field, transfer, field.power, level)
    assert expected == pytest.approx(counted, rel=0.15)


def test_a_template_is_learned_from_peaks_of_which_a_fifth_may_be_noise() -> None:
    height = np.linspace(9, 2, 100)
    expected = np.geomspace(1e-6, 80.0, 100)
    count = choose_exemplars(height, expected)
    assert expected[count - 1] <= 0.2 * count < expected[count] + 0.2
    assert choose_exemplars(height, np.full(100, 1e3)) == 10
    assert choose_exemplars(height, np.full(100, 1e3), fewest=30) == 30
    assert choose_exemplars(height[:4], np.full(4, 1e3)) == 4


def test_the_noise_is_what_all_particles_leave_over() -> None:
    places = _lattice(26, 300)
    image = _draw(places, 300, radii_px=(10, 10), noise=1.5)
    search = search_size(_field(image), diameter_px=20)
    assert search is not None
    assert len(search.yx_px) == pytest.approx(len(places), abs=3)
    field = _field(image)
    white = field.rings.frequency > 0.02
    assert np.median(search.template.noise[white]) == pytest.approx(image.size * 1.5**2, rel=0.1)
    assert (field.power[white] > 2 * search.template.noise[white]).any()


@pytest.mark.parametrize("noise", [0.1, 0.6])
def test_the_diameter_of_discs_is_measured(noise: float) -> None:
    places = _lattice(36, 360)
    field = _field(_draw(places, 360, radii_px=(12, 12), noise=noise))
    measured_px = measure_diameter(field, learn_template(field, places, diameter_px=26), places, largest_px=44)
    assert measured_px == pytest.approx(24, rel=0.12)


def test_the_diameter_of_long_particles_is_their_length() -> None:
    places = _lattice(44, 440)
    field = _field(_draw(places, 440, radii_px=(15, 7), noise=0.2))
    template = learn_template(field, places, diameter_px=30)
    measured_px = measure_diameter(field, template, places, largest_px=50)
    assert measured_px is not None
    assert measured_px == pytest.approx(30, rel=0.2)


def test_nothing_is_measured_where_there_is_no_particle() -> None:
    field = _field(np.random.default_rng(0).normal(size=(200, 200)))
    assert (
        measure_diameter(field, learn_template(field, np.zeros((0, 2)), diameter_px=20), np.zeros((0, 2)), largest_px=40) is None
    )


@pytest.mark.parametrize("given", [0.6, 1.0, 1.4])
def test_crowded_particles_are_taken_neither_for_pairs_nor_for_parts(given: float) -> None:
    places = _lattice(23, 320)
    field = _field(_draw(places, 320, radii_px=(10, 10), noise=1.0))
    within = (0.6 * given * 20, 1.75 * given * 20)
    found = find_size(field, tuple(sizes_between(*within)), within_px=within)
    assert found is not None
    assert found.diameter_px == pytest.approx(20, rel=0.15)
    assert len(found.yx_px) == pytest.approx(len(places), abs=8)


def test_sizes_go_from_the_smallest_to_the_largest() -> None:
    sizes = list(sizes_between(12.0, 35.0))
    assert (sizes[0], sizes[-1]) == (pytest.approx(12.0), pytest.approx(35.0))
    assert np.all(np.diff(np.log(sizes)) < np.log(1.4))


def test_decoys_explain_little_where_particles_are_and_as_much_as_noise_where_none_are() -> None:
    places = _lattice(30, 300)
    field = _field(_draw(places, 300, radii_px=(10, 10), noise=1.5))
    search = search_size(field, diameter_px=20)
    assert search is not None
    decoys = search_inverted(field, search), search_scrambled(field, search)
    assert is_more_than_noise(search, *decoys)
    assert not is_more_than_noise(search, Search(search.template, search.yx_px, 20.0, cost=search.cost), None)
    assert not is_more_than_noise(Search(search.template, search.yx_px, 20.0, cost=-150.0), None, None)
    noise = _field(np.random.default_rng(1).normal(size=(300, 300)))
    nothing = search_size(noise, diameter_px=20)
    assert nothing is not None
    assert not is_more_than_noise(nothing, search_inverted(noise, nothing), search_scrambled(noise, nothing))


def test_weak_particles_on_one_micrograph_are_found() -> None:
    image, truth = draw_micrograph("disc", n_particles=60, shape=(480, 560), diameter_px=36, noise=7.0, seed=3)
    found = pick_particles_2d(-image, diameter_px=(30, 42))
    distance = np.linalg.norm(found.yx_px[:, None] - truth[None], axis=2)
    assert np.count_nonzero(distance.min(axis=0) < 11) >= 50
    assert np.count_nonzero(distance.min(axis=1) >= 11) <= 8


def test_a_reduced_image_has_no_ripples_along_its_border() -> None:
    y, x = np.mgrid[:400, :600]
    ramp = (0.01 * x + 0.02 * y).astype(np.float32)
    before = ramp.copy()
    small = reduce_micrograph_2d(ramp, diameter_px=96)
    assert small.shape == (100, 150)
    ripples = np.abs(np.diff(crop_fourier_2d(ramp, new_shape=(100, 150))[:, 75])).max()
    assert np.abs(np.diff(small[:, 75])).max() < 0.15 * ripples
    assert small.mean() == pytest.approx(ramp.mean(), rel=1e-3)
    assert np.array_equal(ramp, before)


def test_dirt_at_the_border_leaves_no_ghost_at_the_opposite_one() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(0, 1, (480, 600)).astype(np.float32)
    clean = reduce_micrograph_2d(image, diameter_px=96)
    image[-60:, 200:300] -= 30
    ghost = np.abs(reduce_micrograph_2d(image, diameter_px=96) - clean)[5:15]
    assert ghost.max() < 0.03 * 30


def test_local_planes_follow_a_slope_up_to_the_border_and_beside_what_is_masked() -> None:
    y, x = np.mgrid[:90, :130]
    slope = (3 + 0.05 * x - 0.02 * y).astype(np.float32)
    allowed = np.hypot(y - 40, x - 60) > 12
    planes = fit_local_planes_2d(np.where(allowed, slope, 100).astype(np.float32), allowed, sigma_px=12, slopes=True)
    assert np.abs(planes - slope)[allowed].max() < 0.2
    means = fit_local_planes_2d(np.full(slope.shape, 5.0, np.float32), allowed, sigma_px=12, slopes=False)
    assert np.allclose(means[allowed], 5.0, atol=0.01)


def test_only_a_denoised_image_gets_noise_and_always_the_same() -> None:
    raw = np.random.default_rng(4).standard_normal((96, 120)).astype(np.float32)
    denoised = ndimage.gaussian_filter(raw, 3)
    assert fill_empty_rings_2d(raw, diameter_px=24) is raw
    filled = fill_empty_rings_2d(denoised, diameter_px=24)
    assert 0 < np.std(filled - denoised) < 0.5 * np.std(denoised)
    assert np.array_equal(filled, fill_empty_rings_2d(denoised, diameter_px=24))


@pytest.mark.parametrize("seed", [300, 302, 304])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_texture_as_coarse_as_particles_gives_no_picks(seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    texture = ndimage.gaussian_filter(rng.standard_normal((800, 800)), 8)[50:-50, 50:-50]
    image = texture / texture.std() + noise * rng.standard_normal(texture.shape)
    assert len(pick_particles_2d(image.astype(np.float32), diameter_px=(40, 60)).yx_px) == 0


def test_edges_give_no_picks() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:600, :600]
        image = rng.standard_normal((600, 600))
        for angle, offset in zip(rng.uniform(0, 2 * np.pi, 12), rng.uniform(0, 600, 12), strict=True):
            image += 2.0 * ((x - 300) * np.cos(angle) + (y - 300) * np.sin(angle) > offset - 300)
        assert len(pick_particles_2d(image.astype(np.float32), diameter_px=(40, 60)).yx_px) == 0
