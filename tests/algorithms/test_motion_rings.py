"""Undoing local motion leaves the Thon rings of the microscope where they are."""

from typing import Any

import numpy as np
import pytest

from icestream.algorithms.ctf.fit import fit_ctf
from icestream.algorithms.motion.dose import critical_exposure_e_per_ang2
from icestream.algorithms.motion.frames import inspect_frames
from icestream.algorithms.motion.model import local_shift_px, mean_time_terms, time_terms
from icestream.algorithms.motion.sum import DoseModel, reference_terms, sum_movie
from icestream.algorithms.spectra.periodogram import periodogram
from icestream.algorithms.spectra.spectrum import power_spectra
from icestream.microscope.draw import draw_exposure
from icestream.microscope.exposure import expected_frames, render_specimen
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.simulate import open_studio

SIDE, FRAMES, PIXEL_ANG = 512, 8, 1.5
OPTICS: dict[str, Any] = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
DOSE = DoseModel(voltage_kv=300.0, pixel_size_ang=PIXEL_ANG, dose_per_frame_e_per_ang2=5.0, pre_exposure_e_per_ang2=0.0)


@pytest.fixture(scope="module")
def movie():
    """Frames with hardly any noise of a specimen that bends by 4 Å rms, their true motion in our words, and the truth."""
    made = SimulationSettings(
        n_movies=1, seed=3, height_px=SIDE, width_px=SIDE, n_frames=FRAMES, pixel_size_ang=PIXEL_ANG, gain=False,
        dose_per_frame_e_per_ang2=DOSE.dose_per_frame_e_per_ang2, local_motion_px=4.0 / PIXEL_ANG, n_particles=6,
        defocus_um=(1.5, 1.5), astigmatism_ang=(200.0, 200.0),
    )  # fmt: skip
    studio = open_studio(made)
    truth = draw_exposure(made, 0, fault=None, diameter_ang=studio.phantom.diameter_ang)
    specimen = render_specimen(truth, studio.volume, particle_contrast=0.6, ice_thickness_ang=300.0, generator=made.generator(9))
    noise = made.generator(10)
    frames = [
        frame + noise.normal(0, 0.5, frame.shape).astype(np.float32)
        for frame in expected_frames(truth, specimen, dose_per_frame_e_per_ang2=DOSE.dose_per_frame_e_per_ang2)
    ]
    u, v, uu, uv, vv = np.moveaxis(np.array(truth.local_coefficients), 2, 0)  # (2, 3) each
    coefficients = np.stack([-(uu + vv) / 12, u, uu, v, vv, uv], axis=1).reshape(2, 18)
    return frames, {"global_yx_px": np.array(truth.global_yx_px), "local_coefficients": coefficients}, truth


def test_the_ctf_of_the_corrected_sum_is_that_of_the_microscope(movie):
    frames, motion, truth = movie
    for dose in (DOSE, None):
        plain = sum_movie(frames, inspect_frames(frames, None, operation="multiply"), **motion, dose=dose).plain
        fit = fit_ctf(
            power_spectra(plain, tile_px=320, n_sets=2),
            fine_spectrum=periodogram(plain, tile_px=SIDE),
            pixel_size_ang=PIXEL_ANG,
            **OPTICS,
        )
        assert 0.5 * (fit.defocus_u_ang + fit.defocus_v_ang) == pytest.approx(truth.mean_defocus_ang, abs=20.0)
        along = [np.exp(2j * np.deg2rad(each.astigmatism_angle_deg)) for each in (fit, truth)]
        difference = [each.defocus_u_ang - each.defocus_v_ang for each in (fit, truth)]
        assert abs(difference[0] * along[0] - difference[1] * along[1]) < 40.0


def test_the_plain_sum_is_the_same_with_and_without_a_dose(movie):
    frames, motion, _ = movie
    detector = inspect_frames(frames, None, operation="multiply")
    beside, alone = (sum_movie(frames, detector, **motion, dose=dose).plain for dose in (DOSE, None))
    inner = np.s_[16:-16, 16:-16]
    assert np.corrcoef(beside[inner].ravel(), alone[inner].ravel())[0, 1] > 0.99
    halves = sum_movie(frames, detector, **motion, dose=DOSE, halves=True)
    np.testing.assert_allclose(halves.plain, beside, atol=1e-3 * beside.std())


def test_local_motion_is_counted_from_its_mean():
    uniform = reference_terms(None, n_frames=5)
    np.testing.assert_allclose(uniform, np.array([0.5, 6.0 / 16, 20.0 / 64]))
    critical = critical_exposure_e_per_ang2(np.array(0.75 * 0.5 / (PIXEL_ANG * 2)), voltage_kv=300.0)
    weights = np.exp(-5.0 * np.arange(12) / critical)
    expected = (weights @ time_terms(np.arange(12), n_frames=12)) / weights.sum()
    np.testing.assert_allclose(reference_terms(DOSE, n_frames=12, bin=2.0), expected)
    huge = DoseModel(voltage_kv=300.0, pixel_size_ang=1.0, dose_per_frame_e_per_ang2=900.0, pre_exposure_e_per_ang2=5000.0)
    np.testing.assert_allclose(reference_terms(huge, n_frames=4), 0.0, atol=1e-12)
    assert reference_terms(DOSE, n_frames=1).tolist() == [0.0, 0.0, 0.0]
    coefficients = np.random.default_rng(2).normal(size=(2, 18))
    at: dict[str, Any] = {"frame": np.arange(5), "y_px": np.array(10.0), "x_px": np.array(50.0), "shape": (64, 64), "n_frames": 5}
    moved = local_shift_px(coefficients, **at, since=mean_time_terms(np.ones(5)))  # (2, 5)
    np.testing.assert_allclose(moved.mean(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.diff(moved, axis=1), np.diff(local_shift_px(coefficients, **at), axis=1), atol=1e-12)
