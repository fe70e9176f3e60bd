"""Features of micrographs on images whose film, lumps, spots and texture are known."""

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest
from scipy import ndimage

from icestream.algorithms.micrograph.bragg import find_bragg_spots_2d
from icestream.algorithms.micrograph.features import FEATURES, MicrographFeatures, measure_features_2d
from icestream.algorithms.micrograph.objects import find_film_2d, reduce_image_2d

SHAPE = (480, 512)


def _noise(seed: int = 1, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100.0, 10.0, shape)


def _ice(seed: int = 1, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return noise with as much again of a band of frequencies, as a CTF leaves of ice."""
    ice = np.random.default_rng(1000 + seed).normal(size=shape)
    band = ndimage.gaussian_filter(ice, 1.5) - ndimage.gaussian_filter(ice, 3.0)
    return _noise(seed, shape) + 6.0 * band / band.std()


def _discs(n: int, radius_px: float, *, seed: int = 3, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    """Return a mask of discs that do not touch."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    mask = np.zeros(shape, bool)
    while n:
        centre = rng.uniform(radius_px, np.array(shape) - radius_px)
        if not mask[np.hypot(y - centre[0], x - centre[1]) < 2 * radius_px].any():
            mask |= np.hypot(y - centre[0], x - centre[1]) < radius_px
            n -= 1
    return mask


def _particles(seed: int = 1) -> np.ndarray:
    return _ice(seed) - 12.0 * ndimage.gaussian_filter(_discs(150, 6.0).astype(float), 1.0)


def test_shot_noise_has_no_signal_whatever_the_slope_of_brightness() -> None:
    slope = np.linspace(0, 200, SHAPE[1])
    features, maps = measure_features_2d(_noise() + slope)
    assert 1.0 <= features.signal_to_noise < 1.2
    assert features.particle_evidence < 0.05
    assert (features.film_share, features.dark_share, features.usable_share) == (0, 0, 1)
    assert maps.image.shape == SHAPE


def test_ice_has_signal_and_symmetric_grey_values_and_particles_do_not() -> None:
    ice, _ = measure_features_2d(_ice())
    particles, _ = measure_features_2d(_particles())
    assert ice.signal_to_noise > 1.8
    assert ice.particle_evidence < 0.15
    assert particles.skewness < -0.3
    assert particles.particle_evidence > 0.4


@pytest.mark.parametrize(("n", "radius_px"), [(1, 60.0), (6, 25.0), (20, 14.0)])
def test_the_area_of_dark_lumps_is_right(n: int, radius_px: float) -> None:
    truth = _discs(n, radius_px)
    features, maps = measure_features_2d(_ice() - 45.0 * truth)
    assert features.dark_share == pytest.approx(truth.mean(), rel=0.25)
    assert np.mean(maps.dark[truth]) > 0.9
    assert features.film_share == 0
    assert features.usable_share == pytest.approx(1 - features.dark_share)


def test_lumps_must_take_a_part_of_the_beam_where_dose_and_pixels_are_known() -> None:
    truth = _discs(6, 25.0)
    image = np.random.default_rng(1).poisson(400.0 * (1 - 0.03 * truth)).astype(float)
    unusual, _ = measure_features_2d(image)
    weak, _ = measure_features_2d(image, pixel_size_ang=4.0, dose_e_per_ang2=25.0)
    strong, _ = measure_features_2d(image - 80.0 * truth, pixel_size_ang=4.0, dose_e_per_ang2=25.0)
    assert unusual.dark_share == pytest.approx(truth.mean(), rel=0.3)
    assert weak.dark_share == 0
    assert strong.dark_share == pytest.approx(truth.mean(), rel=0.3)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_film_beside_a_hole_is_found_and_the_hole_is_judged(share: float) -> None:
    y, x = np.indices(SHAPE)
    distance = np.hypot(y - 240.0, x - 900.0)
    film = distance > np.quantile(distance, 1 - share)
    features, maps = measure_features_2d(_particles() - 20.0 * film)
    assert features.film_share == pytest.approx(share, abs=0.01)
    assert np.mean(maps.film == film) > 0.99
    assert features.dark_share < 0.01
    assert features.particle_evidence > 0.4
    assert features.usable_share == pytest.approx(1 - share, abs=0.06)


def test_a_straight_edge_is_film_and_a_slope_or_a_big_lump_is_not() -> None:
    y, x = np.indices(SHAPE)
    straight = find_film_2d(_noise() - 20.0 * (x + 0.3 * y > 300))
    assert straight is not None
    assert straight.step == pytest.approx(20.0, rel=0.15)
    assert straight.sharpness > 0.8
    assert find_film_2d(_noise() - 0.1 * x) is None
    assert find_film_2d(_noise() - 40.0 * (np.hypot(y - 100, x - 480) < 180)) is None
    assert find_film_2d(_noise()) is None


def test_mottle_is_coarse_and_streaks_have_a_direction() -> None:
    coarse = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=SHAPE), 7.0)
    mottled, _ = measure_features_2d(_ice() + 15.0 * coarse / coarse.std())
    assert mottled.mottle > 8
    assert mottled.anisotropy < 0.2
    blurred = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=SHAPE), (1.0, 6.0))
    streaked, _ = measure_features_2d(_noise() + 20.0 * blurred / blurred.std())
    assert streaked.anisotropy > 0.3
    plain, _ = measure_features_2d(_ice())
    assert plain.anisotropy < 0.12
    assert plain.mottle < 2


