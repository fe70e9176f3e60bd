"""Frequencies are weighed by what they tell, and left out where they have no weight."""

import numpy as np

from icestream.algorithms.motion.correlate import (
    RING_PER_PX,
    Band,
    likelihood_weights,
    measure_power,
    newton_steps,
    spread_weights,
    sum_shifted,
)
from icestream.algorithms.motion.global_motion import narrow_band


def _movie(n_frames=12, side=256, *, signal):
    """Return spectra of frames of one specimen with the power ``signal(|k|)``, in noise of power 1, and their band."""
    rng = np.random.default_rng(8)
    band = Band(ky=np.fft.fftfreq(side), kx=np.fft.rfftfreq(side))

    def white(*shape):
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)

    size = (side, side // 2 + 1)
    specimen = white(*size) * np.sqrt(signal(np.sqrt(band.squared)))
    return (specimen + white(n_frames, *size)).astype(np.complex64), band


def test_a_narrow_band_gives_the_same_steps():
    spectra, band = _movie(signal=lambda k: 0.3 * np.exp(-30 * k**2))
    shifts = np.random.default_rng(1).normal(0, 0.3, (len(spectra), 2))
    narrow, within = narrow_band(spectra, band=band, b_factor_px2=150.0)
    assert narrow.shape[1] < 0.5 * spectra.shape[1]
    steps = [
        newton_steps(some, shifts_yx_px=shifts, band=part, weight=spread_weights(np.ones(1), band=part, b_factor_px2=150.0))
        for some, part in ((spectra, band), (narrow, within))
    ]
    np.testing.assert_allclose(steps[1].step_yx_px, steps[0].step_yx_px, atol=0.02)


def test_a_band_is_whole_without_damping():
    spectra, band = _movie(side=32, signal=np.ones_like)
    assert narrow_band(spectra, band=band, b_factor_px2=0.0)[0] is spectra


def test_zeros_of_the_ctf_get_little_weight():
    """Thon rings 0.02 cycles per pixel apart."""
    spectra, band = _movie(n_frames=24, signal=lambda k: 0.05 * np.sin(np.pi * k / 0.02) ** 2)
    total = sum_shifted(spectra, shifts_yx_px=np.zeros((24, 2)), band=band)
    rings = likelihood_weights(measure_power(spectra, total=total, band=band), n_frames=24)
    k = (np.arange(len(rings)) + 0.5) * RING_PER_PX
    inside = (k > 0.1) & (k < 0.4)
    bright, dark = (inside & (abs(np.sin(np.pi * k / 0.02)) > 0.98)), (inside & (abs(np.sin(np.pi * k / 0.02)) < 0.05))
    assert rings[dark].mean() < 0.3 * rings[bright].mean()
