"""A simulated specimen may be tilted, bent, thick and icy, and its truth says how."""

import numpy as np
import pytest
from scipy import fft

from icestream.algorithms.ctf.transfer import ctf_phase, electron_wavelength_ang
from icestream.algorithms.fourier import radial_average_2d
from icestream.microscope.draw import draw_exposure
from icestream.microscope.exposure import render_specimen
from icestream.microscope.ice import crystal_rings
from icestream.microscope.layers import Surface, slice_depths_ang, split_into_levels, white_levels
from icestream.microscope.lens import transfer_2d
from icestream.microscope.phantom import build_phantom
from icestream.microscope.projection import FourierVolume, transform_volume
from icestream.microscope.settings import SimulationSettings
from icestream.microscope.truth import ExposureTruth

SIDE_PX, PIXEL_ANG = 256, 2.0


@pytest.fixture(scope="module")
def volume() -> FourierVolume:
    return transform_volume(build_phantom(100.0, pixel_size_ang=PIXEL_ANG, seed=1).volume)


def _settings(**changes: object) -> SimulationSettings:
    small = {
        "n_movies": 2,
        "height_px": SIDE_PX,
        "width_px": SIDE_PX,
        "n_frames": 2,
        "pixel_size_ang": PIXEL_ANG,
        "n_particles": 6,
    }
    return SimulationSettings.model_validate({**small, "drift_px": (0, 0), "local_motion_px": 0.0, **changes})


def _truth(made: SimulationSettings) -> ExposureTruth:
    return draw_exposure(made, 0, fault=None, diameter_ang=100.0)


def _ice(truth: ExposureTruth, volume: FourierVolume, seed: int = 3, **changes: float) -> np.ndarray:
    """Return the image of the ice alone, without the canvas about it."""
    generator = np.random.default_rng(seed)
    options = {"ice_thickness_ang": 300.0, **changes}
    specimen = render_specimen(truth, volume, particle_contrast=0.5, generator=generator, **options)  # type: ignore[arg-type]
    top, left = specimen.origin_yx
    image = fft.irfft2((specimen.ice * specimen.lens).sum(axis=0), s=specimen.canvas)
    return np.asarray(image[top : top + truth.height_px, left : left + truth.width_px])


def test_a_slope_and_a_bend_are_what_they_say() -> None:
    surface = Surface(30.0, 20.0, 200.0, (300, 400), 1.5)
    y, x = np.mgrid[:300, :400]
    offset = surface.offset_ang(y, x)
    assert offset.mean() == pytest.approx(0.0, abs=0.01)
    gradient = np.gradient(Surface(30.0, 20.0, 0.0, (300, 400), 1.5).offset_ang(y, x))
    slope = np.array([gradient[0].mean(), gradient[1].mean()]) / 1.5
    assert np.hypot(*slope) == pytest.approx(np.tan(np.deg2rad(30.0)))
    assert np.rad2deg(np.arctan2(*slope)) == pytest.approx(20.0 + 90.0)
    dome = Surface(0.0, 0.0, 200.0, (300, 400), 1.5)
    assert dome.offset_ang(0.0, 0.0) - dome.offset_ang(149.5, 199.5) == pytest.approx(200.0, rel=0.02)
    assert not dome.is_flat
    assert Surface(0.0, 20.0, 0.0, (300, 400), 1.5).is_flat


def test_shares_of_levels_keep_the_offset() -> None:
    offsets = np.random.default_rng(1).uniform(-300, 500, 50)
    levels = split_into_levels(offsets)
    assert np.sum([share for _, share in levels], axis=0) == pytest.approx(1.0)
    assert np.sum([level * share for level, share in levels], axis=0) == pytest.approx(offsets)
    assert [level for level, _ in split_into_levels(np.zeros(3))] == [0.0]


def test_slices_share_the_noise_among_them() -> None:
    for surface in (Surface(0.0, 0.0, 0.0, (64, 64), 2.0), Surface(40.0, 10.0, 0.0, (64, 64), 2.0)):
        depths = slice_depths_ang(200.0, 4)
        assert depths.tolist() == [-75.0, -25.0, 25.0, 75.0]
        levels = white_levels((64, 64), (0, 0), surface=surface, depths_ang=depths, generator=np.random.default_rng(2))
        total = fft.irfft2(np.sum([noise for _, noise in levels], axis=0), s=(64, 64))
        assert total.std() == pytest.approx(1.0, abs=0.05)


def test_new_settings_leave_other_truth_as_it_was() -> None:
    plain = _truth(_settings())
    tilted = _truth(_settings(sample_tilt_deg=(30, 30), bend_ang=(100, 100), ice_slices=4, ice_ring=1.0))
    changed = {"tilt_deg", "tilt_axis_deg", "bend_ang", "particles"}
    assert plain.model_dump(exclude=changed) == tilted.model_dump(exclude=changed)
    assert np.array_equal(plain.positions_yx_px, tilted.positions_yx_px)
    assert (plain.tilt_deg, plain.bend_ang, plain.surface.is_flat) == (0.0, 0.0, True)
    assert (tilted.tilt_deg, tilted.bend_ang) == (30.0, 100.0)
    added = [p.depth_ang for p in tilted.particles]
    assert added == pytest.approx(tilted.surface.offset_ang(*tilted.positions_yx_px.T))


