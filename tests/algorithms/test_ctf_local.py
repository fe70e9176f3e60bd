"""The surface of defocus over a micrograph is no richer than the data support."""

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from tilt_truth import tilted_image

from icestream.algorithms.ctf.local import fit_local_defocus
from icestream.algorithms.ctf.local_picture import draw_local_defocus
from icestream.algorithms.ctf.local_properties import CtfBeyond, examine_ctf
from icestream.algorithms.ctf.samples import Optics
from icestream.algorithms.ctf.surface import field_points
from icestream.algorithms.ctf.windows import WindowRings, collect_window_rings

PIXEL_ANG, SIDE_PX = 2.0, 1024
MICROSCOPE = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
CTF = {"defocus_u_ang": 15100.0, "defocus_v_ang": 14900.0, "astigmatism_angle_deg": 30.0, "phase_shift_deg": 0.0}
AXIS_DEG = 37.0 - 90.0


def _image(tilt_deg: float, *, snr: float = 1.0, seed: int = 1) -> NDArray[np.float32]:
    return tilted_image(side_px=SIDE_PX, pixel_size_ang=PIXEL_ANG, tilt_deg=tilt_deg, snr=snr, seed=seed)


@lru_cache(maxsize=8)
def _examine_slope(tilt_deg: float) -> CtfBeyond:
    return _examine(_image(tilt_deg))


def _examine(image: NDArray[np.float32]) -> CtfBeyond:
    return examine_ctf(
        image, pixel_size_ang=PIXEL_ANG, tile_ang=800.0, resolution_ang=(30.0, 4.5), max_tilt_deg=50.0, **MICROSCOPE, **CTF
    )


def _true_offset(tilt_deg: float) -> NDArray[np.float64]:
    points = field_points((SIDE_PX, SIDE_PX)) - 0.5 * (SIDE_PX - 1)
    along = points[:, 1] * np.cos(np.deg2rad(37.0)) + points[:, 0] * np.sin(np.deg2rad(37.0))
    return np.asarray(np.tan(np.deg2rad(tilt_deg)) * PIXEL_ANG * along)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_level_specimen_has_a_constant_defocus(seed: int) -> None:
    local = _examine(_image(0.0, seed=seed)).local
    assert local.surface.degree == 0
    assert np.array_equal(local.surface.coefficients, [0.0])
    assert abs(local.shift_ang) < 4.0 * local.shift_error_ang
    assert local.note is not None
    assert "plane" in local.note


@pytest.mark.parametrize("tilt_deg", [20.0, 45.0])
def test_a_slope_is_found_with_its_error(tilt_deg: float) -> None:
    found = _examine_slope(tilt_deg)
    assert found.local.surface.degree == 1
    assert found.tilt is not None
    assert abs(found.tilt.angle_deg - tilt_deg) < max(4.0 * found.tilt.angle_error_deg, 0.5)
    turn = (found.tilt.axis_deg - AXIS_DEG + 180.0) % 360.0 - 180.0
    assert abs(turn) < 4.0 * found.tilt.axis_error_deg
    points = field_points((SIDE_PX, SIDE_PX))
    error = found.local.surface.offset_ang(points) - _true_offset(tilt_deg)
    stated = found.local.surface.error_ang(points)
    assert np.sqrt(np.mean((error / stated) ** 2)) < 3.0
    assert stated.max() < 60.0


def test_faint_rings_support_no_slope() -> None:
    assert _examine(_image(8.0, snr=0.004)).local.surface.degree == 0


def test_windows_say_what_the_surface_says() -> None:
    found = _examine_slope(20.0)
    apart = found.local.window_offset_ang - found.local.surface.offset_ang(found.window_yx_px)
    assert np.sqrt(np.mean((apart / found.local.window_error_ang) ** 2)) < 2.0
    assert (found.local.amplitude[20:] > 0).mean() > 0.9


def _rings(image: NDArray[np.float32]) -> WindowRings:
    ctf = np.array([15000.0, 100.0 * np.cos(np.pi / 3), 100.0 * np.sin(np.pi / 3), 0.0])
    return collect_window_rings(
        image, pixel_size_ang=PIXEL_ANG, tile_ang=800.0, resolution_ang=(30.0, 4.0), optics=Optics.of(**MICROSCOPE), ctf=ctf
    )


def test_the_image_is_left_as_it_was_and_the_answer_repeats() -> None:
    image = _image(20.0).copy()
    before = image.copy()
    first, second = _rings(image), _rings(image)
    assert np.array_equal(image, before)
    fits = [
        fit_local_defocus(each, shape=image.shape, pixel_size_ang=PIXEL_ANG, max_tilt_deg=20.0).surface.coefficients
        for each in (first, second)
    ]
    assert np.array_equal(fits[0], fits[1])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tilt_deg is 85"):
        fit_local_defocus(_rings(_image(0.0)), shape=(SIDE_PX, SIDE_PX), pixel_size_ang=PIXEL_ANG, max_tilt_deg=85.0)
    with pytest.raises(ValueError, match="too small"):
        _examine(np.asarray(_image(0.0))[:100, :100])
    with pytest.raises(ValueError, match="positive"):
        _examine(np.zeros((SIDE_PX, SIDE_PX), np.float32))


def test_windows_too_small_for_the_rings_are_refused() -> None:
    image = np.asarray(_image(0.0))[:320, :320]
    with pytest.raises(ValueError, match="too small to resolve"):
        collect_window_rings(
            image,
            pixel_size_ang=PIXEL_ANG,
            tile_ang=800.0,
            resolution_ang=(20.0, 4.0),
            optics=Optics.of(**MICROSCOPE),
            ctf=np.array([60000.0, 0.0, 0.0, 0.0]),
        )


def test_the_picture_is_red_where_there_is_more_defocus() -> None:
    found = _examine_slope(20.0)
    picture = draw_local_defocus(
        found.local.surface,
        window_yx_px=found.window_yx_px,
        window_offset_ang=found.local.window_offset_ang,
        window_error_ang=found.local.window_error_ang,
        side_px=64,
    )
    assert picture.shape == (64, 134, 3)
    assert picture.min() >= 0.0
    assert picture.max() <= 1.0
    for left in (0, 70):  # more defocus towards larger x and y
        half = picture[:, left : left + 64]
        assert half[-1, -1, 0] - half[-1, -1, 2] > 0.3
        assert half[0, 0, 2] - half[0, 0, 0] > 0.3
