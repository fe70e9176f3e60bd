import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_phase, electron_wavelength_ang
from icestream.algorithms.fourier import frequency_radius_2d, radial_average_2d
from icestream.algorithms.motion.dose import critical_exposure_e_per_ang2
from icestream.microscope.camera import make_camera
from icestream.microscope.draw import draw_exposure
from icestream.microscope.exposure import (
    counted_frames,
    expected_frames,
    motion_on_grid,
    place_particles,
    render_specimen,
)
from icestream.microscope.ice import flowing_ice, ice_power_rad2_ang2, pattern_kept
from icestream.microscope.lens import count_waves, lens_2d, transfer_2d, waves_at_depth_2d
from icestream.microscope.phantom import build_phantom
from icestream.microscope.projection import project_2d, transform_volume
from icestream.microscope.settings import SimulationSettings

DIAMETER_ANG = 100.0
STILL = {"drift_px": (0.0, 0.0), "local_motion_px": 0.0}


@pytest.fixture(scope="module")
def volume():
    return transform_volume(build_phantom(DIAMETER_ANG, pixel_size_ang=2.0, seed=1).volume)


def settings(**changes):
    small = {"n_movies": 3, "height_px": 256, "width_px": 320, "n_frames": 4, "pixel_size_ang": 2.0, "n_particles": 6}
    return SimulationSettings.model_validate({**small, **changes})


def frames_of(made: SimulationSettings, volume, *, index=0, ice_thickness_ang=300.0):
    truth = draw_exposure(made, index, fault=None, diameter_ang=DIAMETER_ANG)
    generator = made.generator(9)
    specimen = render_specimen(truth, volume, particle_contrast=1.0, ice_thickness_ang=ice_thickness_ang, generator=generator)
    return truth, list(expected_frames(truth, specimen, dose_per_frame_e_per_ang2=made.dose_per_frame_e_per_ang2))


def test_thon_rings_of_the_ice_lie_where_the_ctf_says(volume):
    made = settings(height_px=512, width_px=512, n_frames=1, n_particles=0, astigmatism_ang=(0, 0), b_factor_ang2=0.0, **STILL)
    made = made.model_copy(update={"defocus_um": (1.2, 1.2)})
    seen = [frames_of(made, volume, index=index) for index in range(3)]
    truth = seen[0][0]
    check_rings([frame for _, (frame,) in seen], truth)
    assert electron_wavelength_ang(300.0) == pytest.approx(0.01969, rel=1e-3)


def check_rings(frames, truth):
    """Frames of 512² px of 2 Å without astigmatism have no power where the CTF of the microscope is zero."""
    window = np.outer(np.hanning(512), np.hanning(512))
    power = np.mean([np.abs(fft.rfft2((frame - frame.mean()) * window)) ** 2 for frame in frames], axis=0)
    frequency, profile = radial_average_2d(power, width=512)
    fine = np.linspace(0.01, 0.25, 20000)
    optics = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.07}
    chi = ctf_phase(fine**2, truth.mean_defocus_ang, **optics)
    zeros_px = 2.0 * fine[np.flatnonzero(np.diff(np.floor(chi / np.pi)))]
    assert len(zeros_px) > 8
    for zero in zeros_px[:6]:
        around = np.abs(frequency - zero) < 0.012
        found = frequency[around][np.argmin(profile[around])]
        assert abs(found - zero) <= 1.5 / 512
        assert profile[around].min() < 0.25 * profile[around].max()


def test_a_specimen_that_stretches_does_not_stretch_its_rings(volume):
    """The lens acts after the specimen has moved: stretched by a twentieth both ways, rings stay where the CTF says."""
    made = settings(height_px=512, width_px=512, n_frames=2, n_particles=0, astigmatism_ang=(0, 0), b_factor_ang2=0.0, **STILL)
    made = made.model_copy(update={"defocus_um": (1.2, 1.2)})
    stretch = np.zeros((2, 3, 5))
    stretch[0, 0, 1] = stretch[1, 0, 0] = 0.05 * 512
    frames = []
    for index in range(3):
        truth = draw_exposure(made, index, fault=None, diameter_ang=DIAMETER_ANG)
        points, moved = motion_on_grid(global_yx_px=np.zeros((2, 2)), coefficients=stretch, shape=(512, 512))
        truth = truth.model_copy(
            update={"local_coefficients": stretch.tolist(), "local_grid_yx_px": points, "local_grid_displacement_yx_px": moved}
        )
        generator = made.generator(9, index)
        specimen = render_specimen(truth, volume, particle_contrast=1.0, ice_thickness_ang=300.0, generator=generator)
        frames.append(list(expected_frames(truth, specimen, dose_per_frame_e_per_ang2=made.dose_per_frame_e_per_ang2))[1])
    check_rings(frames, truth)


