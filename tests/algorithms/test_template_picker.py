"""Picking with templates: what templates are made of, and what is found with them."""

import numpy as np
import pytest
from picking_truth import f1_score
from scipy import ndimage

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.template_picker.eigenimages import compress_templates
from icestream.algorithms.template_picker.imaging import N_GAINS, guess_imaging
from icestream.algorithms.template_picker.judge import Decoys, count_accepted, find_probability
from icestream.algorithms.template_picker.pick import TemplatePicks, pick_with_templates_2d
from icestream.algorithms.template_picker.search import Padded, Search, every_other_2d
from icestream.algorithms.template_picker.templates import (
    choose_different,
    prepare_templates_2d,
    project_views,
    rotate_templates_2d,
)

PIXEL_ANG, DIAMETER_ANG, SIDE = 5.0, 120.0, 320
OPTICS = {
    "defocus_u_ang": 20000.0, "defocus_v_ang": 19600.0, "astigmatism_angle_deg": 30.0,
    "voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07,
}  # fmt: skip


def transfer(height, width, pixel_ang):
    return ctf_2d(height, width, pixel_size_ang=pixel_ang, **OPTICS)


def draw_body(angle_rad, size=40):
    """A bright body that looks the same in no two turns."""
    y, x = np.indices((size, size)) - size // 2
    along, across = x * np.cos(angle_rad) + y * np.sin(angle_rad), y * np.cos(angle_rad) - x * np.sin(angle_rad)
    parts = ((7.0, 0.0, 3.0, 1.0), (-6.0, 3.0, 2.5, 1.3), (-4.0, -5.0, 2.0, 0.9))
    return sum(w * np.exp(-((along - a) ** 2 + (across - b) ** 2) / (2 * s * s)) for a, b, s, w in parts)


def draw_micrograph(n_particles, *, noise, seed):
    """Bodies in any turn, imaged by the microscope, with noise; ``(h, w)`` and ``(n, 2)``."""
    rng = np.random.default_rng(seed)
    bright = np.zeros((SIDE, SIDE))
    centres: list[np.ndarray] = []
    while len(centres) < n_particles:
        centre = rng.integers(25, SIDE - 25, 2)
        if all(np.hypot(*(centre - other)) > 22 for other in centres):
            box = tuple(slice(c - 20, c + 20) for c in centre)
            bright[box] += draw_body(rng.uniform(0, 2 * np.pi))
            centres.append(centre)
    imaged = np.fft.irfft2(np.fft.rfft2(bright) * transfer(SIDE, SIDE, PIXEL_ANG), s=bright.shape)
    return (imaged + noise * rng.normal(size=bright.shape)).astype(np.float32), np.array(centres, dtype=float).reshape(-1, 2)


@pytest.fixture(scope="module")
def templates():
    prepared, _, pixel_ang = prepare_templates_2d(
        draw_body(0.3)[None], pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG, centre=False
    )
    return compress_templates(prepared), pixel_ang


def pick(image, templates, **changes) -> TemplatePicks:
    eigenimages, pixel_ang = templates
    options = {
        "pixel_size_ang": PIXEL_ANG, "template_pixel_ang": pixel_ang, "diameter_ang": DIAMETER_ANG,
        "min_distance_ang": 90.0, "transfer": transfer, "seed": 1,
    }  # fmt: skip
    return pick_with_templates_2d(image, eigenimages, **{**options, **changes})


def test_particles_in_any_turn_are_found_where_they_are(templates) -> None:
    image, true = draw_micrograph(40, noise=0.25, seed=1)
    before = image.copy()
    found = pick(image, templates)
    assert f1_score(found.yx_px, true, radius_px=7) > 0.95
    distance = np.hypot(*(found.yx_px[:, None] - true[None]).transpose(2, 0, 1)).min(axis=1)
    assert np.median(distance) < 1.0
    assert (np.diff(found.score) <= 0).all()
    assert (np.diff(found.probability) <= 0).all()
    assert np.array_equal(image, before)
    assert np.array_equal(pick(image, templates).yx_px, found.yx_px)


