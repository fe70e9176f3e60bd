"""The second CTF estimator on simulated and real micrographs, and against the first."""

from pathlib import Path
from typing import Any

import imagecodecs
import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.equiphase_fit import fit_ctf_equiphase
from icestream.algorithms.ctf.errors import errors_of_fit
from icestream.algorithms.ctf.fit import CtfEstimate, fit_ctf, mode_confidence
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.spectra.multitaper import MULTITAPER_NOISE_INFLATION, multitaper_spectra, multitaper_tile_px
from icestream.algorithms.spectra.spectrum import power_spectra, spectrum_tile_px
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import render_micrograph

KRIOS: dict[str, Any] = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
ARCTICA: dict[str, Any] = {"voltage_kv": 200.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}


def simulate(
    seed: int, optics: dict[str, Any], *, pixel: float, u: float, v: float, angle: float, phase: float = 0.0
) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    shape = {"defocus_u_ang": u, "defocus_v_ang": v, "astigmatism_angle_deg": angle, "phase_shift_deg": phase}
    ctf = ctf_2d(1024, 1024, pixel_size_ang=pixel, **shape, **optics)
    g2 = np.fft.fftfreq(1024, pixel)[:, None] ** 2 + np.fft.rfftfreq(1024, pixel)[None, :] ** 2
    white, grain = (fft.rfft2(rng.standard_normal((1024, 1024), dtype=np.float32)) for _ in range(2))
    signal = fft.irfft2(white * ctf * np.exp(-20 * g2) * (0.5 + 3 / np.sqrt(1 + 1600 * g2)))
    noise = fft.irfft2(grain * np.sqrt(0.3 + 0.7 * np.exp(-30 * g2) + 3 / (1 + 3600 * g2)))
    return (signal * np.sqrt(0.1) / signal.std() + noise / noise.std()).astype(np.float32)


def fit(image: NDArray[np.float32], optics: dict[str, Any], *, pixel: float, **options: Any) -> CtfEstimate:
    tile_px = multitaper_tile_px((image.shape[0], image.shape[1]), pixel_size_ang=pixel, tile_ang=1800)
    return fit_ctf_equiphase(multitaper_spectra(image, tile_px=tile_px), pixel_size_ang=pixel, **optics, **options)


def fit_first(image: NDArray[np.float32], optics: dict[str, Any], *, pixel: float) -> CtfEstimate:
    tile_px = spectrum_tile_px((image.shape[0], image.shape[1]), pixel_size_ang=pixel, tile_ang=1000)
    return fit_ctf(power_spectra(image, tile_px=tile_px, n_sets=2), pixel_size_ang=pixel, **optics)


def defocus_of(found: CtfEstimate) -> float:
    return 0.5 * (found.defocus_u_ang + found.defocus_v_ang)


def vector_of(found: CtfEstimate) -> complex:
    return complex((found.defocus_u_ang - found.defocus_v_ang) * np.exp(2j * np.deg2rad(found.astigmatism_angle_deg)))


@pytest.mark.parametrize(
    ("optics", "pixel", "u", "v", "angle"),
    [
        (KRIOS, 0.65, 12000, 11900, 10),
        (KRIOS, 1.06, 20500, 18000, 75),
        (KRIOS, 2.0, 31000, 30000, -40),
        (KRIOS, 1.2, 9000, 8000, -85),
        (ARCTICA, 1.4, 32000, 31000, 60),
    ],
)
def test_the_ctf_of_a_simulated_micrograph_is_found(
    optics: dict[str, Any], pixel: float, u: float, v: float, angle: float
) -> None:
    found = fit(simulate(7, optics, pixel=pixel, u=u, v=v, angle=angle), optics, pixel=pixel)
    assert abs(defocus_of(found) - (u + v) / 2) < max(30, 3.5 * found.defocus_error_ang)
    assert found.defocus_error_ang < 100
    assert abs(vector_of(found) - (u - v) * np.exp(2j * np.deg2rad(angle))) < 200
    assert found.score > 0.6
    assert found.resolution_ang < 12
    assert found.confidence > 0.999


def test_phase_shift_is_found_together_with_the_defocus() -> None:
    image = simulate(3, KRIOS, pixel=1.1, u=14200, v=13800, angle=30, phase=90)
    found = fit(image, KRIOS, pixel=1.1, phase_shift_deg=(0, 175))
    assert found.phase_shift_error_deg is not None
    assert abs(found.phase_shift_deg - 90) < min(6, 3.5 * found.phase_shift_error_deg)
    assert abs(defocus_of(found) - 14000) < 3.5 * found.defocus_error_ang


def test_with_a_phase_plate_defocus_and_phase_shift_are_not_drawn_aside() -> None:
    made = SimulationSettings(
        n_movies=6, seed=5, height_px=768, width_px=768, n_frames=4, dose_per_frame_e_per_ang2=10, n_particles=10, gain=False,
        phase_shift_deg=(40, 110), defocus_um=(0.5, 1.4), drift_px=(0, 0), local_motion_px=0,
    )  # fmt: skip
    over_stated = []
    for index in range(made.n_movies):
        image, truth = render_micrograph(made, index)
        found = fit(image, KRIOS, pixel=truth.pixel_size_ang, phase_shift_deg=(0, 175))
        assert found.phase_shift_error_deg is not None
        errors = defocus_of(found) - truth.mean_defocus_ang, found.phase_shift_deg - truth.phase_shift_deg
        over_stated.append([errors[0] / found.defocus_error_ang, errors[1] / found.phase_shift_error_deg])
    assert np.abs(over_stated).max() < 2.5
    assert np.abs(np.mean(over_stated, axis=0)).max() < 0.7