def test_the_image_of_any_depth_is_that_of_its_two_waves(volume):
    made = settings(depth_spread=True)
    truth = draw_exposure(made, 0, fault=None, diameter_ang=DIAMETER_ANG)
    assert (count_waves(truth, ice_slices=1), count_waves(truth.model_copy(update={"particles": ()}), ice_slices=1)) == (2, 1)
    assert count_waves(truth.model_copy(update={"particles": ()}), ice_slices=3) == 2
    for depth in (0.0, -400.0, 900.0):
        waves = waves_at_depth_2d(truth, (64, 80), depth_ang=depth, n_waves=2)
        image = (waves * lens_2d(truth, (64, 80), n_waves=2)).sum(axis=0)
        np.testing.assert_allclose(image, transfer_2d(truth, (64, 80), depth_ang=depth), atol=2e-4)


def test_ice_has_the_ring_of_water_at_3_7_ang():
    g = np.linspace(0.15, 0.4, 500)
    power = ice_power_rad2_ang2(g, thickness_ang=300.0, voltage_kv=300.0, motion_b_factor_ang2=0.0)
    assert 1 / g[np.argmax(power)] == pytest.approx(3.75, abs=0.15)
    twice = ice_power_rad2_ang2(g, thickness_ang=600.0, voltage_kv=300.0, motion_b_factor_ang2=0.0)
    assert twice == pytest.approx(2 * power)


def measure_shift(reference, image):
    """Displacement of ``image`` against ``reference`` to a tenth of a pixel: cross-correlation and a parabola."""
    window = np.outer(np.hanning(reference.shape[0]), np.hanning(reference.shape[1]))
    smooth = np.exp(-((frequency_radius_2d(*reference.shape) / 0.12) ** 2))
    a = fft.rfft2((reference - reference.mean()) * window) * smooth
    b = fft.rfft2((image - image.mean()) * window) * smooth
    peak = fft.fftshift(fft.irfft2(b * np.conj(a), s=reference.shape))
    y, x = np.unravel_index(int(np.argmax(peak)), peak.shape)

    def vertex(left, middle, right):
        return 0.5 * (left - right) / (left - 2 * middle + right)

    dy = y + vertex(*peak[y - 1 : y + 2, x]) - reference.shape[0] // 2
    dx = x + vertex(*peak[y, x - 1 : x + 2]) - reference.shape[1] // 2
    return np.array([dy, dx])


def test_frames_are_shifted_by_the_true_drift(volume):
    truth, frames = frames_of(settings(drift_px=(5.0, 5.0), local_motion_px=0.0), volume)
    for t in range(1, 4):
        assert measure_shift(frames[0], frames[t]) == pytest.approx(np.array(truth.global_yx_px[t]), abs=0.1)


def test_patches_are_shifted_by_the_true_local_motion(volume):
    truth, frames = frames_of(settings(drift_px=(3.0, 3.0), local_motion_px=1.0), volume)
    spread = []
    for top, left in ((0, 0), (0, 192), (128, 0), (128, 192), (64, 96)):
        cut = np.s_[top : top + 128, left : left + 128]
        expected = truth.displacement(3, top + 63.5, left + 63.5)
        assert measure_shift(frames[0][cut], frames[3][cut]) == pytest.approx(expected, abs=0.25)
        spread.append(expected)
    assert np.ptp(spread, axis=0).max() > 1.0


def test_the_grid_in_the_truth_is_the_displacement():
    truth = draw_exposure(settings(), 1, fault=None, diameter_ang=DIAMETER_ANG)
    y, x = np.array(truth.local_grid_yx_px).T
    assert truth.displacement(2, y, x) == pytest.approx(np.array(truth.local_grid_displacement_yx_px[2]))
    assert np.abs(np.array(truth.local_grid_displacement_yx_px[0])).max() == 0


def test_mean_is_the_dose_and_counts_follow(volume):
    made = settings(dose_per_frame_e_per_ang2=1.5)
    truth, frames = frames_of(made, volume)
    assert truth.electrons_per_pixel == pytest.approx(6.0)
    assert np.mean(frames) == pytest.approx(6.0, rel=0.01)
    camera = make_camera((256, 320), gain=True, n_dead_pixels=10, n_hot_pixels=10, generator=made.generator(3))
    raw = list(counted_frames(iter(frames), camera, generator=made.generator(4)))
    assert raw[0].dtype == np.int32
    corrected = np.mean([r * camera.gain for r in raw], 0)
    good = np.ones(corrected.shape, bool)
    for y, x in (*camera.dead_yx, *camera.hot_yx):
        good[y, x] = False
    assert corrected[good].mean() == pytest.approx(np.mean(frames, 0)[good].mean(), rel=2e-3)
    noise = (raw[1] - frames[1] * camera.response)[good]
    assert noise.var() == pytest.approx((frames[1] * camera.response)[good].mean(), rel=0.02)
    columns = np.ma.masked_array(raw[0], ~good).mean(0) / 6.0
    assert np.corrcoef(columns, camera.response.mean(0))[0, 1] > 0.7


