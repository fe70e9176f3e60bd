"""A surface of defocus, its error and its tilt."""

import numpy as np
import pytest

from icestream.algorithms.ctf.surface import DefocusSurface, degree_of_terms, field_points, surface_terms, tilt_of_surface

SHAPE = (400, 600)
PIXEL_ANG = 1.5
HALF_ANG = 300 * PIXEL_ANG


def _surface(coefficients: list[float], variance: float = 4.0) -> DefocusSurface:
    return DefocusSurface(np.array(coefficients), variance * np.eye(len(coefficients)), SHAPE)


@pytest.mark.parametrize(("degree", "n_terms"), [(0, 1), (1, 3), (2, 6), (3, 10)])
def test_terms_are_counted(degree: int, n_terms: int) -> None:
    assert surface_terms(field_points(SHAPE), shape=SHAPE, degree=degree).shape == (81, n_terms)
    assert degree_of_terms(n_terms) == degree


def test_a_number_of_terms_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="5 terms"):
        _ = _surface([0.0] * 5).degree


def test_a_plane_is_one_in_pixels() -> None:
    plane = _surface([10.0, 30.0, -60.0])
    middle, right, top = np.array([[199.5, 299.5], [199.5, 599.5], [499.5, 299.5]])
    assert plane.offset_ang(np.stack([middle, right, top])) == pytest.approx([10.0, -50.0, 40.0])
    assert plane.error_ang(np.stack([middle, right])) == pytest.approx([2.0, 8.0**0.5])


@pytest.mark.parametrize("uphill_deg", [-170.0, -90.0, 0.0, 30.0, 120.0, 180.0])
def test_the_axis_lies_a_quarter_turn_before_uphill(uphill_deg: float) -> None:
    slope = HALF_ANG * np.tan(np.deg2rad(20.0))
    uphill = np.deg2rad(uphill_deg)
    tilt = tilt_of_surface(_surface([0.0, slope * np.sin(uphill), slope * np.cos(uphill)]), pixel_size_ang=PIXEL_ANG)
    assert tilt is not None
    assert tilt.angle_deg == pytest.approx(20.0)
    assert (tilt.axis_deg + 90.0 - uphill_deg + 180.0) % 360.0 == pytest.approx(180.0)
    assert -180.0 < tilt.axis_deg <= 180.0
    assert tilt.axis_error_deg == pytest.approx(np.rad2deg(2.0 / slope))
    assert tilt.angle_error_deg == pytest.approx(np.rad2deg(2.0 / HALF_ANG * np.cos(np.deg2rad(20.0)) ** 2))


def test_a_dome_has_no_tilt_and_a_constant_tells_none() -> None:
    tilt = tilt_of_surface(_surface([0.0, 0.0, 0.0, 50.0, 0.0, 50.0]), pixel_size_ang=PIXEL_ANG)
    assert tilt is not None
    assert tilt.angle_deg == pytest.approx(0.0, abs=1e-9)
    assert tilt.axis_error_deg == pytest.approx(103.9, abs=0.1)
    assert tilt_of_surface(_surface([3.0]), pixel_size_ang=PIXEL_ANG) is None
