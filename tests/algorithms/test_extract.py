from typing import Any

import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.particles.extract import (
    cut_boxes_2d,
    flip_phases_2d,
    good_box_px,
    normalise_background_2d,
    outside_disc_2d,
    remove_dust_2d,
    remove_ramp_2d,
)

MICROSCOPE: dict[str, Any] = {
    "pixel_size_ang": 2.0,
    "defocus_u_ang": 16000.0,
    "defocus_v_ang": 15000.0,
    "astigmatism_angle_deg": 30.0,
    "voltage_kv": 300.0,
    "cs_mm": 2.7,
    "amplitude_contrast": 0.07,
}


def test_boxes_are_the_pixels_about_the_centre() -> None:
    image = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)
    found = cut_boxes_2d(image, np.array([[20.4, 25.6], [3.0, 25.0], [36.0, 46.0], [37.0, 46.0]]), box_px=8)
    assert found.kept.tolist() == [True, False, True, False]
    assert found.centre_yx_px.tolist() == [[20, 26], [36, 46]]
    assert found.images[:, 4, 4].tolist() == [image[20, 26], image[36, 46]]
    assert np.array_equal(found.images[0], image[16:24, 22:30])
    assert found.n_padded == 0
    with pytest.raises(ValueError, match="even"):
        cut_boxes_2d(image, np.zeros((1, 2)), box_px=7)
    with pytest.raises(ValueError, match="42 px does not fit into the image of 40 x 50 px"):
        cut_boxes_2d(image, np.zeros((1, 2)), box_px=42)


def test_boxes_that_leave_the_image_are_filled_with_its_nearest_pixels() -> None:
    image = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)
    before = image.copy()
    found = cut_boxes_2d(image, np.array([[1.0, 2.0], [20.0, 25.0], [38.0, 49.0], [-9.0, 5.0]]), box_px=8, pad=True)
    assert found.kept.tolist() == [True, True, True, False]  # the last is wholly outside
    assert found.n_padded == 2
    assert np.array_equal(found.images, np.stack([_padded(image, yx) for yx in ((1, 2), (20, 25), (38, 49))]))
    assert np.array_equal(image, before)


def _padded(image: np.ndarray, yx: tuple[int, int]) -> np.ndarray:
    wide = np.pad(image, 8, mode="edge")
    return wide[yx[0] + 4 : yx[0] + 12, yx[1] + 4 : yx[1] + 12]


@pytest.mark.parametrize("wanted", [1, 63.2, 64, 201, 255.9])
def test_good_boxes_are_even_large_enough_and_fast(wanted: float) -> None:
    box = good_box_px(wanted)
    assert box % 2 == 0
    assert wanted <= box <= 1.2 * wanted + 4
    assert fft.next_fast_len(box, real=True) == box


def test_background_has_mean_zero_and_deviation_one() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    boxes = (rng.normal(7, 3, size=(5, 32, 32)) + 0.3 * y - 0.2 * x).astype(np.float32)
    before = boxes.copy()
    normal = normalise_background_2d(remove_ramp_2d(boxes, radius_px=10), radius_px=10)
    outside = outside_disc_2d(32, radius_px=10)
    assert np.allclose(normal[:, outside].mean(axis=1), 0, atol=1e-5)
    assert np.allclose(normal[:, outside].std(axis=1), 1, atol=1e-5)
    assert normal.dtype == np.float32
    assert np.array_equal(boxes, before)
    one = normalise_background_2d(remove_ramp_2d(boxes[2], radius_px=10), radius_px=10)
    assert np.allclose(one, normal[2], atol=1e-6)


def test_a_plane_is_removed_whole_and_a_particle_does_not_tilt_it() -> None:
    y, x = np.mgrid[:32, :32]
    plane = (3 + 0.5 * y - 0.25 * x).astype(np.float64)
    assert np.allclose(remove_ramp_2d(plane, radius_px=10), 0, atol=1e-9)
    particle = np.zeros((32, 32))
    particle[12:18, 14:20] = 9.0
    assert np.allclose(remove_ramp_2d(plane + particle, radius_px=10), particle, atol=1e-9)


def test_a_disc_as_large_as_the_box_is_refused() -> None:
    with pytest.raises(ValueError, match="no background"):
        outside_disc_2d(32, radius_px=30)


def test_dust_goes_and_the_rest_stays() -> None:
    boxes = np.random.default_rng(1).normal(size=(2, 32, 32))
    dirty = boxes.copy()
    dirty[1, 5, 6] = 80.0
    clean = remove_dust_2d(dirty, level=6)
    assert clean[1, 5, 6] == pytest.approx(np.median(dirty[1]))
    clean[1, 5, 6] = boxes[1, 5, 6]
    assert np.array_equal(clean, boxes)


def test_phase_flip_makes_the_ctf_keep_the_sign_of_low_frequency() -> None:
    shape = (75, 135)  # odd: no Nyquist line, where an astigmatic CTF is not the CTF of a real image
    ctf = ctf_2d(*shape, **MICROSCOPE)
    point = fft.irfft2(ctf, s=shape)  # what the microscope makes of a point
    point = np.roll(point, (37, 67), axis=(0, 1))
    flipped = flip_phases_2d(point, margin_px=0, **MICROSCOPE)
    transfer = fft.rfft2(np.roll(flipped, (-37, -67), axis=(0, 1)))
    assert np.allclose(transfer.real, -np.abs(ctf), atol=1e-5)
    assert ctf[0, 0] < 0  # dark protein stays dark
    assert np.allclose(transfer.imag, 0, atol=1e-5)


def test_flipping_twice_gives_the_image_back() -> None:
    image = np.random.default_rng(3).normal(size=(75, 135))
    twice = flip_phases_2d(flip_phases_2d(image, margin_px=0, **MICROSCOPE), margin_px=0, **MICROSCOPE)
    assert np.allclose(twice, image, atol=1e-9)


def test_the_margin_does_not_move_the_image() -> None:
    near_focus = MICROSCOPE | {"defocus_u_ang": 3000.0, "defocus_v_ang": 3000.0}
    image = np.zeros((192, 256))
    image[96:104, 120:124] = 1.0
    plain = flip_phases_2d(image, margin_px=0, **near_focus)
    wide = flip_phases_2d(image, margin_px=17, **near_focus)
    assert wide.shape == image.shape
    assert np.corrcoef(plain.ravel(), wide.ravel())[0, 1] > 0.98
