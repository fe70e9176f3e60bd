"""The scoring kernel: identities, agreement with sums written out, and the laws that all its searches obey."""

from dataclasses import replace

import array_api_strict
import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.namespaces import Place
from icestream.algorithms.scoring.bank import Bank, Level, make_bank, make_level
from icestream.algorithms.scoring.cascade import Cascade, search_cascade_2d
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.particles import PolarParticles, join_particles, prepare_images_2d, reference_orders_2d
from icestream.algorithms.scoring.polar import (
    PolarGrid,
    angular_orders,
    polar_from_orders,
    sample_polar_2d,
    shift_ramps,
    soft_disc_2d,
)
from icestream.algorithms.scoring.polish import polish_poses_2d
from icestream.algorithms.scoring.search import NOWHERE, score_turns, search_halves_2d, search_poses_2d
from icestream.algorithms.scoring.windows import PoseWindows, group_shifts, search_windows_2d

BOX, RINGS = 32, 10
GRID = PolarGrid(BOX, RINGS, 72)
LEVEL = make_level(GRID, n_rings=RINGS, n_turns=72, shift_step_px=1.0, max_shift_px=2.0)
OVERLAP = 0.5
NOISE = np.linspace(900, 600, RINGS).astype(np.float32)
OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
ELSEWHERE = Place(array_api_strict, array_api_strict.Device("device1"))


