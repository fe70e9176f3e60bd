import numpy as np
import pytest

from icestream.algorithms.fourier import crop_fourier_2d
from icestream.microscope.draw import draw_exposure
from icestream.microscope.phantom import build_phantom
from icestream.microscope.projection import project_2d, rotation_matrix, transform_volume
from icestream.microscope.score import astigmatism_error_ang, defocus_error_ang, match_picks, motion_error_px
from icestream.microscope.score_classes import (
    class_average_frc,
    prepare_projections,
    resolution_at_half,
    score_class_average,
    sphere_directions_deg,
)
from icestream.microscope.settings import SimulationSettings

TRUTH = draw_exposure(SimulationSettings(n_frames=8), 0, fault=None, diameter_ang=150.0)


def test_motion_error_forgets_the_origin():
    true = np.array(TRUTH.global_yx_px)
    assert motion_error_px(true + np.array([3.0, -8.0]), TRUTH) == pytest.approx(0.0, abs=1e-12)
    wiggle = np.where(np.arange(8) % 2, 0.3, -0.3)[:, None] * np.array([1.0, 0.0])
    assert motion_error_px(true + wiggle, TRUTH) == pytest.approx(0.3)
    with pytest.raises(ValueError, match="shape"):
        motion_error_px(true[:5], TRUTH)


def test_defocus_error_is_signed_and_astigmatism_error_closes_at_180_degrees():
    u, v, angle = TRUTH.defocus_u_ang, TRUTH.defocus_v_ang, TRUTH.astigmatism_angle_deg
    assert defocus_error_ang(u + 100, v + 50, TRUTH) == pytest.approx(75.0)
    assert astigmatism_error_ang(u, v, angle + 180, TRUTH) == pytest.approx(0.0, abs=1e-9)
    assert astigmatism_error_ang(v, u, angle + 90, TRUTH) == pytest.approx(0.0, abs=1e-9)
    assert astigmatism_error_ang(u, v, angle + 90, TRUTH) == pytest.approx(2 * abs(u - v))


def test_picks_are_matched_one_to_one():
    true = np.array([[10.0, 10.0], [50.0, 50.0], [90.0, 10.0]])
    found = np.array([[12.0, 10.0], [9.0, 9.0], [50.0, 56.0], [200.0, 200.0]])
    score = match_picks(found, true, radius_px=8.0)
    assert (score.n_found, score.n_true, score.n_matched) == (4, 3, 2)
    assert (score.precision, score.recall, score.f1) == pytest.approx((0.5, 2 / 3, 4 / 7))
    assert score.distance_rms_px == pytest.approx(np.sqrt((2 + 36) / 2))
    assert score.distance_median_px == pytest.approx((np.sqrt(2) + 6) / 2)


def test_more_pairs_go_before_nearer_pairs():
    """The pick at 4 is nearest to the particle at 5, but only giving it to 0 lets both picks match."""
    true = np.array([[0.0, 0.0], [5.0, 0.0]])
    found = np.array([[4.0, 0.0], [9.0, 0.0]])
    assert match_picks(found, true, radius_px=4.5).n_matched == 2


def test_picks_of_nothing():
    nothing = match_picks(np.empty((0, 2)), np.array([[1.0, 1.0]]), radius_px=3.0)
    assert nothing.recall == 0.0
    assert np.isnan(nothing.precision)
    assert match_picks(np.array([[9.0, 9.0]]), np.array([[1.0, 1.0]]), radius_px=3.0).n_matched == 0


def test_resolution_is_where_the_curve_crosses_one_half():
    frequency = np.arange(6) / 12
    frc = np.array([1.0, 1.0, 0.9, 0.7, 0.3, 0.1])
    assert resolution_at_half(frequency, frc, pixel_size_ang=2.0) == pytest.approx(2.0 / (3.5 / 12))
    assert resolution_at_half(frequency, np.ones(6), pixel_size_ang=2.0) == 4.0


def test_directions_cover_the_sphere():
    angles = sphere_directions_deg(12.0)
    views = np.array([rotation_matrix(rot, tilt, 0.0)[2] for rot, tilt in angles])
    nearest = np.sort(np.rad2deg(np.arccos(np.clip(views @ views.T, -1, 1))), axis=1)[:, 1]
    assert nearest.min() > 7
    assert nearest.max() < 14


@pytest.fixture(scope="module")
def phantom():
    return build_phantom(120.0, pixel_size_ang=2.0, seed=6)


@pytest.fixture(scope="module")
def reference(phantom):
    return prepare_projections(
        phantom.volume, phantom_pixel_size_ang=2.0, pixel_size_ang=4.0, diameter_ang=120.0, box_px=phantom.volume.shape[0] // 2
    )


def average_of(phantom, angles, shift_yx_px=(0.0, 0.0)):
    rot, tilt, psi = angles
    fine = project_2d(
        transform_volume(phantom.volume),
        rot_deg=rot,
        tilt_deg=tilt,
        psi_deg=psi,
        shift_yx_px=(2 * shift_yx_px[0], 2 * shift_yx_px[1]),
    )
    half = phantom.volume.shape[0] // 2
    return crop_fourier_2d(fine, new_shape=(half, half))


@pytest.mark.parametrize("angles", [(30.0, 75.0, 110.0), (-120.0, 140.0, -35.0)])
def test_class_average_finds_its_projection(phantom, reference, angles):
    average = average_of(phantom, angles, (1.5, -2.25))
    noisy = 50 + 3 * average + np.random.default_rng(2).normal(0, 0.3 * average.std(), average.shape).astype(np.float32)
    score = score_class_average(noisy, reference)
    turn = rotation_matrix(score.rot_deg, score.tilt_deg, score.psi_deg) @ rotation_matrix(*angles).T
    assert np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)) < 2.0
    assert score.shift_yx_px == pytest.approx((1.5, -2.25), abs=0.15)
    assert score.correlation > 0.97
    assert score.resolution_ang < 10.0


def test_noise_and_inverted_contrast_have_no_resolution(phantom, reference):
    noise = np.random.default_rng(3).normal(size=(40, 40)).astype(np.float32)
    average = average_of(phantom, (10.0, 60.0, 20.0))
    assert score_class_average(noise, reference).resolution_ang > 20.0
    assert score_class_average(-average, reference).correlation < 0.5


def test_blurred_average_has_the_resolution_of_its_noise(phantom):
    """With random phases beyond 1/16 Å, the curve falls there."""
    average = average_of(phantom, (40.0, 100.0, 0.0))
    spectrum = np.fft.rfft2(average)
    radius = np.hypot(np.fft.fftfreq(average.shape[0])[:, None], np.fft.rfftfreq(average.shape[0])[None])
    phase = np.angle(np.fft.rfft2(np.random.default_rng(5).normal(size=average.shape)))
    mixed = np.where(radius < 4.0 / 16.0, spectrum, np.abs(spectrum) * np.exp(1j * phase)).astype(np.complex64)
    image = np.fft.irfft2(mixed, s=average.shape).astype(np.float32)
    score = class_average_frc(image, phantom.volume, phantom_pixel_size_ang=2.0, pixel_size_ang=4.0, diameter_ang=120.0)
    assert score.resolution_ang == pytest.approx(16.0, rel=0.15)
