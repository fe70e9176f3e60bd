"""Images without a CTF whose form factor has rings, and how far a fit may be from the truth where rings are faint."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.equiphase_climb import EquiphaseObjective
from icestream.algorithms.ctf.equiphase_fit import fit_ctf_equiphase
from icestream.algorithms.ctf.fit import CtfEstimate, fit_ctf
from icestream.algorithms.ctf.form_factor import confidence_against_form_factor, form_factor_residual
from icestream.algorithms.ctf.refine import refine_ctf, residual_of_ctf
from icestream.algorithms.ctf.samples import Optics, SpectrumSamples, smooth_basis
from icestream.algorithms.ctf.scan import bound_covariance, scan_likelihood
from icestream.algorithms.ctf.search import CtfRange
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.spectra.multitaper import multitaper_spectra
from icestream.algorithms.spectra.spectrum import power_spectra, spectrum_tile_px

KRIOS: dict[str, Any] = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
OPTICS = Optics.of(**KRIOS)
LIMITS = CtfRange((3e3, 5e4), 3000.0, (0.0, 0.0))
SIDE, PIXEL_ANG = 768, 1.2


def frequencies() -> NDArray[np.float64]:
    return np.hypot(np.fft.fftfreq(SIDE, PIXEL_ANG)[:, None], np.fft.rfftfreq(SIDE, PIXEL_ANG)[None, :])


def scatter_balls(diameter_ang: float, *, seed: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).standard_normal((SIDE, SIDE), dtype=np.float32)
    x = np.pi * np.maximum(frequencies(), 1e-6) * diameter_ang
    amplitude = 0.3 + 9.0 * np.abs(np.sin(x) - x * np.cos(x)) / x**3
    return np.asarray(fft.irfft2(fft.rfft2(noise) * amplitude), np.float32)


def defocus(defocus_ang: float, *, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    shape = {"defocus_u_ang": defocus_ang + 200, "defocus_v_ang": defocus_ang - 200, "astigmatism_angle_deg": 30.0}
    ctf = ctf_2d(SIDE, SIDE, pixel_size_ang=PIXEL_ANG, phase_shift_deg=0.0, **shape, **KRIOS)
    white, grain = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    signal = fft.irfft2(fft.rfft2(white) * ctf * np.exp(-20 * frequencies() ** 2))
    return np.asarray(np.sqrt(0.1) * signal / signal.std() + grain, np.float32)


def fit_both(image: NDArray[np.float32]) -> tuple[CtfEstimate, CtfEstimate]:
    tile_px = spectrum_tile_px((SIDE, SIDE), pixel_size_ang=PIXEL_ANG, tile_ang=1000)
    first = fit_ctf(power_spectra(image, tile_px=tile_px, n_sets=2), pixel_size_ang=PIXEL_ANG, **KRIOS)
    second = fit_ctf_equiphase(multitaper_spectra(image, tile_px=SIDE), pixel_size_ang=PIXEL_ANG, **KRIOS)
    return first, second


@pytest.mark.parametrize(("diameter_ang", "seed"), [(56.0, 0), (56.0, 1), (62.0, 2), (100.0, 4)])
def test_the_rings_of_balls_are_not_trusted(diameter_ang: float, seed: int) -> None:
    for found in fit_both(scatter_balls(diameter_ang, seed=seed)):
        assert found.confidence < 0.5


def test_balls_lose_their_confidence_to_the_form_factor_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("fit", "equiphase_fit"):
        monkeypatch.setattr(
            f"icestream.algorithms.ctf.{module}.confidence_against_form_factor", lambda confidence, **_: confidence
        )
    for found in fit_both(scatter_balls(56.0, seed=0)):
        assert found.confidence > 0.99
        assert found.score > 0.5


@pytest.mark.parametrize("defocus_ang", [6000.0, 15000.0, 30000.0])
def test_the_rings_of_a_ctf_are_trusted(defocus_ang: float) -> None:
    for found in fit_both(defocus(defocus_ang, seed=5)):
        assert found.confidence > 0.99
        assert found.score > 0.5


def ring_cells(value: NDArray[np.float64], frequency: NDArray[np.float64]) -> SpectrumSamples:
    n = frequency.size
    smooth = smooth_basis(frequency, count=8), smooth_basis(frequency, count=6)
    level = np.ones(n), np.zeros(n)
    return SpectrumSamples(frequency**2, *level, value, np.full(n, 4.0), np.arange(n), frequency, *smooth)


def test_a_form_factor_explains_balls_and_a_ctf_explains_a_ctf() -> None:
    frequency = np.linspace(0.035, 0.25, 260)
    x = np.pi * frequency * 80.0
    balls = ring_cells(-np.exp(-frequency / 0.1) * np.cos(2 * (x - np.arctan(x))), frequency)
    chi = OPTICS.defocus_rate * frequency**2 * 1.5e4 - OPTICS.sphere_rate * frequency**4 + OPTICS.contrast_rad
    rings = ring_cells(-np.exp(-frequency / 0.1) * np.cos(2 * chi), frequency)
    everything = [float(np.sum(each.weight * each.value**2)) for each in (balls, rings)]
    assert form_factor_residual(balls) < 0.06 * everything[0]  # the grid of diameters and phases is coarse
    assert form_factor_residual(rings) > 0.3 * everything[1]
    residual = refine_ctf(rings, np.array([1.5e4, 0.0, 0.0, 0.0]), optics=OPTICS, limits=LIMITS).residual
    assert confidence_against_form_factor(0.999, residual=residual, cells=rings, variance=0.1) == pytest.approx(0.999, abs=1e-4)
    assert confidence_against_form_factor(0.999, residual=everything[0], cells=balls, variance=0.1) < 1e-3
    assert confidence_against_form_factor(0.0, residual=0.0, cells=balls, variance=0.1) == 0.0


def test_errors_are_never_below_those_of_the_curvature() -> None:
    frequency = np.linspace(0.035, 0.25, 260)
    chi = OPTICS.defocus_rate * frequency**2 * 1.5e4 - OPTICS.sphere_rate * frequency**4 + OPTICS.contrast_rad
    objective = EquiphaseObjective(ring_cells(-0.5 * np.cos(2 * chi), frequency), OPTICS, LIMITS)
    at, curvature = np.array([1.5e4, 0.0, 0.0, 0.0]), np.diag([400.0, 0.0, 0.0, 0.0])
    value = objective.value_with_own_amplitude
    sharp = scan_likelihood(lambda each: value(each) / 1e-6, at, curvature)
    np.testing.assert_allclose(sharp.covariance, curvature)
    flat = scan_likelihood(lambda each: value(each) / 1e6, at, curvature)
    np.testing.assert_allclose(flat.covariance, curvature * (11 / 3) ** 2)
    nothing = scan_likelihood(value, at, np.zeros((4, 4)))
    np.testing.assert_array_equal(nothing.covariance, np.zeros((4, 4)))


def test_a_scan_measures_the_foot_of_a_likelihood_and_meets_what_is_higher() -> None:
    at, curvature = np.array([1.5e4, 0.0, 0.0, 0.0]), np.diag([400.0, 0.0, 0.0, 0.0])  # an error of 20 Å
    wide = scan_likelihood(lambda each: -0.5 * min(abs(each[0] - 1.5e4) / 20.0, 2.0) ** 2, at, curvature)
    assert wide.covariance[0, 0] == pytest.approx((20.0 * 11 / 3) ** 2)
    assert wide.gain == 0.0
    beside = scan_likelihood(lambda each: -0.5 * ((each[0] - 1.508e4) / 20.0) ** 2, at, curvature)
    assert beside.gain == pytest.approx(8.0)
    assert beside.highest[0] == pytest.approx(1.508e4)


def test_the_residual_of_a_ctf_is_that_of_its_refinement() -> None:
    frequency = np.linspace(0.035, 0.25, 260)
    chi = OPTICS.defocus_rate * frequency**2 * 1.5e4 - OPTICS.sphere_rate * frequency**4 + OPTICS.contrast_rad
    cells = ring_cells(-0.5 * np.cos(2 * chi) + 0.1 * np.sin(900.0 * frequency), frequency)
    fit = refine_ctf(cells, np.array([1.5e4, 0.0, 0.0, 0.0]), optics=OPTICS, limits=LIMITS)
    assert residual_of_ctf(cells, fit.parameters, optics=OPTICS) == pytest.approx(fit.residual, rel=1e-9)
    beside = fit.parameters + np.array([60.0, 0.0, 0.0, 0.0])
    assert residual_of_ctf(cells, beside, optics=OPTICS) > fit.residual


def test_no_direction_is_left_as_uncertain_as_a_top_that_noise_has_flattened() -> None:
    usual = np.diag([400.0, 900.0, 900.0, 0.0])
    flat = np.diag([1e10, 1600.0, 400.0, 0.0])
    np.testing.assert_allclose(bound_covariance(flat, usual), np.diag([3600.0, 1600.0, 400.0, 0.0]))
    np.testing.assert_array_equal(bound_covariance(np.zeros((4, 4)), usual), np.zeros((4, 4)))
