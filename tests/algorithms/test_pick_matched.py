import numpy as np
import pytest
from picking_truth import draw_micrograph, f1_score
from scipy import ndimage

from icestream.algorithms.matched_picker.centring import centre_particles, clean_heights
from icestream.algorithms.matched_picker.decoys import NoisePeaks, judge_peaks
from icestream.algorithms.matched_picker.diameter import find_diameter_2d, pool_diameters
from icestream.algorithms.matched_picker.pick import pick_particles_2d
from icestream.algorithms.matched_picker.radial_template import blob_filter, learn_template, matched_filter, place_points
from icestream.algorithms.matched_picker.rings import Field, Rings
from icestream.algorithms.matched_picker.view import is_smeared, view_micrograph_2d
from icestream.algorithms.micrograph.contamination import mask_contamination_2d
from icestream.algorithms.particles.peaks import find_peaks_2d
from icestream.microscope.score import match_picks
from icestream.microscope.settings import Scene, SimulationSettings
from icestream.microscope.simulate import render_micrograph

SHAPE = (480, 560)


@pytest.mark.parametrize("kind", ["ring", "disc", "elongated"])
@pytest.mark.parametrize("n_particles", [8, 60])
def test_known_particles_are_found(kind: str, n_particles: int) -> None:
    image, truth = draw_micrograph(kind, n_particles=n_particles, shape=SHAPE, diameter_px=36, noise=2.0, seed=3)
    before = image.copy()
    found = pick_particles_2d(-image, diameter_px=(30, 42), min_distance_px=25)
    assert f1_score(found.yx_px, truth, radius_px=0.3 * 36) >= 0.9
    assert np.array_equal(image, before)
    assert (np.diff(found.height) <= 0).all()
    assert (np.diff(found.score) <= 0).all()
    assert (found.height >= found.threshold).all()
    assert ((found.score >= 0) & (found.score <= 1)).all()


def test_positions_are_exact_on_a_reduced_image() -> None:
    image, truth = draw_micrograph("disc", n_particles=20, shape=(700, 720), diameter_px=80, noise=1.0, seed=5)
    found = pick_particles_2d(-image, diameter_px=(80, 80), min_distance_px=56)
    distance = np.linalg.norm(found.yx_px[:, None] - truth[None], axis=2)
    nearest = distance.argmin(axis=1)
    offset = (found.yx_px - truth[nearest])[distance.min(axis=1) < 20]
    assert len(offset) >= 18
    assert np.abs(offset.mean(axis=0)).max() < 0.5  # no systematic shift
    assert np.sqrt((offset**2).mean()) < 2.0