def _filtered_ice(power_2d: Callable[[np.ndarray, np.ndarray], np.ndarray], *, seed: int, strength: float) -> np.ndarray:
    """Return shot noise and a Gaussian field whose spectrum is ``power_2d(gy, gx)``, of ``strength`` times its variance."""
    gy, gx = np.meshgrid(np.fft.fftfreq(SHAPE[0]), np.fft.rfftfreq(SHAPE[1]), indexing="ij")
    field = np.fft.rfft2(np.random.default_rng(2000 + seed).normal(size=SHAPE)) * np.sqrt(power_2d(gy, gx))
    ice = np.fft.irfft2(field, s=SHAPE)
    return _noise(seed) + 10.0 * np.sqrt(strength) * ice / ice.std()


def _rings(gy: np.ndarray, gx: np.ndarray, *, astigmatism: float = 0.0) -> np.ndarray:
    """Return Thon rings, the first maximum at a tenth of the sampling frequency, under an envelope."""
    turned = np.cos(2 * (np.arctan2(gy, gx) - 0.4))
    g2 = gy * gy + gx * gx
    return np.sin(0.5 * np.pi * (g2 / 0.01) * (1 + astigmatism * turned)) ** 2 * np.exp(-g2 / 0.03)


@pytest.mark.parametrize("angle_deg", [5.0, 40.0, 90.0, 140.0])
@pytest.mark.parametrize("length_px", [15.0, 50.0])
def test_drift_is_one_sided(angle_deg: float, length_px: float) -> None:
    def drifted(gy: np.ndarray, gx: np.ndarray) -> np.ndarray:
        along = gy * np.sin(np.deg2rad(angle_deg)) + gx * np.cos(np.deg2rad(angle_deg))
        return _rings(gy, gx) * np.sinc(length_px * along) ** 2

    drift, _ = measure_features_2d(_filtered_ice(drifted, seed=int(angle_deg), strength=0.1))
    assert drift.anisotropy > 0.4


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("astigmatism", [0.0, 0.05, 0.1, 0.2])
def test_astigmatism_is_not_taken_for_drift(seed: int, astigmatism: float) -> None:
    image = _filtered_ice(lambda gy, gx: _rings(gy, gx, astigmatism=astigmatism), seed=seed, strength=0.3)
    assert measure_features_2d(image)[0].anisotropy < 0.12


