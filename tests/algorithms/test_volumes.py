"""Volumes: rotations and groups, the projection theorem, reconstruction from true poses, and RELION's conventions."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.scoring.bank import make_bank, make_level
from icestream.algorithms.scoring.particles import prepare_images_2d, reference_orders_2d
from icestream.algorithms.scoring.polar import PolarGrid
from icestream.algorithms.scoring.search import search_poses_2d
from icestream.algorithms.volumes import (
    PoseList,
    all_views,
    angles_from_rotations,
    asymmetric_views,
    child_views,
    cut_volume_3d,
    fourier_shell_correlation_3d,
    is_symmetry,
    mean_rotation,
    mirror_rotations,
    mirror_volume_3d,
    nearest_equivalent,
    order_for_spacing,
    project_volume_2d,
    random_rotations,
    reconstruct_volume,
    resize_volume_3d,
    rotation_distance_deg,
    rotations_about,
    rotations_from_angles,
    shift_volume_3d,
    single_poses,
    soft_sphere_3d,
    sum_particles,
    symmetrise_volume_3d,
    symmetry_group,
    transform_volume,
    turn_between,
    turn_in_plane,
    turn_volume_3d,
    view_orders_2d,
    views_within,
)
from icestream.io.image import read_stack, write_mrc
from icestream.microscope.projection import rotation_matrix

BOX = 32
GROUPS = {"C1": 1, "C7": 7, "D2": 4, "D7": 14, "T": 12, "O": 24, "I": 60, "I2": 60}
SPOTS_XYZ_PX = np.random.default_rng(4).normal(0, 3.2, (14, 3))
HEIGHTS = np.random.default_rng(5).uniform(0.5, 1.5, 14)
SIGMA_PX = 1.3


def spots(size: int, points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return Gaussians of unit sum times their heights at points ``(n, d)`` of (x, y, …) from the centre, axes reversed."""
    along = np.arange(size) - size // 2
    d = points.shape[1]
    total = np.zeros((size,) * d)
    for point, height in zip(points, HEIGHTS, strict=True):
        lines = [np.exp(-((along - p) ** 2) / (2 * SIGMA_PX**2)) / (SIGMA_PX * np.sqrt(2 * np.pi)) for p in point[::-1]]
        total += height * (lines[0][:, None] * lines[1] if d == 2 else lines[0][:, None, None] * lines[1][:, None] * lines[2])
    return total.astype(np.float32)


VOLUME = spots(BOX, SPOTS_XYZ_PX)
TRANSFORM = transform_volume(VOLUME)
ANGLES = np.array([[20.0, 50.0, -70.0], [-110.0, 131.0, 15.0], [0.0, 0.0, 33.0], [75.0, 90.0, 160.0]])


def test_rotations_are_those_of_the_simulated_microscope_and_of_relion() -> None:
    expected = np.stack([rotation_matrix(*row) for row in ANGLES])
    np.testing.assert_allclose(rotations_from_angles(ANGLES), expected, atol=1e-12)


def test_angles_come_back_also_at_the_poles() -> None:
    many = np.concatenate(
        [
            random_rotations(50, generator=np.random.default_rng(1)),
            rotations_from_angles(np.array([[30.0, 0.0, 40.0], [30.0, 180.0, 40.0], [-170.0, 180.0, 11.0]])),
        ]
    )
    np.testing.assert_allclose(rotations_from_angles(angles_from_rotations(many)), many, atol=1e-7)


def test_distances_between_rotations() -> None:
    a = random_rotations(20, generator=np.random.default_rng(2))
    vector = np.deg2rad(7.0) * np.array([[0.6, 0.0, 0.8]])
    np.testing.assert_allclose(rotation_distance_deg(a, rotations_about(vector) @ a), 7.0, atol=1e-6)
    group = symmetry_group("D7")
    np.testing.assert_allclose(rotation_distance_deg(a, a @ group[9], group=group), 0.0, atol=1e-5)
    assert rotation_distance_deg(a, a @ group[9]).min() > 20
    np.testing.assert_allclose(nearest_equivalent(a @ group[9], a, group=group), a, atol=1e-9)
    np.testing.assert_allclose(mean_rotation(rotations_about(vector * np.array([[1.0], [-1.0]]))), np.eye(3), atol=1e-9)


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_closed_and_of_their_size(name: str) -> None:
    group = symmetry_group(name)
    assert len(group) == GROUPS[name]
    np.testing.assert_allclose(group[0], np.eye(3))
    np.testing.assert_allclose(np.linalg.det(group), 1.0, atol=1e-9)
    products = (group[:, None] @ group[None]).reshape(-1, 9)
    apart = np.abs(products[:, None] - group.reshape(1, -1, 9)).max(axis=-1).min(axis=1)
    assert apart.max() < 1e-6