def test_without_the_contrast_transfer_of_the_exposure_particles_are_less_clear(templates) -> None:
    image, true = draw_micrograph(40, noise=0.35, seed=2)
    blind = pick(image, templates, transfer=lambda h, w, _: np.full((h, w // 2 + 1), -1.0, dtype=np.float32))
    seeing = pick(image, templates)
    assert f1_score(seeing.yx_px, true, radius_px=7) > 0.9
    assert np.median(seeing.score[:30]) > np.median(blind.score[:30]) + 0.1


def test_noise_has_next_to_no_picks(templates) -> None:
    count = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 0.7).astype(np.float32)
        count += len(pick(image, templates, seed=seed).score) + len(pick(image, templates, seed=seed, threshold=0.05).score)
    assert count <= 1


def test_a_least_probability_that_is_given_is_kept_to(templates) -> None:
    image, _ = draw_micrograph(40, noise=0.5, seed=3)
    sure, doubtful = pick(image, templates, threshold=0.9), pick(image, templates, threshold=0.2)
    assert (sure.probability >= 0.9).all()
    assert (doubtful.probability >= 0.2).all()
    assert len(sure.score) < len(doubtful.score)


def test_stated_rates_are_kept_to(templates) -> None:
    image, _ = draw_micrograph(40, noise=0.5, seed=3)
    few, many = pick(image, templates, false_discovery_rate=0.02), pick(image, templates, false_discovery_rate=0.2)
    assert few.false_share <= 0.02
    assert 0.02 < many.false_share <= 0.2


@pytest.mark.parametrize("blur", [0.0, 2.0])
def test_a_micrograph_that_was_filtered_is_picked_as_well(templates, blur) -> None:
    image, true = draw_micrograph(40, noise=0.25, seed=4)
    found = pick(ndimage.gaussian_filter(image, blur), templates)
    assert f1_score(found.yx_px, true, radius_px=7) > 0.9


def test_a_ball_of_ice_has_no_picks(templates) -> None:
    image, true = draw_micrograph(30, noise=0.3, seed=6)
    y, x = np.indices(image.shape)
    dirty = image - 3.0 * np.sqrt(np.clip(1 - ((y - 160) ** 2 + (x - 150) ** 2) / 20.0**2, 0, None)).astype(np.float32)
    found = pick(dirty, templates)
    assert not (np.hypot(found.yx_px[:, 0] - 160, found.yx_px[:, 1] - 150) < 16).any()
    outside = true[np.hypot(true[:, 0] - 160, true[:, 1] - 150) > 40]
    assert f1_score(found.yx_px, outside, radius_px=7) > 0.85


def test_the_gain_of_each_ring_is_learned(templates) -> None:
    eigenimages, _ = templates
    rng = np.random.default_rng(1)
    noise = Padded.of(0.1 * rng.normal(size=(200, 200)).astype(np.float32), pad=24)
    imaging = guess_imaging(noise.spectrum, noise.shape, transfer=transfer, pixel_size_ang=PIXEL_ANG, diameter_px=24.0)
    search = Search.of(eigenimages, imaging)
    matches = search.find(
        search.filter(noise, allowed=np.ones(noise.inner, bool)), min_distance_px=30, allowed=np.ones(noise.inner, bool)
    )
    model = search.draw(noise, matches[0], 40 * np.ones(len(matches[0].score)))
    wanted = np.linspace(1.0, -0.5, N_GAINS)
    imaged = (
        model
        * imaging.lens(noise.shape)
        * np.interp(
            np.hypot(np.fft.fftfreq(noise.shape[0])[:, None], np.fft.rfftfreq(noise.shape[1])),
            np.linspace(0, 0.5, N_GAINS),
            wanted,
        )
    )
    learnt = imaging.learn(noise.spectrum + imaged, model, noise.shape)
    again = learnt.learn(noise.spectrum + imaged, model, noise.shape)  # by now the noise is known without the particles
    assert np.allclose(again.gain[3:12], wanted[3:12], atol=0.12)
    assert np.median(again.noise / imaging.noise) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("shape", [(16, 20), (18, 22), (24, 30)])
def test_every_other_pixel_is_that_of_the_whole_image(shape) -> None:
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.allclose(every_other_2d(np.fft.rfft2(image).astype(np.complex64)), image[::2, ::2], atol=1e-5)


def test_few_eigenimages_make_up_all_turns() -> None:
    prepared, _, _ = prepare_templates_2d(
        np.stack([draw_body(0.0), draw_body(0.0)[::-1]]), pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG
    )
    turned = rotate_templates_2d(prepared, n_angles=36)
    small = compress_templates(prepared, lost=0.01)
    again = np.einsum("kp,kyx->pyx", small.weights, small.images).reshape(turned.shape)
    assert len(small.images) < 40
    assert ((again - turned) ** 2).sum() <= 0.0101 * (turned**2).sum()


def test_a_turned_copy_is_no_other_template_and_a_mirror_image_is() -> None:
    images = np.stack([draw_body(0.0), draw_body(1.0), draw_body(0.0)[::-1]])
    prepared, at, pixel_ang = prepare_templates_2d(images, pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG)
    assert at.tolist() == [0, 1, 2]
    assert pixel_ang == pytest.approx(PIXEL_ANG, rel=0.03)
    assert np.allclose((prepared**2).sum(axis=(1, 2)), 1.0, atol=1e-5)
    assert choose_different(prepared, most=3, alike=0.95).tolist() == [0, 2]
    assert choose_different(prepared, most=1, alike=1.0).tolist() == [0]


def test_empty_images_are_no_templates() -> None:
    images = np.stack([np.zeros((40, 40)), draw_body(0.0)])
    prepared, at, _ = prepare_templates_2d(images, pixel_size_ang=PIXEL_ANG, diameter_ang=DIAMETER_ANG)
    assert (len(prepared), at.tolist()) == (1, [1])
    with pytest.raises(ValueError, match="smaller than a particle of 300"):
        prepare_templates_2d(images, pixel_size_ang=PIXEL_ANG, diameter_ang=300.0)


def test_views_of_a_map_keep_its_mass_and_see_it_from_all_sides() -> None:
    z, y, x = np.indices((24, 24, 24)) - 12
    rod = (np.exp(-((z / 6.0) ** 2) - ((y / 1.5) ** 2) - ((x / 1.5) ** 2))).astype(np.float32)
    views = project_views(rod, pixel_size_ang=6.0, n_views=30)
    assert views.shape == (30, 24, 24)
    assert np.allclose(views.sum(axis=(1, 2)), rod.sum(), rtol=0.03)
    length = np.sqrt([(v * (y[0] ** 2 + x[0] ** 2)).sum() / v.sum() for v in views])
    assert length.min() < 0.45 * length.max()  # along the rod, and across


def draw_scores(rng, n_noise, n_particles):
    return np.sort(np.concatenate([rng.normal(3.0, 0.5, n_noise), rng.normal(6.0, 0.8, n_particles)]))[::-1]


def test_probabilities_follow_the_share_of_decoys() -> None:
    rng = np.random.default_rng(3)
    decoys = Decoys(np.sort(rng.normal(3.0, 0.5, 2000))[::-1], 2.0)
    noise, particles = rng.normal(3.0, 0.5, 4000), rng.normal(6.0, 0.8, 1000)
    score = np.concatenate([noise, particles])
    order = np.argsort(-score)
    true = (order >= 4000).astype(float)
    probability = find_probability(score[order], decoys)
    assert (np.diff(probability) <= 1e-12).all()
    for low, high in ((0.1, 0.9), (0.9, 1.0)):
        chosen = (probability >= low) & (probability <= high)
        assert probability[chosen].mean() == pytest.approx(true[chosen].mean(), abs=0.15)
    count = count_accepted(score[order], probability, decoys, false_discovery_rate=0.05)
    assert 0.02 < np.mean(true[:count] == 0) < 0.08
    best = count_accepted(score[order], probability, decoys, false_discovery_rate=None)
    f1 = 2 * np.cumsum(true) / (np.arange(1, 5001) + 1000)
    assert f1[best - 1] > f1.max() - 0.005


def test_no_single_decoy_decides_and_noise_has_no_picks() -> None:
    rng = np.random.default_rng(4)
    decoy = np.sort(rng.normal(3.0, 0.5, 500))[::-1]
    score = np.sort(np.concatenate([rng.normal(3.0, 0.5, 500), np.full(40, 7.0)]))[::-1]
    for decoys in (Decoys(decoy, 1.0), Decoys(np.r_[9.0, decoy], 1.0)):
        assert count_accepted(score, find_probability(score, decoys), decoys, false_discovery_rate=0.05) >= 40
    noise = draw_scores(rng, 500, 0)
    decoys = Decoys(decoy, 1.0)
    assert count_accepted(noise, find_probability(noise, decoys), decoys, false_discovery_rate=None) == 0
    assert count_accepted(np.empty(0), np.empty(0), decoys, false_discovery_rate=0.05) == 0
    assert (np.diff(decoys.above(np.linspace(2, 8, 50))) <= 0).all()


def test_decoys_are_stretched_as_far_as_inverted_matches_reach() -> None:
    decoy = np.linspace(5.0, 2.0, 400)
    stretched = Decoys(decoy, 1.0).stretched_by(1.2 * decoy, n_expected=400)
    assert stretched.score[0] == pytest.approx(6.0, rel=0.02)
    assert Decoys(decoy, 1.0).stretched_by(np.empty(0), n_expected=0).score[0] == 5.0