def test_dirt_and_lines_of_the_camera_are_not_taken_for_drift() -> None:
    y, x = np.indices(SHAPE)
    dirty = _ice() + 300.0 * (np.abs(y - 240 - 2 * (x - 256)) < 3) * (np.hypot(y - 240, x - 256) < 40)
    assert measure_features_2d(dirty)[0].anisotropy < 0.12
    lines = np.random.default_rng(9).normal(0, 3.0, (SHAPE[0], 1))
    assert measure_features_2d(_ice() + lines)[0].anisotropy < 0.12


def test_a_cloud_of_thicker_ice_is_no_lump_and_is_kept_from_the_texture() -> None:
    y, x = np.indices(SHAPE)
    cloud = np.exp(-0.5 * (np.hypot(y - 200, x - 300) / 45.0) ** 2)
    plain, _ = measure_features_2d(_ice())
    cloudy, maps = measure_features_2d(_ice() - 25.0 * cloud)
    balls = _discs(4, 22.0)
    both, _ = measure_features_2d(_ice() - 25.0 * cloud - 60.0 * (balls & (cloud < 0.05)))
    assert cloudy.dark_share == 0
    assert not maps.dark.any()
    assert cloudy.particle_evidence == pytest.approx(plain.particle_evidence, abs=0.1)
    assert both.dark_share == pytest.approx(np.mean(balls & (cloud < 0.05)), rel=0.25)


def test_a_ball_over_a_fifth_of_the_image_is_no_cloud_however_its_edge_fades() -> None:
    y, x = np.indices(SHAPE)
    height = np.sqrt(np.clip(1 - (np.hypot(y - 240, x - 250) / 128) ** 2, 0, None))  # a fifth of the image
    ball, maps = measure_features_2d(_ice() - 15.0 * ndimage.gaussian_filter(height, 20.0))
    assert 0.15 < ball.dark_share < 0.3
    assert maps.dark[240, 250]


def test_few_dark_particles_are_no_bare_ice() -> None:
    bare, _ = measure_features_2d(_ice())
    few, maps = measure_features_2d(_ice() - 60.0 * ndimage.gaussian_filter(_discs(6, 10.0).astype(float), 1.0))
    assert not maps.particles.any()  # too few to be sure
    assert 0 < few.dark_share < 0.05
    assert bare.skewness > -0.1
    assert few.skewness < -0.5


def _crystal(image: np.ndarray, *, spacing_ang: float, pixel_ang: float, angle_deg: float, amplitude: float) -> np.ndarray:
    y, x = np.indices(image.shape)
    along = x * np.cos(np.deg2rad(angle_deg)) + y * np.sin(np.deg2rad(angle_deg))
    return image + amplitude * np.cos(2 * np.pi * pixel_ang / spacing_ang * along)


@pytest.mark.parametrize("spacing_ang", [3.44, 3.67, 3.9])
def test_bragg_spots_are_found_where_they_are(spacing_ang: float) -> None:
    image = _noise(2, (1024, 1024))
    crystal = _crystal(image, spacing_ang=spacing_ang, pixel_ang=1.1, angle_deg=33.0, amplitude=2.0)
    crystal[512:] = image[512:]
    spots = find_bragg_spots_2d(crystal, pixel_size_ang=1.1)
    assert spots is not None
    assert spots.crystalline.tolist() == [[True] * 4, [True] * 4, [False] * 4, [False] * 4]
    assert spots.share == 0.5
    assert spots.spacing_ang == pytest.approx(spacing_ang, abs=0.03)


def test_a_diffuse_ring_of_vitreous_ice_has_no_spots() -> None:
    rng = np.random.default_rng(4)
    radius = np.hypot(np.fft.fftfreq(1024)[:, None], np.fft.rfftfreq(1024)[None]) / 1.1
    ring = 1 + 3 * np.exp(-0.5 * ((radius - 1 / 3.7) / 0.012) ** 2)
    image = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(1024, 1024))) * ring)
    spots = find_bragg_spots_2d(image, pixel_size_ang=1.1)
    assert spots is not None
    assert (spots.share, spots.spacing_ang) == (0, None)
    assert find_bragg_spots_2d(image, pixel_size_ang=2.0) is None
    assert find_bragg_spots_2d(image[:100], pixel_size_ang=1.1) is None


