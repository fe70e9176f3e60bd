"""Polar cells of spectra, and the agreement of their equi-phase curve."""

from dataclasses import replace

import numpy as np
import pytest

from icestream.algorithms.ctf.equiphase import agreements, equiphase_curve, ring_amplitude
from icestream.algorithms.ctf.samples import (
    Optics,
    SpectrumSamples,
    bin_polar,
    bin_polar_sets,
    coarsen_cells,
    sample_spectra,
    sample_variance,
)
from icestream.algorithms.ctf.transfer import ctf_2d

MICROSCOPE = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
TRUTH = np.array([15200.0, 200.0, 300.0, 0.0])


def samples() -> list[SpectrumSamples]:
    half = float(np.hypot(*TRUTH[1:3]))
    ctf = ctf_2d(
        256,
        256,
        pixel_size_ang=2.0,
        defocus_u_ang=TRUTH[0] + half,
        defocus_v_ang=TRUTH[0] - half,
        astigmatism_angle_deg=float(np.rad2deg(0.5 * np.arctan2(TRUTH[2], TRUTH[1]))),
        **MICROSCOPE,
    )
    noise = np.random.default_rng(1).gamma(4.0, 0.25, (2, *ctf.shape))
    return sample_spectra((1.0 + ctf**2) * noise, pixel_size_ang=2.0, resolution_ang=(30.0, 4.5))


def test_samples_are_the_frequencies_of_the_annulus() -> None:
    whole, *_ = samples()
    ky, kx = np.fft.fftfreq(256, 2.0)[:, None], np.fft.rfftfreq(256, 2.0)[None, :]
    g2 = ky**2 + kx**2
    first, last = round(whole.ring_per_ang[0] * 512), round(whole.ring_per_ang[-1] * 512)
    keep = (np.sqrt(g2) * 512 >= first - 0.5) & (np.sqrt(g2) * 512 < last + 0.5) & (abs(ky) * 512 > 1.5) & (kx * 512 > 1.5)
    angle = np.broadcast_to(np.arctan2(ky, kx), keep.shape)[keep]
    np.testing.assert_allclose(whole.g2, g2[keep], rtol=1e-12)
    np.testing.assert_allclose(whole.cos2, np.cos(2 * angle), atol=1e-12)
    np.testing.assert_allclose(whole.sin2, np.sin(2 * angle), atol=1e-12)
    np.testing.assert_array_equal(whole.ring, np.rint(np.sqrt(g2[keep]) * 512).astype(int) - first)


def test_coarse_cells_are_those_of_fewer_sectors() -> None:
    whole, *halves = samples()
    n_rings = whole.ring_per_ang.size
    coarse = coarsen_cells(bin_polar(whole, n_sectors=72), factor=3, n_rings=n_rings)
    direct = bin_polar(whole, n_sectors=24)
    for name in ("g2", "cos2", "sin2", "value", "weight", "ring", "background"):
        np.testing.assert_allclose(getattr(coarse, name), getattr(direct, name), atol=1e-12, err_msg=name)
    fewer = coarsen_cells(direct, factor=1, n_rings=20)
    np.testing.assert_array_equal(fewer.value.reshape(24, 20), direct.value.reshape(24, n_rings)[:, :20])
    for one, each in zip(bin_polar_sets([whole, *halves], n_sectors=24), [whole, *halves], strict=True):
        np.testing.assert_array_equal(one.value, bin_polar(each, n_sectors=24).value)
    with pytest.raises(ValueError, match="at least 16"):
        coarsen_cells(direct, factor=1, n_rings=15)


def test_the_variance_is_that_about_the_ring_averages() -> None:
    whole, *_ = samples()
    average = np.bincount(whole.ring, whole.value) / np.bincount(whole.ring)
    assert sample_variance(whole) == pytest.approx(np.mean((whole.value - average[whole.ring]) ** 2))
    inner = whole.ring < 20
    assert sample_variance(whole, n_rings=20) == pytest.approx(np.mean((whole.value - average[whole.ring])[inner] ** 2))
    with pytest.raises(ValueError, match="not that of an image"):
        sample_variance(replace(whole, value=average[whole.ring]))


def test_agreements_are_those_of_the_curve_and_its_model_one_by_one() -> None:
    optics = Optics.of(**MICROSCOPE)
    cells = bin_polar(samples()[0], n_sectors=48)
    curve = equiphase_curve(cells, TRUTH, optics=optics)
    found = ring_amplitude(curve, optics.contrast_rad)
    amplitude = np.interp(cells.ring_per_ang, curve.frequency_per_ang, found)
    shifts = np.array([[0, 0, 0, 0], [0, 0, 0, 10], [80, 0, 0, 10], [0, -150, 90, 0], [-3000, 0, 0, 30]])
    points = TRUTH + shifts
    values = agreements(cells, points, amplitude, optics=optics, whole_curve=False)
    for point, value in zip(points, values, strict=True):
        curve = equiphase_curve(cells, point, optics=optics)
        along = np.interp(curve.frequency_per_ang, cells.ring_per_ang, amplitude)
        model = curve.model(optics.contrast_rad + np.deg2rad(point[3]), along)
        assert value == pytest.approx(np.sum(curve.count * model * (curve.measured - 0.5 * model)), rel=1e-9)
    assert np.argmax(values) == 0
