"""Resolution, verdicts, views, local resolution and symmetry of maps whose truth is known."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from icestream.algorithms.map_quality.local_resolution import measure_local_resolution
from icestream.algorithms.map_quality.mask import find_mask_3d, soften
from icestream.algorithms.map_quality.orientations import count_views, measure_conical_fsc, measure_coverage
from icestream.algorithms.map_quality.point_groups import PlacedGroup
from icestream.algorithms.map_quality.resolution import MapResolution, compare_with_truth, measure_resolution
from icestream.algorithms.map_quality.self_rotation import cross_harmonics, fold_scores, scan_axes, small_rotations, turn_spectra
from icestream.algorithms.map_quality.sharpening import fit_b_factor, merit, sharpen_3d
from icestream.algorithms.map_quality.shells import (
    distance_from_centre,
    invert_3d,
    low_pass_3d,
    mean_shells,
    randomise_phases_3d,
    shell_radius,
    transform_3d,
)
from icestream.algorithms.map_quality.symmetry import suggest_symmetry, turn_about
from icestream.algorithms.volumes import random_rotations, rotations_about, symmetry_group
from icestream.io.image import write_mrc
from toys.volumes import BOX, PIXEL_ANG, Map, blobs, noisy


def measured(halves: tuple[Map, Map]) -> tuple[NDArray[np.float32], MapResolution]:
    mask = find_mask_3d(*halves, pixel_size_ang=PIXEL_ANG).mask
    return mask, measure_resolution(*halves, mask, pixel_size_ang=PIXEL_ANG)


@pytest.fixture(scope="module")
def truth() -> Map:
    return blobs(1)


@pytest.fixture(scope="module")
def halves(truth: Map) -> tuple[Map, Map]:
    return noisy(truth, limit=10, seed=2)


def test_halves_say_what_the_truth_says(truth: Map, halves: tuple[Map, Map]) -> None:
    mask, found = measured(halves)
    expected = compare_with_truth(0.5 * (halves[0] + halves[1]), truth, mask, pixel_size_ang=PIXEL_ANG)[1]
    assert found.verdict == "map"
    assert found.resolution_ang is not None and expected is not None and found.range_ang is not None
    assert found.resolution_ang == pytest.approx(expected, rel=0.1)
    assert found.range_ang[0] >= found.resolution_ang >= found.range_ang[1]
    assert found.resolution_half_ang is not None and found.resolution_half_ang > found.resolution_ang


def test_the_mask_holds_the_particle(truth: Map, halves: tuple[Map, Map]) -> None:
    found = find_mask_3d(*halves, pixel_size_ang=PIXEL_ANG)
    assert (truth * found.mask).sum() > 0.9 * truth.sum()
    assert (found.mask > 0.5).mean() < 0.4
    assert found.mask.min() >= 0
    assert found.mask.max() <= 1


def test_error_bars_are_the_spread_over_repeated_noise(truth: Map) -> None:
    mask = find_mask_3d(truth, truth, pixel_size_ang=PIXEL_ANG).mask
    runs = [measure_resolution(*noisy(truth, limit=8, seed=seed), mask, pixel_size_ang=PIXEL_ANG) for seed in range(12)]
    curves, stated = np.stack([run.fsc for run in runs]), np.mean([run.error for run in runs], axis=0)
    used = (curves.mean(axis=0) > 0.1) & (curves.mean(axis=0) < 0.9)
    assert 0.5 < np.median(curves.std(axis=0, ddof=1)[used] / stated[used]) < 1.5


@pytest.mark.parametrize("kind", ["white", "coloured", "offset", "ball", "offset and ball", "offset and particle"])
def test_noise_gets_no_resolution(truth: Map, kind: str) -> None:
    shape = find_mask_3d(truth, truth, pixel_size_ang=PIXEL_ANG).mask
    ball = soften(distance_from_centre(BOX) < 11, grow_px=0, edge_px=3)
    for seed in range(3):
        pair = np.random.default_rng(seed).standard_normal((2, BOX, BOX, BOX))
        if kind == "coloured":
            pair = np.stack([low_pass_3d(one, resolution_ang=30, pixel_size_ang=PIXEL_ANG) for one in pair])
        pair = (pair + ("offset" in kind)) * (ball if "ball" in kind else shape if "particle" in kind else 1)
        _, found = measured((pair[0], pair[1]))
        assert (found.verdict, found.resolution_ang, found.range_ang) == ("noise", None, None)


def test_equal_halves_are_not_independent(truth: Map) -> None:
    assert measured((truth, 1.1 * truth))[1].verdict == "not_independent"


def test_halves_must_be_cubes_of_one_size() -> None:
    with pytest.raises(ValueError, match="cubes of one shape"):
        find_mask_3d(np.ones((4, 4, 4)), np.ones((6, 6, 6)), pixel_size_ang=1.0)
    with pytest.raises(ValueError, match="same value everywhere"):
        find_mask_3d(np.ones((4, 4, 4)), np.ones((4, 4, 4)), pixel_size_ang=1.0)


def test_random_phases_keep_amplitudes_and_give_a_real_map(truth: Map) -> None:
    spectrum = transform_3d(truth)
    randomised = randomise_phases_3d(spectrum, from_shell=4, box_px=BOX, rng=np.random.default_rng(0))
    assert np.allclose(np.abs(randomised), np.abs(spectrum))
    again = transform_3d(np.fft.irfftn(randomised, s=truth.shape, axes=(0, 1, 2)))
    assert np.allclose(again, randomised, atol=1e-6 * np.abs(spectrum).max())
    low = shell_radius(BOX) < 3.5
    assert np.array_equal(randomised[low], spectrum[low])


def test_a_b_factor_is_found_and_taken_back() -> None:
    box_ang, frequency = 128.0, np.arange(64) / 128.0
    fall = 2.0 - 90.0 / 4 * frequency**2
    assert fit_b_factor(fall, np.ones(64), box_ang=box_ang, resolution_ang=3.0) == pytest.approx(-90.0)
    assert fit_b_factor(fall, np.ones(64), box_ang=box_ang, resolution_ang=9.9) is None


def test_sharpening_lifts_fine_shells_and_ends_at_the_resolution(truth: Map) -> None:
    fsc = np.ones(BOX // 2)
    sharp = sharpen_3d(truth, truth, fsc, pixel_size_ang=PIXEL_ANG, resolution_ang=12.8, b_factor_ang2=-200.0)
    before, after = (mean_shells(np.abs(transform_3d(one)), box_px=BOX) for one in (truth, sharp.volume))
    frequency = np.arange(BOX // 2) / (BOX * PIXEL_ANG)
    assert np.allclose(after[2:9] / before[2:9], np.exp(50 * frequency[2:9] ** 2), rtol=0.05)
    assert after[13] < 1e-3 * after[5]
    assert merit(np.array([-0.2, 0.0, 1.0])).tolist() == [0.0, 0.0, 1.0]


def test_even_views_are_efficient_and_one_view_is_not() -> None:
    rng = np.random.default_rng(0)
    even = random_rotations(4000, generator=rng)[:, 2]
    assert measure_coverage(even).efficiency > 0.95
    one = np.tile([[0.0, 0.0, 1.0]], (100, 1))
    assert measure_coverage(one).efficiency < 0.0
    side = even * [1, 1, 0.02]
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    assert 0.1 < measure_coverage(side).efficiency < 0.6
    cubic = measure_coverage(one, operations=symmetry_group("O")).efficiency
    assert cubic > measure_coverage(one, operations=symmetry_group("C4")).efficiency + 0.2
    with pytest.raises(ValueError, match="no views"):
        measure_coverage(np.zeros((0, 3)))


def test_a_view_and_its_opposite_are_counted_together() -> None:
    views = random_rotations(300, generator=np.random.default_rng(1))[:, 2]
    counts = count_views(views, n_bins=128)[0]
    assert counts.sum() == 300
    assert np.array_equal(counts, count_views(-views, n_bins=128)[0])


def test_a_missing_cone_shows_in_its_direction(halves: tuple[Map, Map]) -> None:
    mask = find_mask_3d(*halves, pixel_size_ang=PIXEL_ANG).mask
    even = measure_conical_fsc(*halves, mask, pixel_size_ang=PIXEL_ANG, n_cones=64)
    kz = np.abs(np.fft.fftfreq(BOX, 1 / BOX))[:, None, None]
    missing = kz > np.cos(np.deg2rad(40)) * shell_radius(BOX)
    rng = np.random.default_rng(5)
    worse = []
    for half in halves:
        noise = transform_3d(rng.standard_normal(half.shape)) * 3
        worse.append(invert_3d(np.where(missing, noise, transform_3d(half)), box_px=BOX))
    cones = measure_conical_fsc(worse[0], worse[1], mask, pixel_size_ang=PIXEL_ANG, n_cones=64)
    assert cones.area_ratio < 0.7 * even.area_ratio
    assert abs(cones.directions[int(np.argmax(cones.resolution_ang))][2]) > 0.7


def test_a_blurred_part_has_a_coarser_local_resolution(truth: Map) -> None:
    right = (1 / (1 + np.exp(-(np.arange(BOX) - BOX / 2))))[None, None, :]
    blurred = low_pass_3d(truth, resolution_ang=24, pixel_size_ang=PIXEL_ANG)
    noise = noisy(truth, limit=9, seed=3)
    pair = [one + right * (blurred - truth) for one in noise]
    mask = find_mask_3d(*noise, pixel_size_ang=PIXEL_ANG).mask
    local = measure_local_resolution(pair[0], pair[1], mask, pixel_size_ang=PIXEL_ANG, finest_ang=9.0)
    inside, x = mask > 0.5, np.broadcast_to(np.arange(BOX), truth.shape)
    fine, coarse = (np.median(local.resolution_ang[inside & side]) for side in (x < 12, x > 20))
    assert fine < 0.87 * coarse
    assert np.isnan(local.resolution_ang[~inside]).all()
    assert list(local.percentiles_ang) == sorted(local.percentiles_ang)


def test_small_rotations_are_those_of_degree_one() -> None:
    tilt = 0.7
    matrix = small_rotations(1, np.array([tilt]))[0]
    c, s = np.cos(tilt), np.sin(tilt)
    expected = [
        [(1 + c) / 2, s / np.sqrt(2), (1 - c) / 2],
        [-s / np.sqrt(2), c, s / np.sqrt(2)],
        [(1 - c) / 2, -s / np.sqrt(2), (1 + c) / 2],
    ]
    assert np.allclose(matrix, expected)
    assert np.allclose(matrix @ matrix.T, np.eye(3))


def test_the_scan_finds_the_axis_of_a_map_with_five_copies() -> None:
    turn = rotations_about(np.array([[0.5, -0.9, 0.3]]))[0]
    axis = turn @ [0, 0, 1]
    centre = np.full(3, BOX // 2, dtype=float)
    volume = turn_about(blobs(4, group="C5", count=8), turn, centre)
    cross = cross_harmonics(volume, volume, centre_zyx=centre, radius_px=13, step_px=1.5)
    axes, spectra = scan_axes(cross)
    scores = fold_scores(spectra, 5)
    assert abs(axes[int(np.argmax(scores))] @ axis) > 0.99
    assert np.allclose(turn_spectra(cross, axes[::97]), spectra[::97], atol=1e-9 * np.abs(spectra).max())
    assert fold_scores(turn_spectra(cross, axis[None]), 5)[0] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("name", "second", "order"), [("C7", None, 7), ("D3", [1, 0, 0], 6), ("O", [1, 0, 0], 24)])
def test_operations_are_those_of_the_group(name: str, second: list[float] | None, order: int) -> None:
    group = PlacedGroup(name, np.array([0.0, 0.0, 1.0]), None if second is None else np.array(second, dtype=float))
    operations = group.operations()
    assert len(operations) == order
    for one in symmetry_group(name):
        assert min(np.abs(one - other).max() for other in operations) < 1e-6


@pytest.mark.parametrize(
    ("group", "subgroups"), [("C1", ()), ("C3", ()), ("D2", ("C2",)), ("O", ("C2", "C3", "C4", "D2", "D3", "D4", "T"))]
)
def test_symmetry_is_suggested_in_any_orientation(group: str, subgroups: tuple[str, ...]) -> None:
    rng = np.random.default_rng(6)
    turn = random_rotations(1, generator=rng)[0]
    volume = turn_about(blobs(7, group=group, count=5 if group != "C1" else 24), turn, np.array([16.0, 16.3, 15.8]))
    pair = noisy(volume.astype(np.float64), limit=9, seed=8)
    mask, found = measured(pair)
    suggested = suggest_symmetry(*pair, mask, found.fsc, most_order=6, n_null=6)
    assert (suggested.name, suggested.subgroups) == (group, subgroups)
    if suggested.group is not None:
        around = suggested.group.operations()
        placed = [turn @ one @ turn.T for one in symmetry_group(group)]
        assert max(min(np.abs(one - other).max() for other in around) for one in placed) < 0.15


@pytest.mark.services
def test_relion_postprocess_finds_the_same(tmp_path: Path) -> None:
    program = shutil.which("relion_postprocess")
    if program is None:
        pytest.skip("missing program: relion_postprocess")
    halves = noisy(blobs(9, count=60), limit=12, seed=10)
    pixel_ang = 2.5
    mask = find_mask_3d(*halves, pixel_size_ang=pixel_ang).mask
    found = measure_resolution(*halves, mask, pixel_size_ang=pixel_ang)
    for name, volume in (("half1_unfil", halves[0]), ("half2_unfil", halves[1]), ("mask", mask)):
        write_mrc(tmp_path / f"{name}.mrc", volume.astype(np.float32), pixel_size_ang=pixel_ang, remember=False)
    (tmp_path / "post").mkdir()
    arguments = f"--i half1_unfil.mrc --i2 half2_unfil.mrc --mask mask.mrc --angpix {pixel_ang} --o post"
    subprocess.run([program, *arguments.split()], cwd=tmp_path, check=True, capture_output=True)
    words = [line.split() for line in (tmp_path / "post.star").read_text().splitlines()]
    names = [line[0] for line in words if line and line[0].startswith("_rln") and line[1].startswith("#")]
    rows = [line for line in words if len(line) >= 7 and line[0].isdigit()]
    corrected = np.array([float(line[names.index("_rlnFourierShellCorrelationCorrected")]) for line in rows])[: BOX // 2]
    unmasked = np.array([float(line[names.index("_rlnFourierShellCorrelationUnmaskedMaps")]) for line in rows])[: BOX // 2]
    assert np.allclose(found.unmasked, unmasked, atol=0.02)
    assert np.allclose(found.fsc, corrected, atol=0.12)
    theirs = next(float(line[1]) for line in words if line and line[0] == "_rlnFinalResolution")
    assert found.resolution_ang == pytest.approx(theirs, rel=1.2 / 12)
