"""Empty images and unusual profiles are told from particles, on images of known content."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from icestream.algorithms.particles.outliers import radial_profiles_2d, score_profiles
from icestream.algorithms.particles.screen import screen_particles_2d

BOX_PX, DIAMETER_PX = 64, 40.0


def _images(n: int, *, strength: float, seed: int) -> NDArray[np.float32]:
    """White noise, with a lumpy body of a strength in the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((BOX_PX, BOX_PX)) - BOX_PX // 2
    disc = np.hypot(y, x) < 0.5 * DIAMETER_PX
    lumps = np.stack([ndimage.gaussian_filter(rng.normal(size=(BOX_PX, BOX_PX)), 3.0) for _ in range(n)])
    body = disc * lumps / lumps.std()
    return np.asarray(rng.normal(size=(n, BOX_PX, BOX_PX)) + strength * body, np.float32)


def test_noise_has_ratios_of_one_and_particles_more() -> None:
    empty = screen_particles_2d(_images(300, strength=0.0, seed=1), diameter_px=DIAMETER_PX)
    full = screen_particles_2d(_images(300, strength=0.6, seed=2), diameter_px=DIAMETER_PX)
    assert np.median(empty.signal) == pytest.approx(1, abs=0.03)
    assert np.median(empty.variance) == pytest.approx(1, abs=0.02)
    assert np.median(full.variance) == pytest.approx(1.28, abs=0.06)
    assert (empty.signal < 1.2).mean() > 0.85
    assert (full.signal > 1.2).mean() > 0.99


def test_contrast_scale_and_chunks_do_not_matter() -> None:
    images = _images(600, strength=0.5, seed=3)
    whole = screen_particles_2d(images, diameter_px=DIAMETER_PX)
    other = screen_particles_2d(-7 * images[:5] + 3, diameter_px=DIAMETER_PX)
    assert other.signal == pytest.approx(whole.signal[:5], rel=1e-3)
    assert other.variance == pytest.approx(whole.variance[:5], rel=1e-3)


def test_a_neighbour_in_the_box_hides_no_particle() -> None:
    images = _images(200, strength=0.6, seed=4)
    images[:, :14, :] += 4 * ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(200, 14, 64)), (0, 2, 2)).astype(
        np.float32
    )
    assert (screen_particles_2d(images, diameter_px=DIAMETER_PX).signal > 1.2).mean() > 0.97


def test_an_image_of_something_else_is_an_outlier() -> None:
    images = _images(200, strength=0.5, seed=6)
    images[17, :, :32] -= 6
    images[40] = 0.1 * images[40]
    found = screen_particles_2d(images, diameter_px=DIAMETER_PX)
    assert sorted(np.argsort(-found.zscore)[:2].tolist()) == [17, 40]
    assert found.zscore[[17, 40]].min() > 8 > np.delete(found.zscore, [17, 40]).max()


def test_no_image_gives_no_score_and_a_circle_must_fit() -> None:
    assert len(screen_particles_2d(np.zeros((0, 64, 64), np.float32), diameter_px=40).signal) == 0
    with pytest.raises(ValueError, match=r"62 px in a box of 64 px; it must be 4 px to 60 px"):
        screen_particles_2d(np.zeros((2, 64, 64), np.float32), diameter_px=62)


def _field(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A field of discs on a jittered grid, and their centres."""
    rng = np.random.default_rng(seed)
    yx = np.stack(np.meshgrid(np.arange(40, 760, 60), np.arange(40, 760, 60), indexing="ij"), -1).reshape(-1, 2)
    yx = yx + rng.integers(-6, 7, yx.shape)
    image = np.zeros((800, 800))
    image[yx[:, 0], yx[:, 1]] = 1
    image = ndimage.convolve(image, (np.hypot(*(np.indices((33, 33)) - 16)) < 16).astype(float), mode="constant")
    return image + rng.normal(0, 1.0, image.shape), yx.astype(np.float64)


def test_profiles_are_those_of_rings() -> None:
    y, x = np.indices((200, 200))
    image = np.hypot(y - 100, x - 90).astype(np.float64)
    profile = radial_profiles_2d(image, np.array([[100.0, 90.0]]), radius_px=28)[0]
    assert profile[1:28] == pytest.approx(np.arange(1, 28) + 0.5, abs=0.15)
    assert len(profile) == 35


def test_ice_and_edges_are_far_from_trusted_profiles() -> None:
    image, yx = _field(1)
    image[:, 780:] -= 8
    image[380:420, 20:30] -= 10
    wrong = np.array([[100.0, 775.0], [300.0, 778.0], [400.0, 30.0], [70.0, 70.0]])
    places = np.concatenate([yx, wrong])
    trusted = np.arange(len(places)) % 2 == 0
    trusted[len(yx) :] = False
    scores = score_profiles(radial_profiles_2d(image, places, radius_px=24), trusted)
    assert scores[len(yx) :].min() > 4
    far = np.hypot(yx[:, 0] - 400, yx[:, 1] - 30) > 60
    assert (scores[: len(yx)][far & (yx[:, 1] < 740)] > 4).mean() < 0.02


def test_trusted_profiles_are_not_judged_by_themselves() -> None:
    rng = np.random.default_rng(2)
    profiles = rng.normal(size=(60, 35))
    scores = score_profiles(profiles, np.arange(60) < 40)
    assert abs(np.median(scores[40:]) - np.median(scores[:40])) < 1.5
    with pytest.raises(ValueError, match="7 trusted profiles"):
        score_profiles(profiles, np.arange(60) < 7)
