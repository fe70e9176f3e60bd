"""Rings of crystalline ice stand out of their surroundings, in units of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.ctf.ice_ring import ICE_RINGS_ANG, measure_ice_rings
from icestream.algorithms.ctf.samples import Optics

OPTICS = Optics.of(voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.07)
CTF = np.array([15000.0, 100.0, 0.0, 0.0])
TILE_PX = 800


def _spectrum(excess: float, *, pixel_ang: float = 1.0, thon: float = 0.1, seed: int = 1) -> NDArray[np.float64]:
    """Return a noisy spectrum with a broad ring as of vitreous ice, Thon rings, and narrow rings at 3.67 and 2.25 Å."""
    ky, kx = np.fft.fftfreq(TILE_PX, pixel_ang)[:, None], np.fft.rfftfreq(TILE_PX, pixel_ang)[None]
    g2 = ky * ky + kx * kx
    g = np.sqrt(g2)
    cos2 = (kx * kx - ky * ky) / np.maximum(g2, 1e-12)
    chi = OPTICS.defocus_rate * g2 * (CTF[0] + CTF[1] * cos2) - OPTICS.sphere_rate * g2**2 + OPTICS.contrast_rad
    power = 1.0 + 0.5 * np.exp(-0.5 * ((g - 0.27) / 0.04) ** 2) + np.exp(-60 * g2)
    power *= 1.0 - thon * np.cos(2 * chi)
    for ang in (3.67, 2.25):
        power *= 1.0 + excess * (np.abs(g - 1 / ang) <= 0.003)
    return power * np.random.default_rng(seed).gamma(20.0, 1 / 20.0, power.shape)


def test_rings_are_measured_over_their_background() -> None:
    rings = {
        round(ring.resolution_ang, 2): ring
        for ring in measure_ice_rings(_spectrum(0.3), pixel_size_ang=1.0, optics=OPTICS, ctf=CTF)
    }
    assert tuple(rings) == ICE_RINGS_ANG
    for ang in (3.67, 2.25):
        assert 0.12 < rings[ang].excess < 0.3
        assert rings[ang].significance > 8
    for ang in (3.90, 3.44):
        assert abs(rings[ang].excess) < 0.03


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_without_crystals_nothing_stands_out(seed: int) -> None:
    rings = measure_ice_rings(_spectrum(0.0, seed=seed), pixel_size_ang=1.0, optics=OPTICS, ctf=CTF)
    assert max(abs(ring.significance) for ring in rings) < 4
    assert max(abs(ring.excess) for ring in rings) < 0.03  # the broad ring of water is not quite a cubic polynomial


@pytest.mark.parametrize(("pixel_ang", "reached"), [(1.0, 4), (1.5, 3), (1.85, 0), (2.5, 0)])
def test_only_rings_within_reach_are_measured(pixel_ang: float, reached: int) -> None:
    rings = measure_ice_rings(_spectrum(0.3, pixel_ang=pixel_ang), pixel_size_ang=pixel_ang, optics=OPTICS, ctf=CTF)
    assert len(rings) == reached


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="does not resolve"):
        measure_ice_rings(np.ones((128, 65)), pixel_size_ang=1.0, optics=OPTICS, ctf=CTF)
    with pytest.raises(ValueError, match="not positive"):
        measure_ice_rings(np.zeros((512, 257)), pixel_size_ang=1.0, optics=OPTICS, ctf=CTF)
