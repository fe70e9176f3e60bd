"""Picking with templates: what templates are made of, and what is found with them."""

import numpy as np
import pytest
from picking_truth import f1_score
from scipy import ndimage

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.particles.noise import draw_noise_2d, expected_above, lowest_score, probability_by_decoys
from icestream.algorithms.particles.pick_template import TemplatePicks, compress_templates, pick_with_templates_2d
from icestream.algorithms.particles.templates import (
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
    return prepared, compress_templates(prepared), pixel_ang


def pick(image, templates, **changes) -> TemplatePicks:
    stack, eigenimages, pixel_ang = templates
    options = {
        "pixel_size_ang": PIXEL_ANG, "template_pixel_ang": pixel_ang, "diameter_ang": DIAMETER_ANG,
        "min_distance_ang": 90.0, "transfer": transfer, "seed": 1,
    }  # fmt: skip
    return pick_with_templates_2d(image, stack, eigenimages, **{**options, **changes})


def test_particles_in_any_turn_are_found_where_they_are(templates) -> None:
    image, true = draw_micrograph(40, noise=0.3, seed=1)
    before = image.copy()
    found = pick(image, templates)
    assert f1_score(found.yx_px, true, radius_px=7) > 0.95
    distance = np.hypot(*(found.yx_px[:, None] - true[None]).transpose(2, 0, 1)).min(axis=1)
    assert np.median(distance) < 1.0
    assert (np.diff(found.score) <= 0).all()
    assert (np.diff(found.probability) <= 0).all()
    assert np.array_equal(image, before)
    assert np.array_equal(pick(image, templates).yx_px, found.yx_px)


def test_without_the_contrast_transfer_of_the_exposure_fewer_are_found(templates) -> None:
    image, true = draw_micrograph(40, noise=0.35, seed=2)
    blind = pick(image, templates, transfer=lambda h, w, _: np.full((h, w // 2 + 1), -1.0, dtype=np.float32))
    seeing = pick(image, templates)
    assert f1_score(seeing.yx_px, true, radius_px=7) > f1_score(blind.yx_px, true, radius_px=7) + 0.05


def test_noise_has_next_to_no_picks(templates) -> None:
    count = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        image = ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 0.7).astype(np.float32)
        count += len(pick(image, templates, seed=seed).score)
    assert count <= 1


def test_a_threshold_that_is_given_is_kept_to(templates) -> None:
    image, _ = draw_micrograph(40, noise=0.3, seed=3)
    assert (pick(image, templates, threshold=6.0).score >= 6.0).all()
    assert len(pick(image, templates, threshold=6.0).score) < len(pick(image, templates, threshold=4.0).score)


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


def test_drawn_noise_has_the_spectrum_of_the_micrograph() -> None:
    flat = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(200, 240)), 2.0).astype(np.float32)
    noise = draw_noise_2d(flat, seed=1)
    assert noise.shape == flat.shape
    assert noise.std() == pytest.approx(flat.std(), rel=0.1)
    steps = [np.abs(np.diff(image, axis=0)).mean() / image.std() for image in (flat, noise)]
    assert steps[1] == pytest.approx(steps[0], rel=0.1)


def test_probabilities_follow_the_share_of_decoys() -> None:
    rng = np.random.default_rng(3)
    decoy = rng.normal(3.0, 0.5, 4000)
    score = np.concatenate([rng.normal(3.0, 0.5, 4000), rng.normal(6.0, 0.8, 1000)])
    probability = probability_by_decoys(score, decoy)
    true = np.arange(len(score)) >= 4000
    assert (np.diff(probability[np.argsort(score)]) >= 0).all()
    for low, high in ((0.1, 0.9), (0.9, 1.0)):
        chosen = (probability >= low) & (probability <= high)
        assert probability[chosen].mean() == pytest.approx(true[chosen].mean(), abs=0.1)
    level = lowest_score(score, decoy, false_discovery_rate=0.05)
    assert 0.02 < np.mean(~true[score >= level]) < 0.08


def test_no_single_decoy_decides_and_noise_has_no_level() -> None:
    rng = np.random.default_rng(4)
    decoy = rng.normal(3.0, 0.5, 500)
    score = np.concatenate([rng.normal(3.0, 0.5, 500), np.full(40, 7.0)])
    assert lowest_score(score, np.r_[decoy, 9.0], false_discovery_rate=0.05) <= 7.0
    assert lowest_score(rng.normal(3.0, 0.5, 500), decoy, false_discovery_rate=0.05) == np.inf
    assert lowest_score(np.empty(0), decoy, false_discovery_rate=0.05) == np.inf
    assert (np.diff(expected_above(np.linspace(2, 8, 50), decoy)) <= 0).all()