@pytest.mark.parametrize("change", [lambda image: 3.0 * image - 700.0, lambda image: 0.01 * image, np.flipud, np.transpose])
def test_stretching_and_turning_change_nothing(change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = _particles() - 45.0 * _discs(4, 22.0)
    before = asdict(measure_features_2d(image)[0])
    after = asdict(measure_features_2d(change(image))[0])
    for name, value in before.items():
        assert after[name] == (None if value is None else pytest.approx(value, rel=0.1, abs=0.03)), name


def test_a_finer_image_of_the_same_field_has_the_same_features() -> None:
    truth = _discs(4, 22.0)
    image = _particles() - 45.0 * truth
    fine = np.kron(image, np.ones((3, 3))) + np.random.default_rng(6).normal(0, 1, (1440, 1536))
    coarse, fine_features = measure_features_2d(image)[0], measure_features_2d(fine)[0]
    assert reduce_image_2d(fine)[1] == 3
    assert fine_features.signal_to_noise == pytest.approx(coarse.signal_to_noise, rel=0.05)
    assert fine_features.dark_share == pytest.approx(coarse.dark_share, abs=0.005)
    assert fine_features.skewness == pytest.approx(coarse.skewness, abs=0.05)


def test_the_image_is_left_as_it_was() -> None:
    image = _particles().astype(np.float32)
    image.flags.writeable = False
    before = image.copy()
    measure_features_2d(image, pixel_size_ang=1.5, dose_e_per_ang2=40.0)
    np.testing.assert_array_equal(image, before)


def test_single_values_that_are_not_finite_or_hot_do_no_harm() -> None:
    image = _particles()
    before, _ = measure_features_2d(image, pixel_size_ang=1.5)
    image[::97, ::89] = np.nan
    image[5, 5], image[7, 9] = np.inf, 1e12
    after, _ = measure_features_2d(image, pixel_size_ang=1.5)
    assert after.signal_to_noise == pytest.approx(before.signal_to_noise, rel=0.05)
    assert after.skewness == pytest.approx(before.skewness, abs=0.05)
    assert after.bragg_share == before.bragg_share == 0


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full(SHAPE, np.nan), "only 0% of the pixels are finite"),
        (np.full(SHAPE, 255, np.uint8), "all pixels have the value 255"),
        (np.zeros((63, 500)), r"\(63, 500\)"),
        (np.zeros((3, 100, 100)), r"\(3, 100, 100\)"),
        (np.random.default_rng(1).normal(size=(100, 4000)), "too narrow"),
    ],
)
def test_what_cannot_be_judged_is_refused(image: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        measure_features_2d(image)


@pytest.mark.parametrize("shape", [(64, 64), (65, 301), (128, 511), (700, 513)])
def test_odd_and_small_images_are_judged(shape: tuple[int, int]) -> None:
    features, maps = measure_features_2d(_ice(2, shape), pixel_size_ang=1.5, dose_e_per_ang2=40.0)
    assert all(value is None or np.isfinite(value) for value in asdict(features).values())
    assert maps.film.shape == maps.dark.shape == maps.bragg.shape == maps.image.shape


@pytest.mark.parametrize("levels", [2, 3])
def test_images_of_few_levels_are_judged(levels: int) -> None:
    image = np.random.default_rng(1).integers(0, levels, SHAPE).astype(np.uint8)
    features, _ = measure_features_2d(image)
    assert features.signal_to_noise < 1.3
    mostly_black = np.zeros(SHAPE)
    mostly_black[200:280, 200:280] = 1.0
    features, _ = measure_features_2d(mostly_black)
    assert all(value is None or np.isfinite(value) for value in asdict(features).values())


def test_every_feature_has_a_meaning() -> None:
    derived = {"particle_evidence", "usable_signal"}
    assert set(FEATURES) == set(MicrographFeatures.__dataclass_fields__) - {"bragg_spacing_ang"} | derived