@pytest.mark.parametrize("index", [0, 1, 2])
def test_protein_is_dark_where_the_truth_says(volume, index):
    """One particle alone: its projection at its true position, phase-flipped by hand, is what the image shows phase-flipped."""
    made = settings(n_particles=1, n_frames=1, height_px=200, width_px=200, **STILL)
    truth, (frame,) = frames_of(made, volume, index=index, ice_thickness_ang=0.0)
    (particle,) = truth.particles
    contrast = frame / truth.electrons_per_pixel - 1
    transfer = transfer_2d(truth, contrast.shape, depth_ang=0.0)
    corrected = fft.irfft2(fft.rfft2(contrast) * np.sign(transfer), s=contrast.shape)  # protein bright
    y, x = round(particle.y_px), round(particle.x_px)
    angles = {"rot_deg": particle.rot_deg, "tilt_deg": particle.tilt_deg, "psi_deg": particle.psi_deg}
    projection = project_2d(volume, **angles, shift_yx_px=(particle.y_px - y, particle.x_px - x))
    padded = np.zeros((400, 400))
    padded[y + 64 : y + 136, x + 64 : x + 136] = projection
    expected = padded[100:300, 100:300]
    filtered = fft.irfft2(fft.rfft2(expected) * np.abs(transfer), s=expected.shape)
    assert measure_shift(filtered, corrected) == pytest.approx([0.0, 0.0], abs=0.05)
    assert np.corrcoef(filtered.ravel(), corrected.ravel())[0, 1] > 0.95
    assert contrast[y - 12 : y + 13, x - 12 : x + 13].mean() < -0.01


def test_particles_fade_by_the_critical_exposure(volume):
    made = settings(n_particles=4, n_frames=5, dose_per_frame_e_per_ang2=10.0, b_factor_ang2=0.0, **STILL)
    truth, frames = frames_of(made, volume, ice_thickness_ang=0.0)
    window = np.outer(np.hanning(256), np.hanning(320))
    first, last = (np.abs(fft.rfft2((f / truth.electrons_per_pixel - 1) * window)) ** 2 for f in (frames[0], frames[4]))
    g = frequency_radius_2d(256, 320) / 2.0
    for low, high in ((0.03, 0.04), (0.08, 0.09), (0.14, 0.15)):
        ring = (g > low) & (g < high)
        amplitude = np.sqrt(last[ring].sum() / first[ring].sum())
        critical = critical_exposure_e_per_ang2(np.array([(low + high) / 2]), voltage_kv=300.0)[0]
        assert amplitude == pytest.approx(np.exp(-40.0 / (2 * critical)), rel=0.08)


def test_particles_keep_their_distance_and_the_border():
    placed = place_particles(30, shape=(300, 400), spacing_px=30, border_px=20, generator=np.random.default_rng(1))
    assert len(placed) == 30
    distance = np.linalg.norm(placed[:, None] - placed[None], axis=-1) + 1e9 * np.eye(30)
    assert distance.min() >= 30
    assert placed.min() >= 20
    assert (placed.max(0) <= np.array([279, 379])).all()
    assert len(place_particles(1000, shape=(300, 400), spacing_px=100, border_px=20, generator=np.random.default_rng(1))) < 20


def test_depth_changes_the_defocus_of_a_particle():
    made = settings(depth_spread=True, n_particles=8, height_px=512, width_px=512)
    depths = {p.depth_ang for p in draw_exposure(made, 0, fault=None, diameter_ang=DIAMETER_ANG).particles}
    assert len(depths) > 1
    assert max(map(abs, depths)) <= 0.35 * 300


def test_flowing_ice_keeps_its_power_and_forgets_its_pattern_as_stated():
    """Patterns of frames n apart are correlated by kept**n."""
    rng = np.random.default_rng(3)
    frequency = frequency_radius_2d(256, 256) / 1.5
    kept = pattern_kept(frequency, displacement_ang2=1.1 * 2.0)

    def fresh():
        while True:
            yield fft.rfft2(rng.standard_normal((256, 256), dtype=np.float32))

    patterns = [each for each, _ in zip(flowing_ice(next(fresh()), fresh(), kept=kept), range(4), strict=False)]
    ring = np.abs(frequency - 1 / 6) < 0.02
    power = [np.mean(np.abs(each[ring]) ** 2) for each in patterns]
    assert power == pytest.approx([256**2] * 4, rel=0.1)
    for apart in (1, 2, 3):
        shared = np.mean((patterns[0][ring] * patterns[apart][ring].conj()).real) / 256**2
        assert shared == pytest.approx(np.mean(kept[ring] ** apart), abs=0.06)


def test_rings_of_flowing_ice_show_best_in_groups_of_four_electrons_as_measured():
    """McMullan et al. (2015) measured 1.1 Å² for each e/Å², and 4.0 e/Å² as the best exposure for rings at 3.7 Å."""
    doses = np.arange(0.1, 20.0, 0.1)
    step = pattern_kept(np.array([1 / 3.7]), displacement_ang2=1.1 * 0.1)[0]
    coherent = [step ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))) for n in range(1, len(doses) + 1)]
    over_noise = [np.sum(matrix) / len(matrix) ** 1.5 for matrix in coherent]  # rings over noise
    assert doses[np.argmax(over_noise)] == pytest.approx(4.0, abs=0.4)
