"""What the beam loses in the ice, and the ring of vitreous ice: identities, and the simulated microscope."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from icestream.algorithms.micrograph.transmission import (
    brightest_plausible,
    mean_free_paths,
    mean_intensity_2d,
    vacuum_of_empty,
)
from icestream.algorithms.micrograph.water_ring import COARSEST_PX_ANG, RING_ANG, measure_water_ring
from icestream.algorithms.spectra.spectrum import power_spectrum
from icestream.microscope.ice import crystal_rings
from icestream.microscope.settings import Scene, SimulationSettings
from icestream.microscope.simulate import render_micrograph

TILE = 320


def _spectrum(ring: float, *, pixel_ang: float = 1.0, crystals: float = 0.0, seed: int = 1) -> np.ndarray:
    """Flat noise of power 3, a decaying background as strong, and a ring; each pixel a mean of twelve periodograms."""
    g = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None]) / pixel_ang
    power = 3.0 * (1 + np.exp(-90 * (g * g - 0.13**2)) + ring * np.exp(-0.5 * ((g - 1 / RING_ANG) / 0.018) ** 2))
    power += 3.0 * crystals * crystal_rings(g)
    return power * np.random.default_rng(seed).gamma(12, 1 / 12, power.shape)


def test_the_intensity_is_the_mean_of_what_is_clean() -> None:
    image = np.full((60, 90), 10.0, np.float32)
    image[:, 60:] = 4.0
    labels = np.zeros((6, 9), np.uint8)
    labels[:, 6:] = 4
    assert mean_intensity_2d(image) == pytest.approx((8.0, 1.0))
    assert mean_intensity_2d(image, labels=labels, box_px=10) == pytest.approx((10.0, 2 / 3))


def test_an_image_without_counts_has_no_intensity() -> None:
    noise = np.random.default_rng(2).standard_normal((32, 32))
    with pytest.raises(ValueError, match="normalised"):
        mean_intensity_2d(noise - noise.mean() - 0.1)
    with pytest.raises(ValueError, match="clean"):
        mean_intensity_2d(np.ones((32, 32)), labels=np.ones((4, 4), np.uint8), box_px=8)


def test_one_bright_exposure_is_no_reference() -> None:
    others = [9.0, 9.1, 8.9, 7.0, 6.5]
    assert brightest_plausible(others, tolerance=0.03) == 9.1
    assert brightest_plausible([*others, 14.0], tolerance=0.03) == 9.1
    assert brightest_plausible([9.0, 8.0, 7.0, 6.0], tolerance=0.03) is None
    assert brightest_plausible([], tolerance=0.03) is None


def test_an_empty_hole_that_is_darker_than_ice_is_none() -> None:
    assert vacuum_of_empty([10.0, 10.2, 0.1], brightest=9.1) == pytest.approx(10.1)
    assert vacuum_of_empty([0.1], brightest=9.1) is None
    assert vacuum_of_empty([10.0], brightest=None) == 10.0


@pytest.mark.parametrize("paths", [0.0, 0.05, 0.4])
def test_thickness_is_in_mean_free_paths(paths: float) -> None:
    assert mean_free_paths(7.3 * np.exp(-paths), vacuum=7.3) == pytest.approx(paths)


@pytest.mark.parametrize("ring", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("pixel_ang", [0.8, 1.0, 1.3])
def test_the_ring_is_measured_within_its_error(ring: float, pixel_ang: float) -> None:
    found, error = measure_water_ring(_spectrum(ring, pixel_ang=pixel_ang), pixel_size_ang=pixel_ang)
    assert abs(found - ring) < 4 * error + 0.01
    assert error < 0.05


def test_crystals_are_hardly_taken_for_vitreous_ice() -> None:
    without, with_crystals = (measure_water_ring(_spectrum(0.2, crystals=c), pixel_size_ang=1.0)[0] for c in (0.0, 4.0))
    assert with_crystals == pytest.approx(without, abs=0.1)


def test_what_cannot_show_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="do not reach"):
        measure_water_ring(_spectrum(0.1), pixel_size_ang=1.01 * COARSEST_PX_ANG)
    with pytest.raises(ValueError, match="does not resolve"):
        measure_water_ring(np.ones((32, 17)), pixel_size_ang=1.0)
    with pytest.raises(ValueError, match="not positive"):
        measure_water_ring(np.zeros((TILE, TILE // 2 + 1)), pixel_size_ang=1.0)


def _micrograph(thickness_ang: float, *, scenes: dict[int, Scene] | None = None) -> np.ndarray:
    settings = SimulationSettings(
        n_movies=1,
        seed=7,
        height_px=512,
        width_px=512,
        pixel_size_ang=1.0,
        n_frames=1,
        dose_per_frame_e_per_ang2=45.0,
        drift_px=(0.0, 0.0),
        local_motion_px=0.0,
        gain=False,
        n_particles=0,
        ice_thickness_ang=thickness_ang,
        ice_mean_free_path_ang=3000.0,
        phantom_diameter_ang=60.0,
        scenes=scenes or {},
    )
    return render_micrograph(settings, 0)[0]


def test_both_follow_the_ice_of_the_simulated_microscope() -> None:
    thickness = [150.0, 400.0, 700.0, 1000.0, 1400.0]
    images = [_micrograph(one) for one in thickness]
    vacuum, _ = mean_intensity_2d(_micrograph(300.0, scenes={0: Scene.NO_ICE}))
    paths = [mean_free_paths(mean_intensity_2d(image)[0], vacuum=vacuum) for image in images]
    assert paths == pytest.approx([one / 3000.0 for one in thickness], abs=0.003)
    rings = [measure_water_ring(power_spectrum(image, tile_px=256), pixel_size_ang=1.0)[0] for image in images]
    assert spearmanr(thickness, rings)[0] > 0.89
