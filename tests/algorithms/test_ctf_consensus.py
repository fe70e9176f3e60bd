"""Agreement and mean of two CTFs, against a dense search over the phase itself."""

from dataclasses import replace

import numpy as np
import pytest

from icestream.algorithms.ctf.consensus import CtfShape, agreement_resolution_ang, average_ctf
from icestream.algorithms.ctf.transfer import ctf_phase, defocus_along, electron_wavelength_ang
from icestream.errors import ItemError

ONE = CtfShape(15300.0, 14800.0, 25.0, 0.0)
ANGLES_RAD = np.deg2rad(np.arange(0.0, 180.0, 0.5))


def _phase(shape: CtfShape, g2: np.ndarray) -> np.ndarray:
    defocus = defocus_along(
        ANGLES_RAD[:, None],
        defocus_u_ang=shape.defocus_u_ang,
        defocus_v_ang=shape.defocus_v_ang,
        astigmatism_angle_deg=shape.astigmatism_angle_deg,
    )  # (n_angles, 1)
    return ctf_phase(
        g2, defocus, voltage_kv=200, cs_mm=2.7, amplitude_contrast=0.1, phase_shift_deg=shape.phase_shift_deg
    )  # (n_angles, n_g)


def _search(one: CtfShape, other: CtfShape) -> float:
    """Return the first resolution at which the phases differ by 90°, or 0 if they do not up to 0.5 Å."""
    g2 = np.linspace(0.0, 2.0, 8001) ** 2
    far = np.any(np.abs(_phase(one, g2) - _phase(other, g2)) >= np.pi / 2, axis=0)
    return float(1.0 / np.sqrt(g2[np.argmax(far)])) if far.any() else 0.0


@pytest.mark.parametrize(
    "other",
    [
        CtfShape(15100.0, 14700.0, 25.0, 0.0),
        CtfShape(16000.0, 15500.0, -70.0, 0.0),
        CtfShape(15300.0, 14800.0, -65.0, 0.0),
        CtfShape(15300.0, 14800.0, 25.0, 40.0),
        CtfShape(15900.0, 14800.0, 80.0, 60.0),
        CtfShape(14800.0, 14300.0, 10.0, -55.0),
        CtfShape(14800.0, 15300.0, 25.0, 30.0),
    ],
)
def test_the_closed_form_is_what_a_dense_search_finds(other: CtfShape) -> None:
    found = agreement_resolution_ang(ONE, other, voltage_kv=200)
    assert found == pytest.approx(_search(ONE, other), rel=2e-3) or (found < 0.5 and _search(ONE, other) == 0.0)
    assert agreement_resolution_ang(other, ONE, voltage_kv=200) == pytest.approx(found)


def test_a_difference_of_the_mean_defocus_has_a_known_limit() -> None:
    other = replace(ONE, defocus_u_ang=ONE.defocus_u_ang + 400, defocus_v_ang=ONE.defocus_v_ang + 400)
    expected = np.sqrt(2 * electron_wavelength_ang(300) * 400)
    assert agreement_resolution_ang(ONE, other, voltage_kv=300) == pytest.approx(expected)


def test_equal_ctfs_agree_everywhere_however_they_are_written() -> None:
    assert agreement_resolution_ang(ONE, ONE, voltage_kv=300) == 0.0
    swapped = CtfShape(ONE.defocus_v_ang, ONE.defocus_u_ang, ONE.astigmatism_angle_deg - 90, 180.0)
    assert agreement_resolution_ang(ONE, swapped, voltage_kv=300) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("shift_deg", [90.0, -90.0, 270.0])
def test_phase_shifts_at_right_angles_agree_nowhere(shift_deg: float) -> None:
    assert agreement_resolution_ang(ONE, replace(ONE, phase_shift_deg=shift_deg), voltage_kv=300) == np.inf


def test_the_mean_has_the_mean_defocus_along_every_direction() -> None:
    other = CtfShape(16500.0, 14000.0, -60.0, 0.0)
    mean = average_ctf(ONE, other)
    g2 = np.array([0.01, 0.04])
    np.testing.assert_allclose(_phase(mean, g2), 0.5 * (_phase(ONE, g2) + _phase(other, g2)), rtol=1e-12)
    assert mean.defocus_u_ang >= mean.defocus_v_ang


def test_angles_and_phases_are_averaged_around_the_circle() -> None:
    mean = average_ctf(replace(ONE, astigmatism_angle_deg=88.0), replace(ONE, astigmatism_angle_deg=-88.0))
    assert abs(mean.astigmatism_angle_deg) == pytest.approx(90.0)
    assert mean.defocus_u_ang - mean.defocus_v_ang == pytest.approx(500 * np.cos(np.deg2rad(4.0)))
    crossed = average_ctf(ONE, replace(ONE, astigmatism_angle_deg=ONE.astigmatism_angle_deg + 90))
    assert crossed.defocus_u_ang == pytest.approx(crossed.defocus_v_ang)
    assert average_ctf(replace(ONE, phase_shift_deg=176.0), replace(ONE, phase_shift_deg=2.0)).phase_shift_deg == pytest.approx(
        179
    )
    assert average_ctf(replace(ONE, phase_shift_deg=80.0), replace(ONE, phase_shift_deg=100.0)).phase_shift_deg == pytest.approx(
        90
    )


def test_the_mean_of_equals_is_the_same() -> None:
    mean = average_ctf(ONE, ONE)
    assert (mean.defocus_u_ang, mean.defocus_v_ang) == pytest.approx((15300.0, 14800.0))
    assert (mean.astigmatism_angle_deg, mean.phase_shift_deg) == pytest.approx((25.0, 0.0))


def test_values_that_are_not_finite_are_refused() -> None:
    broken = replace(ONE, defocus_u_ang=float("nan"))
    with pytest.raises(ItemError, match="not a finite number"):
        agreement_resolution_ang(ONE, broken, voltage_kv=300)
    with pytest.raises(ItemError, match="not a finite number"):
        average_ctf(broken, ONE)