def shape(seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    y, x = rng.normal(0, 3.5, (2, 12))
    grid = np.arange(BOX) - BOX // 2
    spots = np.exp(-((grid[:, None, None] - y) ** 2 + (grid[None, :, None] - x) ** 2) / 4)
    return (spots @ rng.uniform(0.4, 1.6, 12)).astype(np.float32)


REFERENCES = np.stack([shape(seed) for seed in range(3)])
ORDERS = reference_orders_2d(REFERENCES, grid=GRID)


def contrast(count: int, *, astigmatism_ang: float = 0.0) -> NDArray[np.float32]:
    defocus = np.random.default_rng(9).uniform(8000, 16000, count)
    return np.stack(
        [
            -ctf_polar_2d(
                GRID, box_ang=4.0 * BOX, defocus_u_ang=d + astigmatism_ang, defocus_v_ang=d, astigmatism_angle_deg=25.0, **OPTICS
            )
            for d in defocus
        ]
    )


def noisy_images(count: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    moved = [np.roll(REFERENCES[i % 3], rng.integers(-2, 3, 2), axis=(0, 1)) for i in range(count)]
    return (np.stack(moved) + rng.normal(0, 1.5, (count, BOX, BOX))).astype(np.float32)


def prepare(images: NDArray[np.float32], ctf: NDArray[np.float32] | None = None) -> PolarParticles:
    used = contrast(len(images)) if ctf is None else ctf
    half_set = (np.arange(len(images)) % 2).astype(np.int8)
    return prepare_images_2d(images, used, grid=GRID, mask_radius_px=12, edge_px=3, half_set=half_set)


def bank_of(level: Level = LEVEL, *, mirrored: bool = False, discarded: float = 1e-7, place: Place | None = None) -> Bank:
    options = {} if place is None else {"place": place}
    return make_bank(
        ORDERS, grid=GRID, level=level, noise_power=NOISE, overlap=OVERLAP, mirrored=mirrored, discarded=discarded, **options
    )


def table_of(particles: PolarParticles, bank: Bank) -> NDArray[np.float32]:
    """Return the log likelihood ratios of all poses: ``(n, k, n_turns, n_shifts)``."""
    even, odd = score_turns(particles, bank)
    scores = np.concatenate([even + odd, even - odd])  # (n_turns, n, k * n_shifts)
    return scores.reshape(len(scores), len(particles), bank.n_references, -1).transpose(1, 2, 0, 3)


def written_out(image: NDArray[np.float32], ctf: NDArray[np.float32], k: int, turn: int, t: int) -> float:
    """Return the log likelihood ratio of one pose by the sum over Fourier samples."""
    mask = soft_disc_2d(BOX, radius_px=12, edge_px=3)
    seen = sample_polar_2d((image * mask)[None], grid=GRID)[0]  # (n_rings, half)
    ramp = shift_ramps(LEVEL.shifts_yx_px[t : t + 1], grid=GRID)[0]
    moved = sample_polar_2d(REFERENCES[k : k + 1], grid=GRID)[0] * ramp
    circle = np.concatenate([moved, np.conj(moved)], axis=1)
    turned = np.roll(circle, turn, axis=1)[:, : GRID.half]
    weight = 2 * np.pi * GRID.radii() * OVERLAP / GRID.n_angles / NOISE
    cross = 2 * np.real(ctf * seen * np.conj(turned))
    norm = np.square(ctf).mean(axis=1, keepdims=True) * np.square(np.abs(turned))
    return float(((cross - norm).sum(axis=1) * weight).sum() + LEVEL.log_prior[t])


def test_orders_are_the_transform_along_the_circle_and_come_back() -> None:
    polar = sample_polar_2d(noisy_images(2, 0), grid=GRID)
    circle = np.concatenate([polar, np.conj(polar)], axis=-1)
    orders = angular_orders(polar, n_orders=GRID.half)
    np.testing.assert_allclose(orders, np.fft.fft(circle, axis=-1)[..., : GRID.half], atol=1e-3)
    smooth = polar_from_orders(orders[..., :20], grid=GRID)
    np.testing.assert_allclose(angular_orders(smooth, n_orders=20), orders[..., :20], atol=1e-2)
    assert np.abs(angular_orders(smooth, n_orders=GRID.half)[..., 20:]).max() < 1e-2


def test_scores_are_the_sums_written_out() -> None:
    images = noisy_images(2, 1)
    ctf = contrast(2, astigmatism_ang=600.0)
    bank = bank_of()
    found = table_of(prepare(images, ctf), bank)
    for i, k, turn, t in ((0, 0, 0, 6), (0, 2, 17, 0), (1, 1, 40, 12), (1, 0, 71, 3)):
        wanted = written_out(images[i], ctf[i], k, turn, t)
        assert found[i, k, turn, t] == pytest.approx(wanted, abs=0.03 + 2e-3 * abs(wanted))


def test_the_basis_is_smaller_than_the_rings_and_loses_little() -> None:
    particles = prepare(noisy_images(6, 2))
    whole, small = bank_of(discarded=0.0), bank_of(discarded=1e-3)
    assert small.starts[-1] < 0.5 * whole.starts[-1]
    gain = search_poses_2d(particles, whole).gain
    assert np.abs(search_poses_2d(particles, small).gain / gain - 1).max() < 0.02


def test_a_batch_equals_a_loop_and_arguments_stay() -> None:
    particles, bank = prepare(noisy_images(9, 3)), bank_of()
    kept = particles.signal.copy(), ORDERS.copy(), NOISE.copy()
    whole = search_poses_2d(particles, bank)
    for i in range(9):
        alone = search_poses_2d(particles.take(np.array([i])), bank)
        mine = whole.particle == i
        np.testing.assert_array_equal(alone.turn, whole.turn[mine])
        np.testing.assert_allclose(alone.weight, whole.weight[mine], rtol=1e-3)
        np.testing.assert_allclose(alone.class_gain[0], whole.class_gain[i], rtol=1e-4, atol=1e-3)
    for before, after in zip(kept, (particles.signal, ORDERS, NOISE), strict=True):
        np.testing.assert_array_equal(before, after)


def test_sets_of_particles_join() -> None:
    images = noisy_images(5, 4)
    ctf = contrast(5)
    parts = [prepare(images[rows], ctf[rows]) for rows in (slice(0, 2), slice(2, 5))]
    np.testing.assert_allclose(join_particles(parts).signal, prepare(images, ctf).signal, atol=1e-2)


def test_weights_are_those_of_all_poses_within_reach() -> None:
    particles, bank = prepare(noisy_images(4, 5)), bank_of()
    scores = table_of(particles, bank).reshape(4, -1)
    poses = search_poses_2d(particles, bank, negligible=4.0, most=10**6)
    within = np.exp(scores - scores.max(axis=1, keepdims=True)) * (scores > scores.max(axis=1, keepdims=True) - 4.0)
    np.testing.assert_array_equal(np.bincount(poses.particle), (within > 0).sum(axis=1))
    np.testing.assert_allclose(np.bincount(poses.particle, weights=poses.weight), 1.0, rtol=1e-5)
    best = poses.weight[poses.best()]
    np.testing.assert_allclose(best, 1 / within.sum(axis=1), rtol=1e-3)


def test_no_more_than_the_most_poses_are_kept_and_they_are_the_likeliest() -> None:
    particles, bank = prepare(noisy_images(3, 6)), bank_of()
    few = search_poses_2d(particles, bank, negligible=50.0, most=30)
    assert 0 < np.bincount(few.particle).max() <= 30
    np.testing.assert_allclose(few.gain, search_poses_2d(particles, bank).gain)


def test_priors_add_to_the_score() -> None:
    particles, bank = prepare(noisy_images(4, 7)), bank_of()
    flat = search_poses_2d(particles, bank).class_gain
    prior = np.array([0.0, -3.0, 8.0], np.float32)
    np.testing.assert_allclose(search_poses_2d(particles, bank, log_prior=prior).class_gain, flat + prior, atol=1e-3)
    own = np.random.default_rng(0).normal(0, 5, (4, 3)).astype(np.float32)
    np.testing.assert_allclose(search_poses_2d(particles, bank, log_prior=own).class_gain, flat + own, atol=1e-3)


def test_a_mirrored_reference_sees_the_flipped_image() -> None:
    images = noisy_images(3, 8)
    flipped = np.roll(images[:, ::-1], 1, axis=1)  # y to -y about pixel BOX // 2
    ctf = contrast(3)  # round, so that it is its own mirror image
    both, plain = bank_of(mirrored=True), bank_of()
    assert both.n_references == 6
    seen = search_poses_2d(prepare(images, ctf), both).class_gain
    mirrored = search_poses_2d(prepare(flipped, ctf), plain).class_gain
    np.testing.assert_allclose(seen[:, :3], search_poses_2d(prepare(images, ctf), plain).class_gain, atol=0.05)
    np.testing.assert_allclose(seen[:, 3:], mirrored, atol=0.3)
    assert np.abs(seen[:, 3:] - seen[:, :3]).max() > 1.0


def some_windows() -> PoseWindows:
    starts, shifts = group_shifts([np.array([0, 3, 4], np.int32), np.array([6], np.int32), np.arange(7, 13, dtype=np.int32)])
    return PoseWindows(
        np.array([0, 0, 1, 2, 2, 2], np.int32),
        np.array([0, 2, 1, 0, 1, 2], np.int32),
        np.array([5, 70, 0, 10, 20, 30], np.int32),
        np.array([3, 4, 72, 1, 2, 3], np.int32),
        np.array([0, 1, 2, 0, 1, 2], np.int32),
        np.array([0.0, -1.0, 0, 0, 2.0, 0], np.float32),
        starts,
        shifts,
    )


def test_a_list_of_windows_is_the_whole_search_restricted() -> None:
    particles, bank, windows = prepare(noisy_images(3, 10)), bank_of(), some_windows()
    scores = table_of(particles, bank)
    found = search_windows_2d(particles, bank, windows, negligible=1e4, most=10**6)
    allowed = np.full(scores.shape, -np.inf)
    for i in range(len(windows.particle)):
        n, k, g = windows.particle[i], windows.reference[i], windows.group[i]
        turns = (windows.first_turn[i] + np.arange(windows.n_turns[i])) % 72
        chosen = windows.shifts[windows.group_starts[g] : windows.group_starts[g + 1]]
        at = np.ix_([n], [k], turns, chosen)
        allowed[at] = scores[at] + windows.log_prior[i]
    np.testing.assert_allclose(found.gain, allowed.max(axis=(1, 2, 3)), atol=0.02)
    gains = allowed.max(axis=(2, 3))
    np.testing.assert_allclose(found.class_gain[np.isfinite(gains)], gains[np.isfinite(gains)], atol=0.02)
    assert (found.class_gain[~np.isfinite(gains)] == NOWHERE).all()
    best = found.best()
    wanted = np.unravel_index(allowed.reshape(3, -1).argmax(axis=1), scores.shape[1:])
    np.testing.assert_array_equal(np.stack([found.class_id[best], found.turn[best], found.shift[best]]), wanted)
    assert len(found.particle) == np.isfinite(allowed).sum()


def test_an_image_without_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="image 3 has no window"):
        search_windows_2d(prepare(noisy_images(4, 11)), bank_of(), some_windows())


def test_a_generous_cascade_finds_what_the_whole_search_finds() -> None:
    particles = prepare(noisy_images(8, 12))
    coarse = make_level(GRID, n_rings=6, n_turns=36, shift_step_px=2.0, max_shift_px=2.0)
    prior = np.array([0.0, 1.0, -1.0], np.float32)
    whole = search_poses_2d(particles, bank_of(), log_prior=prior)
    every = Cascade(bank_of(coarse), bank_of(), spared=1e4, most=10**6)
    found = search_cascade_2d(particles, every, log_prior=prior)
    np.testing.assert_allclose(found.class_gain, whole.class_gain, atol=0.02)
    np.testing.assert_array_equal(np.bincount(found.particle), np.bincount(whole.particle))
    usual = search_cascade_2d(particles, replace(every, spared=9.0, most=60), log_prior=prior)
    assert (np.abs(usual.gain - whole.gain) < 0.02).mean() >= 0.75
    assert (usual.gain <= whole.gain + 0.02).all()


def test_a_cascade_of_turns_that_do_not_fit_is_refused() -> None:
    coarse = make_level(GRID, n_rings=6, n_turns=32, shift_step_px=2.0, max_shift_px=2.0)
    with pytest.raises(ValueError, match="72 turns are no multiple of the 32"):
        search_cascade_2d(prepare(noisy_images(2, 13)), Cascade(bank_of(coarse), bank_of()))


def test_halves_see_only_their_own_references() -> None:
    particles = prepare(noisy_images(6, 14))
    other = make_bank(ORDERS[:1], grid=GRID, level=LEVEL, noise_power=NOISE, overlap=OVERLAP)
    first, second = search_halves_2d(particles, (bank_of(), other), search_poses_2d)
    assert first.class_gain.shape == (3, 3)
    assert second.class_gain.shape == (3, 1)
    np.testing.assert_allclose(first.gain, search_poses_2d(particles.take(np.array([0, 2, 4])), bank_of()).gain, rtol=1e-4)


def test_polish_climbs_to_the_pose_between_the_steps() -> None:
    shift, psi = np.array([0.37, -0.62]), np.deg2rad(31.7)
    y, x = shift
    moved = _turned_and_moved(2, psi, (x * np.sin(psi) + y * np.cos(psi), x * np.cos(psi) - y * np.sin(psi)))
    particles = prepare(moved[None], np.ones((1, RINGS, GRID.half), np.float32))
    polished = polish_poses_2d(
        particles,
        ORDERS,
        class_id=np.array([2], np.int32),
        psi_rad=np.array([np.deg2rad(30.0)]),
        shift_yx_px=np.array([[0.0, -1.0]]),
        grid=GRID,
        level=LEVEL,
        shift_step_px=1.0,
        noise_power=NOISE,
        overlap=OVERLAP,
    )
    assert np.rad2deg(polished.psi_rad[0]) == pytest.approx(31.7, abs=0.3)
    np.testing.assert_allclose(polished.shift_yx_px[0], shift, atol=0.05)
    assert polished.gained[0] > 0


def _turned_and_moved(seed: int, psi: float, shift: tuple[float, float]) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    y, x = rng.normal(0, 3.5, (2, 12))
    y, x = x * np.sin(psi) + y * np.cos(psi) + shift[0], x * np.cos(psi) - y * np.sin(psi) + shift[1]
    grid = np.arange(BOX) - BOX // 2
    spots = np.exp(-((grid[:, None, None] - y) ** 2 + (grid[None, :, None] - x) ** 2) / 4)
    return (spots @ rng.uniform(0.4, 1.6, 12)).astype(np.float32)


def test_polish_never_loses_and_stays_near() -> None:
    particles, bank = prepare(noisy_images(8, 15)), bank_of()
    poses = search_poses_2d(particles, bank)
    best = poses.best()
    start = poses.turn[best] * (2 * np.pi / 72)
    polished = polish_poses_2d(
        particles,
        ORDERS,
        class_id=poses.class_id[best],
        psi_rad=start,
        shift_yx_px=LEVEL.shifts_yx_px[poses.shift[best]],
        grid=GRID,
        level=LEVEL,
        shift_step_px=1.0,
        noise_power=NOISE,
        overlap=OVERLAP,
    )
    assert (polished.gained >= 0).all()
    assert polished.gained.max() > 0
    assert np.abs(polished.psi_rad - start).max() <= 2 * (2 * np.pi / 72) + 1e-9
    assert np.abs(polished.shift_yx_px - LEVEL.shifts_yx_px[poses.shift[best]]).max() <= 2.0 + 1e-9
    norm = np.einsum("nr,rn->n", particles.ctf_squared, bank.energy[:, poses.class_id[best]])
    grid_score = poses.gain + norm - LEVEL.log_prior[poses.shift[best]]
    np.testing.assert_allclose(polished.score - polished.gained, grid_score, atol=0.1)


def test_a_search_elsewhere_finds_the_same() -> None:
    particles = prepare(noisy_images(5, 16))
    here = search_poses_2d(particles, bank_of(), most=25)
    there = search_poses_2d(particles, bank_of(place=ELSEWHERE), most=25)
    np.testing.assert_allclose(there.class_gain, here.class_gain, atol=0.01)
    np.testing.assert_array_equal(there.turn[there.best()], here.turn[here.best()])
    np.testing.assert_allclose(np.bincount(there.particle, weights=there.weight), 1.0, rtol=1e-5)
    assert np.bincount(there.particle).max() <= 25