@pytest.mark.parametrize("name", ["", "X2", "C0", "D0", "C1000", "I9"])
def test_what_is_no_group_is_refused(name: str) -> None:
    assert not is_symmetry(name)
    with pytest.raises(ValueError, match="is no point group"):
        symmetry_group(name)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_views_cover_the_sphere_evenly(order: int) -> None:
    views = all_views(order)
    assert len(views) == 12 * 4**order
    apart = np.rad2deg(np.arccos(np.clip(views.directions @ views.directions.T, -1, 1)))
    np.fill_diagonal(apart, 360)
    assert 0.6 * views.spacing_deg < apart.min(axis=1).min()
    assert apart.min(axis=1).max() < 1.3 * views.spacing_deg
    np.testing.assert_allclose(views.directions.sum(axis=0), 0, atol=1e-9)
    assert order_for_spacing(views.spacing_deg) == order


def test_children_are_the_views_of_the_next_order_around_their_parent() -> None:
    children = child_views(all_views(1))
    assert sorted(children.pixel) == list(range(192))
    along = np.einsum("kd,kd->k", children.directions, np.repeat(all_views(1).directions, 4, axis=0))
    assert np.rad2deg(np.arccos(along)).max() < 0.8 * all_views(1).spacing_deg


@pytest.mark.parametrize("name", GROUPS)
def test_an_asymmetric_unit_has_each_view_once(name: str) -> None:
    group = symmetry_group(name)
    whole, unit = all_views(3), asymmetric_views(3, group=group)
    assert len(unit) == pytest.approx(len(whole) / len(group), rel=0.35)
    spread = np.einsum("gji,kj->gki", group, unit.directions).reshape(-1, 3)  # what the unit and its copies look at
    nearest = np.rad2deg(np.arccos(np.clip((whole.directions @ spread.T).max(axis=1), -1, 1)))
    assert nearest.max() < 1.1 * whole.spacing_deg


def test_views_near_a_direction() -> None:
    views = all_views(3)
    direction = np.array([[0.0, 0.6, 0.8]])
    near = views_within(views, direction, radius_deg=10.0)[0]
    apart = np.rad2deg(np.arccos(np.clip(views.directions @ direction[0], -1, 1)))
    np.testing.assert_array_equal(near, np.flatnonzero(apart <= 10.0))
    assert len(views_within(views, direction, radius_deg=0.01)[0]) == 1


def test_a_slice_is_the_projection_along_the_line_of_sight() -> None:
    rotations = rotations_from_angles(ANGLES)
    shift = np.array([[1.5, -2.0], [0.0, 0.0], [0.3, 0.6], [-2.0, 1.0]])
    images = project_volume_2d(TRANSFORM, rotations, shift_yx_px=shift)
    for i, rotation in enumerate(rotations):
        seen = (SPOTS_XYZ_PX @ rotation.T)[:, :2] + shift[i, ::-1]
        expected = spots(BOX, seen)
        assert np.abs(images[i] - expected).max() < 0.01 * expected.max()


def test_views_are_the_references_of_their_images() -> None:
    grid = PolarGrid(BOX, 12, 72)
    rotations = rotations_from_angles(ANGLES)
    from_images = reference_orders_2d(project_volume_2d(TRANSFORM, rotations), grid=grid)
    orders = view_orders_2d(TRANSFORM, rotations, grid=grid)
    assert np.abs(orders - from_images).max() < 0.01 * np.abs(from_images).max()


