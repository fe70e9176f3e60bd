"""Fitting the CTF to simulated and real micrographs."""

from pathlib import Path
from typing import Any

import imagecodecs
import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import fft

from icestream.algorithms.ctf.fit import CtfEstimate, fit_ctf
from icestream.algorithms.ctf.search import CtfRange
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.spectra.periodogram import periodogram
from icestream.algorithms.spectra.spectrum import power_spectra, spectrum_tile_px

Truth = dict[str, Any]

POLARA: Truth = {"voltage_kv": 300.0, "cs_mm": 2.0, "amplitude_contrast": 0.07}
KRIOS: Truth = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
ARCTICA: Truth = {"voltage_kv": 200.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
TUNDRA: Truth = {"voltage_kv": 100.0, "cs_mm": 1.6, "amplitude_contrast": 0.1}


def simulate(
    seed: int, optics: Truth, *, pixel_size_ang: float, u: float, v: float, angle: float, phase: float = 0.0, snr: float = 0.1
) -> NDArray[np.float32]:
    """Random specimen seen through a CTF with an envelope, on a noise that falls off smoothly: ``(1024, 1024)``."""
    rng = np.random.default_rng(seed)
    side = 1024
    ctf = ctf_2d(
        side,
        side,
        pixel_size_ang=pixel_size_ang,
        defocus_u_ang=u,
        defocus_v_ang=v,
        astigmatism_angle_deg=angle,
        phase_shift_deg=phase,
        **optics,
    )
    g2 = np.fft.fftfreq(side, pixel_size_ang)[:, None] ** 2 + np.fft.rfftfreq(side, pixel_size_ang)[None, :] ** 2
    white, grain = (fft.rfft2(rng.standard_normal((side, side), dtype=np.float32)) for _ in range(2))
    signal = fft.irfft2(white * ctf * np.exp(-20 * g2) * (0.5 + 3 / np.sqrt(1 + 1600 * g2)))
    noise = fft.irfft2(grain * np.sqrt(0.3 + 0.7 * np.exp(-30 * g2) + 3 / (1 + 3600 * g2)))
    return (signal * np.sqrt(snr) / signal.std() + noise / noise.std()).astype(np.float32)


def fit(image: NDArray[np.float32], optics: Truth, *, pixel_size_ang: float, **options: Any) -> CtfEstimate:
    tile_px = spectrum_tile_px((image.shape[0], image.shape[1]), pixel_size_ang=pixel_size_ang, tile_ang=1000)
    return fit_ctf(power_spectra(image, tile_px=tile_px, n_sets=2), pixel_size_ang=pixel_size_ang, **optics, **options)


def turn_between(one_deg: float, other_deg: float) -> float:
    return abs((one_deg - other_deg + 90) % 180 - 90)


@pytest.mark.parametrize(
    ("optics", "pixel_size_ang", "u", "v", "angle"),
    [
        (KRIOS, 0.65, 12000, 11900, 10),
        (KRIOS, 1.06, 20500, 18000, 75),
        (KRIOS, 2.0, 31000, 30000, -40),
        (KRIOS, 1.3, 3300, 3100, 20),  # hardly one ring before 8 Å
        (POLARA, 1.2, 9000, 8000, -85),
        (ARCTICA, 0.9, 15500, 14700, 130 - 180),
        (ARCTICA, 1.4, 32000, 31000, 60),
        (TUNDRA, 1.1, 12000, 11200, 5),
    ],
)
def test_defocus_and_astigmatism_of_a_simulated_micrograph_are_found(
    optics: Truth, pixel_size_ang: float, u: float, v: float, angle: float
) -> None:
    found = fit(simulate(7, optics, pixel_size_ang=pixel_size_ang, u=u, v=v, angle=angle), optics, pixel_size_ang=pixel_size_ang)
    assert abs(found.defocus_u_ang + found.defocus_v_ang - u - v) / 2 < max(30, 3.5 * found.defocus_error_ang)
    assert found.defocus_error_ang < 120
    assert abs(found.defocus_u_ang - found.defocus_v_ang - (u - v)) < 150
    assert u - v < 700 or turn_between(found.astigmatism_angle_deg, angle) < 5
    assert found.score > 0.6
    assert found.resolution_ang < 12
    assert found.defocus_u_ang >= found.defocus_v_ang
    assert -90 < found.astigmatism_angle_deg <= 90


@pytest.mark.parametrize(("phase", "defocus"), [(20.0, 9000.0), (90.0, 14000.0), (140.0, 25000.0)])
def test_phase_shift_is_found_together_with_the_defocus(phase: float, defocus: float) -> None:
    image = simulate(3, KRIOS, pixel_size_ang=1.1, u=defocus + 200, v=defocus - 200, angle=30, phase=phase)
    found = fit(image, KRIOS, pixel_size_ang=1.1, phase_shift_deg=(0, 175))
    assert abs(found.phase_shift_deg - phase) < 5
    assert abs(found.defocus_u_ang + found.defocus_v_ang - 2 * defocus) / 2 < max(60, 3.5 * found.defocus_error_ang)


def test_an_exact_spectrum_gives_the_exact_ctf() -> None:
    truth = {"defocus_u_ang": 16123.0, "defocus_v_ang": 15321.0, "astigmatism_angle_deg": -33.0}
    spectrum = 1.0 + 0.2 * ctf_2d(512, 512, pixel_size_ang=1.4, **truth, **KRIOS) ** 2
    found = fit_ctf(np.stack([spectrum, spectrum]), pixel_size_ang=1.4, **KRIOS)
    assert found.defocus_u_ang == pytest.approx(16123, abs=1)
    assert found.defocus_v_ang == pytest.approx(15321, abs=1)
    assert found.astigmatism_angle_deg == pytest.approx(-33, abs=0.05)
    assert found.score > 0.99
    assert found.resolution_ang == pytest.approx(4.0, abs=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_pure_noise_never_looks_fitted(seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal((1024, 1024)).astype(np.float32)
    found = fit(noise, KRIOS, pixel_size_ang=1.2)
    assert found.score < 0.4
    assert found.resolution_ang > 20
    assert found.significance < 6


def test_a_search_range_without_the_truth_gives_a_bad_score() -> None:
    image = simulate(5, KRIOS, pixel_size_ang=1.2, u=20500, v=20000, angle=0)
    assert fit(image, KRIOS, pixel_size_ang=1.2).score > 0.8
    assert fit(image, KRIOS, pixel_size_ang=1.2, defocus_um=(0.5, 1.2)).score < 0.5


def test_turning_the_image_turns_the_astigmatism() -> None:
    image = simulate(9, KRIOS, pixel_size_ang=1.2, u=18000, v=16500, angle=25)
    plain, turned = (fit(each, KRIOS, pixel_size_ang=1.2) for each in (image, np.ascontiguousarray(np.rot90(image))))
    assert turned.defocus_u_ang == pytest.approx(plain.defocus_u_ang, abs=15)
    assert turn_between(turned.astigmatism_angle_deg, plain.astigmatism_angle_deg + 90) < 2


def test_the_fit_repeats_exactly_and_leaves_the_spectra_alone() -> None:
    spectra = power_spectra(simulate(2, KRIOS, pixel_size_ang=1.2, u=10000, v=9800, angle=0), tile_px=400, n_sets=2)
    before = spectra.copy()
    first, second = (fit_ctf(spectra, pixel_size_ang=1.2, **KRIOS) for _ in range(2))
    np.testing.assert_array_equal(spectra, before)
    assert (first.defocus_u_ang, first.score) == (second.defocus_u_ang, second.score)
    scaled = fit_ctf(spectra * 1e6, pixel_size_ang=1.2, **KRIOS)
    assert scaled.defocus_u_ang == pytest.approx(first.defocus_u_ang, abs=0.5)


def test_what_cannot_be_fitted_is_refused() -> None:
    spectra = np.ones((2, 256, 129))
    with pytest.raises(ValueError, match="two independent"):
        fit_ctf(spectra[0], pixel_size_ang=1.0, **KRIOS)
    with pytest.raises(ValueError, match="defocus_um goes from 2"):
        fit_ctf(spectra, pixel_size_ang=1.0, defocus_um=(2.0, 1.0), **KRIOS)
    with pytest.raises(ValueError, match="rings between 30"):
        fit_ctf(spectra, pixel_size_ang=14.0, **KRIOS)
    with pytest.raises(ValueError, match="not that of an image"):
        fit_ctf(spectra, pixel_size_ang=1.0, **KRIOS)
    with pytest.raises(ValueError, match="image constant"):
        fit_ctf(spectra * 0, pixel_size_ang=1.0, **KRIOS)


APOFERRITIN = {
    "May08_03.05.02": (1.98, 1.91),
    "May08_04.32.27": (1.69, 1.64),
    "May08_05.31.00": (2.23, 2.18),
    "May08_07.08.55": (1.67, 1.63),
}


@pytest.mark.parametrize("name", APOFERRITIN)
def test_apoferritin_agrees_with_the_rough_fit_of_its_readme(shared_data: Path, name: str) -> None:
    image = imagecodecs.imread(shared_data / "empiar10146_apoferritin" / "averages" / f"{name}.bin_avg.png").astype(np.float32)
    found = fit(image, {"voltage_kv": 300.0, "cs_mm": 0.01, "amplitude_contrast": 0.07}, pixel_size_ang=1.5)
    u_um, v_um = APOFERRITIN[name]
    assert found.defocus_u_ang == pytest.approx(u_um * 1e4, abs=600)
    assert found.defocus_v_ang == pytest.approx(v_um * 1e4, abs=600)
    assert found.score > 0.65
    assert found.resolution_ang < 8


def test_a_strong_detector_falloff_does_not_fool_the_fit(shared_data: Path) -> None:
    image = mrcfile.read(shared_data / "epu_falcon_titan" / "epu2.9_example.mrc").astype(np.float32)
    found = fit(image, KRIOS, pixel_size_ang=0.6665513)
    assert found.defocus_u_ang == pytest.approx(27300, rel=0.03)
    assert found.defocus_v_ang == pytest.approx(27100, rel=0.03)
    assert found.score > 0.8


def test_a_spectrum_of_the_whole_image_makes_the_result_better_and_stated_errors_are_true() -> None:
    misses: dict[str, list[float]] = {"tiles": [], "whole": []}
    ratios: dict[str, list[float]] = {"tiles": [], "whole": []}
    for seed in range(8):
        defocus, angle = 9000.0 + 2500 * seed, 20.0 * seed - 80
        image = simulate(300 + seed, KRIOS, pixel_size_ang=1.3, u=defocus + 200, v=defocus - 200, angle=angle, snr=0.06)
        spectra = power_spectra(image, tile_px=spectrum_tile_px(image.shape, pixel_size_ang=1.3, tile_ang=1000), n_sets=2)
        fine = periodogram(image, tile_px=1024)
        truth = 400.0 * np.exp(2j * np.deg2rad(angle))
        for name, spectrum in (("tiles", None), ("whole", fine)):
            found = fit_ctf(spectra, fine_spectrum=spectrum, pixel_size_ang=1.3, **KRIOS)
            vector = (found.defocus_u_ang - found.defocus_v_ang) * np.exp(2j * np.deg2rad(found.astigmatism_angle_deg))
            misses[name].append(abs(vector - truth))
            ratios[name].append((0.5 * (found.defocus_u_ang + found.defocus_v_ang) - defocus) / found.defocus_error_ang)
    assert _rms(misses["whole"]) < 0.85 * _rms(misses["tiles"])
    assert 0.3 < _rms(ratios["tiles"]) < 1.8
    assert 0.4 < _rms(ratios["whole"]) < 1.6


def _rms(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def test_a_fit_that_ends_at_a_limit_of_its_range_has_no_confidence() -> None:
    image = simulate(5, KRIOS, pixel_size_ang=1.2, u=20500, v=19500, angle=0)
    assert fit(image, KRIOS, pixel_size_ang=1.2).confidence > 0.99
    limits = CtfRange((5000.0, 30000.0), 800.0, (0.0, 0.0))
    assert limits.is_at_end(limits.confine(np.array([4000.0, 0.0, 0.0, 0.0])))
    assert limits.is_at_end(limits.confine(np.array([30000.0, 0.0, 0.0, 0.0])))
    assert limits.is_at_end(limits.confine(np.array([20000.0, 300.0, 300.0, 0.0])))
    assert not limits.is_at_end(limits.confine(np.array([20000.0, 200.0, 300.0, 0.0])))
    spectra = power_spectra(image, tile_px=spectrum_tile_px(image.shape, pixel_size_ang=1.2, tile_ang=1000), n_sets=2)
    assert fit_ctf(spectra, pixel_size_ang=1.2, astigmatism_ang=500.0, **KRIOS).confidence == 0.0