def test_the_ice_of_a_slope_has_the_defocus_of_its_place(volume: FourierVolume) -> None:
    made = _settings(sample_tilt_deg=(60, 60), astigmatism_ang=(0, 0), n_particles=0, defocus_um=(1.5, 1.5), b_factor_ang2=0.0)
    truth = _truth(made)
    slope, level = _ice(truth, volume), truth.model_copy(update={"tilt_deg": 0.0})
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    strip = np.abs(truth.surface.offset_ang(y, x) - 150.0) < 20.0
    strip[:16], strip[-16:], strip[:, :16], strip[:, -16:] = False, False, False, False
    generator = np.random.default_rng(3)
    reference = render_specimen(level, volume, particle_contrast=0.5, ice_thickness_ang=300.0, generator=generator)
    matches = []
    for offset in (0.0, 150.0, 300.0):
        image = fft.irfft2(reference.ice[0] * transfer_2d(level, reference.canvas, depth_ang=offset), s=reference.canvas)
        top, left = reference.origin_yx
        seen = image[top : top + SIDE_PX, left : left + SIDE_PX]
        matches.append(np.corrcoef(_edges(seen)[strip], _edges(slope)[strip])[0, 1])
    assert matches[1] > 0.9
    assert matches[1] > max(matches[0], matches[2]) + 0.1


def _edges(image: np.ndarray) -> np.ndarray:
    """Return the image above 1/16 of its frequencies, where defocus matters."""
    spectrum = fft.rfft2(image)
    spectrum[np.hypot(fft.fftfreq(SIDE_PX)[:, None], fft.rfftfreq(SIDE_PX)[None]) < 1 / 16] = 0
    return np.asarray(fft.irfft2(spectrum, s=image.shape))


def test_the_rings_of_thick_ice_are_reversed_beyond_the_node(volume: FourierVolume) -> None:
    thickness_ang, defocus_ang = 2400.0, 8000.0
    made = _settings(astigmatism_ang=(0, 0), n_particles=0, defocus_um=(0.8, 0.8), b_factor_ang2=0.0)
    truth = _truth(made)
    amplitudes = []
    for n_slices in (1, 40):
        power = np.zeros((SIDE_PX, SIDE_PX // 2 + 1))
        for seed in range(4):
            image = _ice(truth, volume, seed=seed, ice_thickness_ang=thickness_ang, ice_slices=n_slices)
            power += np.abs(fft.rfft2(image * np.outer(np.hanning(SIDE_PX), np.hanning(SIDE_PX)))) ** 2
        frequency, profile = radial_average_2d(power, width=SIDE_PX)
        g = frequency / PIXEL_ANG
        chi = ctf_phase(g * g, defocus_ang, voltage_kv=300.0, cs_mm=2.7, amplitude_contrast=0.07)
        ratio = electron_wavelength_ang(300.0) * thickness_ang * g * g
        amplitudes.append(
            [
                -np.corrcoef(
                    np.log(profile[band]) - np.polyval(np.polyfit(g[band], np.log(profile[band]), 2), g[band]),
                    np.cos(2 * chi)[band],
                )[0, 1]
                for band in ((ratio > 0.2) & (ratio < 0.8), (ratio > 1.15) & (ratio < 1.85))
            ]
        )
    (thin_before, thin_after), (thick_before, thick_after) = amplitudes
    assert min(thin_before, thin_after, thick_before) > 0.7
    assert thick_after < -0.5


def test_crystals_have_rings_at_the_spacings_of_ice(volume: FourierVolume) -> None:
    peaks = crystal_rings(1 / np.array([3.90, 3.67, 3.44, 2.25]))
    assert peaks == pytest.approx([0.7, 1.0, 0.5, 0.6], abs=1e-3)
    assert crystal_rings(np.array([0.1, 0.24, 0.35])) == pytest.approx(0.0, abs=1e-9)
    truth = _truth(_settings(pixel_size_ang=1.2, n_particles=0, defocus_um=(0.8, 0.8)))
    power = [np.abs(fft.rfft2(_ice(truth, volume, ice_ring=ring))) ** 2 for ring in (0.0, 5.0)]
    frequency, plain = radial_average_2d(power[0], width=SIDE_PX)
    _, icy = radial_average_2d(power[1], width=SIDE_PX)
    g = frequency / 1.2
    assert (icy / plain)[np.abs(g - 1 / 3.67) < 0.001].min() > 2.0
    assert np.median((icy / plain)[(g > 0.1) & (g < 0.2)]) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("changes", [{"sample_tilt_deg": (0, 80)}, {"bend_ang": (3, 1)}, {"ice_slices": 0}, {"ice_ring": -1}])
def test_what_cannot_be_simulated_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        _settings(**changes)