@pytest.mark.parametrize("seed", range(4))
def test_pure_noise_is_never_trusted(seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((1024, 1024)).astype(np.float32)
    found = fit(noise, KRIOS, pixel=1.2)
    assert found.confidence < 0.9
    assert found.score < 0.4
    assert found.significance < 6
    assert fit_first(noise, KRIOS, pixel=1.2).confidence < 0.9


def test_the_two_estimators_agree_within_twice_their_stated_errors() -> None:
    for seed in range(4):
        image = simulate(20 + seed, KRIOS, pixel=1.3, u=10300 + 3000 * seed, v=10000 + 3000 * seed, angle=40 * seed - 70)
        one, other = fit_first(image, KRIOS, pixel=1.3), fit(image, KRIOS, pixel=1.3)
        gap = abs(defocus_of(one) - defocus_of(other))
        assert gap < 2 * np.hypot(one.defocus_error_ang, other.defocus_error_ang)
        assert gap > 0  # two data paths


APOFERRITIN = ("May08_03.05.02", "May08_04.32.27", "May08_05.31.00", "May08_07.08.55")


@pytest.mark.parametrize("name", APOFERRITIN)
def test_on_apoferritin_both_estimators_agree(shared_data: Path, name: str) -> None:
    image = imagecodecs.imread(shared_data / "empiar10146_apoferritin" / "averages" / f"{name}.bin_avg.png").astype(np.float32)
    optics = {"voltage_kv": 300.0, "cs_mm": 0.01, "amplitude_contrast": 0.07}
    one, other = fit_first(image, optics, pixel=1.5), fit(image, optics, pixel=1.5)
    assert abs(defocus_of(one) - defocus_of(other)) < 2 * np.hypot(one.defocus_error_ang, other.defocus_error_ang)
    astigmatism_error = 2 * np.hypot(one.astigmatism_error_ang, other.astigmatism_error_ang)
    assert abs(vector_of(one) - vector_of(other)) < 1.5 * astigmatism_error
    assert other.score > 0.6


def test_on_a_falcon_micrograph_both_estimators_agree(shared_data: Path) -> None:
    image = mrcfile.read(shared_data / "epu_falcon_titan" / "epu2.9_example.mrc").astype(np.float32)
    one, other = fit_first(image, KRIOS, pixel=0.6665513), fit(image, KRIOS, pixel=0.6665513)
    assert abs(defocus_of(one) - defocus_of(other)) < 2 * np.hypot(one.defocus_error_ang, other.defocus_error_ang)


def test_white_noise_has_its_variance_as_spectrum_and_the_sets_are_independent() -> None:
    image = np.random.default_rng(5).standard_normal((512, 512)).astype(np.float32)
    before = image.copy()
    spectra = multitaper_spectra(3.0 * image, tile_px=512)
    inner = spectra[:, 4:200, 4:200].reshape(2, -1)
    assert inner.mean() == pytest.approx(9.0, rel=0.02)
    assert abs(np.corrcoef(inner)[0, 1]) < 0.03
    np.testing.assert_array_equal(image, before)


def test_the_noise_inflation_is_that_of_the_tapers() -> None:
    n = np.arange(1, 1001) * np.pi / 1001
    power = (np.sin(n) ** 2 + np.sin(2 * n) ** 2) * 2 / 1001
    assert (1000 / 2 * np.sum(power**2)) ** 2 == pytest.approx(MULTITAPER_NOISE_INFLATION, rel=0.01)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        multitaper_tile_px((100, 500), pixel_size_ang=1.0, tile_ang=1000)
    with pytest.raises(ValueError, match="not finite"):
        multitaper_spectra(np.full((256, 256), np.nan), tile_px=256)
    with pytest.raises(ValueError, match="must be even"):
        multitaper_spectra(np.zeros((256, 256)), tile_px=257)
    with pytest.raises(ValueError, match="two independent"):
        fit_ctf_equiphase(np.ones((256, 129)), pixel_size_ang=1.0, **KRIOS)
    with pytest.raises(ValueError, match="not that of an image"):
        fit_ctf_equiphase(np.ones((2, 256, 129)), pixel_size_ang=1.0, **KRIOS)


def test_errors_follow_from_the_covariance() -> None:
    errors = errors_of_fit(np.array([2e4, 0.0, 500.0, 0.0]), np.diag([100.0, 25.0, 4.0, 0.0]))
    assert errors.defocus_ang == pytest.approx(10)
    assert errors.astigmatism_ang == pytest.approx(4)
    assert errors.angle_deg == pytest.approx(np.rad2deg(0.5 * 5 / 500))
    assert errors.phase_shift_deg is None
    level = errors_of_fit(np.array([2e4, 0.0, 0.0, 30.0]), np.diag([100.0, 25.0, 25.0, 9.0]))
    assert level.angle_deg == pytest.approx(52, abs=0.1)
    assert level.phase_shift_deg == pytest.approx(3)


def test_confidence_falls_when_another_optimum_is_as_good() -> None:
    here, near, far = (np.array([z, 0.0, 0.0, 0.0]) for z in (1e4, 1.001e4, 2e4))
    assert mode_confidence([here, near], [100.0, 99.9], separation_ang=50.0, null=0.0) > 0.999
    assert mode_confidence([here, far], [100.0, 100.0], separation_ang=50.0, null=0.0) == pytest.approx(0.5)
    assert mode_confidence([here], [5.0], separation_ang=50.0, null=0.0) < 0.01
