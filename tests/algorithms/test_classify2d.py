"""Polar sampling, the search, the averages and the whole classification, on images with known truth."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.classify2d.em import (
    Model,
    Setting,
    add_batch,
    anneal,
    assign,
    balance_classes,
    coarse_level,
    estimate,
    expect,
    level_at,
    maximise,
    prepare_particles_2d,
    render,
    reseed,
    seed_averages,
)
from icestream.algorithms.classify2d.model import Averages, References, Sums, mask_of_orders, orders_of_stored, sum_poses_2d
from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.particles import PolarParticles, reference_orders_2d
from icestream.algorithms.scoring.polar import PolarGrid, image_from_polar_2d, sample_polar_2d, soft_disc_2d
from icestream.algorithms.scoring.search import Poses
from icestream.microscope.phantom import build_phantom
from icestream.microscope.projection import project_2d, transform_volume

BOX = 48
SETTING = Setting(
    grid=PolarGrid(BOX, 18, 120),
    n_classes=1,
    mask_radius_px=16.0,
    edge_px=3.0,
    max_shift_px=4.0,
    start_ring=5,
    warm_ring=8,
    tau_fudge=1.0,
    forgetting=0.8,
)
SHAPES = {
    "hook": np.array([[-9.0, -4, 1.5], [-3, -6, 1.0], [4, -5, 0.7], [8, 2, 1.6], [3, 7, 0.5]]),
    "cross": np.array([[0.0, 0, 1.8], [10, 1, 1.0], [-7, 3, 1.2], [1, 9, 0.8], [-2, -11, 1.5]]),
}


def draw(shape: str, psi_deg: float = 0.0, shift_yx_px: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """Draw blobs ``(x, y, weight)`` turned by psi from x towards y and then moved, about pixel ``BOX // 2``."""
    x, y, weight = SHAPES[shape].T
    psi = np.deg2rad(psi_deg)
    x, y = x * np.cos(psi) - y * np.sin(psi) + shift_yx_px[1], x * np.sin(psi) + y * np.cos(psi) + shift_yx_px[0]
    grid = np.arange(BOX) - BOX // 2
    image = np.exp(-((grid[:, None, None] - y) ** 2 + (grid[None, :, None] - x) ** 2) / (2 * 1.7**2)) @ weight
    return image.astype(np.float32)


def prepare(images: NDArray[np.float32], ctf: NDArray[np.float32] | None = None, setting: Setting = SETTING) -> PolarParticles:
    if ctf is None:
        ctf = np.ones((len(images), setting.grid.n_rings, setting.grid.half), np.float32)
    return prepare_particles_2d(images, ctf, setting=setting, half_set=(np.arange(len(images)) % 2).astype(np.int8))


def averages_of(images: NDArray[np.float32], noise: float) -> Averages:
    rings = SETTING.grid.n_rings
    return Averages(images, np.stack([images, images]), np.ones((len(images), rings)), np.full(rings, noise, np.float32))


