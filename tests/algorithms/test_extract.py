from typing import Any

import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_2d, ctf_phase
from icestream.algorithms.particles.centre import centre_of_mass_2d, turn_yx
from icestream.algorithms.particles.extract import (
    cut_box_2d,
    delocalisation_ang,
    filter_window_2d,
    flip_phases_2d,
    good_box_px,
    normalise_background_2d,
    outside_disc_2d,
    place_boxes,
    plan_window,
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
    found = place_boxes(np.array([[20.4, 25.6], [3.0, 25.0], [36.0, 46.0], [37.0, 46.0]]), shape=(40, 50), box_px=8)
    assert found.kept.tolist() == [True, False, True, False]
    assert found.centre_yx_px.tolist() == [[20, 26], [36, 46]]
    assert found.n_padded == 0
    boxes = [cut_box_2d(image, (y, x), side_px=8) for y, x in found.centre_yx_px.tolist()]
    assert [box[4, 4] for box in boxes] == [image[20, 26], image[36, 46]]
    assert np.array_equal(boxes[0], image[16:24, 22:30])
    with pytest.raises(ValueError, match="even"):
        place_boxes(np.zeros((1, 2)), shape=(40, 50), box_px=7)
    with pytest.raises(ValueError, match="42 px does not fit into the image of 40 x 50 px"):
        place_boxes(np.zeros((1, 2)), shape=(40, 50), box_px=42)


def test_boxes_that_leave_the_image_are_filled_with_its_nearest_pixels_or_its_mirror_image() -> None:
    image = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)
    before = image.copy()
    points = np.array([[1.0, 2.0], [20.0, 25.0], [38.0, 49.0], [-9.0, 5.0]])
    found = place_boxes(points, shape=(40, 50), box_px=8, pad=True)
    assert found.kept.tolist() == [True, True, True, False]  # the last is wholly outside
    assert found.n_padded == 2
    for y, x in found.centre_yx_px.tolist():
        edge, mirror = np.pad(image, 8, mode="edge"), np.pad(image, 8, mode="symmetric")
        assert np.array_equal(cut_box_2d(image, (y, x), side_px=8), edge[y + 4 : y + 12, x + 4 : x + 12])
        assert np.array_equal(cut_box_2d(image, (y, x), side_px=8, fill="mirror"), mirror[y + 4 : y + 12, x + 4 : x + 12])
    assert np.array_equal(image, before)


@pytest.mark.parametrize(("box", "scaled", "margin"), [(256, 64, 20), (360, 128, 33), (48, 48, 7), (100, 64, 1), (64, 32, 0)])
def test_a_window_is_scaled_as_its_box_and_has_the_same_middle(box: int, scaled: int, margin: int) -> None:
    window = plan_window(box, scaled_px=scaled, margin_px=margin)
    assert window.side_px * scaled == window.scaled_side_px * box
    assert window.side_px % 2 == window.scaled_side_px % 2 == 0
    assert box + 2 * margin <= window.side_px <= 1.25 * (box + 2 * margin) + 4 * box / np.gcd(box, scaled)


def draw_gaussian(yx: tuple[float, float], side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return np.exp(-((y - yx[0]) ** 2 + (x - yx[1]) ** 2) / (2 * 3.0**2))


@pytest.mark.parametrize("scaled", [32, 16])
def test_a_particle_is_centred_by_a_part_of_a_pixel(scaled: int) -> None:
    """Its image is what it would be had it been on the middle of its box: of a Gaussian the truth is known."""
    window = plan_window(32, scaled_px=scaled, margin_px=8)
    place = np.array([40.3, 41.75])
    centre = np.floor(place + 0.5).astype(int)
    cut = cut_box_2d(draw_gaussian((40.3, 41.75), 80), (int(centre[0]), int(centre[1])), side_px=window.side_px)
    moved = (float(centre[0] - place[0]), float(centre[1] - place[1]))
    image = filter_window_2d(cut, scaled_px=window.scaled_side_px, box_px=scaled, moved_yx_px=moved)
    truth = draw_gaussian((16.0, 16.0), 32)[:: 32 // scaled, :: 32 // scaled]
    assert np.allclose(image, truth, atol=2e-4)


def test_multiplying_by_the_ctf_brings_back_what_it_moved() -> None:
    """A point that the microscope has imaged has the transfer CTF squared, also if the window is cut out of a larger image."""
    side = 240
    ctf = ctf_2d(side, side, **MICROSCOPE)
    point = np.roll(fft.irfft2(-ctf, s=(side, side)), (side // 2, side // 2), axis=(0, 1))
    box = 64
    moved_ang = delocalisation_ang(2 * 2.0, defocus_ang=16000.0, voltage_kv=300.0, cs_mm=2.7)
    window = plan_window(box, scaled_px=box, margin_px=int(np.ceil(moved_ang / 2.0)))
    assert window.side_px < side
    cut = cut_box_2d(point, (side // 2, side // 2), side_px=window.side_px)
    factor = -ctf_2d(window.scaled_side_px, window.scaled_side_px, **MICROSCOPE)
    image = filter_window_2d(cut, scaled_px=window.scaled_side_px, box_px=box, factor=factor)
    truth = np.roll(fft.irfft2(ctf * ctf, s=(side, side)), (side // 2, side // 2), axis=(0, 1))
    middle = slice(side // 2 - box // 2, side // 2 + box // 2)
    assert np.corrcoef(image.ravel(), truth[middle, middle].ravel())[0, 1] > 0.999
    assert np.abs(image - truth[middle, middle]).max() < 0.02 * truth.max()


def test_detail_moves_as_far_as_the_phase_of_the_ctf_is_steep() -> None:
    settings = {"voltage_kv": 300.0, "cs_mm": 2.7}
    g = np.linspace(0, 0.25, 20001)
    phase = ctf_phase(g * g, 16000.0, amplitude_contrast=0.1, **settings)
    steepest = np.abs(np.gradient(phase, g)).max() / (2 * np.pi)
    assert delocalisation_ang(4.0, defocus_ang=16000.0, **settings) == pytest.approx(steepest, rel=0.01)


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


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_centre_of_a_class_is_that_of_its_particle(seed: int) -> None:
    """Neither noise nor a neighbour at the edge pulls it; an empty average has its centre in the middle."""
    rng = np.random.default_rng(seed)
    off = rng.uniform(-4, 4, 2)
    y, x = np.mgrid[:48, :48] - 24.0
    particle = 1.0 / (1.0 + np.exp((np.hypot((y - off[0]) / 1.0, (x - off[1]) / 1.4) - 9.0) / 0.7))
    neighbour = 1.0 / (1.0 + np.exp((np.hypot(y + 23, x - 22) - 5.0) / 0.7))
    average = particle + 0.6 * neighbour + rng.normal(0, 0.05, y.shape)
    assert np.allclose(centre_of_mass_2d(average.astype(np.float32)), off, atol=0.3)
    assert np.array_equal(centre_of_mass_2d(np.zeros((48, 48), dtype=np.float32)), [0, 0])


def test_a_turn_goes_from_x_towards_y() -> None:
    turned = turn_yx(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]), angle_deg=np.array([90.0, 90.0, 30.0]))
    assert np.allclose(turned, [[1, 0], [0, -1], [1, np.sqrt(3)]], atol=1e-12)
