"""Initial volumes and their consensus, on small particles whose volume is known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from volume_truth import DIAMETER_ANG, draw_particles, draw_volume, prepare, small

from icestream.algorithms.classify2d.model import sum_poses_2d
from icestream.algorithms.initial_volume import (
    Evidence,
    SignalPower,
    VolumeSetting,
    find_initial_volume,
    level_at,
    match_signal,
    measure_signal,
    plan_volume,
    randomise_phases,
    search_views,
    view_references,
    volume_from_averages,
    volume_from_views,
    weigh_evidence,
)
from icestream.algorithms.initial_volume.assignment import images_choose_views, views_choose_images
from icestream.algorithms.initial_volume.evidence import shape_ring
from icestream.algorithms.scoring.particles import PolarParticles
from icestream.algorithms.scoring.search import Poses
from icestream.algorithms.volume_consensus import Agreement, SwarmSetting, compare_volumes, decide, find_consensus
from icestream.algorithms.volume_consensus.swarm import Swarm
from icestream.algorithms.volumes import (
    fourier_shell_correlation_3d,
    mirror_volume_3d,
    project_volume_2d,
    random_rotations,
    rotation_distance_deg,
    soft_sphere_3d,
    symmetrise_volume_3d,
    symmetry_group,
    transform_volume,
    turn_volume_3d,
)
from icestream.algorithms.volumes.alignment import align_volume_3d, apply_alignment_3d, orient_to_symmetry_3d


@dataclass(frozen=True)
class Case:
    """Particles of one volume, and of what was found in them."""

    setting: VolumeSetting
    train: PolarParticles
    held: PolarParticles
    everything: PolarParticles
    power: SignalPower
    truth: NDArray[np.float32]
    found: NDArray[np.float32]


@pytest.fixture(scope="module")
def case() -> Case:
    given = draw_particles(11, n=400, snr=0.3)
    setting, particles = prepare(given)
    held = np.arange(len(particles)) % 4 == 0
    found = find_initial_volume(particles.take(~held), setting=setting, seed=1, quick=250, passes=16, tries=1)
    truth = small(given.volume, setting)
    return Case(setting, particles.take(~held), particles.take(held), particles, measure_signal(particles), truth, found.volume)


def weigh(case: Case, volume: NDArray[np.float32]) -> Evidence:
    matched = match_signal(volume, case.power, setting=case.setting)
    return weigh_evidence(case.held, matched, case.power, setting=case.setting, seed=3)


def mean_correlation(a: NDArray[np.float32], b: NDArray[np.float32], setting: VolumeSetting) -> float:
    return float(fourier_shell_correlation_3d(a, b)[1][1 : setting.ring_at(30.0) + 1].mean())


def test_a_volume_is_found_from_random_poses(case: Case) -> None:
    found = align_volume_3d(case.found, case.truth, max_ring=6, max_shift_px=2.0)
    assert mean_correlation(apply_alignment_3d(case.found, found), case.truth, case.setting) > 0.8


def test_particles_that_were_held_out_believe_the_right_volume_and_no_other(case: Case) -> None:
    right, other = weigh(case, case.found), weigh(case, small(draw_volume(12), case.setting))
    assert right.is_right
    assert not other.is_right
    assert right.explained > other.explained + 3 * (right.error + other.error)
    assert right.gain > right.twin_gain + 3 * right.gain_error


def test_noise_makes_no_volume() -> None:
    setting, particles = prepare(draw_particles(13, n=240, snr=0.0))
    held = np.arange(len(particles)) % 3 == 0
    found = find_initial_volume(particles.take(~held), setting=setting, seed=1, quick=120, passes=8, tries=1)
    power = measure_signal(particles)
    assert not weigh_evidence(particles.take(held), found.volume, power, setting=setting, seed=1).is_right


def test_the_same_seed_makes_the_same_volume() -> None:
    setting, particles = prepare(draw_particles(14, n=60, snr=0.2))
    before = particles.signal.copy()
    one, same, other = (
        find_initial_volume(particles, setting=setting, seed=seed, quick=50, passes=8, tries=1).volume for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(particles.signal, before)


def test_views_of_a_volume_give_the_volume_back() -> None:
    setting, _ = prepare(draw_particles(15, n=2, snr=0.1))
    volume = small(draw_volume(15), setting)
    views = search_views(setting, 2)
    references = view_references(volume, views, setting=setting)  # (k, n_orders, n_rings)
    k, rings = len(views), setting.grid.n_rings
    ones = np.ones((2 * k, rings), np.float32)
    both = np.tile(np.arange(k, dtype=np.int32), 2)
    particles = PolarParticles(np.tile(references, (2, 1, 1)), ones, ones, np.repeat([0, 1], k).astype(np.int8))
    level = level_at(setting, rings)
    still = np.full(2 * k, int(np.flatnonzero((level.shifts_yx_px == 0).all(axis=1))[0]), np.int32)
    nothing = np.zeros(2 * k, np.float32)
    whole = Poses(
        np.arange(2 * k, dtype=np.int32), both, np.zeros(2 * k, np.int32), still, nothing + 1, nothing, nothing[:, None]
    )
    again, _ = volume_from_views(sum_poses_2d(particles, whole, level=level, n_classes=k), views, setting=setting)
    correlation = fourier_shell_correlation_3d(volume, again)[1]
    assert correlation[1 : setting.ring_at(28.0)].min() > 0.97
    scale = float((volume * again).sum() / (volume * volume).sum())
    assert scale == pytest.approx(1, abs=0.1)


def test_views_take_equal_shares_and_images_their_best() -> None:
    rng = np.random.default_rng(1)
    gain = rng.normal(size=(103, 10)).astype(np.float32)
    gain[:, 3] += 20  # a view that all images would choose
    shares = np.bincount(views_choose_images(gain, generator=rng), minlength=10)
    assert shares.max() - shares.min() <= 1
    assert set(images_choose_views(gain, among=0.1, generator=rng)) == {3}


def test_a_twin_keeps_shape_and_power_and_loses_the_rest(case: Case) -> None:
    matched = match_signal(case.truth, case.power, setting=case.setting)
    twin = randomise_phases(matched, setting=case.setting, generator=np.random.default_rng(2))
    correlation = fourier_shell_correlation_3d(matched, twin)[1]
    keep = shape_ring(case.setting)
    assert correlation[1 : keep + 1].min() > 0.999
    assert abs(correlation[keep + 2 : case.setting.ring_at(25.0) + 1].mean()) < 0.4


@pytest.mark.parametrize("mirrored", [False, True])
def test_volumes_are_aligned_over_rotation_shift_and_hand(mirrored: bool) -> None:
    volume = draw_volume(16, box_px=24)
    turn = random_rotations(1, generator=np.random.default_rng(3))[0]
    moved = turn_volume_3d(mirror_volume_3d(volume) if mirrored else volume, turn, shift_zyx_px=(0.7, -1.1, 0.4))
    found = align_volume_3d(moved, volume, max_ring=8, max_shift_px=2.0)
    assert found.mirrored == mirrored
    assert fourier_shell_correlation_3d(volume, apply_alignment_3d(moved, found))[1][1:7].min() > 0.97


def test_a_symmetric_volume_is_turned_to_its_axis() -> None:
    group = symmetry_group("C3")
    volume = symmetrise_volume_3d(draw_volume(17, box_px=24), group) * soft_sphere_3d(24, radius_px=9, edge_px=2)
    turn = random_rotations(1, generator=np.random.default_rng(4))[0]
    turned, correlation = orient_to_symmetry_3d(turn_volume_3d(volume, turn), group, max_ring=7)
    again = fourier_shell_correlation_3d(turned, symmetrise_volume_3d(turned, group))[1]
    assert correlation > 0.85
    assert again[1:6].min() > 0.95
    assert rotation_distance_deg(turn[None], np.eye(3)[None])[0] > 5  # it had to be turned


def test_one_right_candidate_among_wrong_ones_is_found(case: Case) -> None:
    turn = random_rotations(1, generator=np.random.default_rng(5))[0]
    right = turn_volume_3d(mirror_volume_3d(case.truth), turn)
    wrong = [small(draw_volume(seed), case.setting) for seed in (21, 22)]
    swarm = SwarmSetting(rounds=1, min_angle_deg=15.0, n_train=120, n_test=40)
    made = find_consensus([wrong[0], right, case.found], case.everything, setting=case.setting, swarm=swarm, seed=1)
    assert made.agrees.tolist() == [False, True, True]
    assert made.volume is not None
    assert made.own_evidence is not None
    assert made.own_evidence.is_right
    assert made.agreement.similarity[1, 2] > 0.8
    assert made.agreement.similarity[1, 2] > made.agreement.similarity[0, 1] + 0.1
    none = find_consensus(wrong, case.everything, setting=case.setting, swarm=swarm, seed=1)
    assert none.volume is None
    assert not none.agrees.any()


def test_the_swarm_does_not_see_the_particles_that_judge_the_consensus(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, PolarParticles]] = []
    right = Evidence(explained=0.8, error=0.03, gain=50.0, twin_gain=10.0, gain_error=1.0, pose_entropy=1.0)

    def weigh_evidence(held: PolarParticles, *_: object, **__: object) -> Evidence:
        seen.append(("held", held))
        return right

    def move_swarm(
        starts: list[NDArray[np.float32]], train: PolarParticles, test: PolarParticles, *_: object, **__: object
    ) -> Swarm:
        seen.extend([("train", train), ("test", test)])
        return Swarm(starts[0], (0.0,), tuple(starts))

    for one in (weigh_evidence, move_swarm):
        monkeypatch.setattr(f"icestream.algorithms.volume_consensus.consensus.{one.__name__}", one)
    find_consensus([case.truth], case.everything, setting=case.setting, swarm=SwarmSetting(n_test=40), seed=1)
    assert [name for name, _ in seen] == ["held", "train", "test", "held"]
    names = [{row.tobytes() for row in particles.signal} for _, particles in seen]
    assert names[0] == names[3]
    assert [len(one) for one in names[:3]] == [100, 260, 40]
    assert len(names[1] | names[2] | names[3]) == len(case.everything)


def test_who_is_right_and_who_agrees_is_decided_by_evidence_first() -> None:
    right = Evidence(explained=0.8, error=0.03, gain=50.0, twin_gain=10.0, gain_error=1.0, pose_entropy=1.0)
    alike = replace(right, explained=0.7)
    wrong = replace(right, explained=0.9, gain=10.0)
    agreement = Agreement(np.eye(4), np.array([0, 0, 1, 1]))
    best, agrees = decide([right, alike, right, wrong], agreement)
    assert (best, agrees.tolist()) == (0, [True, True, False, False])
    best, agrees = decide([right, alike, right, wrong], agreement, np.array([False, True, True, True]))
    assert (best, agrees.tolist()) == (2, [False, False, True, False])
    best, agrees = decide([wrong, replace(wrong, explained=0.95)], Agreement(np.eye(2), np.array([0, 0])))
    assert (best, agrees.any()) == (1, False)


def test_common_lines_orient_averages_and_say_when_they_cannot() -> None:
    setting, _ = prepare(draw_particles(11, n=2, snr=0.1))
    truth = small(draw_volume(11), setting)
    rng = np.random.default_rng(6)
    images = project_volume_2d(transform_volume(truth), random_rotations(24, generator=rng))
    noisy = (images + 0.2 * images.std() * rng.normal(size=images.shape)).astype(np.float32)
    found = volume_from_averages(noisy, np.full(24, 50.0), setting=setting)
    placed = apply_alignment_3d(found.volume, align_volume_3d(found.volume, truth, max_ring=6, max_shift_px=2.0))
    assert fourier_shell_correlation_3d(truth, placed)[1][1:6].min() > 0.8
    noise = volume_from_averages(rng.normal(size=images.shape).astype(np.float32), np.full(24, 50.0), setting=setting)
    assert found.gap < 0.7 < noise.gap
    with pytest.raises(ValueError, match="at least 6 images"):
        volume_from_averages(images[:4], np.ones(4), setting=setting)


def test_one_volume_is_a_group_of_its_own(case: Case) -> None:
    assert compare_volumes([case.truth], setting=case.setting).group.tolist() == [0]


@pytest.mark.parametrize(("diameter_ang", "limit_ang"), [(300.0, 20.0), (DIAMETER_ANG, 8.0)])
def test_a_plan_that_cannot_be_is_refused(diameter_ang: float, limit_ang: float) -> None:
    with pytest.raises(ValueError, match="Å"):
        plan_volume(box_px=32, pixel_size_ang=5.0, diameter_ang=diameter_ang, limit_ang=limit_ang)


def test_too_few_images_are_refused() -> None:
    setting, particles = prepare(draw_particles(14, n=40, snr=0.2))
    with pytest.raises(ValueError, match="at least 50 images"):
        find_initial_volume(particles, setting=setting, seed=1)
    with pytest.raises(ValueError, match="at least one candidate"):
        find_consensus([], particles, setting=setting, swarm=SwarmSetting(), seed=1)
