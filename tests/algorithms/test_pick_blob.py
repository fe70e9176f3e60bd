import numpy as np
import pytest
from picking_truth import draw_micrograph, f1_score

from icestream.algorithms.micrograph.contamination import mask_contamination_2d
from icestream.algorithms.particles.decoys import choose_threshold, compete
from icestream.algorithms.particles.matching import average_radially_2d, correlate_locally_2d
from icestream.algorithms.particles.peaks import climb_2d, find_peaks_2d
from icestream.algorithms.particles.pick_blob import blob_response_2d, pick_particles_2d, reject_outliers_2d
from icestream.microscope.score import match_picks
from icestream.microscope.settings import SimulationSettings
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
    assert (np.diff(found.score) <= 0).all()
    assert (found.score >= found.threshold).all()


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


def test_empty_micrographs_have_nearly_no_picks() -> None:
    counts = []
    for seed in range(6):
        image, _ = draw_micrograph("disc", n_particles=0, shape=SHAPE, diameter_px=36, noise=2.0, seed=seed)
        counts.append(len(pick_particles_2d(-image, diameter_px=(30, 42), min_distance_px=25).score))
    assert np.mean(counts) <= 2.5, counts  # 1.35 over 40 seeds, of about 180 peaks each


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


def test_points_climb_to_the_top_of_their_own_hill() -> None:
    y, x = np.mgrid[:60, :80]
    response = np.exp(-((y - 20.3) ** 2 + (x - 30.7) ** 2) / 60) + 2 * np.exp(-((y - 40) ** 2 + (x - 60) ** 2) / 60)
    start = np.array([[18.0, 33.0], [43.2, 57.0], [20.0, 12.0], [59.0, 79.0]])
    before = start.copy()
    top = climb_2d(response, start, reach_px=6)
    assert np.allclose(top[:2], [[20.3, 30.7], [40.0, 60.0]], atol=0.1)
    assert np.array_equal(top[2:], start[2:])  # their tops are too far away
    assert np.array_equal(start, before)
    assert climb_2d(response, np.zeros((0, 2)), reach_px=6).shape == (0, 2)


def test_the_response_to_a_disc_is_largest_at_sigma_equal_to_its_radius() -> None:
    y, x = np.mgrid[-64:64, -64:64]
    disc = (np.hypot(y, x) <= 12).astype(float)
    middle = [blob_response_2d(disc, diameters_px=(d,))[64, 64] for d in 2**0.5 * np.array([12.0, 24.0, 48.0])]
    assert np.argmax(middle) == 1


def test_noise_has_unit_response() -> None:
    noise = np.random.default_rng(0).normal(size=(256, 256))
    assert blob_response_2d(noise, diameters_px=(10.0,)).std() == pytest.approx(1, abs=0.1)


def test_a_template_correlates_fully_with_itself() -> None:
    offset = np.arange(-40, 41)
    radius = np.hypot(offset[:, None], offset[None, :])
    profile = np.exp(-0.5 * ((np.arange(16) - 8) / 2.0) ** 2)
    image = 5 + 3 * np.interp(radius, np.arange(16), profile)
    correlation = correlate_locally_2d(image, profile, radius_px=12)
    assert np.unravel_index(correlation.argmax(), correlation.shape) == (40, 40)
    assert correlation.max() == pytest.approx(1, abs=1e-6)
    assert np.abs(correlation).max() <= 1 + 1e-9
    learned = average_radially_2d(image, np.array([[40.0, 40.0]]), radius_px=12)
    assert np.allclose(learned, 5 + 3 * profile[:14], atol=0.25)


def test_threshold_keeps_the_false_fraction() -> None:
    rng = np.random.default_rng(2)
    decoy = rng.normal(0, 1, 300)
    score = np.concatenate([rng.normal(0, 1, 300), rng.normal(6, 1, 200)])
    level = choose_threshold(score, decoy, false_discovery_rate=0.05)
    assert np.mean(score[300:] >= level) > 0.95
    assert np.sum(score[:300] >= level) / np.sum(score >= level) < 0.1
    few = choose_threshold(np.append(rng.normal(0, 1, 300), [9.0, 8.0, 8.5]), decoy, false_discovery_rate=0.05)
    assert decoy.max() <= few <= 8.0
    assert choose_threshold(np.zeros(0), np.zeros(0), false_discovery_rate=0.05) == np.inf


def test_a_few_decoys_allow_for_a_few_particles_but_not_for_noise() -> None:
    decoy = np.array([0.09, 0.07, 0.05, 0.05, 0.04])
    particles = np.array([0.22, 0.21, 0.2, 0.2, 0.18, 0.17])
    level = choose_threshold(np.append(particles, [0.05, 0.04]), decoy, false_discovery_rate=0.05)
    assert 0.09 < level <= 0.17
    assert choose_threshold(particles[:4], decoy, false_discovery_rate=0.05) == np.inf  # noise does that once in sixteen
    assert choose_threshold(0.5 * particles, decoy, false_discovery_rate=0.05) == np.inf


def test_a_side_lobe_is_no_decoy() -> None:
    peaks, heights = np.array([[50.0, 50.0], [10.0, 10.0]]), np.array([5.0, 1.0])
    lobes, lobe_heights = np.array([[50.0, 58.0], [90.0, 90.0], [10.0, 12.0]]), np.array([3.0, 2.5, 2.0])
    assert compete(lobes, lobe_heights, peaks, heights, reach_px=10).tolist() == [False, True, True]
    assert compete(peaks, heights, lobes, lobe_heights, reach_px=10).tolist() == [True, False]


def test_a_gold_bead_among_particles_is_rejected() -> None:
    image, truth = draw_micrograph("disc", n_particles=40, shape=SHAPE, diameter_px=36, noise=1.0, seed=6)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    row, column = truth[7]
    image = image - 400 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 100)
    alike = reject_outliers_2d(-image, truth, radius_px=15)
    assert not alike[7]
    assert np.delete(alike, 7).mean() > 0.9