def test_the_kernel_finds_turn_and_shift_in_the_sense_of_the_poses() -> None:
    grid = PolarGrid(BOX, 12, 72)
    views = rotations_from_angles(np.array([[20.0, 50.0, 0.0], [100.0, 80.0, 0.0], [200.0, 20.0, 0.0]]))
    rotation = turn_in_plane(views[1:2], np.array([np.deg2rad(60.0)]))
    np.testing.assert_allclose(angles_from_rotations(rotation)[0], [100.0, 80.0, -60.0], atol=1e-6)
    image = project_volume_2d(TRANSFORM, rotation, shift_yx_px=np.array([[2.0, -1.0]]))
    contrast = np.ones((1, 12, grid.half), np.float32)
    particles = prepare_images_2d(image, contrast, grid=grid, mask_radius_px=12, edge_px=3, half_set=np.zeros(1, np.int8))
    level = make_level(grid, n_rings=12, n_turns=72, shift_step_px=1.0, max_shift_px=3.0)
    bank = make_bank(
        view_orders_2d(TRANSFORM, views, grid=grid), grid=grid, level=level, noise_power=np.full(12, 5.0, np.float32), overlap=0.5
    )
    poses = search_poses_2d(particles, bank)
    best = poses.best()[0]
    assert poses.class_id[best] == 1
    turn = poses.turn[best] * 2 * np.pi / 72
    assert np.rad2deg(turn) == pytest.approx(60.0, abs=5.1)
    y, x = level.shifts_yx_px[poses.shift[best]]
    moved = np.array([x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) - y * np.sin(turn)])
    np.testing.assert_allclose(moved, [2.0, -1.0], atol=0.8)


def test_turns_between_views_come_back() -> None:
    views = random_rotations(30, generator=np.random.default_rng(3))
    turns = np.random.default_rng(4).uniform(-3, 3, 30)
    np.testing.assert_allclose(turn_between(views, turn_in_plane(views, turns)), turns, atol=1e-9)


def contrast_of(n: int) -> NDArray[np.float32]:
    """Return a transfer with a zero that moves from image to image."""
    ky, kx = np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX)[None]
    g2 = ky * ky + kx * kx
    return np.stack([np.sin(0.4 + (30 + 1.3 * i) * g2) for i in range(n)]).astype(np.float32)


