"""Refinement: what climbing scores is the kernel's score, maps reach the volume of true poses, and noise is no map."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.ctf.transfer import ctf_2d
from icestream.algorithms.frc import resolution_at_threshold_ang
from icestream.algorithms.refine3d import Portion, Progress, Refined, Setting, begin, iterate, refine_volume
from icestream.algorithms.refine3d.climb import climb_poses, explained_power, frame_volume, sample_weights
from icestream.algorithms.refine3d.model import make_maps, update_model
from icestream.algorithms.refine3d.search import find_poses, make_reference
from icestream.algorithms.scoring.bank import make_bank, make_level
from icestream.algorithms.scoring.contrast import ctf_polar_2d
from icestream.algorithms.scoring.particles import PolarParticles, prepare_images_2d
from icestream.algorithms.scoring.polar import PolarGrid, polar_from_orders
from icestream.algorithms.scoring.search import score_turns
from icestream.algorithms.volumes import (
    fourier_shell_correlation_3d,
    project_volume_2d,
    random_rotations,
    reconstruct_volume,
    rotation_distance_deg,
    rotations_about,
    single_poses,
    soft_sphere_3d,
    sum_particles,
    symmetrise_volume_3d,
    symmetry_group,
    transform_volume,
    view_orders_2d,
)

BOX, PIXEL_ANG, COUNT, RINGS = 32, 5.0, 300, 12
OPTICS = {"voltage_kv": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_deg": 0.0}
GRID = PolarGrid(BOX, RINGS, 96)
SETTING = Setting(GRID, PIXEL_ANG, mask_radius_px=10.0, edge_px=3.0, max_shift_px=2.0, start_ring=4)
BALL = soft_sphere_3d(BOX, radius_px=10.0, edge_px=3.0)


def make_volume(symmetry: str = "C1") -> NDArray[np.float32]:
    rng = np.random.default_rng(20)
    along = np.arange(BOX) - BOX // 2
    points, heights = rng.normal(0, 3.3, (18, 3)), rng.uniform(0.5, 1.5, 18)
    points *= np.minimum(1, 7.5 / np.linalg.norm(points, axis=1, keepdims=True))
    lines = np.exp(-((along[None, :, None] - points[:, None]) ** 2) / 2)  # (spots, n, 3)
    volume = np.einsum("s,sz,sy,sx->zyx", heights, *lines.transpose(2, 0, 1)).astype(np.float32)
    return volume if symmetry == "C1" else symmetrise_volume_3d(volume, symmetry_group(symmetry))


class Truth:
    """Particles of a volume with their true poses."""

    def __init__(self, volume: NDArray[np.float32], *, snr: float, seed: int, count: int = COUNT, symmetry: str = "C1") -> None:
        rng = np.random.default_rng(seed)
        self.volume, self.count, self.group = volume, count, symmetry_group(symmetry)
        self.setting = replace(SETTING, symmetry=symmetry)
        self.rotations = random_rotations(count, generator=rng)
        self.shift = np.clip(rng.normal(0, 0.8, (count, 2)), -2, 2)
        defocus = np.repeat(rng.uniform(8000, 16000, count // 20 + 1), 20)[:count]
        self.contrast = np.stack([-ctf_2d(BOX, BOX, pixel_size_ang=PIXEL_ANG, **lens(d), **OPTICS) for d in defocus])
        self.polar = np.stack([-ctf_polar_2d(GRID, box_ang=BOX * PIXEL_ANG, **lens(d), **OPTICS) for d in defocus])
        clean = project_volume_2d(transform_volume(volume), self.rotations, shift_yx_px=self.shift)
        seen = np.fft.irfft2(np.fft.rfft2(clean) * self.contrast, s=(BOX, BOX))
        self.scale = np.float32(np.sqrt(snr) / seen.std())
        self.images = (seen * self.scale + rng.normal(size=seen.shape)).astype(np.float32)
        self.half_set = (np.arange(count) % 2).astype(np.int8)

    def portions(self, at_once: int = 150) -> Iterator[Portion]:
        for first in range(0, self.count, at_once):
            rows = np.arange(first, min(first + at_once, self.count))
            yield Portion(rows, self.images[rows], self.polar[rows], self.contrast[rows], self.half_set[rows])

    def prepared(self, rows: slice) -> PolarParticles:
        return prepare_images_2d(
            self.images[rows], self.polar[rows], grid=GRID, mask_radius_px=SETTING.particle_radius_px, edge_px=3.0,
            half_set=self.half_set[rows],
        )  # fmt: skip

    def resolution(self, a: NDArray[np.float32], b: NDArray[np.float32], threshold: float) -> float:
        frequency, correlation = fourier_shell_correlation_3d(a * BALL, b * BALL)
        found = resolution_at_threshold_ang(frequency, correlation, threshold=threshold, pixel_size_ang=PIXEL_ANG)
        assert found is not None
        return found


def lens(defocus_ang: float) -> dict[str, float]:
    return {"defocus_u_ang": defocus_ang + 150.0, "defocus_v_ang": defocus_ang, "astigmatism_angle_deg": 30.0}


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(make_volume(), snr=0.25, seed=1)


@pytest.fixture(scope="module")
def refined(truth: Truth) -> Refined:
    return refine_volume(5.0 * truth.volume, truth.portions, setting=SETTING, count=COUNT, most_iterations=4)


def climbing(truth: Truth, volume: NDArray[np.float32], count: int):
    particles = truth.prepared(slice(0, count))
    noise = particles.power.mean(axis=0).astype(np.float32)
    given = {
        "grid": GRID, "ring": RINGS, "weight": sample_weights(GRID, noise_power=noise, overlap=SETTING.overlap),
        "shift_sigma_px": 1e3, "image": np.arange(count),
    }  # fmt: skip
    samples = polar_from_orders(np.swapaxes(particles.signal, 1, 2), grid=GRID)
    return particles, noise, samples, frame_volume(transform_volume(volume), ring=RINGS), given


def test_what_is_climbed_is_the_score_of_the_kernel(truth: Truth) -> None:
    scaled = (truth.volume * 0.05).astype(np.float32)
    particles, noise, samples, slope, given = climbing(truth, scaled, 6)
    rotations = truth.rotations[:6]
    found = climb_poses(
        samples, particles.ctf_squared, slope, rotations=rotations, shift_yx_px=np.zeros((6, 2)), steps=0, **given
    )
    level = make_level(GRID, n_rings=RINGS, n_turns=GRID.n_angles, shift_step_px=1.0, max_shift_px=0.0)
    bank = make_bank(
        view_orders_2d(transform_volume(scaled), rotations, grid=GRID), grid=GRID, level=level, noise_power=noise,
        overlap=SETTING.overlap, discarded=1e-9,
    )  # fmt: skip
    even, odd = score_turns(particles, bank)
    np.testing.assert_allclose(found.score, np.diag(even[0] + odd[0]), rtol=0.02, atol=0.1)


def test_climbing_comes_to_the_pose_from_some_degrees_away(truth: Truth) -> None:
    clean = Truth(truth.volume, snr=20.0, seed=5, count=20)
    particles, _, samples, slope, given = climbing(clean, clean.volume * clean.scale, 20)
    axes = np.random.default_rng(2).normal(size=(20, 3))
    off = rotations_about(np.deg2rad(5.0) * axes / np.linalg.norm(axes, axis=1, keepdims=True)) @ clean.rotations
    start = clean.shift + np.array([0.7, -0.5])
    kept = off.copy(), start.copy(), samples.copy()
    found = climb_poses(samples, particles.ctf_squared, slope, rotations=off, shift_yx_px=start, steps=8, **given)
    assert np.median(rotation_distance_deg(found.rotations, clean.rotations)) < 0.8
    assert np.median(np.hypot(*(found.shift_yx_px - clean.shift).T)) < 0.1
    before = climb_poses(samples, particles.ctf_squared, slope, rotations=off, shift_yx_px=start, steps=0, **given)
    assert (found.score >= before.score).all()
    for old, new in zip(kept, (off, start, samples), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_true_pose_explains_the_signal_and_leaves_the_noise(truth: Truth) -> None:
    particles, _, samples, slope, _ = climbing(truth, truth.volume * truth.scale, 200)
    explained = explained_power(
        samples, particles.ctf_squared, slope, image=np.arange(200), rotations=truth.rotations[:200],
        shift_yx_px=truth.shift[:200], grid=GRID,
    )  # fmt: skip
    left = (particles.power - explained).mean(axis=0)
    white = SETTING.overlap * BOX**2
    assert left[0] < 0.5 * particles.power.mean(axis=0)[0]
    np.testing.assert_allclose(left[2:], white, rtol=0.2)


def test_a_refinement_comes_near_the_volume_of_true_poses(truth: Truth, refined: Refined) -> None:
    poses, maps = refined.progress.poses, refined.maps
    assert poses is not None
    assert refined.verdict.kind == "map"
    assert refined.verdict.significance > 5
    true = reconstruct_volume(sum_particles(truth.images, truth.contrast, single_poses(truth.rotations, truth.shift)))
    reached, possible = (truth.resolution(volume, truth.volume, 0.5) for volume in (maps.whole, true))
    assert reached < 1.1 * possible
    said = maps.resolution_ang(PIXEL_ANG)
    assert said is not None
    assert said == pytest.approx(reached, rel=0.15)
    assert np.median(rotation_distance_deg(poses.rotations, truth.rotations)) < 4.0
    assert np.median(np.hypot(*(poses.shift_yx_px - truth.shift).T)) < 0.5


def test_references_hold_nothing_where_their_own_half_has_no_particle() -> None:
    along = np.arange(BOX) - BOX // 2
    rod = np.exp(-(along[:, None, None] ** 2 + along[:, None] ** 2) / 3) * (np.abs(along) < 9)
    truth = Truth(rod.astype(np.float32), snr=0.25, seed=4, count=120)
    setting = replace(SETTING, mask_radius_px=13.0)
    sums = []
    for half in (0, 1):
        mine = np.flatnonzero(truth.half_set == half)
        poses = single_poses(truth.rotations[mine], truth.shift[mine])
        sums.append(sum_particles(truth.images[mine], truth.contrast[mine], poses))
    pair = (sums[0], sums[1])
    maps = make_maps(pair, setting=setting)
    model = update_model(pair, maps, np.ones((2, RINGS), np.float32), setting=setting)
    assert setting.ball[BOX // 2 + 12, BOX // 2, BOX // 2] > 0.9
    assert np.abs(maps.halves[:, BOX // 2 + 12, BOX // 2, BOX // 2]).min() > 0
    assert not model.references[:, BOX // 2 + 12, BOX // 2, BOX // 2].any()
    middle = model.references[:, BOX // 2, BOX // 2, BOX // 2 - 6 : BOX // 2 + 7]
    assert middle.min() > 0.3 * middle.max()
    np.testing.assert_array_equal(model.correlation, maps.correlation)
    nowhere = replace(maps, correlation=np.zeros_like(maps.correlation))
    bare = update_model(pair, nowhere, np.ones((2, RINGS), np.float32), setting=setting)
    assert bare.references[:, BOX // 2 + 12, BOX // 2, BOX // 2].all()


def test_halves_never_share(truth: Truth) -> None:
    progress = begin(truth.volume, truth.portions(), setting=SETTING)
    one, maps = iterate(progress, truth.portions(), setting=SETTING, count=COUNT)
    changed = Truth(truth.volume, snr=0.25, seed=1)
    changed.images = np.where((changed.half_set == 1)[:, None, None], changed.images[::-1], changed.images)
    other, changed_maps = iterate(progress, changed.portions(COUNT), setting=SETTING, count=COUNT)
    same, _ = iterate(progress, truth.portions(COUNT), setting=SETTING, count=COUNT)
    assert one.poses is not None
    assert other.poses is not None
    assert same.poses is not None
    np.testing.assert_allclose(other.poses.score[::2], same.poses.score[::2], rtol=0.05, atol=1.0)
    np.testing.assert_allclose(changed_maps.halves[0], maps.halves[0], atol=0.05 * np.abs(maps.halves[0]).max())
    assert np.abs(changed_maps.halves[1] - maps.halves[1]).max() > 0.2 * np.abs(maps.halves[1]).max()


def test_symmetry_helps_and_is_kept() -> None:
    truth = Truth(make_volume("D2"), snr=0.25, seed=3, count=120, symmetry="D2")
    done = refine_volume(truth.volume, truth.portions, setting=truth.setting, count=120, most_iterations=4)
    assert done.progress.poses is not None
    apart = rotation_distance_deg(done.progress.poses.rotations, truth.rotations, group=truth.group)
    assert np.median(apart) < 5.0
    again = symmetrise_volume_3d(done.maps.whole, truth.group)
    _, correlation = fourier_shell_correlation_3d(again * BALL, done.maps.whole * BALL)
    assert correlation[1:8].min() > 0.97


def test_noise_is_no_map(truth: Truth) -> None:
    noise = Truth(truth.volume, snr=0.25, seed=7, count=160)
    noise.images = np.random.default_rng(8).normal(size=noise.images.shape).astype(np.float32)
    done = refine_volume(truth.volume, noise.portions, setting=SETTING, count=160, most_iterations=4)
    assert done.verdict.kind == "none"
    assert done.verdict.reason


def test_a_refinement_goes_on_from_what_is_kept_of_it(truth: Truth, refined: Refined) -> None:
    progress = begin(5.0 * truth.volume, truth.portions(), setting=SETTING)
    progress, _ = iterate(progress, truth.portions(), setting=SETTING, count=COUNT)
    assert progress.changes == refined.progress.changes[:1]
    kept = Progress(progress.model, progress.poses, progress.iteration, progress.changes)
    assert iterate(kept, truth.portions(), setting=SETTING, count=COUNT)[0].changes == refined.progress.changes[:2]


def test_a_search_near_poses_needs_them(truth: Truth) -> None:
    model = begin(truth.volume, truth.portions(), setting=SETTING).model
    reference = make_reference(model, 0, setting=SETTING, everywhere=False)
    with pytest.raises(ValueError, match="needs them"):
        find_poses(truth.prepared(slice(0, 3)), reference, setting=SETTING)


def test_a_search_near_poses_finds_them_again(truth: Truth, refined: Refined) -> None:
    poses = refined.progress.poses
    assert poses is not None
    mine = np.flatnonzero(truth.half_set == 0)[:40]
    particles = truth.prepared(slice(0, 80)).take(mine)
    found = [
        find_poses(
            particles,
            make_reference(refined.progress.model, 0, setting=SETTING, everywhere=everywhere),
            setting=SETTING, rotations=poses.rotations[mine], shift_yx_px=poses.shift_yx_px[mine],
        )
        for everywhere in (True, False)
    ]  # fmt: skip
    assert (np.abs(found[0].score - found[1].score) < 0.5).mean() > 0.8
    np.testing.assert_allclose(np.bincount(found[1].poses.image, weights=found[1].poses.weight), 1.0, atol=0.15)