def _simulate(side_px: int, n_particles: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A micrograph of particles without symmetry, 160 Å wide, at 3 Å; and their true centres of mass."""
    settings = SimulationSettings(
        n_movies=1, seed=seed, gain=False, height_px=side_px, width_px=side_px, pixel_size_ang=3.0, n_frames=2,
        dose_per_frame_e_per_ang2=20.0, drift_px=(0, 0), local_motion_px=0, phantom_diameter_ang=160.0, n_particles=n_particles,
    )  # fmt: skip
    image, truth = render_micrograph(settings, 0)
    return image, truth.positions_yx_px


def test_particles_that_are_not_round_are_centred() -> None:
    image, truth = _simulate(512, 40, seed=1)
    found = pick_particles_2d(-image, diameter_px=(45, 60), min_distance_px=36)
    score = match_picks(found.yx_px, truth, radius_px=27)
    assert score.f1 > 0.95
    assert 3.0 * score.distance_median_px < 6.0  # Å; 0.04 diameters


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_few_particles_on_a_small_micrograph_are_found(seed: int) -> None:
    image, truth = _simulate(256, 14, seed=seed)
    found = pick_particles_2d(-image, diameter_px=(45, 60), min_distance_px=36)
    assert match_picks(found.yx_px, truth, radius_px=16).f1 > 0.9


def test_a_diameter_that_is_wrong_by_40_percent_does_no_harm() -> None:
    image, truth = _simulate(512, 60, seed=2)
    for factor in (0.6, 1.0, 1.4):
        found = pick_particles_2d(-image, diameter_px=(factor * 53, factor * 53))
        assert match_picks(found.yx_px, truth, radius_px=16).f1 > 0.93
        assert found.diameter_px == pytest.approx(53.3, rel=0.12)


def test_the_diameter_is_found_without_a_hint() -> None:
    image, _ = _simulate(512, 60, seed=2)
    found = find_diameter_2d(-image, smallest_px=24, largest_px=100)
    assert found is not None
    assert found.diameter_px == pytest.approx(53.3, rel=0.12)
    assert found.gain > 100


def test_empty_micrographs_have_no_picks_and_no_diameter() -> None:
    for seed in range(4):
        image, _ = draw_micrograph("disc", n_particles=0, shape=SHAPE, diameter_px=36, noise=2.0, seed=seed)
        found = pick_particles_2d(-image, diameter_px=(30, 42))
        assert (len(found.score), found.nothing) == (0, "noise")
    assert find_diameter_2d(-image, smallest_px=20, largest_px=60) is None


def test_a_drifted_exposure_has_no_picks() -> None:
    image, _ = draw_micrograph("disc", n_particles=60, shape=SHAPE, diameter_px=36, noise=1.0, seed=3)
    drifted = ndimage.uniform_filter1d(image, 50, axis=1, mode="wrap")
    drifted += np.random.default_rng(3).normal(0, 5, SHAPE)  # the counts do not drift
    assert pick_particles_2d(-drifted, diameter_px=(30, 42)).nothing == "drift"
    assert not is_smeared(view_micrograph_2d(-image, diameter_px=36).clear, diameter_px=24)


def test_crystals_without_particles_have_no_picks() -> None:
    settings = SimulationSettings(
        n_movies=1, seed=3, gain=False, height_px=512, width_px=512, pixel_size_ang=3.0, n_frames=1, n_particles=0,
        dose_per_frame_e_per_ang2=40.0, drift_px=(0, 0), local_motion_px=0, scenes={0: Scene.CRYSTALLINE_ICE},
    )  # fmt: skip
    image, _ = render_micrograph(settings, 0)
    assert len(pick_particles_2d(-image, diameter_px=(45, 60)).score) == 0


def test_a_constant_image_has_no_picks() -> None:
    assert len(pick_particles_2d(np.full(SHAPE, 7.0, np.float32), diameter_px=(30, 42), min_distance_px=25).score) == 0


def test_wrong_contrast_finds_little() -> None:
    image, truth = draw_micrograph("disc", n_particles=60, shape=SHAPE, diameter_px=36, noise=2.0, seed=3)
    found = pick_particles_2d(image, diameter_px=(30, 42), min_distance_px=25)
    assert f1_score(found.yx_px, truth, radius_px=11) < 0.1


def test_grey_scale_does_not_matter() -> None:
    image, _ = draw_micrograph("ring", n_particles=40, shape=SHAPE, diameter_px=36, noise=1.5, seed=8)
    image = image.astype(np.float64)
    one = pick_particles_2d(-image, diameter_px=(30, 42), min_distance_px=25)
    other = pick_particles_2d(-(image * 4 - 1000), diameter_px=(30, 42), min_distance_px=25)
    assert np.allclose(one.yx_px, other.yx_px, atol=1e-3)
    assert np.allclose(one.score, other.score, atol=1e-5)


def test_nothing_is_picked_on_an_ice_crystal() -> None:
    image, truth = draw_micrograph("disc", n_particles=50, shape=SHAPE, diameter_px=36, noise=2.0, seed=4)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    crystal = np.hypot(y - 400, x - 440) < 90
    image[crystal] -= 150
    found = pick_particles_2d(-image, diameter_px=(30, 42), min_distance_px=25)
    rows, columns = np.round(found.yx_px).astype(int).T
    assert not crystal[rows.clip(0, SHAPE[0] - 1), columns.clip(0, SHAPE[1] - 1)].any()
    clear = truth[np.hypot(truth[:, 0] - 400, truth[:, 1] - 440) > 90 + 54]
    kept = found.yx_px[np.hypot(found.yx_px[:, 0] - 400, found.yx_px[:, 1] - 440) > 90 + 54]
    assert f1_score(kept, clear, radius_px=11) >= 0.85


def test_contamination_is_marked_and_particles_are_not() -> None:
    image, _ = draw_micrograph("disc", n_particles=50, shape=SHAPE, diameter_px=36, noise=2.0, seed=4)
    assert not mask_contamination_2d(image, diameter_px=36).any()
    image[300:, 400:] = np.random.default_rng(1).normal(1000, 80, size=image[300:, 400:].shape)  # rough, mean unchanged
    mask = mask_contamination_2d(image, diameter_px=36)
    assert mask[330:, 430:].mean() > 0.9
    assert not mask[:220].any()
    assert not mask[:, :300].any()


def test_peaks_are_apart_ordered_and_refined() -> None:
    y, x = np.mgrid[:60, :80]
    response = np.exp(-((y - 20.3) ** 2 + (x - 30.7) ** 2) / 18) + 0.6 * np.exp(-((y - 40) ** 2 + (x - 60) ** 2) / 18)
    yx, height = find_peaks_2d(response, min_distance_px=5)
    assert np.allclose(yx[:2], [[20.3, 30.7], [40.0, 60.0]], atol=0.1)
    assert (np.diff(height) <= 0).all()
    far, _ = find_peaks_2d(response, min_distance_px=50)
    assert len(far) == 1
    allowed = np.ones(response.shape, bool)
    allowed[15:25, 25:35] = False
    masked, _ = find_peaks_2d(response, min_distance_px=5, allowed=allowed)
    assert np.allclose(masked[0], [40, 60], atol=0.1)


def _field(image: np.ndarray) -> Field:
    return Field.of(image, np.ones(image.shape, bool))


def _draw_rounds(centres: np.ndarray, *, noise: float) -> np.ndarray:
    """Round particles with a bright rim and a dark halo, 20 px wide."""
    y, x = np.mgrid[:200, :240]
    image = np.zeros((200, 240))
    for row, column in centres:
        radius = np.hypot(y - row, x - column)
        image += np.exp(-0.5 * ((radius - 6) / 2) ** 2) - 0.4 * np.exp(-0.5 * ((radius - 12) / 2) ** 2)
    return image + noise * np.random.default_rng(1).normal(size=image.shape)


def _scatter(*, spacing_px: float, count: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    centres: list[np.ndarray] = []
    while len(centres) < count:
        centre = rng.uniform(20, (180, 220))
        if all(np.hypot(*(centre - other)) >= spacing_px for other in centres):
            centres.append(centre)
    return np.array(centres)


def test_a_template_is_learned_without_the_neighbours() -> None:
    centres = _scatter(spacing_px=13, count=90)
    template = learn_template(_field(_draw_rounds(centres, noise=0.3)), centres, diameter_px=24)
    radius = 0.5 * np.arange(len(template.profile))
    true = np.exp(-0.5 * ((radius - 6) / 2) ** 2) - 0.4 * np.exp(-0.5 * ((radius - 12) / 2) ** 2)
    inside = radius < 16
    assert np.corrcoef(template.profile[inside], true[inside])[0, 1] > 0.98
    assert template.edge_px == pytest.approx(9.3, abs=0.5)
    assert template.cost < -500


def test_the_matched_filter_has_unit_noise_and_peaks_at_particles() -> None:
    centres = _scatter(spacing_px=26, count=20)
    field = _field(_draw_rounds(centres, noise=0.5))
    template = learn_template(field, centres, diameter_px=24)
    transfer = matched_filter(field.rings, template)
    noise = _field(np.random.default_rng(2).normal(size=field.shape) * 0.5).filter(transfer)
    assert noise.std() == pytest.approx(1, abs=0.15)
    yx, height = find_peaks_2d(field.filter(transfer), min_distance_px=12, above=6.0)
    assert match_picks(yx, centres, radius_px=1.5).f1 == 1
    assert height.min() > 6


def test_noise_has_unit_response_to_blobs() -> None:
    field = _field(np.random.default_rng(0).normal(size=(256, 256)))
    assert field.filter(blob_filter(field, diameter_px=10.0)).std() == pytest.approx(1, abs=0.1)


def test_the_response_to_a_disc_is_largest_at_sigma_equal_to_its_radius() -> None:
    y, x = np.mgrid[-64:64, -64:64]
    disc = (np.hypot(y, x) <= 12).astype(float)
    white = _field(np.random.default_rng(0).normal(size=disc.shape))
    middle = []
    for diameter in 2**0.5 * np.array([12.0, 24.0, 48.0]):
        transfer = blob_filter(white, diameter_px=diameter)
        middle.append(_field(disc).filter(transfer)[64, 64])
    assert np.argmax(middle) == 1


def test_points_between_pixels_are_placed_where_they_are() -> None:
    shape = (32, 40)
    points = np.array([[10.25, 20.5]])
    image = np.fft.irfft2(place_points(shape, points), s=shape)
    assert image.sum() == pytest.approx(1, abs=1e-5)
    assert np.sum(image[:, :, None] * np.moveaxis(np.indices(shape), 0, -1), axis=(0, 1)) == pytest.approx(points[0], abs=1e-3)


def test_rings_keep_what_is_the_same_in_every_direction() -> None:
    rings = Rings.of((48, 60))
    assert rings.count.sum() == 48 * 60
    assert np.allclose(rings.mean(rings.spread(rings.frequency)), np.where(rings.count > 0, rings.frequency, 0))


def test_picks_are_centred_though_neighbours_are_near() -> None:
    centres = _scatter(spacing_px=14, count=80)
    field = _field(_draw_rounds(centres, noise=0.2))
    start = centres + np.random.default_rng(5).uniform(-3, 3, centres.shape)
    before = start.copy()
    centred = centre_particles(field, start, diameter_px=20)
    assert np.median(np.hypot(*(centred - centres).T)) < 0.35 * np.median(np.hypot(*(start - centres).T))
    assert np.array_equal(start, before)
    assert centre_particles(field, np.zeros((0, 2)), diameter_px=20).shape == (0, 2)


def test_side_lobes_of_a_particle_are_taken_from_the_heights_of_others() -> None:
    y, x = np.mgrid[:200, :240]
    image = np.cos(0.45 * np.hypot(y - 100, x - 120)) * np.exp(-np.hypot(y - 100, x - 120) / 12)
    field = _field(image + 0.02 * np.random.default_rng(1).normal(size=image.shape))
    middle = np.array([[100.0, 120.0]])
    template = learn_template(field, middle, diameter_px=60)
    transfer = matched_filter(field.rings, template)
    yx, height = find_peaks_2d(field.filter(transfer), min_distance_px=8, above=2.0)
    near = np.hypot(*(yx - middle[0]).T) < 30
    cleaned = clean_heights(field, transfer, template, yx, height, diameter_px=30)
    assert np.count_nonzero(near) > 1
    assert cleaned[0] == height[0]
    assert cleaned[near][1:].max() < 0.3 * height[near][1:].max()


def _gauss_peaks(count: int, seed: int) -> np.ndarray:
    heights = np.random.default_rng(seed).rayleigh(1.0, count)  # the tail that peaks of a Gaussian field have
    return np.sort(heights)[::-1]


def test_the_stated_share_of_false_peaks_is_true() -> None:
    noise = NoisePeaks(_gauss_peaks(2000, 0), expected=1000.0, inverted=np.zeros(0))
    for rate in (0.02, 0.2):
        false = total = stated = 0.0
        for seed in range(20):
            rng = np.random.default_rng(100 + seed)
            real = rng.normal(4.3, 0.8, 300)
            score = np.concatenate([real, _gauss_peaks(1000, 200 + seed)])
            is_false = np.arange(len(score)) >= 300
            order = np.argsort(-score)
            judged = judge_peaks(score[order], noise, false_discovery_rate=rate)
            accepted = score[order] >= judged.height
            false += np.count_nonzero(is_false[order] & accepted)
            total += np.count_nonzero(accepted)
            stated += float(np.sum(1 - judged.probability[accepted]))
        assert false / total == pytest.approx(rate, abs=0.012 if rate < 0.1 else 0.03)
        assert stated / total == pytest.approx(false / total, abs=0.03)


def test_noise_alone_is_accepted_in_hardly_any_micrograph() -> None:
    noise = NoisePeaks(_gauss_peaks(2000, 0), expected=300.0, inverted=np.zeros(0))
    accepted = [np.isfinite(judge_peaks(_gauss_peaks(300, seed), noise, false_discovery_rate=0.2).height) for seed in range(300)]
    assert np.count_nonzero(accepted) <= 6


def test_no_single_decoy_decides_but_many_do() -> None:
    score = np.sort(np.concatenate([np.random.default_rng(1).normal(8, 1, 60), _gauss_peaks(400, 1)]))[::-1]
    chance = _gauss_peaks(1000, 2)

    def accepted(inverted: np.ndarray) -> int:
        noise = NoisePeaks(chance, expected=400.0, inverted=inverted)
        return int(np.count_nonzero(score >= judge_peaks(score, noise, false_discovery_rate=0.05).height))

    assert accepted(np.zeros(0)) == accepted(np.array([20.0])) >= 59
    assert accepted(np.full(40, 20.0)) == 0


def test_decoys_with_a_wider_bulk_stretch_the_noise() -> None:
    noise = NoisePeaks(_gauss_peaks(1000, 0), expected=500.0, inverted=np.zeros(0))
    assert noise.stretched_by(1.5 * _gauss_peaks(1000, 1)).stretch == pytest.approx(1.5, rel=0.07)
    assert noise.stretched_by(0.5 * _gauss_peaks(1000, 1)).stretch == 1
    assert noise.stretched_by(np.array([30.0])).stretch == 1


def test_a_gap_between_particles_is_no_particle_though_it_is_no_noise() -> None:
    rng = np.random.default_rng(7)
    score = np.sort(np.concatenate([rng.normal(8, 0.8, 150), rng.normal(3.6, 0.3, 20)]))[::-1]
    noise = NoisePeaks(0.5 * _gauss_peaks(1000, 0), expected=300.0, inverted=np.zeros(0))
    judged = judge_peaks(score, noise, false_discovery_rate=0.05)
    assert 145 <= np.count_nonzero(score >= judged.height) <= 150


def test_the_diameter_that_most_micrographs_show_is_taken() -> None:
    pooled = pool_diameters(np.array([148.0, 152.0, 150.0, 300.0, 60.0]), np.array([100.0, 120.0, 90.0, 400.0, 10.0]))
    assert pooled.diameter == pytest.approx(150)
    assert pooled.n_alike == 3
    assert 0 < pooled.error < 3


def test_balls_of_ice_as_large_as_particles_spoil_nothing() -> None:
    settings = SimulationSettings(
        n_movies=24, n_frames=2, dose_per_frame_e_per_ang2=20.0, n_particles=70, particle_contrast=0.5, spacing_diameters=0.75,
        gain=False, drift_px=(0, 0), local_motion_px=0, junk={"carbon": 0.04, "dirt": 0.03, "aggregate": 0.02},
    )  # fmt: skip
    image, truth = render_micrograph(settings, 16)
    found = pick_particles_2d(-image, diameter_px=(90, 110))
    assert match_picks(found.yx_px, truth.positions_yx_px, radius_px=30).f1 > 0.9