def with_contrast(images: NDArray[np.float32], contrast: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.fft.irfft2(np.fft.rfft2(images) * contrast, s=images.shape[1:]).astype(np.float32)


def test_particles_in_their_true_poses_give_the_volume_back() -> None:
    rotations = random_rotations(400, generator=np.random.default_rng(6))
    shift = np.random.default_rng(7).normal(0, 1.5, (400, 2))
    contrast = contrast_of(400)
    images = with_contrast(project_volume_2d(TRANSFORM, rotations, shift_yx_px=shift), contrast)
    kept = images.copy(), contrast.copy()
    sums = sum_particles(images, contrast, single_poses(rotations, shift))
    np.testing.assert_array_equal(images, kept[0])
    np.testing.assert_array_equal(contrast, kept[1])
    volume = reconstruct_volume(sums)
    ball = soft_sphere_3d(BOX, radius_px=11.0, edge_px=3.0)
    _, correlation = fourier_shell_correlation_3d(volume * ball, VOLUME * ball)
    assert correlation[:11].min() > 0.99
    assert (volume * VOLUME).sum() / (VOLUME**2).sum() == pytest.approx(1.0, abs=0.03)
    mirrored = reconstruct_volume(sum_particles(images, contrast, single_poses(mirror_rotations(rotations), shift)))
    _, other_hand = fourier_shell_correlation_3d(mirror_volume_3d(mirrored), volume)
    assert other_hand[:11].min() > 0.99


def test_sums_add_up_and_weights_share() -> None:
    rotations = random_rotations(12, generator=np.random.default_rng(8))
    shift, contrast = np.zeros((12, 2)), contrast_of(12)
    images = project_volume_2d(TRANSFORM, rotations)
    whole = sum_particles(images, contrast, single_poses(rotations, shift))
    first = sum_particles(images[:5], contrast[:5], single_poses(rotations[:5], shift[:5]))
    joined = first + sum_particles(images[5:], contrast[5:], single_poses(rotations[5:], shift[5:]))
    np.testing.assert_allclose(joined.signal, whole.signal, atol=1e-3)
    onto = sum_particles(images[5:], contrast[5:], single_poses(rotations[5:], shift[5:]), onto=first)
    np.testing.assert_allclose(onto.weight, whole.weight, atol=1e-4)
    assert (onto.count, first.count) == (12, 5)
    twice = PoseList(
        np.repeat(np.arange(12), 2), np.repeat(rotations, 2, axis=0), np.zeros((24, 2)), np.full(24, 0.5, np.float32)
    )
    np.testing.assert_allclose(sum_particles(images, contrast, twice).signal, whole.signal, atol=1e-3)
    np.testing.assert_allclose(whole.scaled(0.5).weight, whole.weight / 2)


def test_symmetry_fills_in_the_views_that_are_missing() -> None:
    group = symmetry_group("D2")
    volume = symmetrise_volume_3d(VOLUME, group)
    few = random_rotations(16, generator=np.random.default_rng(9))
    images = project_volume_2d(transform_volume(volume), few)
    poses, ones = single_poses(few, np.zeros((16, 2))), np.ones((16, BOX, BOX // 2 + 1), np.float32)
    errors = [
        np.abs(reconstruct_volume(sum_particles(images, ones, poses, group=some)) - volume).mean() for some in (None, group)
    ]
    assert errors[1] < 0.7 * errors[0]


def test_a_prior_holds_back_what_noise_would_add() -> None:
    rng = np.random.default_rng(10)
    rotations = random_rotations(60, generator=rng)
    images = project_volume_2d(TRANSFORM, rotations)
    noisy = (images + rng.normal(0, 2 * images.std(), images.shape)).astype(np.float32)
    sums = sum_particles(noisy, np.ones((60, BOX, BOX // 2 + 1), np.float32), single_poses(rotations, np.zeros((60, 2))))
    ratio = np.exp(-np.arange(16) / 3.0) * 20
    errors = [np.square(reconstruct_volume(sums, signal_to_noise=prior) - VOLUME).sum() for prior in (None, ratio)]
    assert errors[1] < 0.5 * errors[0]
    beyond = reconstruct_volume(sums, signal_to_noise=np.full(6, 1e6))
    power = np.abs(np.fft.fftn(beyond)) ** 2
    k = np.fft.fftfreq(BOX) * BOX
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    assert power[radius > 8].sum() < 1e-2 * power.sum()


def test_turning_and_moving_a_volume() -> None:
    rotation = rotations_from_angles(np.array([[25.0, 40.0, 10.0]]))[0]
    expected = spots(BOX, SPOTS_XYZ_PX @ rotation.T + np.array([1.0, -2.0, 0.5]))
    turned = turn_volume_3d(VOLUME, rotation, shift_zyx_px=(0.5, -2.0, 1.0))
    assert np.abs(turned - expected).max() < 0.03 * expected.max()
    views = rotations_from_angles(ANGLES)
    old = project_volume_2d(TRANSFORM, views)
    new = project_volume_2d(transform_volume(turn_volume_3d(VOLUME, rotation)), views @ rotation.T)
    assert np.abs(old - new).max() < 0.03 * old.max()
    moved = shift_volume_3d(VOLUME, (1.0, 0.5, -2.0))
    assert np.abs(moved - spots(BOX, SPOTS_XYZ_PX + np.array([-2.0, 0.5, 1.0]))).max() < 0.02 * VOLUME.max()


def test_the_other_hand_shows_the_same_views_elsewhere() -> None:
    mirrored = mirror_volume_3d(VOLUME)
    assert np.abs(mirrored - spots(BOX, SPOTS_XYZ_PX * np.array([1.0, 1.0, -1.0]))).max() < 1e-6
    views = rotations_from_angles(ANGLES)
    shown = project_volume_2d(transform_volume(mirrored), mirror_rotations(views))
    assert np.abs(shown - project_volume_2d(TRANSFORM, views)).max() < 0.01 * shown.max()


def test_resampling_keeps_grey_values_and_the_centre() -> None:
    small = resize_volume_3d(VOLUME, new_size=24)
    assert small.sum() * (BOX / 24) ** 3 == pytest.approx(VOLUME.sum(), rel=1e-3)
    np.testing.assert_allclose(resize_volume_3d(small, new_size=BOX), VOLUME, atol=0.02 * VOLUME.max())
    cut = cut_volume_3d(VOLUME, new_size=20)
    np.testing.assert_array_equal(cut, VOLUME[6:26, 6:26, 6:26])
    np.testing.assert_array_equal(cut_volume_3d(cut, new_size=BOX)[6:26, 6:26, 6:26], cut)


def test_shells_of_equal_volumes_agree_and_of_noise_do_not() -> None:
    frequency, same = fourier_shell_correlation_3d(VOLUME, 3 * VOLUME)
    np.testing.assert_allclose(same, 1.0, atol=1e-5)
    assert frequency[-1] == pytest.approx(15 / 32)
    noise = np.random.default_rng(11).normal(size=(2, BOX, BOX, BOX))
    assert np.abs(fourier_shell_correlation_3d(*noise)[1][4:]).max() < 0.2
    with pytest.raises(ValueError, match="cubes of one size"):
        fourier_shell_correlation_3d(VOLUME, VOLUME[:, :, :20])


def run(program: str, *arguments: str, cwd: Path) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"missing program: {program}")
    done = subprocess.run([path, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.services
@pytest.mark.parametrize("name", ["C7", "D2", "D7", "T", "O", "I", "I1", "I2"])
def test_groups_are_in_the_settings_of_relion(name: str, tmp_path: Path) -> None:
    text = run("relion_refine", "--sym", name, "--print_symmetry_ops", cwd=tmp_path)
    numbers = [re.findall(r"-?\d[\d.e+-]*", block.split("Euler")[0]) for block in re.split(r"R\(\d+\)=", text)[1:]]
    theirs = np.array([[float(value) for value in some[:9]] for some in numbers]).reshape(-1, 3, 3)
    ours = symmetry_group(name)
    assert len(theirs) == len(ours)
    assert np.abs(theirs[:, None] - ours).max(axis=(2, 3)).min(axis=1).max() < 2e-3


STAR = """data_optics
loop_
_rlnOpticsGroup
_rlnOpticsGroupName
_rlnImagePixelSize
_rlnImageSize
_rlnImageDimensionality
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
1 opticsGroup1 2.0 32 2 300 2.7 0.1

data_particles
loop_
_rlnImageName
_rlnOpticsGroup
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
_rlnOriginXAngst
_rlnOriginYAngst
"""


def write_poses(folder: Path, angles: NDArray[np.float64], shift: NDArray[np.float64], stack: str) -> None:
    rows = [
        f"{i + 1:06d}@{stack} 1 {a:.5f} {b:.5f} {c:.5f} {-2.0 * x:.5f} {-2.0 * y:.5f}"
        for i, ((a, b, c), (y, x)) in enumerate(zip(angles, shift, strict=True))
    ]
    (folder / "poses.star").write_text(STAR + "\n".join(rows) + "\n")


@pytest.mark.services
def test_relion_projects_the_same_views(tmp_path: Path) -> None:
    shift = np.array([[1.5, -2.0], [0.0, 0.0], [0.3, 0.6], [-2.0, 1.0]])
    write_mrc(tmp_path / "volume.mrc", VOLUME, pixel_size_ang=2.0)
    write_poses(tmp_path, ANGLES, shift, "none.mrcs")
    run("relion_project", "--i", "volume.mrc", "--o", "views", "--ang", "poses.star", "--angpix", "2", cwd=tmp_path)
    theirs = read_stack(tmp_path / "views.mrcs")
    ours = project_volume_2d(TRANSFORM, rotations_from_angles(ANGLES), shift_yx_px=shift)
    for one, other in zip(ours, theirs, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99


@pytest.mark.services
def test_relion_reconstructs_the_same_volume(tmp_path: Path) -> None:
    rotations = random_rotations(300, generator=np.random.default_rng(12))
    shift = np.random.default_rng(13).normal(0, 1.5, (300, 2))
    images = project_volume_2d(TRANSFORM, rotations, shift_yx_px=shift)
    write_mrc(tmp_path / "views.mrcs", images, pixel_size_ang=2.0)
    write_poses(tmp_path, angles_from_rotations(rotations), shift, "views.mrcs")
    run("relion_reconstruct", "--i", "poses.star", "--o", "theirs.mrc", cwd=tmp_path)
    theirs = read_stack(tmp_path / "theirs.mrc")
    ours = reconstruct_volume(
        sum_particles(images, np.ones((300, BOX, BOX // 2 + 1), np.float32), single_poses(rotations, shift))
    )
    ball = soft_sphere_3d(BOX, radius_px=12.0, edge_px=3.0)
    _, correlation = fourier_shell_correlation_3d(ours * ball, theirs * ball)
    assert correlation[:12].min() > 0.98
