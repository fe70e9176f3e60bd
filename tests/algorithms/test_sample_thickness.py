"""Thickness is told where rings are reversed, and only there."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.local_properties import CtfBeyond, examine_ctf
from icestream.algorithms.ctf.samples import smooth_basis
from icestream.algorithms.ctf.thickness import RingAmplitudes, measure_thickness
from icestream.algorithms.ctf.transfer import ctf_2d, electron_wavelength_ang

WAVELENGTH_ANG = electron_wavelength_ang(300.0)
FREQUENCY = np.linspace(0.03, 0.4, 300)
NOISE = 0.02
SIDE_PX, PIXEL_ANG = 768, 1.5
MICROSCOPE = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
CTF = {"defocus_u_ang": 12000.0, "defocus_v_ang": 12000.0, "astigmatism_angle_deg": 0.0, "phase_shift_deg": 0.0}


def _amplitudes(in_phase: NDArray[np.float64], quadrature: NDArray[np.float64] | None = None) -> RingAmplitudes:
    noise = NOISE * np.random.default_rng(3).standard_normal(FREQUENCY.size)
    turned = np.zeros_like(FREQUENCY) if quadrature is None else quadrature
    basis = smooth_basis(FREQUENCY, count=12)
    error = np.full_like(FREQUENCY, 0.3 * NOISE)
    return RingAmplitudes(FREQUENCY, in_phase + noise, np.full_like(FREQUENCY, NOISE**2), in_phase, turned, error, basis)


ENVELOPE = 0.5 * np.exp(-8.0 * FREQUENCY**2)


@pytest.mark.parametrize("thickness_ang", [700.0, 1000.0, 1800.0, 3000.0])
def test_the_nodes_give_the_thickness(thickness_ang: float) -> None:
    found = measure_thickness(
        _amplitudes(ENVELOPE * np.sinc(WAVELENGTH_ANG * FREQUENCY**2 * thickness_ang)), wavelength_ang=WAVELENGTH_ANG
    )
    assert found.thickness_ang is not None
    assert found.error_ang is not None
    assert found.node_ang == pytest.approx((WAVELENGTH_ANG * found.thickness_ang) ** 0.5)
    assert abs(found.thickness_ang - thickness_ang) < 4.0 * found.error_ang
    assert found.error_ang < 0.05 * thickness_ang
    assert found.note is None


@pytest.mark.parametrize("decay", [0.0, 20.0, 60.0])
def test_a_decay_alone_is_no_thickness(decay: float) -> None:
    found = measure_thickness(_amplitudes(ENVELOPE * np.exp(-decay * FREQUENCY**2)), wavelength_ang=WAVELENGTH_ANG)
    assert (found.thickness_ang, found.error_ang, found.node_ang) == (None, None, None)
    assert found.note is not None
    assert "no reversed rings beyond noise down to 2.5" in found.note
    assert (found.fitted >= 0).all()


def test_a_node_beyond_the_range_is_not_told() -> None:
    thin = measure_thickness(
        _amplitudes(ENVELOPE * np.sinc(WAVELENGTH_ANG * FREQUENCY**2 * 200.0)), wavelength_ang=WAVELENGTH_ANG
    )
    assert thin.thickness_ang is None


def test_rings_that_turn_are_not_reversed() -> None:
    turn = np.pi * (FREQUENCY / 0.28) ** 4  # as by a wrong spherical aberration
    amplitudes = _amplitudes(ENVELOPE * np.cos(turn), ENVELOPE * np.sin(turn))
    found = measure_thickness(amplitudes, wavelength_ang=WAVELENGTH_ANG)
    assert found.thickness_ang is None
    assert found.note is not None
    assert "turned" in found.note


def _slab(thickness_ang: float) -> NDArray[np.float32]:
    """Return the sum of independent slices, each imaged with the defocus of its depth, in noise."""
    rng = np.random.default_rng(5)
    n_slices = 1 + int(thickness_ang / 60.0)
    image = rng.standard_normal((SIDE_PX, SIDE_PX), dtype=np.float32)
    for depth in ((np.arange(n_slices) + 0.5) / n_slices - 0.5) * thickness_ang:
        shifted = {**CTF, "defocus_u_ang": 12000.0 + depth, "defocus_v_ang": 12000.0 + depth}
        ctf = ctf_2d(SIDE_PX, SIDE_PX, pixel_size_ang=PIXEL_ANG, **MICROSCOPE, **shifted)
        noise = rng.standard_normal((SIDE_PX, SIDE_PX), dtype=np.float32)
        image += np.float32(1.5 / n_slices**0.5) * fft.irfft2(fft.rfft2(noise) * ctf).astype(np.float32)
    return image


def _examine(image: NDArray[np.float32]) -> CtfBeyond:
    return examine_ctf(
        image, pixel_size_ang=PIXEL_ANG, tile_ang=800.0, resolution_ang=(30.0, 3.2), max_tilt_deg=40.0, **MICROSCOPE, **CTF
    )


def test_slices_at_their_own_defocus_have_the_thickness_of_the_stack() -> None:
    found = _examine(_slab(1500.0))
    assert found.local.surface.degree == 0
    assert found.thickness.thickness_ang == pytest.approx(1500.0, rel=0.05)
    node = 1.0 / (WAVELENGTH_ANG * 1500.0) ** 0.5
    beyond = (found.amplitudes.frequency_per_ang > 1.1 * node) & (found.amplitudes.frequency_per_ang < 1.3 * node)
    assert found.amplitudes.smooth[beyond].max() < 0
    assert _examine(_slab(0.0)).thickness.thickness_ang is None