def noisy(shapes: list[str], spread: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    psi = rng.uniform(0, 360, len(shapes))
    shift = rng.uniform(-2.5, 2.5, (len(shapes), 2))
    images = [draw(s, p, (t[0], t[1])) for s, p, t in zip(shapes, psi, shift, strict=True)]
    return (np.stack(images) + rng.normal(0, spread, (len(shapes), BOX, BOX))).astype(np.float32), psi, shift


def angle_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs((a - b + 180) % 360 - 180)


def test_polar_samples_equal_the_fourier_sum() -> None:
    grid = PolarGrid(32, 12, 48)
    image = np.random.default_rng(0).normal(size=(1, 32, 32)).astype(np.float32)
    polar = sample_polar_2d(image, grid=grid)
    y = np.arange(32) - 16
    for ring, angle in ((0, 0), (4, 7), (11, 23)):
        k, theta = grid.radii()[ring] / 32, grid.angles_rad()[angle]
        wave = np.exp(-2j * np.pi * k * (np.sin(theta) * y[:, None] + np.cos(theta) * y[None, :]))
        assert polar[0, ring, angle] == pytest.approx((image[0] * wave).sum(), abs=0.01)


def test_image_comes_back_from_its_polar_samples() -> None:
    image = draw("hook")
    back = image_from_polar_2d(sample_polar_2d(image[None], grid=SETTING.grid), grid=SETTING.grid)[0]
    inside = soft_disc_2d(BOX, radius_px=18, edge_px=1) > 0.5
    np.testing.assert_allclose((back - back[inside].mean())[inside], (image - image[inside].mean())[inside], atol=0.05)


def test_turning_an_image_is_a_step_along_the_angle() -> None:
    grid = SETTING.grid
    straight, turned = sample_polar_2d(np.stack([draw("hook"), draw("hook", 30.0)]), grid=grid)
    steps = 10  # of 3 degrees
    np.testing.assert_allclose(turned[:, steps:], straight[:, :-steps], atol=0.02 * np.abs(straight).max())


def test_a_polar_grid_of_odd_box_is_refused() -> None:
    with pytest.raises(ValueError, match="even box"):
        PolarGrid(33, 8, 40)


def test_polar_ctf_equals_the_cartesian_one_along_the_axes() -> None:
    grid = PolarGrid(64, 30, 80)
    optics = {"defocus_u_ang": 15000.0, "defocus_v_ang": 13000.0, "astigmatism_angle_deg": 20.0}
    scope = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
    polar = ctf_polar_2d(grid, box_ang=128.0, **optics, **scope)
    plane = ctf_2d(64, 64, pixel_size_ang=2.0, **optics, **scope)
    np.testing.assert_allclose(polar[:, 0], plane[0, 1:31], atol=1e-5)
    np.testing.assert_allclose(polar[:, 20], plane[1:31, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("psi_deg", "shift"), [(0.0, (0.0, 0.0)), (33.0, (2.0, -1.0)), (201.0, (-3.0, 2.0)), (357.0, (1.0, 3.0))]
)
def test_pose_of_a_clean_image_is_found_in_the_documented_convention(psi_deg: float, shift: tuple[float, float]) -> None:
    particles = prepare(draw("hook", psi_deg, shift)[None])
    model_averages = averages_of(np.stack([draw("cross"), draw("hook")]), noise=50.0)
    setting = replace(SETTING, n_classes=2)
    sums = sum_poses_2d(particles, expect_full(particles, model_averages, setting), level=level_at(setting, 18), n_classes=2)
    found = assign(particles, model_of(model_averages, sums), setting=setting)
    assert found.class_id[0] == 1
    assert angle_between(found.psi_deg.astype(float), np.array([psi_deg]))[0] <= 1.0
    np.testing.assert_allclose(found.shift_yx_px[0], shift, atol=0.2)
    assert found.score[0] > 100


def test_psi_is_minus_that_of_relion_and_the_origin_minus_the_shift() -> None:
    """The simulator turns its particles as RELION does (`tests/steps/export/test_relion_reconstruct.py`)."""
    volume = transform_volume(build_phantom(90.0, pixel_size_ang=3.0, seed=4).volume)
    margin = BOX // 2 - volume.size // 2
    average, seen = (
        np.pad(project_2d(volume, rot_deg=20, tilt_deg=50, psi_deg=psi, shift_yx_px=shift), margin)
        for psi, shift in ((0.0, (0.0, 0.0)), (75.0, (2.0, -3.0)))
    )
    particles, averages = prepare(seen[None]), averages_of(average[None], noise=50.0)
    sums = sum_poses_2d(particles, expect_full(particles, averages, SETTING), level=level_at(SETTING, 18), n_classes=1)
    found = assign(particles, model_of(averages, sums), setting=SETTING)
    assert angle_between(found.psi_deg.astype(float), np.array([-75.0]))[0] <= 3.0
    np.testing.assert_allclose(found.shift_yx_px[0], (2.0, -3.0), atol=0.75)


def expect_full(particles: PolarParticles, averages: Averages, setting: Setting) -> Poses:
    return expect(particles, averages, setting=setting, level=level_at(setting, setting.grid.n_rings))


def model_of(averages: Averages, sums: Sums) -> Model:
    return Model(averages, sums, 1)


def test_weights_of_a_particle_sum_to_one_and_arguments_stay() -> None:
    images, _, _ = noisy(["hook"] * 5, 1.0, 3)
    particles = prepare(images)
    kept = particles.signal.copy()
    poses = expect_full(particles, averages_of(draw("hook")[None], 2000.0), SETTING)
    np.testing.assert_allclose(np.bincount(poses.particle, weights=poses.weight), 1.0, rtol=1e-4)
    np.testing.assert_array_equal(particles.signal, kept)


def test_a_batch_of_particles_equals_a_loop() -> None:
    images, _, _ = noisy(["hook"] * 20, 1.0, 4)
    averages = averages_of(draw("hook")[None], 2000.0)
    whole = expect_full(prepare(images), averages, SETTING)
    for i in (0, 7, 19):
        alone = expect_full(prepare(images[i : i + 1]), averages, SETTING)
        assert alone.gain[0] == pytest.approx(whole.gain[i], rel=1e-4)
        best = whole.particle == i
        assert alone.turn[np.argmax(alone.weight)] == whole.turn[best][np.argmax(whole.weight[best])]


def test_average_of_images_through_the_ctf_is_the_object_without_ctf() -> None:
    rng = np.random.default_rng(5)
    clean, ctfs, images = draw("hook"), [], []
    for defocus in rng.uniform(6000, 15000, 40):
        optics = {"defocus_u_ang": defocus, "defocus_v_ang": defocus - 500, "astigmatism_angle_deg": 40.0}
        scope = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.3}
        plane = -ctf_2d(BOX, BOX, pixel_size_ang=3.0, **optics, **scope)
        ctfs.append(-ctf_polar_2d(SETTING.grid, box_ang=3.0 * BOX, **optics, **scope, phase_shift_deg=0.0))
        images.append(np.fft.irfft2(np.fft.rfft2(clean) * plane, s=clean.shape))
    setting = replace(SETTING, max_shift_px=8.0)  # a wide mask, for the fringes
    particles = prepare(np.stack(images).astype(np.float32), np.stack(ctfs), setting)
    level, n = level_at(setting, 18), len(images)
    centre = int(np.flatnonzero((level.shifts_yx_px == 0).all(axis=1))[0])
    index = np.arange(n, dtype=np.int32)
    zero = np.zeros(n, np.int32)
    poses = Poses(index, zero, zero, zero + centre, np.ones(n, np.float32), np.zeros(n, np.float32), np.zeros((n, 1), np.float32))
    sums = sum_poses_2d(particles, poses, level=level, n_classes=1)
    average = maximise(sums, setting=setting, level=level, noise_power=np.ones(18, np.float32)).images[0]
    assert np.corrcoef(average.ravel(), clean.ravel())[0, 1] > 0.98
    assert average.max() == pytest.approx(clean.max(), rel=0.15)


def test_noise_power_is_found() -> None:
    images, _, _ = noisy(["hook"] * 60, 1.0, 6)
    particles = prepare(images)
    model = anneal(particles, seed_averages(particles, setting=SETTING, seed=1), setting=SETTING, first_ring=5, iterations=8)
    mask = soft_disc_2d(BOX, radius_px=SETTING.particle_radius_px, edge_px=SETTING.edge_px)
    np.testing.assert_allclose(model.averages.noise_power[8:], (mask**2).sum(), rtol=0.15)


def test_two_shapes_separate_and_every_class_is_used() -> None:
    shapes = ["hook", "cross"] * 60
    images, psi, _ = noisy(shapes, 1.2, 7)
    setting = replace(SETTING, n_classes=4)
    particles = prepare(images, setting=setting)
    start = seed_averages(particles, setting=setting, seed=2)
    model = anneal(particles, start, setting=setting, first_ring=5, iterations=12, balanced=0.6)
    found = assign(particles, model, setting=setting)
    truth = np.array([s == "hook" for s in shapes])
    pure = sum(max(truth[found.class_id == k].sum(), (~truth[found.class_id == k]).sum()) for k in range(4))
    assert pure / len(shapes) > 0.9
    assert np.bincount(found.class_id, minlength=4).max() < 0.6 * len(shapes)
    k = int(np.bincount(found.class_id[truth]).argmax())
    members = truth & (found.class_id == k)
    turns = np.deg2rad(found.psi_deg[members] - psi[members])
    spread = np.rad2deg(np.abs(np.angle(np.exp(1j * turns) / np.exp(1j * turns).mean())))
    assert np.median(spread) < 5.0


def test_a_class_that_starts_sharper_does_not_take_all_particles() -> None:
    images, _, _ = noisy(["hook"] * 80, 1.2, 11)
    setting = replace(SETTING, n_classes=4)
    particles = prepare(images, setting=setting)
    start = seed_averages(particles, setting=setting, seed=3)
    sharp = start.images.copy()
    sharp[0] = draw("hook")
    averages = replace(start, images=sharp)
    poses = expect(particles, averages, setting=setting, level=level_at(setting, 9))
    assert np.bincount(poses.class_gain.argmax(axis=1), minlength=4).max() > 60
    model = anneal(particles, averages, setting=setting, first_ring=5, iterations=10, balanced=0.6)
    assert model.sums.weight.sum(axis=0).max() < 40


def test_handicaps_make_classes_equally_attractive() -> None:
    rng = np.random.default_rng(10)
    gain = (rng.normal(0, 3, (300, 4)) + np.array([0.0, 5.0, 9.0, -4.0])).astype(np.float32)
    assert np.bincount(gain.argmax(axis=1), minlength=4).max() > 200
    sizes = np.bincount((gain + balance_classes(gain)).argmax(axis=1), minlength=4)
    assert sizes.min() > 55
    assert sizes.max() < 95


def test_an_empty_class_is_given_half_of_the_most_populous() -> None:
    orders = reference_orders_2d(np.stack([draw("hook"), draw("cross")]), grid=SETTING.grid)
    halves = np.stack([orders * 0.9, orders * 1.1]).astype(np.complex64)
    references = References(orders, halves, np.ones((2, 18)), np.ones(18, np.float32), np.stack([orders, *halves]))
    shape = (2, 2, 60, 18)
    sums = Sums(np.zeros(shape, np.complex64), np.zeros((2, 2, 1, 18), np.float32), np.array([[50.0, 0], [50, 1]]), np.zeros(18))
    renewed = reseed(references, sums)
    np.testing.assert_array_equal(renewed[1], halves[0, 0])
    np.testing.assert_array_equal(renewed[0], halves[1, 0])


def test_masking_orders_is_masking_the_image() -> None:
    image = np.pad(draw("hook")[4:-4, 4:-4], 4) + draw("cross", 40, (8, 5))  # something outside the mask too
    mask = soft_disc_2d(BOX, radius_px=16, edge_px=3)
    outside = soft_disc_2d(BOX, radius_px=BOX / 2 - 1, edge_px=1.0) * (1 - mask)
    plain = image - image.mean()
    masked = (plain - (plain * outside).sum() / outside.sum()) * mask
    before, after = (reference_orders_2d(i[None].astype(np.float32), grid=SETTING.grid)[0] for i in (image, masked))
    found = np.einsum("qrs,qs->qr", mask_of_orders(SETTING.grid, 16, 3), before)
    assert np.linalg.norm(found - after) < 0.05 * np.linalg.norm(after)
    assert np.linalg.norm(before - after) > 0.15 * np.linalg.norm(after)


def test_references_are_the_images_that_are_rendered_of_them() -> None:
    images, _, _ = noisy(["hook"] * 60, 1.0, 12)
    particles = prepare(images)
    averages = averages_of(draw("hook")[None], 2000.0)
    sums = sum_poses_2d(particles, expect_full(particles, averages, SETTING), level=level_at(SETTING, 18), n_classes=1)
    references = estimate(sums, setting=SETTING, noise_power=averages.noise_power)
    shown = reference_orders_2d(render(references, setting=SETTING).images, grid=SETTING.grid)
    assert np.linalg.norm(shown - references.orders) < 0.05 * np.linalg.norm(shown)


def test_sums_of_a_subset_add_up() -> None:
    images, _, _ = noisy(["hook", "cross"] * 15, 1.0, 13)
    averages = averages_of(np.stack([draw("hook"), draw("cross")]), 2000.0)
    setting, level = replace(SETTING, n_classes=2), level_at(SETTING, 18)
    parts = []
    for rows in (slice(None), slice(0, 11), slice(11, None)):
        particles = prepare(images).take(np.arange(30)[rows])
        parts.append(sum_poses_2d(particles, expect_full(particles, averages, setting), level=level, n_classes=2))
    whole, joined = parts[0], parts[1].decayed(1.0, parts[2], 1.0)
    assert np.abs(whole.signal - joined.signal).max() < 1e-4 * np.abs(whole.signal).max()
    np.testing.assert_allclose(whole.ctf_squared, joined.ctf_squared, rtol=1e-4)
    assert whole.weight.sum() == pytest.approx(30, rel=1e-4)


def test_sums_of_another_resolution_than_the_level_are_refused() -> None:
    particles = prepare(noisy(["hook"] * 4, 1.0, 14)[0])
    averages = averages_of(draw("hook")[None], 2000.0)
    sums = sum_poses_2d(particles, expect_full(particles, averages, SETTING), level=level_at(SETTING, 18), n_classes=1)
    with pytest.raises(ValueError, match="18 rings, the level has 9"):
        maximise(sums, setting=SETTING, level=level_at(SETTING, 9), noise_power=averages.noise_power)


def test_poses_between_the_steps_of_the_search_are_found() -> None:
    images, psi, shift = noisy(["hook"] * 12, 0.1, 15)
    averages = averages_of(draw("hook")[None], 300.0)
    found = assign(prepare(images), model_of(averages, sums_of_one()), setting=SETTING)
    assert angle_between(found.psi_deg.astype(float), psi).max() < 1.0
    assert np.abs(found.shift_yx_px - shift).max() < 0.2


def test_sums_that_were_stored_on_polar_samples_become_orders() -> None:
    polar = sample_polar_2d(np.stack([draw("hook"), draw("cross")]), grid=SETTING.grid)  # (2, n_rings, half)
    ctf_squared = np.random.default_rng(0).uniform(size=(2, 2, 18, 60)).astype(np.float32)
    signal, mean = orders_of_stored(np.stack([polar, polar]), ctf_squared)
    np.testing.assert_allclose(signal[1], reference_orders_2d(np.stack([draw("hook"), draw("cross")]), grid=SETTING.grid))
    np.testing.assert_allclose(mean[:, :, 0, :], ctf_squared.mean(axis=-1), rtol=1e-5)
    same, again = orders_of_stored(signal, mean)
    assert same is signal
    assert again is mean


def sums_of_one() -> Sums:
    return Sums(np.zeros((2, 1, 60, 18), np.complex64), np.zeros((2, 1, 1, 18), np.float32), np.ones((2, 1)), np.ones(18))


def test_the_coarse_search_divides_the_fine_one() -> None:
    fine = level_at(SETTING, 18)
    assert coarse_level(replace(SETTING, start_ring=7), fine) is None
    setting = replace(SETTING, start_ring=4)
    coarse = coarse_level(setting, fine)
    assert coarse is not None
    assert fine.grid.n_angles == 2 * coarse.grid.n_angles
    assert coarse.grid.n_rings == 12
    assert len(coarse.shifts_yx_px) < len(fine.shifts_yx_px)


def test_online_steps_keep_count_and_improve_on_the_start() -> None:
    images, _, _ = noisy(["hook"] * 160, 2.0, 8)
    start = prepare(images[:40])
    model = anneal(start, seed_averages(start, setting=SETTING, seed=1), setting=SETTING, first_ring=5, iterations=8)
    began = model.averages.correlation[0, 5:12].mean()
    for first in range(40, 160, 40):
        model = add_batch(model, prepare(images[first : first + 40]), n_fresh=40, setting=SETTING)
    assert model.n_seen == 160
    assert model.sums.weight.sum() == pytest.approx(160, rel=1e-3)
    assert model.averages.correlation[0, 5:12].mean() > began


def test_the_same_input_gives_the_same_bits() -> None:
    images, _, _ = noisy(["hook", "cross"] * 10, 1.0, 9)
    setting = replace(SETTING, n_classes=2)
    runs = []
    for _ in range(2):
        particles = prepare(images, setting=setting)
        runs.append(
            anneal(particles, seed_averages(particles, setting=setting, seed=3), setting=setting, first_ring=5, iterations=5)
        )
    np.testing.assert_array_equal(runs[0].averages.images, runs[1].averages.images)
    np.testing.assert_array_equal(runs[0].sums.signal, runs[1].sums.signal)
